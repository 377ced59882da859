"""The journal as the device opens it: other configurations, and a journal that comes back."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from recovery import actions, disks
from recovery.disks import MissingRegion, ToldRegion
from recovery.keyring import Keyring
from statemachine.reasons import CODES
from statemachine.record import Image, Record, Slot
from statemachine.region import Region
from statemachine.store import JournalMoved
from tests.simulator.devices import Device, Kind, Version, factory
from tests.simulator.disk import FOREVER, Fault

RESTS = 12  # more failures than a ring is tried for


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    return Kind((Version(tmp_path_factory.mktemp("versions"), 1, 1),))


class Failing:
    """A region that fails in its writes or flushes until the device has rested often enough."""

    def __init__(self, region: Region, fails: str, rests: list[int]) -> None:
        self._region, self._fails, self._rests = region, fails, rests
        self.size, self.write_unit, self.erase_unit = region.size, region.write_unit, region.erase_unit

    def read(self, offset: int, length: int) -> bytes:
        return self._region.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._check("write")
        self._region.write(offset, data)

    def flush(self) -> None:
        self._check("flush")
        self._region.flush()

    def _check(self, operation: str) -> None:
        if operation == self._fails and len(self._rests) < RESTS:
            raise OSError(errno.EIO, "the medium is dying")


def with_slots(device: Device, slots: int) -> Device:
    """The same disk under an image that was built for another number of slots."""
    known = device.config["slot"]["rootfs"]
    device.config["slot"]["rootfs"] = {str(number): known[str(number % len(known))] for number in range(slots)}
    return device


def test_a_device_that_got_a_second_slot_goes_on_with_the_first(two: Kind) -> None:
    device = factory(two, installed=1)
    journal = device.journal()
    journal.persist(journal.record.but(slots=journal.record.slots[:1]))
    record = device.journal(look_only=True).record
    assert record.slots == (journal.record.slots[0], Slot())
    assert device.boot().installed.version == 1


def test_a_device_that_lost_its_primary_slot_looks_at_what_it_has(two: Kind) -> None:
    device = factory(two, installed=1)
    journal = device.journal()
    journal.persist(journal.record.but(slots=(Slot(), Slot(Image(b"x" * 32, 9), "good")), primary=1, booted=1))
    record = with_slots(device, 1).journal(look_only=True).record
    assert (record.state, record.slots, record.primary) == ("JOURNAL_LOST", (Slot(),), 0)
    assert device.boot().installed.version == 1


@pytest.mark.fault("S11", "S12")
@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("is_behind", [False, True], ids=["", "of an older root"])
@pytest.mark.parametrize("fails", ["write", "flush"])
def test_a_journal_that_takes_records_again_is_opened_anew(
    two: Kind, fails: str, is_behind: bool, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a power cycle, and nothing is held against the image."""
    if is_behind:
        monkeypatch.setattr(Keyring, "lacking", lambda keyring, _record: keyring.fields())
    device = factory(two, installed=1)
    journal = device.journal()
    journal.persist(journal.record.but(state="TRYING", confirmed=bytes(32)))
    broken = device.restarted()
    failing = broken.config["journal"]["regions"][3 - copies :]
    opener = broken.opener

    def failing_in_part(disk: str, place: dict[str, int], writable: bool) -> Region:
        return (
            Failing(opener(disk, place, writable), fails, rests) if place in failing else opener(disk, place, writable)
        )

    monkeypatch.setattr(broken, "opener", failing_in_part)
    rests: list[int] = []

    def rest(_workshop: object, record: Record) -> actions.Result:
        rests.append(record.reason)
        return "backoff_elapsed", CODES["resumed"], {}

    monkeypatch.setitem(actions.ACTIONS, "rest", rest)
    record = broken.boot()
    assert (record.state, record.attempts_left) == ("TRYING", journal.record.attempts_left - 1)
    assert rests == [CODES["journal-unwritable"]] * RESTS


def test_a_partition_that_lies_over_a_region_goes_and_the_boot_area_of_an_emmc_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers as in sysfs: sectors; a boot area has no start and no number."""
    added: list[tuple[object, ...]] = []
    monkeypatch.setattr(disks, "_BLOCK", str(tmp_path))
    monkeypatch.setattr(disks, "_add_partition", lambda *told: added.append(told))
    for entry, numbers in {
        "mmcblk0boot0": {"size": 8192},
        "mmcblk0p1": {"start": 4096, "size": 4096, "partition": 1},
        "mmcblk0p2": {"start": 8192, "size": 4096, "partition": 2},
    }.items():
        (tmp_path / "mmcblk0" / entry).mkdir(parents=True)
        (tmp_path / entry).symlink_to(tmp_path / "mmcblk0" / entry)
        for name, number in numbers.items():
            (tmp_path / "mmcblk0" / entry / name).write_text(f"{number}\n")
    over = {"offset": 4096 * 512, "size": 2048 * 512}
    disks.node_of("/dev/mmcblk0", over)
    assert added == [("/dev/mmcblk0", 3, over, [1])]
    assert disks.node_of("/dev/mmcblk0", {"offset": 8192 * 512, "size": 4096 * 512}) == "/dev/mmcblk0p2"


def test_accesses_of_a_dying_medium_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = 100.0, []
    monkeypatch.setattr("recovery.disks.time.monotonic", lambda: now)  # the clock's boundary
    region = ToldRegion(MissingRegion(4096), lambda: told.append(now))
    accesses = (lambda: region.read(0, 512), lambda: region.write(0, bytes(512)), region.flush)
    for seconds in (0.1, 4, 4, 0.1, 0.1):
        now += seconds
        for access in accesses:
            with pytest.raises(OSError, match="ends before"):
                access()
    assert told == [pytest.approx(104.1), pytest.approx(108.1)]


@pytest.mark.fault("S12")
def test_a_lost_journal_that_comes_back_is_opened_again_and_not_overwritten(two: Kind) -> None:
    away = factory(two, installed=1).restarted([Fault("vanished", 0, FOREVER)])
    journal = away.journal()
    assert (journal.verdict, journal.record.state) == ("LOST", "JOURNAL_LOST")
    away.storage.heal()
    with pytest.raises(JournalMoved):
        journal.try_persist(Record("WAITING"))
    again = away.journal()
    assert (again.verdict, again.record.state) == ("INTACT", "CONFIRMED")
    assert again.try_persist(again.record)
