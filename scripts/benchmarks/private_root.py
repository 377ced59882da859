"""A Debian of its own for the peers' builders: a folder that they run in, so that they never touch this machine.

Only the ``-core`` packages are in it, which have no hooks for kernels; it holds no kernel either. What is
mounted while a builder runs is mounted in a namespace that ends with the builder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost, measuring_program, run_and_report
from scripts.virtual import apt
from scripts.virtual.bootstrap import bootstrap, without
from scripts.virtual.cache import cached
from scripts.virtual.commands import SetupError
from scripts.virtual.kernel import Kernel
from scripts.virtual.layer import SOURCE_DATE_EPOCH

SCRIPTS = Path(__file__).with_name("peers")
ENTER = SCRIPTS / "enter.sh"
PACKAGES = ("usr-is-merged", "initramfs-tools-core", "dracut-core", "busybox-static", "zstd", "kmod", "udev", "mount")
LEFT_OUT = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/man/*")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TMPDIR": "/var/tmp",
    "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
}
SECONDS_MAX = 240


class PrivateRoot:
    """The installed folder, and how to run a builder in it."""

    def __init__(self, cache: Path, kernel: Kernel) -> None:
        """Raises: SetupError."""
        if os.geteuid() != 0:
            raise SetupError("the peers' builders run in a root of their own", "run it as root: sudo ./scripts/bench …")
        self._root = private_debian(cache, "peers", PACKAGES)
        self._kernel = kernel
        self._measure = measuring_program(cache)

    @property
    def name(self) -> str:
        """Equal for roots and kernels that are equal."""
        return f"{self._root.parent.name} {self._kernel.release}"

    @property
    def scripts(self) -> list[Path]:
        return sorted(SCRIPTS.glob("*.sh"))

    def build(self, script: str, arguments: Sequence[str], output: Path) -> Cost:
        """Run one of the scripts in ``peers/``; it makes ``output``.

        Raises: BenchmarkError.
        """
        folder = output.parent.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        report = folder / f"{output.name}.cost"
        first, *rest = arguments
        inside: list[str | Path] = [f"/bench/{script}", first, f"/output/{output.name}", self._kernel.release, *rest]
        around: list[str | Path] = ["unshare", "--mount", "--propagation", "private", ENTER, self._root]
        around += [self._kernel.root, self._kernel.release, SCRIPTS, folder, self._measure, report]
        cost = run_and_report([*around, *inside], report, seconds_max=SECONDS_MAX, environment=ENVIRONMENT)
        if not output.is_file():
            raise BenchmarkError(f"{script} made no image")
        return cost


def private_debian(cache: Path, name: str, packages: Sequence[str]) -> Path:
    """A folder with Debian 12's essential packages and ``packages`` installed in it. Raises: SetupError."""
    recipe = {"suite": apt.SUITE, "packages": packages, "left_out": LEFT_OUT, "epoch": SOURCE_DATE_EPOCH}
    return cached(cache, name, recipe, lambda folder: _install(folder, packages)) / "root"


def _install(folder: Path, packages: Sequence[str]) -> None:
    bootstrap(folder / "root", packages, ["--mode=root", "--variant=essential", *without(LEFT_OUT)])
