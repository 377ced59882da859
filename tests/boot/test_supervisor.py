"""PID 1 of the image, on a real kernel, against a Python that misbehaves in each way it can.

The executable is the production one; only the Python package ``recovery`` in it is a stand-in, whose
function named by ``act=`` on the kernel's command line is played.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from initramfs import kernel_modules
from qemu.errors import ConsoleTimeout
from qemu.machine import Machine, MachineOptions
from qemu.pytest_plugin import MachineFactory
from scripts.virtual import kernel
from tests.boot.frozen_stand_in import CACHE, StandIn, frozen

pytestmark = pytest.mark.boot

SECONDS = 300.0
WATCHDOG_SECONDS = 8
RESETS = re.compile(r"Linux version")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return frozen(tmp_path_factory.mktemp("stand-in"))


Play = Callable[..., Machine]


@pytest.fixture
def play(machine: MachineFactory, stand_in: StandIn, tmp_path: Path) -> Play:
    """``play("exits")``: a machine where Python does that. Words are added to the kernel's command line."""
    found = kernel.fetch(CACHE)

    def start(act: str, words: str = "", *, listed: str = "", memory_mib: int = 256, watchdog: str = "") -> Machine:
        modules: dict[str, bytes] = {}
        if watchdog:
            resolved = kernel_modules.resolve(found.root, found.release, [watchdog])
            modules = {f"{module.name}.ko": module.source.read_bytes() for module in resolved}
            listed += "".join(f"/{name}\n" for name in modules)
        initrd = stand_in.initrd(tmp_path / "initrd", modules, listed)
        append = f"console=ttyS0 panic=-1 act={act} {words}"
        options = MachineOptions(found.image, initrd, append, memory_mib=memory_mib, watchdog=watchdog)
        return machine(options)

    return start


def expect_all(guest: Machine, *lines: str | re.Pattern[str]) -> None:
    """The lines, in this order, and no second boot before the last."""
    for line in lines:
        guest.expect(line, SECONDS, unless="Kernel panic")
    assert guest.boots == 1


def expect_reset(guest: Machine, seconds: float) -> None:
    guest.expect(RESETS, seconds)
    assert guest.boots == 2


def test_a_python_that_always_ends_comes_to_rest(play: Play) -> None:
    guest = play("exits", "unbrick.retry-seconds=2")
    reason = "E901 python-exited: status 7"
    for crashes in range(4):
        expect_all(guest, f"stand-in: start {crashes} modules b'1'", reason)
    expect_all(guest, "E903 recovery-crashed 4 times; the next try is in 2 s", "start 4", reason)
    expect_all(guest, "E903 recovery-crashed 5 times; the next try is in 4 s", "start 5")


def test_an_exception_nobody_catches_is_shown_with_its_line(play: Play) -> None:
    line = re.compile(r'File "<frozen recovery\.main>", line \d+, in raises')
    expect_all(play("raises"), line, "LookupError: nobody catches this", "E901 python-exited: status 1", "start 1")


def test_a_killed_python_is_started_again(play: Play) -> None:
    expect_all(play("killed"), "start 0", "E901 python-exited: signal 9", "start 1")


def test_a_silent_python_is_killed_and_a_talking_one_is_not(play: Play) -> None:
    guest = play("silent", "unbrick.silence-seconds=8")
    expect_all(guest, "start 0", "E902 python-silent for 8 s", "start 1", *["stand-in: still working"] * 3)
    assert "start 2" not in guest.console.tail(20)


def test_memory_runs_out_for_python_and_not_for_pid_1(play: Play) -> None:
    expect_all(play("memory_hog", memory_mib=160), "start 0", "E901 python-exited: signal 9", "start 1")


def test_orphans_are_reaped(play: Play) -> None:
    expect_all(play("orphans"), "stand-in: left behind: []")


def test_what_a_dead_python_had_started_is_ended(play: Play) -> None:
    expect_all(play("children_end"), "E901 python-exited: status 1", "start 1", "stand-in: others: []")


