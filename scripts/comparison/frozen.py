"""The device's executable with `apply_folder` in place of its command: what a device runs, without a device."""

from __future__ import annotations

from pathlib import Path

from initramfs import debian
from initramfs.freeze import closure, freeze
from initramfs.frozen_init import NATIVE_SOURCES
from scripts.comparison.cases import CHECKOUT, PROGRAM
from scripts.virtual.layout import SYSROOT_PACKAGES


def program(cache: Path, output: Path) -> Path:
    """Freeze it into ``output``; the same sources are linked once. Raises: BuildError."""
    sysroot = debian.unpack(debian.fetch((*SYSROOT_PACKAGES, "linux-libc-dev"), "amd64", cache), cache)
    extra = {"recovery.cli": PROGRAM.read_text()}
    modules = closure(("recovery.cli",), sysroot, (CHECKOUT,), extra=extra, cache_dir=cache / "imports")
    freeze(modules, sysroot, NATIVE_SOURCES, output, cache / "frozen")
    return output
