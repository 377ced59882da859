"""The three copies as one journal: opening, quorum, terms, repair, writers that meet, the black box."""

from __future__ import annotations

from _blake2 import blake2b

import pytest

from statemachine import journal
from statemachine.journal import decode, encode
from statemachine.store import Head, JournalMoved, JournalUnwritable, Opening, Store, identities
from tests.simulator.disk import FOREVER, Disk, Fault, Storage
from tests.simulator.journals import IDENTITY, RECORD_BYTES, STRANGER

SLOTS = 8


def media(*faults: Fault, count: int = 0, slots: int = SLOTS) -> Storage:
    """Three disks with a healthy journal of ``count`` records in one term."""
    storage = Storage(sizes=[slots * RECORD_BYTES] * 3)
    store = opened(storage)
    for number in range(count):
        store.append(b"record %d" % number)
    return storage.restarted(faults)


def opened(storage: Storage) -> Store:
    store = Store(storage.disks, IDENTITY)
    store.open()
    return store


def reopened(storage: Storage) -> Opening:
    return Store(storage.restarted().disks, IDENTITY).open()


def put(disk: Disk, term: int, sequence: int, body: bytes, previous: bytes = bytes(32)) -> bytes:
    raw = encode(RECORD_BYTES, IDENTITY, term, sequence, previous, body)
    disk.put(sequence % SLOTS * RECORD_BYTES, raw)
    return raw


def rot_copy(disk: Disk) -> None:
    disk.rot(0, disk.size, "random")


def states(opening: Opening) -> list[str]:
    return [copy.state for copy in opening.copies]


def test_a_new_journal_is_lost_and_left_alone() -> None:
    storage = media()
    opening = Store(storage.disks, IDENTITY).open()
    assert (opening.verdict, opening.body, opening.head) == ("LOST", None, Head(0, 0))
    assert states(opening) == ["blank"] * 3
    assert {operation.kind for operation in storage.trace} == {"read"}


def test_what_is_appended_is_there_after_a_restart() -> None:
    opening = reopened(media(count=20))
    assert (opening.verdict, opening.body, opening.head) == ("INTACT", b"record 19", Head(1, 19))
    assert states(opening) == ["intact"] * 3
    assert opening.holding == 3


