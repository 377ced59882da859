"""What a program costs, measured on real programs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost, measuring_program, parse_cost, run_and_report

MIB = 1 << 20


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measuring_program(tmp_path_factory.mktemp("cache"))


def cost_of(measure: Path, folder: Path, *command: str) -> Cost:
    return run_and_report([measure, folder / "report", *command], folder / "report", seconds_max=30)


def test_a_report_becomes_a_cost() -> None:
    assert parse_cost("1.500000 0.250000 0.125000 2048 0\n") == Cost(1.5, 0.375, 2 * MIB)


def test_waiting_is_wall_clock_and_no_processor_time(measure: Path, tmp_path: Path) -> None:
    cost = cost_of(measure, tmp_path, "sleep", "0.2")
    assert cost.wall_seconds >= 0.2
    assert cost.processor_seconds < 0.1


def test_memory_is_that_of_the_largest_descendant_and_not_ours(measure: Path, tmp_path: Path) -> None:
    ours = bytearray(96 * MIB)
    ours[::4096] = bytes([1]) * len(ours[::4096])
    small = cost_of(measure, tmp_path, "true")
    large = cost_of(
        measure, tmp_path, "sh", "-c", f"'{sys.executable}' -S -c 'print(len(bytes(1) * (64 << 20)))'; true"
    )
    assert small.resident_bytes < 16 * MIB
    assert 64 * MIB < large.resident_bytes < 96 * MIB


def test_a_failing_program_is_named_with_its_words(measure: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="ended with 3: no such luck"):
        cost_of(measure, tmp_path, "sh", "-c", "echo no such luck >&2; exit 3")


def test_a_hanging_program_is_ended(measure: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BenchmarkError, match=r"still running after 0\.3 s"):
        run_and_report([measure, tmp_path / "report", "sleep", "60"], tmp_path / "report", seconds_max=0.3)
    assert time.monotonic() - started < 30
