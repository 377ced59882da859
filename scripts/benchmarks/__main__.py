"""Measure beside peers, in one run: writes build/bench/NAME.json for each name, rows {who, metric, value, unit}."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from initramfs.errors import BuildError
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.installers import NAMES as INSTALLERS
from scripts.benchmarks.package_contenders import NAMES as PACKAGE_INSTALLERS
from scripts.benchmarks.registry import BENCHMARKS
from scripts.benchmarks.rows import write
from scripts.benchmarks.workplace import CONTENDERS, Workplace
from scripts.virtual.commands import SetupError

RUNS_MAX = 100
EVERYBODY = tuple(dict.fromkeys((*CONTENDERS, *INSTALLERS, *PACKAGE_INSTALLERS)))
EXAMPLES = """
examples:
  ./scripts/bench image boot                      everything, with tables
  ./scripts/bench boot --runs 9 --json            more boots; the rows on standard output
  ./scripts/bench boot --who unbrick,busybox      two contenders only
"""


def parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:8} {benchmark.summary}" for name, benchmark in BENCHMARKS.items())
    made = argparse.ArgumentParser(
        prog="./scripts/bench",
        description=f"{__doc__}\n\nnames:\n{names}\n\ncontenders: {', '.join(CONTENDERS)}"
        f"\ncontenders of install: {', '.join(INSTALLERS)}"
        f"\ncontenders of packages: {', '.join(PACKAGE_INSTALLERS)}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("names", nargs="+", choices=tuple(BENCHMARKS), metavar="NAME", help="what to measure")
    made.add_argument(
        "--runs", type=_runs, default=5, help=f"boots or installations of each contender, 1 to {RUNS_MAX} (default: 5)"
    )
    made.add_argument("--who", type=_who, default=EVERYBODY, help="contenders, separated by commas (default: all)")
    made.add_argument("--json", action="store_true", help="print the rows instead of tables")
    return made


def _runs(text: str) -> int:
    number = int(text)
    if not 1 <= number <= RUNS_MAX:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and {RUNS_MAX}")
    return number


def _who(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - set(EVERYBODY))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no contender is called {', '.join(unknown)}; there are {', '.join(EVERYBODY)}"
        )
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all was measured, whether targets are met or not. 1: something could not be."""
    given = parser().parse_args(arguments)
    place = Workplace(who=given.who, runs=given.runs)
    try:
        rows = [row for name in given.names for row in measure(name, place, as_text=not given.json)]
    except (SetupError, BuildError, BenchmarkError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(rows, indent=1))
    for name, failure in place.failures.items():
        print(f"bench: {name} could not be measured: {failure}", file=sys.stderr)
    return 1 if place.failures else 0


def measure(name: str, place: Workplace, *, as_text: bool) -> list[dict[str, object]]:
    """Run one benchmark, write its file, print its tables; returns its rows with its name in each."""
    results = BENCHMARKS[name].run(place)
    write(place.folder / f"{name}.json", results.rows)
    if as_text:
        print("\n".join(BENCHMARKS[name].report(results)), end="\n\n", flush=True)
    return [{"benchmark": name, **asdict(row)} for row in results.rows]


if __name__ == "__main__":
    sys.exit(main())
