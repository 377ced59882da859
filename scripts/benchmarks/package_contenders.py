"""Who installs packages, and how: dpkg flushing every file, dpkg told not to, and ours. Each in a fresh copy of a root.

dpkg is the root's own, called for all packages at once; the configuration of this machine's dpkg has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost, run_and_report
from scripts.benchmarks.package_place import PackagePlace
from scripts.benchmarks.rows import OURS
from scripts.comparison import cases, sides
from scripts.comparison.database_difference import paragraphs
from scripts.comparison.sides import DPKG, ENVIRONMENT
from scripts.virtual.commands import run

SAFE, UNSAFE = "dpkg-safe", "dpkg-unsafe"
OURS_ON_HOST = f"{OURS}-host"
NAMES = (OURS, OURS_ON_HOST, SAFE, UNSAFE)
SECONDS_MAX = 900
# Every way to make the kernel write what was written; strace(1) counts calls.
SYNC_CALLS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")
HINT = "apt-get install strace"


@dataclass(frozen=True)
class Counted:
    """Sync calls of the package manager itself, and of all processes, scripts and what they run among them."""

    own: int
    every: int


class PackageInstaller(Protocol):
    @property
    def name(self) -> str: ...

    def prepare(self, place: PackagePlace) -> None:
        """Whatever a master does before. Raises: BenchmarkError."""

    def command(self, place: PackagePlace, root: Path) -> list[str | Path]:
        """What installs the place's packages into ``root``."""


@dataclass(frozen=True)
class Dpkg:
    """dpkg with an option for how it writes."""

    name: str
    option: str

    def prepare(self, place: PackagePlace) -> None:
        """It takes the packages as they are."""

    def command(self, place: PackagePlace, root: Path) -> list[str | Path]:
        packages = [f"/mnt/{package.name}" for package in sorted(place.packages.iterdir())]
        return ["chroot", root, *DPKG, self.option, "--install", *packages]


@dataclass(frozen=True)
class Ours:
    """The device's executable, with a command that takes a folder of packages."""

    cache: Path
    program: Path
    name: str = OURS

    def prepare(self, place: PackagePlace) -> None:
        cases.freeze(self.cache, self.program)

    def command(self, place: PackagePlace, root: Path) -> list[str | Path]:
        return [self.program, root, place.packages]


@dataclass(frozen=True)
class OursOnHost:
    """The same code by this machine's Python."""

    name: str = OURS_ON_HOST

    def prepare(self, place: PackagePlace) -> None:
        """It takes the packages as they are."""

    def command(self, place: PackagePlace, root: Path) -> list[str | Path]:
        return cases.on_host(root, place.packages)


def contenders(cache: Path, folder: Path) -> list[PackageInstaller]:
    """Everybody, in the order of the report."""
    return [
        Ours(cache, folder / "apply"),
        OursOnHost(),
        Dpkg(SAFE, "--refuse-unsafe-io"),
        Dpkg(UNSAFE, "--force-unsafe-io"),
    ]


def install(
    one: PackageInstaller, place: PackagePlace, root: Path, measure: Path, around_it: Sequence[str | Path] = ()
) -> Cost:
    """Install once, until all is durable, whatever the contender left to the kernel. Raises: BenchmarkError.

    ``around_it`` are words in front of the command.
    """
    report = root.parent / "cost"
    until_durable: list[str | Path] = ["sh", "-c", '"$@" && sync -f "$0"', root, *one.command(place, root)]
    words = [*around(root, place), measure, report, *around_it, *until_durable]
    return run_and_report(words, report, seconds_max=SECONDS_MAX, environment=ENVIRONMENT)


def count(one: PackageInstaller, place: PackagePlace, root: Path) -> Counted:
    """How often it syncs; not measured at the same time, for being watched is slow. Raises: SetupError."""
    report = root.parent / "calls"
    watched: list[str | Path] = [
        "strace",
        "-f",
        "-qq",
        "-e",
        f"trace={','.join((*SYNC_CALLS, 'execve'))}",
        "-o",
        report,
    ]
    words = [*around(root, place), *watched, *one.command(place, root)]
    run(words, hint=HINT, environment=ENVIRONMENT, seconds_max=SECONDS_MAX)
    return counted(report.read_text(errors="replace").splitlines())


def counted(lines: Sequence[str]) -> Counted:
    """The calls in strace's lines, which begin with a process number; the first of all is the package manager's."""
    main = lines[0].split()[0] if lines else ""
    calls = [words[0] for words in map(str.split, lines) if len(words) > 1 and words[1].partition("(")[0] in SYNC_CALLS]
    return Counted(calls.count(main), len(calls))


def around(root: Path, place: PackagePlace) -> list[str | Path]:
    return sides.around(root, place.packages)


def installed(root: Path) -> dict[str, str]:
    """By package the version that the root's dpkg knows of as installed. Raises: BenchmarkError."""
    status = paragraphs((root / "var/lib/dpkg/status").read_text())
    found = {name: fields["Version"] for name, fields in status.items() if fields["Status"] == "install ok installed"}
    if not found:
        raise BenchmarkError("the root has no package that is installed")
    return found
