"""What it costs to install packages into a running system: time, processor, memory, and how often the disk is flushed.

The same twenty real packages (libc, systemd, Python and Perl among them) over their older versions, in the same root of
185 packages, on an ext4 on a disk of its own that flushes for real. Everybody takes turns, each on a fresh copy; a turn
ends when all is durable. *quiet*: there are no maintainer scripts on either side (see `package_place`); *scripts*:
all of them run. *card*: the same where every flush takes some milliseconds longer than on this machine's disk, as it
does on the memory cards of small devices; for both sides, and for what scripts flush.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import table
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost, cost_rows, measuring_program, slow_flush_program
from scripts.benchmarks.package_contenders import SAFE, PackageInstaller, contenders, count, install, installed
from scripts.benchmarks.package_place import PackagePlace
from scripts.benchmarks.rows import Results, Row, Target, host_rows, target_rows
from scripts.benchmarks.workplace import Workplace
from scripts.comparison.real_root import real_root

CARD_FLUSH_MICROSECONDS = 5000
RATIO_MAX = 0.25
SYNC_CALLS_MAX = 10
RESIDENT_BYTES_MAX = 40_000_000


@dataclass(frozen=True)
class Case:
    """Every flush takes ``flush_microseconds`` more than this machine's disk needs."""

    name: str
    with_scripts: bool
    flush_microseconds: int = 0


CASES = (
    Case("quiet", with_scripts=False),
    Case("scripts", with_scripts=True),
    Case("quiet_card", with_scripts=False, flush_microseconds=CARD_FLUSH_MICROSECONDS),
    Case("scripts_card", with_scripts=True, flush_microseconds=CARD_FLUSH_MICROSECONDS),
)
TARGETS = tuple(
    target
    for case in CASES
    for target in (
        Target(f"{case.name}_seconds", RATIO_MAX, SAFE),
        *(() if case.flush_microseconds else (Target(f"{case.name}_sync_calls", SYNC_CALLS_MAX),)),
        Target(f"{case.name}_resident_bytes", RESIDENT_BYTES_MAX),
    )
)


def run(place: Workplace) -> Results:
    """Everybody installs ``place.runs`` times in each case, in turns, and once more to be watched."""
    rows = host_rows()
    folder = place.folder / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    everybody = [one for one in contenders(place.cache, folder) if one.name in place.who]
    place.say("root: a Debian that is behind its updates")
    real = real_root(place.cache)
    for case in CASES:
        rows += measure(place, case, PackagePlace(place.cache, real, with_scripts=case.with_scripts), everybody)
    return Results([*rows, *target_rows(Results(rows), TARGETS)])


def measure(place: Workplace, case: Case, where: PackagePlace, everybody: list[PackageInstaller]) -> list[Row]:
    costs: dict[str, list[Cost]] = defaultdict(list)
    by_name = {one.name: one for one in everybody}
    folder = place.folder / "packages"
    program = measuring_program(place.cache / "bench")
    slowly: list[str | Path] = []
    if case.flush_microseconds:
        slowly = [slow_flush_program(place.cache / "bench"), str(case.flush_microseconds)]
    rows: list[Row] = []
    ends: dict[str, dict[str, str]] = {}

    def prepare(name: str) -> None:
        by_name[name].prepare(where)

    def once(name: str) -> None:
        with where.mounted(folder) as root:
            costs[name].append(install(by_name[name], where, root, program, slowly))
            ends[name] = installed(root)

    def watch(name: str) -> None:
        with where.mounted(folder) as root:
            calls = count(by_name[name], where, root)
        rows.append(Row(name, f"{case.name}_sync_calls", calls.own, "1"))
        rows.append(Row(name, f"{case.name}_all_sync_calls", calls.every, "1"))

    for name in by_name:
        place.attempt(name, prepare)
    for turn in range(place.runs):
        for name in by_name:
            place.attempt(name, once)
        times = (f"{name} {done[-1].wall_seconds:.2f}" for name, done in costs.items() if name not in place.failures)
        place.say(f"{case.name}: turn {turn + 1} of {place.runs}, seconds: {', '.join(times)}")
    if len({frozenset(end.items()) for end in ends.values()}) > 1:
        raise BenchmarkError(f"{case.name}: not everybody ended with the same packages")
    if not case.flush_microseconds:  # the calls are the same ones
        for name in by_name:
            place.attempt(name, watch)
    done = [name for name in by_name if name not in place.failures]
    return [*(row for name in done for row in cost_rows(case.name, name, costs[name])), *rows]


def columns(case: str) -> list[tuple[str, str]]:
    return [
        (f"{case}_seconds", "time"),
        (f"{case}_seconds", "×"),
        (f"{case}_seconds_min", "fastest"),
        (f"{case}_processor_seconds", "processor"),
        (f"{case}_resident_bytes", "memory"),
        (f"{case}_sync_calls", "sync calls"),
        (f"{case}_all_sync_calls", "with scripts'"),
    ]


def report(results: Results) -> Iterator[str]:
    for case in CASES:
        slower = f", a flush takes {case.flush_microseconds / 1000:g} ms more" if case.flush_microseconds else ""
        yield f"packages: twenty real ones, {case.name}{slower} (medians; × ours; memory of one process)"
        yield from table.table(results, columns(case.name))
        yield ""
    yield from table.verdicts(results, TARGETS)
    yield table.host_line(results)
