"""Debian's generic kernel, fetched and unpacked by the build tool: no installation, no hooks.

It is the one that `unbrick build` takes its modules from, in the same cache. The cloud kernel would be
smaller and lacks what a device has: the i6300esb watchdog, USB storage, MMC.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from initramfs import debian
from initramfs.errors import BuildError
from scripts.virtual.commands import SetupError

META_PACKAGE = "linux-image-amd64"


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: ``image`` boots, ``root`` holds ``lib/modules/RELEASE``. Nobody may write there."""

    release: str
    image: Path
    root: Path

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules" / self.release


def fetch(cache: Path) -> Kernel:
    """The kernel that ``linux-image-amd64`` stands for here, now or earlier.

    Raises: SetupError.
    """
    try:
        root = debian.unpack(debian.fetch([META_PACKAGE], cache_dir=cache), cache)
    except BuildError as error:
        raise SetupError(error.message, error.hint) from error
    (modules,) = (root / "lib" / "modules").iterdir()
    return Kernel(modules.name, root / "boot" / f"vmlinuz-{modules.name}", root)
