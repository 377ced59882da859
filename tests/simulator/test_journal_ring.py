"""Bisection finds what a scan finds, or doubts: for every single bad slot, for many bad slots."""

from __future__ import annotations

import random
from _blake2 import blake2b
from collections.abc import Callable, Iterable, Iterator

import pytest

from statemachine import journal
from statemachine.journal import Record, encode
from statemachine.ring import UNREADABLE_SLOTS_MAX, Ring
from tests.simulator.disk import FOREVER, Fault, Storage
from tests.simulator.journals import IDENTITY, RECORD_BYTES, STRANGER, MemoryRegion

SLOTS = 8
FULL_SLOTS = 256


def raw_record(sequence: int, term: int = 3, identity: bytes = IDENTITY, body: bytes = b"body") -> bytes:
    return encode(RECORD_BYTES, identity, term, sequence, bytes(32), body + b"%d" % sequence)


def ring_of(count: int, slots: int = SLOTS) -> tuple[Ring, MemoryRegion]:
    """A healthy ring after ``count`` appends."""
    image = bytearray(slots * RECORD_BYTES)
    for sequence in range(max(0, count - slots), count):
        place(image, sequence % slots, raw_record(sequence))
    region = MemoryRegion(image)
    return Ring(region, IDENTITY, RECORD_BYTES, slots), region


def place(image: bytearray, slot: int, raw: bytes) -> None:
    image[slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES] = raw


def newest(records: Iterable[Record | None]) -> Record | None:
    valid = [record for record in records if record is not None]
    return max(valid, key=lambda record: (record.term, record.sequence), default=None)


def agrees(ring: Ring, expected: Record | None) -> bool:
    """Whether bisection is right or doubts."""
    found = ring.find_head()
    return found is None or (expected is not None and found[0].raw == expected.raw)


