"""Who is measured: the peers, by the script that builds their image, and ours, by the command a user types."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.benchmarks import module_set
from scripts.benchmarks.device import DATA_NODE, ROOT_NODE
from scripts.benchmarks.measure import Cost, run_and_report
from scripts.benchmarks.private_root import PrivateRoot
from scripts.benchmarks.rows import OURS
from scripts.virtual.cache import digest_of, file_digest

SECONDS_MAX = 600
CHECKOUT = Path(__file__).parents[2]
ROOT_ARGUMENTS = f"root={ROOT_NODE} rootfstype=squashfs ro"


class Contender(Protocol):
    """``append`` is what it needs on the kernel's command line to find its root."""

    @property
    def name(self) -> str: ...

    @property
    def append(self) -> str: ...

    def build(self, output: Path) -> Cost:
        """Make the image. Raises: BenchmarkError."""

    def recipe(self) -> str:
        """Equal for images that need not be made again to be booted; empty if one always has to be."""


@dataclass(frozen=True)
class Recipe:
    """A peer: a script in ``peers/``, its first word, and what its image is told when it boots."""

    script: str
    word: str
    append: str = ROOT_ARGUMENTS


PEERS = {
    "busybox": Recipe("busybox.sh", f"init-mount.sh:{' '.join(module_set.MOUNT)}"),
    "busybox-overlay": Recipe(
        "busybox.sh", f"init-overlay.sh:{' '.join(module_set.BOOT)}", f"{ROOT_ARGUMENTS} data={DATA_NODE}"
    ),
    "initramfs-tools-list": Recipe("initramfs-tools.sh", "list"),
    "initramfs-tools-most": Recipe("initramfs-tools.sh", "most"),
    "dracut-listed": Recipe("dracut.sh", "listed"),
    "dracut-generic": Recipe("dracut.sh", "generic"),
}


@dataclass(frozen=True)
class Peer:
    name: str
    how: Recipe
    root: PrivateRoot

    @property
    def append(self) -> str:
        return self.how.append

    def build(self, output: Path) -> Cost:
        return self.root.build(self.how.script, [self.how.word, *module_set.ALL], output)

    def recipe(self) -> str:
        scripts = {path.name: file_digest(path) for path in self.root.scripts}
        return digest_of({"how": repr(self.how), "modules": module_set.ALL, "scripts": scripts, "in": self.root.name})


@dataclass(frozen=True)
class Ours:
    """``unbrick build`` with the intermediate results in ``cache``."""

    toml: Path
    cache: Path
    measure: Path
    name: str = OURS
    append: str = ""

    def build(self, output: Path) -> Cost:
        output.parent.mkdir(parents=True, exist_ok=True)
        report = output.with_name(f"{output.name}.cost")
        command: list[str | Path] = [self.measure, report, sys.executable, "-m", "unbrick", "build"]
        command += ["-c", self.toml, "-o", output, "--cache", self.cache]
        environment = {"PYTHONPATH": str(CHECKOUT)}
        return run_and_report(command, report, seconds_max=SECONDS_MAX, environment=environment)

    def recipe(self) -> str:
        return ""

    def forget(self) -> None:
        """Leave nothing in the cache but the packages as they were downloaded."""
        for entry in self.cache.iterdir():
            if entry.name != "packages" and entry.is_dir():
                shutil.rmtree(entry)
