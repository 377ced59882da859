"""Recovery's own Python ends or is silent: PID 1 starts it again, rests, and goes on when that helps."""

from __future__ import annotations

import json

import pytest

from qemu.disks import Disk, block_node, device_properties
from qemu.machine import Machine
from tests.boot.device import CONFIRMED_SECONDS, LOOKED_AT_SECONDS, ONCE, Device

pytestmark = [pytest.mark.boot, pytest.mark.requirement("M20"), pytest.mark.fault("S12")]

RETRY_SOON = "unbrick.retry-seconds=2"
STARTS = 4  # the first one, and three more


def plug_in_disk(device: Device, guest: Machine) -> None:
    """The device's own disk appears while it runs."""
    disk = Disk(device.disk.path, device.kit.device.serial)
    guest.monitor.execute("blockdev-add", block_node(disk, "late"))
    guest.monitor.execute("device_add", json.loads(device_properties(disk, "late")))


@pytest.mark.long
def test_python_that_ends_is_started_again_then_rests_and_goes_on_when_the_disk_appears(device: Device) -> None:
    guest = device.power_on(RETRY_SOON, disks=())
    for _ in range(STARTS):
        guest.expect("E500 disk-missing: no disk with serial number 'unbrick-system'", LOOKED_AT_SECONDS)
        guest.expect("E901 python-exited: status 1", LOOKED_AT_SECONDS)
    guest.expect("E903 recovery-crashed 4 times; the next try is in 2 s", LOOKED_AT_SECONDS)
    plug_in_disk(device, guest)
    guest.expect(ONCE, CONFIRMED_SECONDS)
    assert guest.boots == 1, "it never starts the machine again"


def test_python_that_is_silent_is_ended_and_started_again(device: Device) -> None:
    guest = device.power_on(f"{RETRY_SOON} unbrick.silence-seconds=4", disks=())
    for _ in range(STARTS):
        guest.expect("E902 python-silent for 4 s", LOOKED_AT_SECONDS)
    guest.expect("E903 recovery-crashed 4 times", LOOKED_AT_SECONDS)
    plug_in_disk(device, guest)
    guest.expect(ONCE, CONFIRMED_SECONDS)
    assert guest.boots == 1