class Healthy:
    """A healthy ring, and what a scan of it finds when one slot is bad (not scanned anew each time)."""

    def __init__(self, count: int, slots: int = SLOTS) -> None:
        self.ring, self.region = ring_of(count, slots)
        self.records = [slot.record for slot in self.ring.scan()]

    def check(self, slot: int, bad: bytes) -> None:
        old = self.ring.read(slot)
        place(self.region.image, slot, bad)
        record, _ = journal.decode(bad)
        own = record is not None and record.identity == IDENTITY and record.sequence % self.ring.slots == slot
        others = self.records[:slot] + self.records[slot + 1 :]
        assert agrees(self.ring, newest([*others, record if own else None])), f"slot {slot}"
        place(self.region.image, slot, old)


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bad_slots(old: bytes, count: int, slot: int) -> Iterator[bytes]:
    """What one bad slot may hold: rot, what it held earlier, strangers, records of other slots, tears."""
    newer = raw_record(count)
    last_lap = (count - 1 - slot) // SLOTS
    yield from (bytes(RECORD_BYTES), b"\xff" * RECORD_BYTES, random.Random(slot).randbytes(RECORD_BYTES))
    yield from (flipped(old, bit) for bit in range(88 * 8))
    yield from (flipped(old, 4000 * 8), flipped(old, 4095 * 8))
    yield from (raw_record(slot + lap * SLOTS) for lap in range(max(0, last_lap - 3), last_lap + 1))
    yield from (raw_record(slot + lap * SLOTS, identity=STRANGER) for lap in range(count // SLOTS + 1))
    yield from (raw_record(sequence) for sequence in range(count) if sequence % SLOTS != slot)
    yield raw_record(count - 1, term=4, body=b"fork")
    yield from (old[:cut] + newer[cut:] for cut in range(512, RECORD_BYTES, 512))
    if old[:512] != newer[:512]:
        yield from (newer[:cut] + old[cut:] for cut in range(512, RECORD_BYTES - 512, 512))


def in_the_sweep(*values: int) -> list[object]:
    return [pytest.param(value, marks=pytest.mark.sweep) for value in values]


@pytest.mark.parametrize("count", [5, 8, 14, *in_the_sweep(1, 2, 3, 4, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 31)])
def test_one_bad_slot_never_fools_bisection(count: int) -> None:
    """Every slot, every kind of content that is not what the ring should have there."""
    healthy = Healthy(count)
    for slot in range(SLOTS):
        for bad in bad_slots(healthy.ring.read(slot), count, slot):
            healthy.check(slot, bad)


@pytest.mark.parametrize("head", [100, 511, *in_the_sweep(0, 1, 254, 255, 256, 257, 512, 640)])
def test_one_bad_slot_of_a_full_ring_never_fools_bisection(head: int) -> None:
    healthy = Healthy(head + 1, FULL_SLOTS)
    for slot in range(FULL_SLOTS):
        old = healthy.ring.read(slot)
        earlier = (head - slot) // FULL_SLOTS * FULL_SLOTS + slot - FULL_SLOTS
        stale = raw_record(earlier) if earlier >= 0 else bytes(RECORD_BYTES)
        for bad in (stale, flipped(old, 49 * 8), flipped(old, 2000 * 8)):
            healthy.check(slot, bad)


def rot(raw: bytes, chance: random.Random) -> bytes:
    kinds: list[Callable[[], bytes]] = [
        lambda: chance.randbytes(RECORD_BYTES),
        lambda: flipped(raw, chance.randrange(RECORD_BYTES * 8)),
        lambda: flipped(raw, chance.randrange(88 * 8)),
        lambda: raw[:512] + bytes(RECORD_BYTES - 512),
    ]
    return chance.choice(kinds)()


@pytest.mark.parametrize("seed", [0, *in_the_sweep(*range(1, 20))])
def test_any_number_of_rotten_slots_never_fools_bisection(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        ring, region = ring_of(chance.randrange(1, 4 * SLOTS))
        for slot in chance.sample(range(SLOTS), chance.randrange(2, SLOTS + 1)):
            place(region.image, slot, rot(ring.read(slot), chance))
        assert agrees(ring, newest(slot.record for slot in ring.scan()))


def test_a_healthy_ring_is_never_in_doubt() -> None:
    for count in range(1, 5 * SLOTS):
        ring, _ = ring_of(count)
        found = ring.find_head()
        assert found is not None
        assert found[0].sequence == count - 1


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 300, 511, 512, 513, 700])
def test_ten_reads_and_two_digests_find_the_head_of_256(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, region = ring_of(count, FULL_SLOTS)
    hashed: list[int] = []

    def counted(data: bytes, digest_size: int) -> blake2b:
        hashed.append(len(data))
        return blake2b(data, digest_size=digest_size)

    monkeypatch.setattr(journal, "blake2b", counted)
    found = ring.find_head()
    assert found is not None
    assert found[0].sequence == count - 1
    wraps = (count - 1) % FULL_SLOTS >= FULL_SLOTS - 2
    assert region.reads == 10 + wraps
    assert len(hashed) <= 2


def test_a_scan_has_a_word_for_every_slot() -> None:
    ring, region = ring_of(6)
    place(region.image, 1, raw_record(1, identity=STRANGER))
    place(region.image, 2, raw_record(11))
    place(region.image, 3, flipped(raw_record(3), 2000 * 8))
    place(region.image, 4, b"\xff" * RECORD_BYTES)
    words = [slot.word for slot in ring.scan()]
    assert words == ["valid", "foreign", "misplaced", "digest", "blank", "valid", "blank", "blank"]


def test_a_scan_goes_around_unreadable_slots() -> None:
    image = ring_of(SLOTS)[1].image
    storage = Storage(images=[bytes(image)])
    storage.disks[0].unreadable.update((8, 9, 40))
    words = [slot.word for slot in Ring(storage.disks[0], IDENTITY, RECORD_BYTES, SLOTS).scan()]
    assert words == ["valid", "unreadable", "valid", "valid", "valid", "unreadable", "valid", "valid"]


def test_a_scan_gives_up_on_a_dead_medium() -> None:
    storage = Storage(sizes=[1 << 20], faults=[Fault("vanished", 0, FOREVER)])
    scan = Ring(storage.disks[0], IDENTITY, RECORD_BYTES, FULL_SLOTS).scan()
    assert {slot.word for slot in scan} == {"unreadable"}
    assert len(scan) == FULL_SLOTS
    assert storage.operations == 1 + UNREADABLE_SLOTS_MAX


def settled(*faults: Fault, slots: int = 12) -> tuple[Ring, Storage]:
    storage = Storage(sizes=[SLOTS * 4 * RECORD_BYTES], faults=faults)
    ring = Ring(storage.disks[0], IDENTITY, RECORD_BYTES, SLOTS * 4)
    ring.pending = {slot: raw_record(slot) for slot in range(slots)}
    ring.settle()
    return ring, storage


def durable(storage: Storage) -> list[int]:
    restarted = storage.restarted().disks[0]
    scan = Ring(restarted, IDENTITY, RECORD_BYTES, SLOTS * 4).scan()
    return [number for number, slot in enumerate(scan) if slot.word == "valid"]


def test_at_most_eight_writes_are_unflushed() -> None:
    _, storage = settled()
    assert [operation.kind for operation in storage.trace] == ["write"] * 8 + ["flush"] + ["write"] * 4 + ["flush"]
    assert durable(storage) == list(range(12))


@pytest.mark.parametrize("at", range(14))
@pytest.mark.parametrize("duration", [1, 2])
def test_a_failing_operation_is_made_good_by_writing_again(at: int, duration: int) -> None:
    ring, storage = settled(Fault("eio", at, duration))
    assert not ring.pending
    assert not ring.refused
    assert durable(storage) == list(range(12))
    assert storage.unflushed_max <= 8


def test_one_bad_sector_does_not_cost_the_copy() -> None:
    ring, storage = settled(Fault("full", 3, 6), slots=8)
    assert ring.refused == {0, 1, 2}
    assert {slot for slot in range(8) if ring.holds(slot)} <= set(durable(storage))
    ring.pending[1] = raw_record(1)
    ring.settle()
    assert ring.refused == {0, 2}


def test_a_dead_copy_is_left_alone_in_the_end() -> None:
    ring, storage = settled(Fault("vanished", 0, FOREVER), slots=1)
    for _ in range(50):
        ring.settle()
    assert not ring.holds(0)
    assert storage.operations <= 30
