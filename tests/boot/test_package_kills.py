"""A transaction's process is ended in the middle, at any moment, and the machine started again: it goes on by itself.

By SIGKILL in a running guest, which no program can see coming. What was written stays; for cuts of power, which lose
it, see test_package_write_log.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from packagemanager.places import TRANSACTION as UNDER_WAY
from qemu.disks import Disk
from qemu.machine import Machine
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.kit import Kit
from tests.boot.device import CONFIRMED_SECONDS, Device
from tests.boot.test_device_transactions import APPLY, ENDED, LIVE, offer
from tests.boot.test_package_write_log import files_of, until_over

pytestmark = [pytest.mark.boot, pytest.mark.long, pytest.mark.requirement("M7", "M8"), pytest.mark.fault("H3")]

KILLS = 50  # of each kind
KILLED = f"{ENDED} 137"
UP = "tiny-os: good"


def powered_on(kit: Kit, disk: DeviceDisk, folder: Path, name: str, append: str) -> tuple[str, float]:
    """Boot once, until the machine switches itself off: what the console says, and how long the command took."""
    options = kit.options(disk, append.replace("reboot", "poweroff"), disks=(Disk(disk.path, kit.device.serial),))
    with Machine(options, folder, name) as guest:
        guest.expect(UP, CONFIRMED_SECONDS)
        begun = time.monotonic()
        guest.expect(ENDED, CONFIRMED_SECONDS)
        taken = time.monotonic() - begun
        guest.wait_exit(CONFIRMED_SECONDS)
    return guest.console.path.read_text(errors="replace"), taken


@pytest.mark.parametrize("work", [APPLY, LIVE], ids=["offline", "live"])
def test_a_transaction_that_is_killed_anywhere_is_taken_in_the_end(device: Device, tmp_path: Path, work: str) -> None:
    kit, source, killed = device.kit, Random(work), 0
    offer(device, tmp_path, 7)
    whole = device.disk.copy(tmp_path / "whole.img")
    _console, seconds = powered_on(kit, whole, tmp_path, "whole", work)
    assert until_over(kit, whole, tmp_path, "whole-over", work) == ""
    ends = files_of(Device(kit, whole, device._machine), tmp_path / "look")
    assert not any(path.startswith(UNDER_WAY) for path in ends)
    for number in range(KILLS):
        disk = device.disk.copy(tmp_path / "killed.img")
        moment = int(source.random() * seconds * 1000)
        console, _seconds = powered_on(kit, disk, tmp_path, f"killed-{number}", f"{work} tiny.kill={moment}")
        killed += KILLED in console
        assert until_over(kit, disk, tmp_path, f"after-{number}", work) == "", f"killed after {moment} ms"
        survivor = Device(kit, disk, device._machine)
        assert survivor.record.state == "CONFIRMED", f"killed after {moment} ms"
        assert files_of(survivor, tmp_path / "look") == ends, f"killed after {moment} ms"
    assert killed > KILLS // 2, "most of them were in the middle of it"
