"""A record's bytes: what goes in comes out, and any bytes at all decode to a record or to nothing."""

from hypothesis import given
from hypothesis import strategies as st

from statemachine.limits import (
    BOOT_ATTEMPTS_MAX,
    CYCLES_MAX,
    RECORD_BODY_BYTES_MAX,
    ROOT_BYTES_MAX,
    SLOTS_MAX,
    TEXT_BYTES_MAX,
    TRIED_IMAGES_MAX,
)
from statemachine.record import CONDITIONS, KINDS, WATCHDOG_OWNERS, Image, Record, Slot, decode
from statemachine.table import STATES

digests = st.binary(min_size=32, max_size=32)
u64 = st.integers(0, 2**64 - 1)
texts = st.text(max_size=TEXT_BYTES_MAX // 4)
images = st.builds(
    Image, digests, u64, u64, st.sampled_from(KINDS), st.sampled_from(WATCHDOG_OWNERS), texts, texts, texts
)
slots = st.builds(Slot, images, st.sampled_from(CONDITIONS))
one_slot = st.fixed_dictionaries({"slots": st.tuples(slots)})
numbers = st.integers(0, SLOTS_MAX - 1)
two_slots = st.fixed_dictionaries(
    {"slots": st.tuples(slots, slots), "primary": numbers, "booted": numbers, "target_slot": numbers}
)
plain = st.builds(
    Record,
    st.sampled_from(list(STATES)),
    reason=st.integers(0, 2**16 - 1),
    entered=st.integers(0, 2**16 - 1),
    requested=st.booleans(),
    attempts_left=st.integers(0, BOOT_ATTEMPTS_MAX),
    cycles=st.integers(0, CYCLES_MAX),
    boots=u64,
    floor=u64,
    clock_floor=u64,
    upper_generation=st.integers(0, 2**32 - 1),
    frames_written=st.integers(0, 2**32 - 1),
    confirmed=digests,
    confirmed_version=u64,
    packages_serial=u64,
    packages_good=u64,
    packages_digest=digests,
    target=images,
    tried=st.lists(digests, max_size=TRIED_IMAGES_MAX).map(tuple),
    root=st.binary(max_size=ROOT_BYTES_MAX),
)
records = st.tuples(plain, one_slot | two_slots).map(lambda made: made[0].but(**made[1]))


@given(records)
def test_round_trip(record: Record) -> None:
    body = record.encode()
    assert len(body) <= RECORD_BODY_BYTES_MAX
    assert decode(body) == record


@given(st.binary(max_size=600))
def test_any_bytes_decode_or_do_not(body: bytes) -> None:
    record = decode(body)
    assert record is None or decode(record.encode()) == record


@given(records, st.data())
def test_truncated_and_flipped_bodies_never_raise(record: Record, data: st.DataObject) -> None:
    body = bytearray(record.encode())
    assert decode(bytes(body[: data.draw(st.integers(0, len(body) - 1))])) is None
    position = data.draw(st.integers(0, len(body) * 8 - 1))
    body[position // 8] ^= 1 << position % 8
    flipped = decode(bytes(body))
    assert flipped is None or flipped.attempts_left <= BOOT_ATTEMPTS_MAX


def test_the_largest_record_fits() -> None:
    image = Image(b"d" * 32, 2**64 - 1, 2**64 - 1, "immutable", "systemd", *["é" * (TEXT_BYTES_MAX // 2)] * 3)
    record = Record(tried=(b"t" * 32,) * TRIED_IMAGES_MAX, slots=(Slot(image), Slot(image)), target=image)
    assert len(record.encode()) <= RECORD_BODY_BYTES_MAX
    assert decode(record.encode()) == record


def test_a_slot_that_does_not_exist_is_no_record() -> None:
    for name in ("primary", "booted", "target_slot"):
        assert decode(Record(slots=(Slot(), Slot())).but(**{name: 1}).encode()) is not None
        assert decode(Record(slots=(Slot(),)).but(**{name: 1}).encode()) is None
