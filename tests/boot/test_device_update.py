"""A running OS updates itself, and the device takes it from there: two slots, and one slot with two places."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu.faults import Fault
from qemu.pytest_plugin import MachineFactory
from scripts.virtual.kit import Kit
from scripts.virtual.layout import TINY_SPARE, TINY_TWO_SLOTS
from tests.boot.conftest import FOLDER, made_once
from tests.boot.device import CONFIRMED_SECONDS, Device, shown

pytestmark = [pytest.mark.boot, pytest.mark.requirement("M6", "M7")]

INSTALL = "tiny.unbrick=install,/data/os.ubk tiny.after=reboot"
ENDED = "tiny-os: unbrick ended with"


@pytest.fixture(scope="module")
def two_slots() -> Kit:
    return made_once(FOLDER / "two-slots", layout=TINY_TWO_SLOTS)


@pytest.fixture(scope="module")
def one_slot() -> Kit:
    return made_once(FOLDER / "one-slot", layout=TINY_SPARE)


def device_with(kit: Kit, machine: MachineFactory, folder: Path, bundle: Path, installed: int = 1) -> Device:
    """A device with version ``installed`` and a bundle in its user data."""
    disk = kit.disk(folder / "device.img", kit.bundle(installed))
    disk.data.write("/user/os.ubk", bundle.read_bytes())
    return Device(kit, disk, machine)


def console_until(device: Device, *lines: str, append: str = INSTALL, faults: tuple[Fault, ...] = ()) -> str:
    """Switch it on, wait for these lines in turn, switch it off."""
    guest = device.power_on(append, faults=faults)
    for line in lines:
        guest.expect(line, CONFIRMED_SECONDS)
    guest.close()
    return guest.console.path.read_text(errors="replace")


@pytest.mark.requirement("M4")
def test_an_update_runs_is_confirmed_and_goes_back(two_slots: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    device = device_with(two_slots, machine, tmp_path, two_slots.bundle(2))
    before = device.digests("slot")
    lines = ("confirmed: version 1", f"{ENDED} 4", "TRYING: handing over to version 2, attempt 1 of 3")
    console_until(device, *lines, "confirmed: version 2", f"{ENDED} 0")
    record = device.record
    assert (record.state, record.primary, record.floor) == ("CONFIRMED", 1, 1)
    assert [slot.condition for slot in record.slots] == ["good", "good"]
    assert device.digests("slot") == before, "the slot that ran was not written"
    back = ("confirmed: version 2", "E116 rolled-back: version 1", f"{ENDED} 4", "confirmed: version 1")
    console_until(device, *back, append="tiny.unbrick=rollback tiny.after=reboot")
    assert (device.record.primary, device.record.installed.version) == (0, 1)


@pytest.mark.requirement("D4")
@pytest.mark.fault("H2", "H4")
def test_a_version_that_panics_gives_way_by_itself(two_slots: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    device = device_with(two_slots, machine, tmp_path, two_slots.bundle(2, "panic"))
    console = console_until(
        device,
        f"{ENDED} 4",
        "TRYING: handing over to version 2, attempt 3 of 3",
        "E104 attempts-exhausted: SUSPECT",
        "E308 image-never-good: FALLING_BACK",
        "TRYING: handing over to version 1",
        "confirmed: version 1",
        "E120 failed-here: version 2",
    )
    assert console.count("Kernel panic") == 3
    assert [slot.condition for slot in device.record.slots] == ["good", "bad"]
    assert device.record.frames_written > 0
    assert shown(console, "0 of", "E113 slot-verified: ACTIVATING")


@pytest.mark.fault("S1")
def test_an_update_that_is_cut_goes_on(two_slots: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    device = device_with(two_slots, machine, tmp_path, two_slots.bundle(2))
    console_until(device, "write  ")
    record = device.record
    assert (record.state, record.installed.version, record.target.version) == ("CONFIRMED", 1, 2)
    assert record.slots[1].condition == "bad"
    console_until(device, "handing over to version 1", f"{ENDED} 4", "confirmed: version 2", append=RESUME)
    assert device.record.installed.version == 2


RESUME = "tiny.unbrick=resume tiny.after=reboot"


@pytest.mark.long
@pytest.mark.requirement("M4")
def test_a_downgrade_is_an_update(two_slots: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    device = device_with(two_slots, machine, tmp_path, two_slots.bundle(2))
    console_until(device, f"{ENDED} 4", "confirmed: version 2")
    device.disk.data.write("/user/os.ubk", two_slots.bundle(1).read_bytes())
    console_until(device, "confirmed: version 2", f"{ENDED} 4", "confirmed: version 1")
    assert (device.record.installed.version, device.record.floor) == (1, 1)


@pytest.mark.long
def test_one_slot_is_installed_by_recovery(one_slot: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    device = device_with(one_slot, machine, tmp_path, one_slot.bundle(2))
    staged = ("E114 update-requested", "E309 replacement-verified: REINSTALLING", "E102 installed: VERIFYING")
    console_until(device, f"{ENDED} 4", *staged[1:], "confirmed: version 2", f"{ENDED} 0")
    assert device.states[-6:] == ["STAGED", "REINSTALLING", "VERIFYING", "ACTIVATING", "TRYING", "CONFIRMED"]
    back = ("E114 update-requested: version 1", "E309 replacement-verified", "confirmed: version 1")
    console_until(device, *back, append="tiny.unbrick=rollback tiny.after=reboot")
    assert device.record.installed.version == 1


@pytest.mark.requirement("D4")
@pytest.mark.fault("H2", "H4")
@pytest.mark.long
def test_one_slot_comes_back_from_a_version_that_panics(one_slot: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    device = device_with(one_slot, machine, tmp_path, one_slot.bundle(2, "panic"))
    lines = ("handing over to version 2", "E308 image-never-good: REINSTALLING", "confirmed: version 1")
    guest = device.power_on(INSTALL)
    for line in lines:
        guest.expect(line, CONFIRMED_SECONDS)
    guest.close()
    assert device.record.installed.version == 1
