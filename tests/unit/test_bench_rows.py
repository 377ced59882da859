"""Rows, targets and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.benchmarks.rows import HOST, OURS, Results, Row, Target, host_rows, limit_of, target_rows, write
from scripts.benchmarks.table import host_line, ratio, shown, table, verdicts

RESULTS = Results(
    [
        Row(OURS, "seconds", 0.6, "s"),
        Row(OURS, "size_bytes", 3_500_000, "B"),
        Row("busybox", "seconds", 0.3, "s"),
        Row("busybox", "size_bytes", 1_000_000, "B"),
        Row("busybox", "identical", 1, "1"),
        Row(HOST, "processors", 2, "1"),
        Row(HOST, "load_average", 0.52, "1"),
    ]
)
FIXED = Target("size_bytes", 3.8e6)
BESIDE_PEER = Target("seconds", 1.6, "busybox")


def test_a_row_has_an_si_unit() -> None:
    with pytest.raises(AssertionError):
        Row(OURS, "size", 1, "MB")


def test_rows_are_written_as_they_are_promised(tmp_path: Path) -> None:
    path = tmp_path / "new" / "boot.json"
    write(path, RESULTS.rows[:1])
    assert json.loads(path.read_text()) == [{"who": OURS, "metric": "seconds", "value": 0.6, "unit": "s"}]


def test_a_target_is_a_limit_or_a_multiple_of_a_peer() -> None:
    assert limit_of(RESULTS, FIXED) == 3.8e6
    assert limit_of(RESULTS, BESIDE_PEER) == pytest.approx(0.48)
    assert limit_of(RESULTS, Target("seconds", 2, "absent")) is None


def test_target_rows_are_our_value_over_the_limit() -> None:
    rows = target_rows(RESULTS, [FIXED, BESIDE_PEER, Target("seconds", 2, "absent"), Target("absent", 2)])
    assert [(row.metric, round(row.value, 3)) for row in rows] == [
        ("size_bytes_over_target", 0.921),
        ("seconds_over_target", 1.25),
    ]


def test_verdicts_say_by_how_much() -> None:
    assert list(verdicts(RESULTS, [FIXED, BESIDE_PEER, Target("absent", 1)])) == [
        "met     size_bytes: 3.500 MB, limit 3.800 MB (8% below)",
        "MISSED  seconds: 0.60 s, limit 1.6 × busybox = 0.48 s (25% above)",
        "not measured  absent",
    ]


def test_values_are_shown_with_their_units() -> None:
    assert [shown(1_234_567, "B"), shown(0.125, "s"), shown(40, "1"), shown(None, "s")] == [
        "1.235 MB",
        "0.12 s",
        "40",
        "-",
    ]


def test_a_ratio_is_theirs_over_ours() -> None:
    assert ratio(RESULTS, "busybox", "seconds") == "0.50"
    assert ratio(RESULTS, "busybox", "absent") == "-"


def test_a_table_has_a_line_for_each_contender() -> None:
    columns = (("size_bytes", "size"), ("size_bytes", "×"), ("identical", "identical"))
    assert list(table(RESULTS, columns, flags=("identical",))) == [
        "             size     ×  identical",
        "unbrick  3.500 MB  1.00          -",
        "busybox  1.000 MB  0.29        yes",
    ]


def test_the_host_is_described_and_no_contender() -> None:
    assert RESULTS.contenders == [OURS, "busybox"]
    assert host_line(RESULTS) == "host: 2 processors, load average 0.5 at the beginning"
    assert {row.metric: row.value >= 0 for row in host_rows()} == {"processors": True, "load_average": True}


def test_a_busy_host_is_no_place_for_comparisons() -> None:
    busy = Results([Row(HOST, "processors", 2, "1"), Row(HOST, "load_average", 7, "1")])
    assert "TOO BUSY" in host_line(busy)
