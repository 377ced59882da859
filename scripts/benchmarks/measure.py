"""What running a program costs: wall clock, processor and peak memory, by :file:`measure.c`; and that as rows."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.rows import Row
from scripts.virtual.cache import cached, file_digest
from scripts.virtual.commands import run

SOURCE = Path(__file__).with_name("measure.c")
SLOW_FLUSH_SOURCE = Path(__file__).with_name("slow_flush.c")
COMPILE = ("gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror")
ERROR_TEXT_BYTES_MAX = 2000


@dataclass(frozen=True)
class Cost:
    """Of one run. ``resident_bytes`` is the peak of the largest single process in it."""

    wall_seconds: float
    processor_seconds: float
    resident_bytes: int


def measuring_program(cache: Path) -> Path:
    """The compiled program. Raises: SetupError."""
    return _compiled(SOURCE, cache)


def slow_flush_program(cache: Path) -> Path:
    """What runs a command as if every flush took longer, compiled. Raises: SetupError."""
    return _compiled(SLOW_FLUSH_SOURCE, cache)


def _compiled(source: Path, cache: Path) -> Path:
    def make(folder: Path) -> None:
        run([*COMPILE, "-o", folder / source.stem, source], hint="run ./scripts/install")

    recipe = {"source": file_digest(source), "command": COMPILE}
    return cached(cache, source.stem, recipe, make) / source.stem


def parse_cost(text: str) -> Cost:
    """The report of ``measure``, without its last word."""
    wall, user, system, resident_kib, _status = text.split()
    return Cost(float(wall), float(user) + float(system), int(resident_kib) * 1024)


def cost_rows(case: str, who: str, costs: Sequence[Cost]) -> list[Row]:
    """Medians of times, the fastest, and the peak of the largest process."""
    return [
        Row(who, f"{case}_seconds", median(cost.wall_seconds for cost in costs), "s"),
        Row(who, f"{case}_seconds_min", min(cost.wall_seconds for cost in costs), "s"),
        Row(who, f"{case}_processor_seconds", median(cost.processor_seconds for cost in costs), "s"),
        Row(who, f"{case}_resident_bytes", max(cost.resident_bytes for cost in costs), "B"),
    ]


def run_and_report(
    command: Sequence[str | Path], report: Path, *, seconds_max: float, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run ``command``, which runs ``measure`` somewhere inside and lets it write ``report``.

    Raises: BenchmarkError, with the end of what the command said, when it fails or takes too long.
    """
    report.unlink(missing_ok=True)
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if environment is None else {**os.environ, **environment},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise BenchmarkError(f"{words[0]} … was still running after {seconds_max:g} s") from None
    if process.returncode:
        said = output[-ERROR_TEXT_BYTES_MAX:].decode(errors="replace").strip()
        raise BenchmarkError(f"ended with {process.returncode}: {said}")
    return parse_cost(report.read_text())
