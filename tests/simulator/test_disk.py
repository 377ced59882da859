"""The simulated disk plays what its header promises."""

from __future__ import annotations

import errno

import pytest

from tests.simulator.disk import FOREVER, Disk, Fault, PowerCut, Storage

OLD, NEW, THIRD = b"o" * 512, b"n" * 512, b"t" * 512


def storage(*faults: Fault, erase_unit: int = 512, disks: int = 1) -> Storage:
    return Storage(images=[OLD * 16] * disks, faults=faults, erase_unit=erase_unit)


def first(states: Storage, seed: int = 0) -> set[bytes]:
    """What the first two sectors of disk 0 may hold after a cut."""
    return {state.disks[0].peek(0, 1024) for state in states.crash_states(seed)}


def write(disk: Disk, *data: bytes) -> None:
    for index, sector in enumerate(data):
        disk.write(index * 512, sector)


def test_unflushed_writes_are_read_but_may_be_lost_in_any_subset() -> None:
    media = storage()
    write(media.disks[0], NEW, THIRD)
    assert media.disks[0].read(0, 1024) == NEW + THIRD
    assert first(media) == {OLD + OLD, NEW + OLD, OLD + THIRD, NEW + THIRD}


def test_flushed_writes_survive() -> None:
    media = storage()
    write(media.disks[0], NEW, THIRD)
    media.disks[0].flush()
    assert first(media) == {NEW + THIRD}


def test_a_write_is_torn_at_every_sector() -> None:
    media = storage()
    media.disks[0].write(0, NEW * 3)
    found = {state.disks[0].peek(0, 1536) for state in media.crash_states()}
    assert NEW + OLD + OLD in found
    assert OLD + NEW + NEW in found
    assert len(found) == 6


def test_overlapping_writes_land_in_either_order() -> None:
    media = storage()
    media.disks[0].write(0, NEW * 2)
    media.disks[0].write(512, THIRD * 2)
    found = {state.disks[0].peek(0, 1536) for state in media.crash_states()}
    assert NEW + NEW + THIRD in found
    assert NEW + THIRD + THIRD in found


def test_many_unflushed_writes_are_sampled_the_same_way_for_a_seed() -> None:
    def found(seed: int) -> list[list[bytes]]:
        media = storage()
        for index in range(12):
            media.disks[0].write(index * 512, NEW)
        return [state.images() for state in media.crash_states(seed)]

    assert found(1) == found(1)
    assert found(1) != found(2)
    assert len(found(1)) < 200


def test_an_erase_unit_in_progress_may_be_wiped() -> None:
    media = storage(erase_unit=2048)
    media.disks[0].write(512, NEW)
    assert b"\xff" * 1024 in first(media)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_cut_stops_everything(at: int) -> None:
    media = storage(Fault("cut", at))
    with pytest.raises(PowerCut):
        write(media.disks[0], NEW, THIRD)
        media.disks[0].flush()
    with pytest.raises(PowerCut):
        media.disks[0].read(0, 512)
    assert len(first(media)) == [2, 4, 4][at]


def test_a_failed_flush_leaves_doubt_that_only_a_rewrite_ends() -> None:
    media = storage(Fault("eio", 1))
    disk = media.disks[0]
    disk.write(0, NEW)
    with pytest.raises(OSError, match="simulated"):
        disk.flush()
    disk.flush()
    assert first(media) == {OLD + OLD, NEW + OLD}
    disk.write(0, NEW)
    disk.flush()
    assert first(media) == {NEW + OLD}


def test_a_failed_write_may_be_there() -> None:
    media = storage(Fault("eio", 0))
    with pytest.raises(OSError, match="simulated"):
        media.disks[0].write(0, NEW)
    assert media.disks[0].read(0, 512) == OLD
    assert first(media) == {OLD + OLD, NEW + OLD}


def test_a_medium_fails_once_and_comes_back() -> None:
    media = storage(Fault("vanished", 1, duration=2), disks=2)
    media.disks[0].read(0, 512)
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            media.disks[1].read(0, 512)
        assert caught.value.errno == errno.ENODEV
    assert media.disks[1].read(0, 512) == OLD
    assert media.struck == 2


def test_a_failure_for_ever_survives_a_restart() -> None:
    media = storage(Fault("read-only", 0, FOREVER))
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            media.disks[0].write(0, NEW)
        assert caught.value.errno == errno.EROFS
        assert media.disks[0].read(0, 512) == OLD
        media = media.restarted()


@pytest.mark.parametrize(("kind", "result"), [("lost-write", OLD + OLD), ("misdirected", OLD + NEW)])
def test_a_write_that_lies(kind: str, result: bytes) -> None:
    media = storage(Fault(kind, 0))
    media.disks[0].write(0, NEW)
    media.disks[0].flush()
    assert first(media) == {result}


def test_rot_and_a_stale_copy() -> None:
    media = storage()
    older = media.restarted().disks[0]
    disk = media.disks[0]
    disk.rot(100, 8, "flip", seed=3)
    assert sum(a != b for a, b in zip(disk.peek(0, 512), OLD, strict=True)) == 1
    disk.rot(100, 8, "zero")
    assert disk.peek(96, 16) == b"oooo" + bytes(8) + b"oooo"
    disk.restore(older, 0, 512)
    assert disk.peek(0, 512) == OLD


def test_an_unreadable_sector_is_readable_once_rewritten() -> None:
    media = storage()
    disk = media.disks[0]
    disk.unreadable.add(1)
    disk.read(0, 512)
    with pytest.raises(OSError, match="unreadable"):
        disk.read(0, 1024)
    disk.write(512, NEW)
    assert disk.read(0, 1024) == OLD + NEW


def test_windows_share_one_disk() -> None:
    media = storage()
    window = media.disks[0].window(1024, 1024)
    window.write(512, NEW)
    window.flush()
    assert media.disks[0].peek(1024, 1024) == OLD + NEW
    with pytest.raises(AssertionError):
        window.read(1024, 512)
