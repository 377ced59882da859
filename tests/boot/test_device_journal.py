"""A whole device whose journal is rotten, strange or takes no writes."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from qemu.faults import Fault, flushes_fail, sector_fails
from recovery.device_journal import DeviceJournal
from tests.boot.device import LOOKED_AT_SECONDS, Device, shown

pytestmark = [pytest.mark.boot, pytest.mark.requirement("D5", "M11", "M20")]

COPIES = ("journal-0", "journal-1", "journal-2")
EVERY_WRITE = Fault("write", errno.EIO, once=False)


@pytest.mark.fault("R2")
@pytest.mark.parametrize("content", ["random", pytest.param("zeroes", marks=pytest.mark.long)])
def test_a_lost_journal_is_rebuilt_from_the_slot(device: Device, content: str) -> None:
    before = device.digests()
    for seed, copy in enumerate(COPIES):
        device.disk.corrupt(copy, seed=seed) if content == "random" else device.disk.zero(copy)
    assert shown(device.boot(), "E202 journal-lost", "E113 slot-verified: ACTIVATING", "E100 confirmed")
    assert device.digests() == before, "what verifies is never rewritten"
    assert (device.record.floor, device.record.confirmed_version) == (1, 1), "the floor is not lost with the journal"


@pytest.mark.fault("R2", "R3")
def test_a_lost_journal_and_a_damaged_slot_together(device: Device) -> None:
    before = device.digests()
    for copy in COPIES:
        device.disk.corrupt(copy)
    device.disk.corrupt("slot", length=1 << 20)
    assert shown(device.boot(), "E202 journal-lost", "E300 frames-damaged: REPAIRING", "E100 confirmed")
    assert device.digests() == before


@pytest.mark.fault("R1")
@pytest.mark.parametrize(
    "rotten",
    [COPIES[:1], COPIES[1:], *(pytest.param(c, marks=pytest.mark.long) for c in (COPIES[1:2], COPIES[2:], COPIES[:2]))],
    ids=" ".join,
)
def test_rotten_copies_are_written_again_from_the_one_that_is_left(device: Device, rotten: tuple[str, ...]) -> None:
    boots = device.record.boots
    for copy in rotten:
        device.disk.corrupt(copy)
    assert shown(device.boot(), "E201 journal-repaired", "CONFIRMED: handing over to version 1")
    assert device.journal.verdict == "INTACT"
    assert device.record.boots == boots + 1


def test_the_journal_of_another_device_is_not_believed(device: Device) -> None:
    other = device.kit.config | {"disk": {"serial": "another"}}
    for copy in COPIES:
        device.disk.zero(copy)
    journal = DeviceJournal(other, str(device.disk.path))
    journal.persist(journal.record.but(state="CONFIRMED", attempts_left=3, floor=99))
    assert shown(device.boot(), "E202 journal-lost", "E100 confirmed")
    assert device.record.floor == 1


@pytest.mark.long
@pytest.mark.fault("S7")
def test_one_copy_that_takes_no_writes_is_not_missed(device: Device) -> None:
    device.boot(faults=(sector_fails("write", device.next_sector("journal-1")),))
    assert shown(device.boot(), "CONFIRMED: handing over to version 1")
    assert (device.journal.verdict, device.record.boots) == ("INTACT", 3)


@pytest.mark.fault("S7", "S8", "S11")
@pytest.mark.parametrize(
    "how",
    [{"faults": (EVERY_WRITE,)}, {"faults": (flushes_fail(),)}, {"read_only": True}],
    ids=["writes fail", "flushes fail", "read-only"],
)
def test_an_unwritable_journal_lets_only_a_confirmed_os_start_uncounted(device: Device, how: dict[str, Any]) -> None:
    guest = device.power_on(**how)
    guest.expect("CONFIRMED: handing over to version 1, attempt 0 of 3", LOOKED_AT_SECONDS)
    guest.expect("tiny-os: version 1 up", LOOKED_AT_SECONDS)
    guest.close()
    assert shown(device.boot(), "CONFIRMED: handing over to version 1")


@pytest.mark.fault("S7", "R3")
def test_an_uncounted_boot_that_fails_rests_before_the_next(device: Device) -> None:
    device.disk.corrupt("slot", offset=4096, length=64 << 10)  # the first file's content; it still mounts
    guest = device.power_on(faults=(EVERY_WRITE,))
    guest.expect("E904 init-not-executable", LOOKED_AT_SECONDS)
    guest.expect("the next start is in 300 s", LOOKED_AT_SECONDS)


@pytest.mark.fault("S7")
def test_an_unwritable_journal_never_lets_an_unconfirmed_os_start(fresh: Device) -> None:
    guest = fresh.power_on(faults=(EVERY_WRITE,))
    guest.expect("E203 journal-unwritable: WAITING", LOOKED_AT_SECONDS, unless="handing over")
    guest.expect("what to do: Check the medium", LOOKED_AT_SECONDS)
    guest.close()
    fresh.boot()


@pytest.mark.fault("S7", "R3")
def test_an_unwritable_journal_and_a_damaged_slot_wait_and_nothing_is_written(device: Device) -> None:
    device.disk.corrupt("slot", length=1 << 20)
    before = device.digests()
    guest = device.power_on(faults=(EVERY_WRITE,))
    guest.expect("E105 boot-failed", LOOKED_AT_SECONDS)
    guest.expect("E203 journal-unwritable: WAITING", LOOKED_AT_SECONDS)
    guest.close()
    assert device.digests() == before


@pytest.mark.fault("S7")
def test_a_journal_that_fails_within_recovery_stops_it_before_the_os_starts(device: Device) -> None:
    second = [device.next_sector(copy, records=2) for copy in COPIES[:2]]
    guest = device.power_on("recovery", faults=tuple(sector_fails("write", sector) for sector in second))
    guest.expect("E113 slot-verified: CONFIRMED", LOOKED_AT_SECONDS)
    guest.expect("E203 journal-unwritable: WAITING", LOOKED_AT_SECONDS, unless="handing over")
    guest.close()
    device.boot()


@pytest.mark.long
@pytest.mark.fault("S7", "H1")
def test_an_unwritable_journal_after_a_hang_waits(device: Device) -> None:
    device.kit.install(device.disk, device.kit.bundle(2, watchdog="/dev/watchdog0"))
    device.remember(state="CONFIRMED", confirmed=device.record.installed.digest)
    device.break_os("hang")
    guest = device.power_on(faults=tuple(sector_fails("write", device.next_sector(copy)) for copy in COPIES))
    guest.expect("CONFIRMED: handing over to version 2, attempt 0 of 3", LOOKED_AT_SECONDS)
    guest.expect("tiny-os: does on purpose: hang", LOOKED_AT_SECONDS)
    guest.expect("E203 journal-unwritable: WAITING", LOOKED_AT_SECONDS)
    guest.close()


@pytest.mark.fault("S12")
def test_a_disk_that_ends_early_loses_a_copy_and_user_data_and_still_boots(device: Device) -> None:
    with device.disk.path.open("r+b") as image:
        image.truncate(device.disk.layout["data"].offset + (1 << 20))
    guest = device.power_on()
    guest.expect("E501 data-unmountable", LOOKED_AT_SECONDS)
    guest.expect("E100 confirmed: version 1", LOOKED_AT_SECONDS)
