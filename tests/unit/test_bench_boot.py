"""Times from a console, and the command line of ./scripts/bench."""

from __future__ import annotations

import tomllib

import pytest

from scripts.benchmarks import module_set
from scripts.benchmarks.__main__ import main, parser
from scripts.benchmarks.boot import rows_of
from scripts.benchmarks.boot_log import Boot, parse_boot
from scripts.benchmarks.device import DEVICE, LAYOUT, ROOT_NODE, with_modules
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.registry import BENCHMARKS
from scripts.benchmarks.workplace import CONTENDERS
from scripts.virtual.layout import device_toml

CONSOLE = """\
unbrick: something on the console
bench-log: 1500000 Run /init as init process
bench-log: 1700500 virtio_blk virtio0: [vda] 131072 512-byte logical blocks
bench-log: 1850250 bench: first line of the real root\r
bench-end
[    1.9] reboot: Power down
"""


def test_the_time_is_between_two_stamps_of_the_kernel() -> None:
    boot = parse_boot(CONSOLE)
    assert (boot.init, boot.first_line) == (1.5, 1.85025)
    assert boot.initramfs == pytest.approx(0.35025)
    assert boot.log[1] == (1.7005, "virtio_blk virtio0: [vda] 131072 512-byte logical blocks")


@pytest.mark.parametrize(
    ("console", "message"),
    [
        ("Kernel panic - not syncing\n", "console ends with: Kernel panic"),
        (CONSOLE.replace("bench: first", "another"), "no 'bench: first line"),
        (CONSOLE.replace("Run /init", "ran"), "no 'Run /init"),
    ],
)
def test_a_boot_that_got_nowhere_is_no_measurement(console: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        parse_boot(console)


def test_rows_are_medians() -> None:
    boots = [Boot(1.0, 1.0 + seconds, ()) for seconds in (0.9, 0.2, 0.4)]
    values = {row.metric: round(row.value, 3) for row in rows_of("busybox", boots)}
    assert values == {
        "initramfs_seconds": 0.4,
        "initramfs_seconds_min": 0.2,
        "initramfs_seconds_max": 0.9,
        "init_seconds": 1.0,
        "first_line_seconds": 1.4,
        "boots": 3,
    }


def test_our_image_gets_the_modules_of_all_contenders() -> None:
    modules = tomllib.loads(with_modules(device_toml(LAYOUT, DEVICE)))["modules"]
    assert modules == {"boot": list(module_set.BOOT), "recovery": list(module_set.RECOVERY)}


def test_the_root_is_the_slot() -> None:
    assert ROOT_NODE == "/dev/vda2"


def test_help_names_every_benchmark_and_contender(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*BENCHMARKS, *CONTENDERS, "examples:"))


@pytest.mark.parametrize(
    "words", [["nonsense"], [], ["boot", "--runs", "0"], ["boot", "--runs", "many"], ["boot", "--who", "nobody"]]
)
def test_a_senseless_command_line_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_contenders_are_chosen_by_name() -> None:
    assert parser().parse_args(["boot", "--who", "unbrick,busybox"]).who == ("unbrick", "busybox")
