"""The journal's three copies as one store: opens, repairs, appends, remembers. Bodies are opaque bytes.

* A record is acknowledged when two copies have flushed it; one copy more is written then, and a copy that
  fails is caught up later. So an acknowledged record survives any fault that hits one copy.
* Each opening appends under a new term, so that what a lost copy brings back never wins.
* `Store.open` says INTACT, REPAIRED or LOST whatever the bytes are, and never raises.

The ordinary opening costs one bisection: the copies must agree, byte for byte, with what it found. When
anything is odd every slot of every copy is read. The store does not lock: whoever opens it in the running
OS holds the writers' lock before, and ``inspect`` is for those who do not write.
"""

from __future__ import annotations

from statemachine import merge
from statemachine.journal import (
    IDENTITY_BYTES,
    NO_PREVIOUS,
    POSITION_MAX,
    RECORD_BYTES_MIN,
    Record,
    decode,
    encode,
)
from statemachine.ring import SLOTS_MAX, SLOTS_MIN, Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from statemachine.region import Region
    from statemachine.ring import Slot

QUORUM: Final = 2
TERM_STEP_BLIND: Final = 1 << 16
TERM_STEP_QUORUM: Final = 1 << 32  # more terms than a device has boots

INTACT: Final = "INTACT"
REPAIRED: Final = "REPAIRED"
LOST: Final = "LOST"


class JournalError(Exception):
    """What `Store.append` can end in; ``reason`` is one word.

    JournalError
    ├── JournalUnwritable   fewer than two copies took the record: the medium is at fault
    └── JournalMoved        another writer has appended: read again, decide again
    """

    reason = "journal-error"


class JournalUnwritable(JournalError):  # noqa: N818 - named for what happened
    """The record is not acknowledged. It may exist on one copy; a later opening may find it there."""

    reason = "journal-unwritable"


class JournalMoved(JournalError):  # noqa: N818 - named for what happened
    """The journal is not where the caller believes; nothing was written. Open again."""

    reason = "journal-moved"


class Head:
    """Where the journal stands. ``Head(0, 0)`` is that of a lost or new journal: terms start at 1."""

    __slots__ = ("sequence", "term")

    def __init__(self, term: int, sequence: int) -> None:
        self.term = term
        self.sequence = sequence

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and (self.term, self.sequence) == (other.term, other.sequence)

    def __hash__(self) -> int:
        return hash((self.term, self.sequence))

    def __repr__(self) -> str:
        return f"Head(term={self.term}, sequence={self.sequence})"


class Copy:
    """How one copy was found and left.

    ``state`` is a word of `merge.state`. ``words`` counts its slots by what was in them; it is empty where
    no scan was needed. ``written`` slots were rewritten; ``holds_head`` is as it was left.
    """

    __slots__ = ("holds_head", "state", "words", "written")

    def __init__(self, state: str, words: dict[str, int], written: int, holds_head: bool) -> None:
        self.state = state
        self.words = words
        self.written = written
        self.holds_head = holds_head


class Opening:
    """What an opening found. ``body`` is None if and only if the verdict is LOST.

    ``holding`` is on how many copies the head is now; below two, the next append will hardly succeed.
    """

    __slots__ = ("body", "copies", "head", "holding", "verdict")

    def __init__(self, verdict: str, head: Record | None, copies: list[Copy]) -> None:
        self.verdict = verdict
        self.body = None if head is None else head.body
        self.head = Head(0, 0) if head is None else Head(head.term, head.sequence)
        self.copies = copies
        self.holding = sum(copy.holds_head for copy in copies)


