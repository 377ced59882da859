"""A whole device is damaged or fails, is switched on, and comes back. Nothing is typed."""

from __future__ import annotations

import pytest

from payload.table import FRAME_BYTES_DEFAULT
from qemu.faults import Fault, sector_fails
from qemu.pytest_plugin import MachineFactory
from scripts.virtual.kit import Kit
from scripts.virtual.layout import Layout
from tests.boot.device import LOOKED_AT_SECONDS, Device, shown

pytestmark = [pytest.mark.boot, pytest.mark.requirement("D9", "M11", "M15", "M20")]

DAMAGED = 3


def damage(device: Device, frames: int = DAMAGED) -> None:
    """Garbage over the first frames of the slot: its file system's own superblock among them."""
    device.disk.corrupt("slot", length=frames * FRAME_BYTES_DEFAULT)


def fails_at(layout: Layout, operation: str) -> Fault:
    """Every read or write of the slot's first sector fails, for ever."""
    return sector_fails(operation, layout["slot"].offset // 512)


@pytest.mark.requirement("D4")
@pytest.mark.fault("R3")
def test_only_the_damaged_frames_are_rewritten(device: Device) -> None:
    intact = device.digests()
    damage(device)
    console = device.boot()
    assert shown(console, "E105 boot-failed: SUSPECT", "E300 frames-damaged: REPAIRING", "E307 frames-repaired")
    assert device.record.frames_written == DAMAGED
    assert device.digests() == intact
    assert device.states[-6:] == ["SUSPECT", "REPAIRING", "VERIFYING", "ACTIVATING", "TRYING", "CONFIRMED"]


@pytest.mark.requirement("D6", "M6")
@pytest.mark.fault("R3", "R6")
def test_a_blank_slot_without_its_headers_is_installed_again(device: Device) -> None:
    intact = device.digests()
    for name in ("slot", "header-0", "header-1"):
        device.disk.zero(name)
    shown(
        device.boot(),
        "E301 slot-unreadable: REINSTALLING",
        "from payload region: version 1",
        "tiny-os: user data at /data",
    )
    assert device.digests() == intact


@pytest.mark.fault("R6")
def test_a_rotten_header_copy_is_written_again_from_the_other(device: Device) -> None:
    intact = device.digests("header-0", "header-1")
    device.disk.corrupt("header-0", length=4096)
    device.suspect()
    device.boot()
    assert device.digests(*intact) == intact


@pytest.mark.requirement("D4")
@pytest.mark.fault("H2", "H4")
@pytest.mark.long
def test_a_new_version_that_panics_gives_way_to_the_one_that_ran_well(device: Device) -> None:
    device.kit.install(device.disk, device.kit.bundle(2, "panic"))
    console = device.boot(version=1)
    attempts = [f"TRYING: handing over to version 2, attempt {number} of 3" for number in (1, 2, 3)]
    assert shown(console, *attempts, "E104 attempts-exhausted: SUSPECT", "E308 image-never-good: REINSTALLING")
    assert console.count("Kernel panic") == 3
    assert device.record.confirmed_version == 1


@pytest.mark.fault("H1")
def test_the_watchdog_ends_a_hang_and_a_hang_ends_in_a_pristine_boot(
    kit: Kit, machine: MachineFactory, device: Device
) -> None:
    device.kit.install(device.disk, device.kit.bundle(2, watchdog="/dev/watchdog0"))
    device.remember(confirmed=device.record.installed.digest, attempts_left=1)
    before = device.digests()
    device.break_os("hang")
    console = device.boot(version=2)
    assert shown(console, "does on purpose: hang", "Linux version", "E104 attempts-exhausted", "E109 pristine")
    assert device.digests() == before, "what verifies is never rewritten"


def test_a_pristine_boot_sets_system_state_aside_and_does_not_touch_user_data(device: Device) -> None:
    device.disk.data.write("/user/photo", b"a person's data")
    failing = device.break_os("never-good")
    device.suspect()
    assert shown(device.boot(), "E109 pristine: PRISTINE", "tiny-os: no user data")
    assert shown(device.boot(), "CONFIRMED: handing over to version 1", "tiny-os: user data at /data")
    assert device.record.upper_generation == 1
    assert device.disk.data.read("/user/photo") == b"a person's data"
    assert device.disk.data.read(f"/system/{failing}/upper/etc/misbehave") == b"never-good\n"


def test_an_image_that_fails_pristine_too_waits_where_there_is_no_other(device: Device) -> None:
    device.kit.install(device.disk, device.kit.bundle(2, "exit"))
    device.disk.write_payload(device.kit.bundle(2, "exit"))
    device.remember(confirmed=device.record.installed.digest, state="PRISTINE", attempts_left=1)
    guest = device.power_on()
    guest.expect("PRISTINE: handing over to version 2", LOOKED_AT_SECONDS)
    guest.expect("E104 attempts-exhausted: REINSTALLING", LOOKED_AT_SECONDS)
    guest.expect("E410 payload-tried: payload region: version 2", LOOKED_AT_SECONDS)
    guest.expect("E400 no-source: WAITING", LOOKED_AT_SECONDS)
    guest.expect("what to do: Plug in a USB stick", LOOKED_AT_SECONDS)


@pytest.mark.fault("S7", "S9")
@pytest.mark.parametrize("operation", ["write", pytest.param("read", marks=pytest.mark.long)])
def test_a_slot_that_cannot_be_repaired_waits_with_its_reason(device: Device, operation: str) -> None:
    damage(device)
    guest = device.power_on(faults=(fails_at(device.disk.layout, operation),))
    guest.expect("E303 slot-write-failed: WAITING", LOOKED_AT_SECONDS)
    guest.close()
    device.boot()


@pytest.mark.long
@pytest.mark.fault("H3")
def test_a_device_with_little_memory_is_repaired(device: Device) -> None:
    device.disk.zero("slot")
    device.boot(memory_mib=128)


def test_a_read_write_slot_is_mended_and_booted(kit: Kit, machine: MachineFactory, device: Device) -> None:
    device.kit.install(device.disk, device.kit.bundle(2, filesystem="ext4", kind="read-write"))
    device.boot(version=2)
    slot = device.filesystem("slot")
    slot.write("/etc/kept", b"written by the OS")
    device.disk.zero("slot", offset=slot.blocks("<8>")[0] - device.disk.layout["slot"].offset, length=4096)
    console = device.boot(version=2)
    assert shown(console, "E105 boot-failed: SUSPECT", "E306 filesystem-repaired: TRYING", "E100 confirmed")
    assert slot.read("/etc/kept") == b"written by the OS"