def test_each_opening_starts_a_term() -> None:
    storage = media(count=2)
    for number in range(3):
        opened(storage).append(b"%d" % number)
    store = opened(storage)
    store.append(b"a")
    store.append(b"b")
    terms = [(record.term, record.sequence) for record in store.history(9)]
    assert terms == [(1, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (5, 6)]


def test_opening_without_appending_writes_nothing() -> None:
    storage = media(count=3)
    opened(storage)
    opened(storage)
    assert {operation.kind for operation in storage.trace} == {"read"}


@pytest.mark.parametrize("count", [1, 100, 255, 256, 257, 600])
def test_the_ordinary_boot_reads_little_and_hashes_less(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = media(count=count, slots=256)
    hashed: list[int] = []

    def counted(data: bytes, digest_size: int) -> blake2b:
        hashed.append(len(data))
        return blake2b(data, digest_size=digest_size)

    monkeypatch.setattr(journal, "blake2b", counted)
    store = Store(storage.disks, IDENTITY)
    assert store.open().verdict == "INTACT"
    wraps = 3 * ((count - 1) % 256 >= 254)
    assert len(storage.trace) == 12 + wraps
    assert len(hashed) <= 2
    store.append(b"next")
    assert len(hashed) <= 3
    assert [operation.kind for operation in storage.trace[12 + wraps :]] == ["write", "flush"] * 3


def test_copies_are_written_one_after_the_other() -> None:
    storage = media(count=1)
    store = opened(storage)
    before = len(storage.trace)
    store.append(b"x")
    steps = [(operation.disk, operation.kind) for operation in storage.trace[before:]]
    assert steps == [(disk, kind) for disk in range(3) for kind in ("write", "flush")]


@pytest.mark.parametrize("disk", range(3))
@pytest.mark.parametrize("how", ["zero", "ones", "random"])
def test_one_rotten_copy_is_repaired(disk: int, how: str) -> None:
    storage = media(count=13)
    storage.disks[disk].rot(0, SLOTS * RECORD_BYTES, how)
    opening = Store(storage.disks, IDENTITY).open()
    assert (opening.verdict, opening.body, opening.holding) == ("REPAIRED", b"record 12", 3)
    assert opening.copies[disk].state == ("rotten" if how == "random" else "blank")
    assert opening.copies[disk].written == SLOTS
    assert reopened(storage).verdict == "INTACT"


def test_one_copy_of_three_brings_back_everything() -> None:
    storage = media(count=13)
    rot_copy(storage.disks[0])
    rot_copy(storage.disks[2])
    store = Store(storage.disks, IDENTITY)
    opening = store.open()
    assert (opening.verdict, opening.body) == ("REPAIRED", b"record 12")
    assert states(opening) == ["rotten", "intact", "rotten"]
    assert [record.sequence for record in store.history(99)] == list(range(5, 13))
    assert storage.unflushed_max <= 8


def test_all_copies_rotten_is_lost_and_starts_again() -> None:
    storage = media(count=13)
    for disk in storage.disks:
        rot_copy(disk)
    store = Store(storage.disks, IDENTITY)
    opening = store.open()
    assert opening.verdict == "LOST"
    assert states(opening) == ["rotten"] * 3
    store.append(b"rebuilt")
    opening = reopened(storage)
    assert (opening.verdict, opening.body, opening.head) == ("INTACT", b"rebuilt", Head(1, 0))
    assert storage.unflushed_max <= 8


def test_the_journal_of_another_device_is_foreign() -> None:
    storage = media(count=13)
    opening = Store(storage.disks, STRANGER).open()
    assert opening.verdict == "LOST"
    assert states(opening) == ["foreign"] * 3
    assert opening.copies[0].words == {"foreign": SLOTS}
    assert identities(storage.disks) == {IDENTITY: 3 * SLOTS}


def test_a_copy_of_another_device_is_replaced() -> None:
    storage = media(count=13)
    other = Storage(sizes=[SLOTS * RECORD_BYTES] * 3)
    store = Store(other.disks, STRANGER)
    store.open()
    for number in range(40):
        store.append(b"%d" % number)
    storage.disks[0].restore(other.disks[0], 0, storage.disks[0].size)
    opening = Store(storage.disks, IDENTITY).open()
    assert (opening.verdict, opening.body) == ("REPAIRED", b"record 12")
    assert states(opening) == ["foreign", "intact", "intact"]


@pytest.mark.parametrize("disk", range(3))
def test_the_highest_wins_wherever_it_is(disk: int) -> None:
    storage = media(count=13)
    last = storage.disks[0].peek(4 * RECORD_BYTES, RECORD_BYTES)
    put(storage.disks[disk], 1, 13, b"newest", last[-32:])
    opening = Store(storage.disks, IDENTITY).open()
    assert (opening.verdict, opening.body, opening.head) == ("REPAIRED", b"newest", Head(1, 13))
    assert [copy.state for copy in opening.copies].count("lagging") == 2
    assert reopened(storage).body == b"newest"


@pytest.mark.parametrize("disk", range(3))
def test_a_copy_that_comes_back_from_an_older_term_loses(disk: int) -> None:
    """It went on alone to a higher sequence; the others went on without it under a newer term."""
    storage = media(count=10)
    aside = storage.restarted()
    for sequence in range(10, 14):
        put(aside.disks[disk], 2, sequence, b"alone")
    rot_copy(storage.disks[disk])
    store = opened(storage)
    store._term += 1
    store.append(b"together")
    storage.disks[disk].restore(aside.disks[disk], 0, storage.disks[disk].size)
    store = Store(storage.disks, IDENTITY)
    opening = store.open()
    assert (opening.verdict, opening.body) == ("REPAIRED", b"together")
    assert opening.head == Head(3, 10)
    assert [record.sequence for record in store.history(99)] == list(range(3, 11))
    assert reopened(storage).verdict == "INTACT"


def test_what_a_hidden_copy_wrote_alone_never_wins() -> None:
    """Copies 1 and 2 fail, two records reach copy 0 only; then copy 0 hides while the others go on."""
    storage = media(count=10)
    storage.disks[1].broken = storage.disks[2].broken = {"write": 5}
    store = opened(storage)
    for body in (b"refused", b"refused again"):
        with pytest.raises(JournalUnwritable):
            store.append(body)
    storage.disks[1].broken = storage.disks[2].broken = {}
    storage.disks[0].broken = {"read": 5, "write": 5, "flush": 5}
    store = opened(storage)
    assert store.head == Head(1, 9)
    store.append(b"acknowledged")
    storage.disks[0].broken = {}
    assert reopened(storage).body == b"acknowledged"


def test_a_refused_record_is_not_mistaken_for_the_next() -> None:
    """The refused one is alone on copy 0, the acknowledged one on 1 and 2, then copy 2 rots."""
    for body in (b"one", b"two", b"three", b"four", b"five"):
        storage = media(count=10)
        store = opened(storage)
        storage.disks[1].broken = storage.disks[2].broken = {"write": 5}
        with pytest.raises(JournalUnwritable):
            store.append(b"refused")
        storage.disks[0].broken, storage.disks[1].broken, storage.disks[2].broken = {"write": 5}, {}, {}
        store.append(body)
        storage.disks[0].broken = {}
        rot_copy(storage.disks[2])
        assert reopened(storage).body == body


@pytest.mark.parametrize("disk", range(3))
@pytest.mark.parametrize("kind", ["read", "write", "flush"])
def test_a_copy_that_fails_for_ever_is_not_fatal(disk: int, kind: str) -> None:
    storage = media(count=10)
    storage.disks[disk].broken = {kind: 5}
    store = opened(storage)
    store.append(b"a")
    store.append(b"b")
    assert Store(storage.disks, IDENTITY).open().body == b"b"


def test_a_failed_copy_is_caught_up_by_the_next_append() -> None:
    storage = media(count=10)
    store = opened(storage)
    storage.disks[1].broken = {"write": 5}
    store.append(b"a")
    store.append(b"b")
    storage.disks[1].broken = {}
    store.append(b"c")
    opening = reopened(storage)
    assert (opening.verdict, opening.body) == ("INTACT", b"c")


def test_two_failing_copies_are_unwritable() -> None:
    storage = media(count=10)
    store = opened(storage)
    storage.disks[0].broken = storage.disks[2].broken = {"flush": 5}
    with pytest.raises(JournalUnwritable, match="1 of 3"):
        store.append(b"a")
    assert store.head == Head(1, 9)
    storage.disks[0].broken = storage.disks[2].broken = {}
    store.append(b"b")
    assert reopened(storage).body == b"b"


def test_a_failed_flush_is_answered_by_writing_again() -> None:
    for at in range(12, 18):
        storage = media(Fault("eio", at), count=10)
        opened(storage).append(b"a")
        opening = reopened(storage)
        assert (opening.body, opening.holding, opening.verdict) == (b"a", 3, "INTACT")


def test_numbers_near_their_end_are_refused_not_wrapped() -> None:
    storage = media()
    for disk in storage.disks:
        put(disk, (1 << 62) - 1, 3, b"last term")
    store = opened(storage)
    with pytest.raises(JournalUnwritable, match="used up"):
        store.append(b"x")


def test_too_long_a_body_is_the_callers_error() -> None:
    storage = media(count=1)
    store = opened(storage)
    with pytest.raises(ValueError, match="body"):
        store.append(bytes(RECORD_BYTES))
    assert {operation.kind for operation in storage.trace} == {"read"}


def test_two_writers_of_a_new_journal_do_not_both_begin_it() -> None:
    storage = media()
    one, other = opened(storage), opened(storage)
    other.append(b"other")
    with pytest.raises(JournalMoved):
        one.append(b"one")
    assert reopened(storage).body == b"other"


def test_a_journal_that_could_not_be_read_is_not_begun_anew() -> None:
    storage = media(*(Fault("vanished", at, 60, disk=at) for at in range(3)), count=10)
    store = Store(storage.disks, IDENTITY)
    opening = store.open()
    assert opening.verdict == "LOST"
    assert states(opening) == ["unreadable"] * 3
    storage.heal()
    with pytest.raises(JournalMoved):
        store.append(b"anew")
    assert reopened(storage).body == b"record 9"


def test_inspecting_writes_nothing() -> None:
    storage = media(count=10)
    rot_copy(storage.disks[1])
    store = Store(storage.disks, IDENTITY)
    opening = store.inspect()
    assert (opening.verdict, opening.body, opening.holding) == ("REPAIRED", b"record 9", 2)
    assert opening.copies[1].written == 0
    assert {operation.kind for operation in storage.trace} == {"read"}
    with pytest.raises(AssertionError, match="open"):
        store.append(b"x")


def test_one_dumped_copy_can_be_inspected() -> None:
    storage = media(count=10)
    store = Store(storage.disks[:1], IDENTITY)
    assert store.inspect().body == b"record 9"
    assert [record.body for record in store.history(3)] == [b"record 7", b"record 8", b"record 9"]


def test_the_black_box_leaves_out_what_did_not_happen() -> None:
    """A fork of an older term lies beyond the head on one copy, and a record is lost on all."""
    storage = media(count=12)
    for disk in storage.disks:
        disk.rot(9 % SLOTS * RECORD_BYTES, RECORD_BYTES, "zero")
    put(storage.disks[2], 1, 8, b"fork")
    store = Store(storage.disks, IDENTITY)
    store.inspect()
    assert [record.sequence for record in store.history(99)] == [4, 5, 6, 7, 8, 10, 11]
    assert b"fork" not in [record.body for record in store.history(99)]


def test_a_write_unit_makes_larger_records() -> None:
    storage = Storage(sizes=[1 << 17] * 3, write_unit=16384)
    store = opened(storage)
    store.append(bytes(16000))
    assert store.record_bytes == 16384
    record, _ = decode(storage.disks[2].peek(0, 16384))
    assert record is not None
    assert len(reopened(storage).body or b"") == 16000


def test_two_adjacent_lost_slots_do_not_fool_the_copies() -> None:
    """They can fool the bisection of one copy in the first lap; the copies then disagree."""
    for first in range(1, 5):
        storage = media(count=7)
        storage.disks[0].rot(first * RECORD_BYTES, 2 * RECORD_BYTES, "zero")
        assert Store(storage.disks, IDENTITY).open().body == b"record 6"


@pytest.mark.parametrize("how", ["zero", "ones", "random"])
def test_records_lost_in_every_copy_do_not_look_like_the_end_of_the_journal(how: str) -> None:
    storage = media(count=7)
    for disk in storage.disks:
        disk.rot(3 * RECORD_BYTES, 2 * RECORD_BYTES, how)
    rot_copy(storage.disks[0])
    store = opened(storage)
    assert Store(storage.disks, IDENTITY).open().body == b"record 6"
    store.append(b"next")
    store = Store(storage.disks, IDENTITY)
    opening = store.open()
    assert (opening.verdict, opening.body) == ("INTACT", b"next")
    assert opening.copies[1].words == {"valid": 6, "gap": 2}
    assert [record.sequence for record in store.history(99)] == [0, 1, 2, 5, 6, 7]


def test_a_read_only_device_says_what_it_knows() -> None:
    storage = media(count=10)
    for disk in storage.disks:
        disk.broken = {"write": 30}
    rot_copy(storage.disks[0])
    store = Store(storage.disks, IDENTITY)
    opening = store.open()
    assert (opening.verdict, opening.body, opening.holding) == ("REPAIRED", b"record 9", 2)
    with pytest.raises(JournalUnwritable, match="0 of 3"):
        store.append(b"x")


def test_a_dead_device_says_lost() -> None:
    storage = media(*(Fault("vanished", at, FOREVER, disk=at) for at in range(3)), count=10)
    store = Store(storage.disks, IDENTITY)
    assert store.open().verdict == "LOST"
    with pytest.raises(JournalUnwritable):
        store.append(b"x")
