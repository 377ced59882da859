"""The device's executable with another program in place of its command: what a device runs, without a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initramfs import debian
from initramfs.freeze import closure, freeze
from initramfs.frozen_init import NATIVE_SOURCES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What /init is linked from.
PACKAGES = (
    "libpython3.11-dev", "libpython3.11-stdlib", "libpython3.11-minimal", "libzstd-dev", "liblzma-dev", "libsodium-dev",
    "zlib1g-dev", "libexpat1-dev", "libc6-dev", "linux-libc-dev",
)  # fmt: skip
COMMAND = "recovery.cli"


def sysroot(cache: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """Debian's packages, unpacked, from the cache if they are there. Raises: BuildError."""
    return debian.unpack(debian.fetch(packages, "amd64", cache), cache)


def freeze_program(program: Path, sources: Path, cache: Path, output: Path) -> None:
    """``output`` runs the file ``program``, which imports from ``sources``; the same program is linked once.

    Raises: BuildError.
    """
    root = sysroot(cache)
    extra = {COMMAND: program.read_text()}
    modules = closure((COMMAND,), root, (sources,), extra=extra, cache_dir=cache / "imports")
    freeze(modules, root, NATIVE_SOURCES, output, cache / "frozen")
