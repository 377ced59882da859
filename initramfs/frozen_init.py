"""``/init`` for one device: what is frozen into it, and from where.

The device's modules come from beside this file (a checkout, or the installed toolkit), the standard
library from the sysroot, ``transitions`` from the Python that runs the build. The device's own layout
goes in as the module ``device_config``. How it is linked is :mod:`initramfs.freeze`.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from initramfs.config import Config, frozen_module
from initramfs.errors import ToolError
from initramfs.freeze import closure, freeze
from initramfs.network import stand_ins

ROOTS = ("recovery.main", "recovery.cli")
OWN_FOLDER = Path(__file__).resolve().parents[1]
NATIVE_SOURCES = OWN_FOLDER / "recovery/native"
HTTPS_ROOTS = ("payload.tls",)
HTTPS_OPTIONS = ("_unbrick_tls",)
LIBRARIES = ("transitions",)
# Of these modules of libraries a device uses a line or two; with what they import they are 90 KB of an image.
STAND_INS = {
    # for transitions
    "inspect": "from types import MethodType\ndef ismethod(value):\n    return isinstance(value, MethodType)\n",
    "six": "string_types = (str,)\n",
    # for argparse: there is one language
    "gettext": "def gettext(text):\n    return text\n"
    "def ngettext(one, many, count):\n    return one if count == 1 else many\n",
}


@dataclass(frozen=True)
class FrozenInit:
    """The program's bytes, and why each Python module is in it."""

    program: bytes
    reasons: Mapping[str, str]


def frozen_init(device: Config, sysroot: Path, cache: Path) -> FrozenInit:
    """Freeze and link; the same inputs are linked once.

    Raises:
        ConfigError: the root key or the trust anchors cannot be read.
        MissingFile, SysrootError, ToolError: as :mod:`initramfs.freeze`.
    """
    extra = {"device_config": frozen_module(device), **STAND_INS, **stand_ins(device)}
    https = device.network is not None and device.network.https
    with tempfile.TemporaryDirectory(prefix="unbrick-freeze-") as folder:
        work = Path(folder)
        modules = closure(
            (*ROOTS, *HTTPS_ROOTS * https), sysroot, (OWN_FOLDER,), (_library_folder(work),), extra=extra,
            cache_dir=cache / "imports", options=HTTPS_OPTIONS * https,
        )  # fmt: skip
        frozen = freeze(modules, sysroot, NATIVE_SOURCES, work / "init", cache / "frozen")
        return FrozenInit(frozen.executable.read_bytes(), frozen.reasons)


def _library_folder(work: Path) -> Path:
    """A folder with the libraries and nothing else that this Python has installed."""
    folder = work / "libraries"
    folder.mkdir()
    for name in LIBRARIES:
        place = library(name)
        (folder / place.name).symlink_to(place)
    return folder


def library(name: str) -> Path:
    """The package's folder, or the module's file, in the Python that runs this.

    Raises:
        ToolError: it is not installed.
    """
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ToolError(f"the Python package {name} is not installed", f"pip install {name}")
    origin = Path(found.origin)
    return origin.parent if origin.name == "__init__.py" else origin
