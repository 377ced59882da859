"""The production executable with ``stand_in/recovery`` frozen in, and an initramfs around it."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from initramfs import archive, image_contents, tree
from initramfs.freeze import FreezeReport, closure, freeze
from initramfs.frozen_init import HTTPS_OPTIONS, HTTPS_ROOTS
from initramfs.module_closure import ModuleSet
from scripts.virtual import frozen as frozen_program

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / "build" / "cache"
STAND_IN, STAND_IN_HTTPS = Path(__file__).with_name("stand_in"), Path(__file__).with_name("stand_in_https")
TLS_PACKAGES = ("libssl-dev",)
COMPILE_SECONDS = 60


@dataclass(frozen=True)
class StandIn:
    """``executable`` is /init; ``initrd`` holds it, a tiny init to hand over to, and the listed modules."""

    executable: Path
    report: FreezeReport
    tiny_init: Path

    def initrd(self, path: Path, modules: Mapping[str, bytes], listed: str, time_seconds: int = 0) -> Path:
        """An image of that date with ``modules`` by path, and ``listed`` as the list of those that every boot loads."""
        reason = tree.Reason("the tests of PID 1")
        files = {"tiny-init": self.tiny_init.read_bytes(), image_contents.BOOT_LIST: listed.encode(), **modules}
        entries = (tree.file(name, content, reason) for name, content in files.items())
        program = image_contents.init(self.executable.read_bytes())
        whole = tree.merge([*image_contents.places(), program, *entries])
        path.write_bytes(gzip.compress(archive.newc(whole, time_seconds), 1))
        return path


def sysroot(*more: str) -> Path:
    """The Debian packages that /init is linked from, and ``more``."""
    return frozen_program.sysroot(CACHE, (*frozen_program.PACKAGES, *more))


def frozen_https(folder: Path) -> StandIn:
    """The production executable with TLS, which runs any Python text: see ``stand_in_https``."""
    root = sysroot(*TLS_PACKAGES)
    roots = (
        "recovery.main",
        "recovery.cli",
        *HTTPS_ROOTS,
        "payload.fetch",
        "payload.http_client",
        "_blake2",
        "fcntl",
        "json",
        "socket",
        "struct",
    )
    modules = closure(roots, root, (STAND_IN_HTTPS, CHECKOUT), cache_dir=CACHE, options=HTTPS_OPTIONS)
    return _linked(modules, root, folder)


def frozen(folder: Path) -> StandIn:
    root = sysroot()
    modules = closure(("recovery.main", "recovery.cli"), root, (STAND_IN,), cache_dir=CACHE)
    return _linked(modules, root, folder)


def _linked(modules: ModuleSet, root: Path, folder: Path) -> StandIn:
    report = freeze(modules, root, CHECKOUT / "recovery/native", folder / "init", CACHE / "frozen")
    tiny_init = folder / "tiny-init"
    source = Path(__file__).with_name("handed_over.c")
    command = ["gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o", str(tiny_init), str(source)]
    subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
    return StandIn(report.executable, report, tiny_init)