class Store:
    """The journal of the device ``identity`` (16 bytes) in ``regions``: three, in a fixed order.

    Fewer regions (one dumped copy) can be inspected but not appended to.
    """

    def __init__(self, regions: Sequence[Region], identity: bytes) -> None:
        assert regions and len(identity) == IDENTITY_BYTES, "needs regions and 16 bytes of identity"
        self.identity = identity
        self.record_bytes = record_bytes(regions)
        self.slots = min(SLOTS_MAX, min(region.size for region in regions) // self.record_bytes)
        assert self.slots >= SLOTS_MIN, f"a region holds at least {SLOTS_MIN} records"
        self._regions = regions
        self._rings: list[Ring] = []
        self._head: Record | None = None
        self._term = 0  # of the next append; 0: not open for appending

    @property
    def head(self) -> Head:
        """Of the last acknowledged record."""
        return Head(0, 0) if self._head is None else Head(self._head.term, self._head.sequence)

    def open(self) -> Opening:
        """Find the head, repair what lacks it, be ready to append under a new term.

        Never raises an `Exception`. A lost journal is left as it is until the first append.
        """
        return self._open(repair=True)

    def inspect(self) -> Opening:
        """As `open`, without writing a byte; `append` is not possible afterwards."""
        return self._open(repair=False)

    def append(self, body: bytes) -> None:
        """Add a record; when this returns it is durable on two copies at least.

        Raises:
            JournalUnwritable: fewer than two copies took it. The next append is of a newer term.
            JournalMoved: the journal was lost when it was opened, and now there is one.
            ValueError: ``body`` is too long for a record.
        """
        assert self._term, "open the store first"
        if self._head is None:
            self._prepare_regions()
        sequence = 0 if self._head is None else self._head.sequence + 1
        if self._term >= POSITION_MAX or sequence >= POSITION_MAX:
            raise JournalUnwritable("the journal's numbers are used up")
        previous = NO_PREVIOUS if self._head is None else self._head.digest
        raw = encode(self.record_bytes, self.identity, self._term, sequence, previous, body)
        slot = sequence % self.slots
        for ring in self._rings:
            ring.pending[slot] = raw
            ring.settle()
        holding = sum(ring.holds(slot) for ring in self._rings)
        if holding < QUORUM:
            self._term += 1  # what may be on one copy now must not be mistaken for the next record
            raise JournalUnwritable(f"{holding} of {len(self._rings)} copies took the record")
        self._head = Record(self.identity, self._term, sequence, previous, body, raw)

    def history(self, limit: int) -> list[Record]:
        """The newest ``limit`` records that led to the head, oldest first, over all terms. Never raises."""
        scans = _scan(self._new_rings())
        head = merge.pick_head(scans)
        return [] if head is None else merge.history(scans, head)[:limit][::-1]

    def _new_rings(self) -> list[Ring]:
        return [Ring(region, self.identity, self.record_bytes, self.slots) for region in self._regions]

    def _open(self, repair: bool) -> Opening:
        self._rings = self._new_rings()
        self._term = 0
        self._head = _agreed_head(self._rings)
        if self._head is not None:
            self._term = self._head.term + 1 if repair else 0
            return Opening(INTACT, self._head, [Copy("intact", {}, 0, True) for _ in self._rings])
        scans = _scan(self._rings)
        self._head = merge.pick_head(scans)
        if self._head is None:
            counts = [merge.words(scan) for scan in scans]
            opening = Opening(LOST, None, [Copy(merge.state(count, 0, False), count, 0, False) for count in counts])
        else:
            opening = self._repair(scans, self._head, repair)
        if repair:
            self._term = opening.head.term + _term_step(opening)
        return opening

    def _repair(self, scans: list[list[Slot]], head: Record, write: bool) -> Opening:
        """Bring every copy to the records that led to ``head``; the head itself first, on two copies."""
        records = merge.history(scans, head)
        lacking = [merge.missing(scan, records) for scan in scans]
        slot = head.sequence % self.slots
        holds = [slot not in lack for lack in lacking]
        if write:
            holds = self._write_missing(slot, head.raw, lacking)
        copies = []
        for scan, lack, ring, holding in zip(scans, lacking, self._rings, holds, strict=True):
            count = merge.words(scan)
            written = sum(ring.holds(number) for number in lack) if write and holding else 0
            copies.append(Copy(merge.state(count, len(lack), slot not in lack), count, written, holding))
        return Opening(REPAIRED if any(lacking) else INTACT, head, copies)

    def _write_missing(self, slot: int, raw: bytes, lacking: list[dict[int, bytes]]) -> list[bool]:
        """Which copies hold the head afterwards.

        The copy that has the head alone is not touched before another one has it too.
        """
        for ring, lack in zip(self._rings, lacking, strict=True):
            if slot in lack:
                ring.pending[slot] = raw
                ring.settle()
        holds = [ring.holds(slot) for ring in self._rings]
        for ring, lack, holding in zip(self._rings, lacking, holds, strict=True):
            if holding and sum(holds) >= QUORUM:
                ring.pending.update({number: data for number, data in lack.items() if number != slot})
                ring.settle()
        return holds

    def _prepare_regions(self) -> None:
        """Blank whatever lies in the regions of a lost journal, or every boot of the first lap would scan.

        Raises:
            JournalMoved: there is a record of this device after all (the media could not be read when the
                store was opened).
        """
        scans = _scan(self._rings)
        if merge.pick_head(scans) is not None:
            raise JournalMoved("the journal was lost and is there again")
        for ring, scan in zip(self._rings, scans, strict=True):
            blank = bytes(self.record_bytes)
            ring.pending.update({n: blank for n, slot in enumerate(scan) if slot.word != "blank"})
            ring.settle()


def record_bytes(regions: Sequence[Region]) -> int:
    """The size of a record in these regions: a write must not tear a neighbour."""
    return max(RECORD_BYTES_MIN, *(region.write_unit for region in regions))


def identities(regions: Sequence[Region]) -> dict[bytes, int]:
    """How many valid records there are of each device: for a reader that does not know whose journal it is.

    Raises: OSError.
    """
    size = record_bytes(regions)
    count: dict[bytes, int] = {}
    for region in regions:
        for slot in range(min(SLOTS_MAX, region.size // size)):
            record, _ = decode(region.read(slot * size, size))
            if record is not None:
                count[record.identity] = count.get(record.identity, 0) + 1
    return count


def _term_step(opening: Opening) -> int:
    """How far the term of this opening lies above the head's.

    A copy that cannot be read now may hold records that were never acknowledged, of terms that an opening
    used that could write to nothing else. When it comes back they must lose: so an opening that does
    not see everything steps far, and farther if it has a quorum than if it has not.
    """
    if not any("unreadable" in copy.words for copy in opening.copies):
        return 1
    return TERM_STEP_QUORUM if opening.holding >= QUORUM else TERM_STEP_BLIND


def _agreed_head(rings: list[Ring]) -> Record | None:
    """The head if the first copy shows it by bisection and every other copy has the same around it."""
    try:
        found = rings[0].find_head()
        if found is None:
            return None
        head, around = found
        slot = head.sequence % rings[0].slots
        return head if all(ring.around(slot) == around for ring in rings[1:]) else None
    except OSError:
        return None


def _scan(rings: list[Ring]) -> list[list[Slot]]:
    scans: list[list[Slot]] = []
    for ring in rings:
        scans.append(ring.scan(scans[0] if scans else None))
    return scans
