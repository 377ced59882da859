"""Guests for the lab's own tests: a Debian kernel, some of its modules, and ``lab_guest.c`` as /init.

The kernel package is fetched and unpacked once into ``build/cache/kernel``; nothing is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
KERNEL_CACHE = CHECKOUT / "build" / "cache" / "kernel"
META_PACKAGE = "linux-image-amd64"
COMMAND_SECONDS = 300


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    image: Path
    modules: Path

    def load_order(self, names: Iterable[str]) -> list[Path]:
        """The module files for ``names`` and what they depend on, what is needed first coming first."""
        dependencies: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, needed = line.partition(":")
            dependencies[path] = needed.split()
        by_name = {Path(path).stem.replace("-", "_"): path for path in dependencies}
        ordered: dict[str, None] = {}
        for name in names:
            path = by_name[name]
            ordered |= dict.fromkeys([*reversed(dependencies[path]), path])
        return [self.modules / path for path in ordered]


def debian_kernel() -> Kernel:
    """The kernel that Debian's meta package names now, from the cache if it is there."""
    depends = _output("apt-cache", "depends", META_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise RuntimeError(f"{META_PACKAGE} is unknown: run `apt-get update` first")
    package = found[1]
    release = package.removeprefix("linux-image-")
    unpacked = KERNEL_CACHE / package
    if not unpacked.exists():
        _fetch(package, release, unpacked)
    return Kernel(unpacked / "boot" / f"vmlinuz-{release}", unpacked / "lib" / "modules" / release)


def _fetch(package: str, release: str, unpacked: Path) -> None:
    KERNEL_CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KERNEL_CACHE) as directory:
        work = Path(directory)
        _output("apt-get", "download", package, directory=work)
        (archive,) = work.glob(f"{package}_*.deb")
        _output("dpkg", "-x", str(archive), str(work / "root"))
        _output("depmod", "-b", str(work / "root"), release)
        (work / "root").rename(unpacked)


def compile_init(directory: Path) -> bytes:
    """The static program that is /init."""
    program = directory / "init"
    source = Path(__file__).with_name("lab_guest.c")
    _output("gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source))
    return program.read_bytes()


def write_initrd(path: Path, init: bytes, modules: Iterable[Path], parameters: str = "") -> Path:
    """An initramfs of /init and ``modules`` in load order; ``parameters`` go to the last module."""
    paths = list(modules)
    names = [f"/{module.name}" for module in paths]
    listed = "".join(f"{name}\n" for name in names[:-1]) + "".join(f"{name} {parameters}" for name in names[-1:])
    files = {name.strip("/"): module.read_bytes() for name, module in zip(names, paths, strict=True)}
    path.write_bytes(newc({"init": init, "modules": listed.encode(), **files}))
    return path


def newc(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive as the kernel unpacks it. Source: Documentation/driver-api/early-userspace/buffer-format."""
    entries = [_entry("dev", 0o040755, b""), _entry("dev/console", 0o020600, b"", device=(5, 1))]
    entries += [_entry(name, 0o100755, content) for name, content in files.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _pad(header + name.encode() + b"\0") + _pad(content)


def _pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _output(*command: str, directory: Path = CHECKOUT) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout
