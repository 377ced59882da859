"""The ordinary boot of a whole device, and what it must come through without recovery's work."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from qemu.pytest_plugin import MachineFactory
from scripts.virtual.kit import Kit
from tests.boot.device import LOOKED_AT_SECONDS, Device, shown

pytestmark = pytest.mark.boot

BEGINNING, END = 0, -34 * 512  # of the disk, where the two copies of its partition table are
TABLE_BYTES = 34 * 512
WRONG = ("slot", "data")


@pytest.mark.requirement("D1", "D2", "D3", "D14", "M12")
def test_a_device_from_the_factory_boots_and_is_confirmed(fresh: Device) -> None:
    assert fresh.record.state == "TRYING"
    console = fresh.boot()
    assert shown(console, "TRYING: handing over to version 1, attempt 1 of 3", "tiny-os: version 1 up")
    record = fresh.record
    assert (record.attempts_left, record.confirmed_version, record.floor, record.boots) == (3, 1, 1, 1)


@pytest.mark.requirement("D3")
def test_an_ordinary_boot_appends_one_record_in_a_new_term(device: Device) -> None:
    device.break_os("hang")
    before = device.journal.store.head
    guest = device.power_on()
    guest.expect("tiny-os: does on purpose: hang", LOOKED_AT_SECONDS, unless="unbrick: E1")
    guest.close()
    after = device.journal.store.head
    assert (after.term, after.sequence) == (before.term + 1, before.sequence + 1)
    assert (device.record.state, device.record.attempts_left) == ("CONFIRMED", 2)


@pytest.mark.requirement("M15")
def test_an_ordinary_boot_changes_no_image_and_keeps_user_data(device: Device) -> None:
    device.disk.data.write("/user/photo", b"a person's data")
    before = device.digests("slot", "payload", "header-0", "header-1")
    shown(device.boot(), "CONFIRMED: handing over to version 1", "tiny-os: user data at /data")
    assert device.digests(*before) == before
    assert device.disk.data.read("/user/photo") == b"a person's data"


@pytest.mark.parametrize("filesystem", ["erofs", "ext4"])
def test_another_immutable_file_system_boots_and_is_not_written(
    kit: Kit, machine: MachineFactory, tmp_path: Path, filesystem: str
) -> None:
    bundle = kit.bundle(1, filesystem=filesystem)
    device = Device(kit, kit.disk(tmp_path / "device.img", bundle), machine)
    before = device.digests()
    device.boot()
    device.boot()
    assert device.digests() == before


@pytest.mark.requirement("M20")
@pytest.mark.fault("R8", "R9", "R10")
@pytest.mark.parametrize("places", [(BEGINNING,), (END,), (BEGINNING, END)], ids=["R8", "R9", "R10"])
def test_a_rotten_partition_table_is_not_needed(device: Device, places: tuple[int, ...]) -> None:
    for place in places:
        device.rot(place, TABLE_BYTES)
    device.disk.data.write("/user/photo", b"a person's data")
    shown(device.boot(), "CONFIRMED: handing over to version 1", "tiny-os: user data at /data")
    assert device.disk.data.read("/user/photo") == b"a person's data"


@pytest.mark.requirement("M20")
@pytest.mark.fault("R8", "R9", "R10")
def test_a_partition_table_that_names_other_places_is_not_needed(device: Device) -> None:
    """A classic one has no checksum: the kernel believes it, and allows no second partition of the same bytes."""
    layout = device.disk.layout
    for place in (BEGINNING, END):
        device.rot(place, TABLE_BYTES)
    device.write(0, classic_table(*[(layout[name].offset // 512, layout[name].size // 512 + 1) for name in WRONG]))
    device.disk.data.write("/user/photo", b"a person's data")
    shown(device.boot(), "CONFIRMED: handing over to version 1", "tiny-os: user data at /data")
    assert device.disk.data.read("/user/photo") == b"a person's data"


def classic_table(*partitions: tuple[int, int]) -> bytes:
    """A master boot record with partitions, each a first sector and a number of sectors."""
    entries = b"".join(struct.pack("<B3xB3xII", 0, 0x83, first, count) for first, count in partitions)
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"


@pytest.mark.requirement("M20")
def test_a_destroyed_data_partition_does_not_keep_the_os_from_starting(device: Device) -> None:
    device.disk.corrupt("data")
    before = device.digests("data", "slot")
    shown(device.boot(), "E501 data-unmountable", "CONFIRMED: handing over to version 1", "tiny-os: no user data")
    assert device.digests(*before) == before, "user data is never formatted or rewritten"


@pytest.mark.requirement("D12")
def test_a_data_file_system_without_its_journal_is_preened_by_the_e2fsck_of_the_image(device: Device) -> None:
    device.disk.data.write("/user/photo", b"a person's data")
    journal = device.disk.data.blocks("<8>")[0] - device.disk.layout["data"].offset
    device.disk.zero("data", offset=journal, length=4096)
    shown(device.boot(), "Recreate journal", "CONFIRMED: handing over to version 1", "tiny-os: user data at /data")
    assert device.disk.data.read("/user/photo") == b"a person's data"


def test_a_data_file_system_that_would_have_to_be_guessed_at_is_left_alone(device: Device) -> None:
    device.disk.data.write("/user/photo", b"a person's data")
    device.disk.zero("data", offset=4096, length=64)
    before = device.disk.read("data", offset=64 * 4096)
    shown(device.boot(), "E501 data-unmountable", "tiny-os: no user data")
    assert device.disk.read("data", offset=64 * 4096) == before


@pytest.mark.fault("H6")
@pytest.mark.parametrize("date", ["1970-01-01T00:00:10", pytest.param("2038-01-19T03:14:00", marks=pytest.mark.long)])
def test_the_clock_may_say_anything(device: Device, date: str) -> None:
    shown(device.boot(extra=("-rtc", f"base={date}")), "CONFIRMED: handing over to version 1")


@pytest.mark.fault("H5")
def test_a_watchdog_that_is_not_there_is_named_and_not_needed(device: Device) -> None:
    shown(device.boot(watchdog=""), "E502 watchdog-missing", "CONFIRMED: handing over to version 1")
