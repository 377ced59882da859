"""What the benchmark of installations says of its measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.benchmarks import installers
from scripts.benchmarks.__main__ import parser
from scripts.benchmarks.install import CASES, INVERTED, TARGETS, report
from scripts.benchmarks.installers import BASELINE, HEADER_BYTES, InstallImage
from scripts.benchmarks.measure import Cost, cost_rows
from scripts.benchmarks.rows import OURS, Results, Row, target_rows

COSTS = [Cost(3.0, 1.0, 40), Cost(1.0, 2.0, 60), Cost(2.0, 4.0, 50)]


def test_rows_are_medians_the_fastest_and_the_largest() -> None:
    values = {row.metric: (row.value, row.unit) for row in cost_rows("ext4_blank", OURS, COSTS)}
    assert values == {
        "ext4_blank_seconds": (2.0, "s"),
        "ext4_blank_seconds_min": (1.0, "s"),
        "ext4_blank_processor_seconds": (2.0, "s"),
        "ext4_blank_resident_bytes": (60, "B"),
    }


def test_the_aim_is_a_multiple_of_what_a_person_types() -> None:
    rows = [Row(OURS, "ext4_seconds", 2.6, "s"), Row(BASELINE, "ext4_seconds", 1.0, "s")]
    met = target_rows(Results(rows), TARGETS)
    assert [row.metric for row in met] == ["ext4_seconds_over_target"]
    assert [row.value for row in met] == pytest.approx([2.0])


def test_the_report_has_a_table_for_every_case_and_says_what_was_there_before() -> None:
    rows = [row for case in CASES for row in cost_rows(case.name, OURS, COSTS)]
    lines = list(report(Results([*rows, *(Row(OURS, f"{case.name}_bytes", 3e8, "B") for case in CASES)])))
    titles = [line for line in lines if line.startswith("install:")]
    assert [("zeroes" in title, "300.000 MB" in title) for title in titles] == [(case.blank, True) for case in CASES]
    assert sum(line.startswith(OURS) for line in lines) == len(CASES)


def test_no_byte_of_what_is_there_before_is_right() -> None:
    content = bytes(range(256))
    assert all(before != after for before, after in zip(content, content.translate(INVERTED), strict=True))


def test_the_disk_has_room_for_both_headers(tmp_path: Path) -> None:
    (tmp_path / "rootfs.img").write_bytes(bytes(4096))
    image = InstallImage(tmp_path / "rootfs.img", "ext4")
    assert (image.folder, image.disk_bytes) == (tmp_path, 4096 + 2 * HEADER_BYTES)


def test_every_peer_has_a_script() -> None:
    scripts = {path.name for path in installers.SCRIPTS.glob("*.sh")}
    assert scripts == {"enter.sh", "zstd-dd.sh", "rauc.sh", "swupdate.sh"}


def test_installers_are_chosen_by_name() -> None:
    assert parser().parse_args(["install", "--who", f"{OURS},{BASELINE}"]).who == (OURS, BASELINE)