def test_words_it_does_not_understand_are_named_and_ignored(play: Play) -> None:
    expect_all(
        play("babbles"),
        "E907 message-not-understood of 3 words: sing",
        "E907 message-not-understood of 2 words: handover",
        "E907 message-not-understood, longer than 1024 bytes",
        "stand-in: and goes on",
    )


def test_a_module_that_cannot_be_loaded_is_named(play: Play) -> None:
    # The kernel may speak in the middle of a line; recovery starts again, and says it again.
    guest = play("exits", listed="/no/such.ko\n/tiny-init parameter=1\n")
    expect_all(
        guest,
        "E906 module-not-loaded /no/such.ko: No such file or directory",
        "E906 module-not-loaded /tiny-init: Exec format error",
        re.compile(r"start \d modules b'0'"),
    )


def test_modules_are_loaded_before_the_byte_and_again_is_no_failure(play: Play) -> None:
    guest = play("exits", watchdog="i6300esb")
    expect_all(guest, "start 0 modules b'1'", "start 1 modules b'1'")


@pytest.mark.parametrize("act", ["hands_over", "last_words"])
def test_hand_over(play: Play, act: str) -> None:
    guest = play(act, "single")
    expect_all(guest, "unbrick: E900 handover /newroot /sbin/init", "real root: process 1, init, last argument single")
    for place in ("/dev/console", "/proc/self/stat", "/sys/kernel", "/run/marker", "/mounted/marker"):
        guest.expect(f"real root: {place} there", SECONDS)
    for place in ("/initramfs/init", "/initramfs/etc/unbrick"):  # freed
        guest.expect(f"real root: {place} absent", SECONDS)
    expect_all(guest, "real root: programs running 1", "alive 2 s")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("hands_over_to_nothing", "E904 init-not-executable /sbin/init: No such file"),
        ("hands_over_nowhere", "E905 handover-failed /etc"),
    ],
)
def test_a_hand_over_that_fails_reboots_with_its_reason(play: Play, act: str, reason: str) -> None:
    guest = play(act)
    expect_all(guest, reason)
    expect_reset(guest, SECONDS)


def test_the_watchdog_sleeps_while_python_reports_progress(play: Play) -> None:
    expect_all(play("watched", watchdog="i6300esb"), "the watchdog slept")


def test_the_watchdog_sleeps_while_recovery_rests(play: Play) -> None:
    guest = play("watched", "unbrick.silence-seconds=6", watchdog="i6300esb")
    expect_all(guest, "the watchdog slept", "E902 python-silent")


def test_the_watchdog_resets_a_python_that_cannot_be_killed(play: Play) -> None:
    guest = play("stuck", "unbrick.silence-seconds=12", watchdog="i6300esb")
    expect_all(guest, "E902 python-silent for 12 s")
    expect_reset(guest, SECONDS)


def test_the_watchdog_is_stopped_for_an_os_that_does_not_know_it(play: Play) -> None:
    expect_all(play("stops_watchdog", watchdog="i6300esb"), f"alive {WATCHDOG_SECONDS * 2 + 2} s")


def test_the_watchdog_runs_on_for_an_os_that_owns_it(play: Play) -> None:
    guest = play("leaves_watchdog_running", watchdog="i6300esb")
    expect_all(guest, "alive 1 s")
    expect_reset(guest, SECONDS)


def test_power_off_and_reboot(play: Play) -> None:
    assert play("switches_off").wait_exit(SECONDS) == 0
    guest = play("reboots")
    expect_all(guest, "start 0")
    expect_reset(guest, SECONDS)


def test_the_first_boot_is_not_a_second(play: Play) -> None:
    """What :func:`expect_reset` waits for does not come by itself."""
    guest = play("killed")
    expect_all(guest, "start 1")
    with pytest.raises(ConsoleTimeout):
        expect_reset(guest, 3)
