"""One copy of the journal: a ring of records in a region. Finds its head, scans it, writes to it.

A record lies in slot ``sequence % slots``. In a healthy ring the slots from 0 up to the head's hold the
current lap and the slots after it hold the lap before (or are blank in the first lap), so "this slot
holds the current lap" is true up to the head and false after it: the head is found by bisection.

Slots can be stale or rotten, and then that is not monotone. So bisection believes nothing: every
slot that it looks at must hold exactly one of the two sequences that a healthy ring has there, the head
must be right by its digest, the slot after it too, and the one after that by its header. Anything
else is a doubt, and the caller scans. A single bad slot either does not matter to the result or ends in
doubt (``tests/simulator/test_journal_ring.py`` proves it for every slot); several bad slots can fool one copy,
therefore the caller also compares the copies.

This module does not know that there are other copies, and repairs nothing.
"""

from __future__ import annotations

from statemachine.journal import Record, decode, header_sequence, is_blank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from statemachine.region import Region

SLOTS_MIN: Final = 4
SLOTS_MAX: Final = 4096  # bounds what a scan keeps in memory
AROUND_SLOTS: Final = 3  # the head and the two slots after it
CHUNK_BYTES: Final = 65536  # of one read of a scan
UNREADABLE_SLOTS_MAX: Final = 16  # then the rest of the copy is not tried: a dying medium takes seconds each
UNFLUSHED_WRITES_MAX: Final = 8  # keeps the states after a cut few enough to test every one
WRITE_ATTEMPTS_MAX: Final = 3
FAILED_SETTLES_MAX: Final = 8  # then the copy is left alone until the next opening

BLANK: Final = -1
UNCLEAR: Final = -2


class Slot:
    """What a scan found in a slot: the bytes (None: unreadable), the record in them, and one word.

    The word is one of `journal.decode`, or ``foreign`` (another device), ``misplaced`` (valid, but
    of another slot), ``unreadable``. ``record`` is None unless the word is ``valid``.
    """

    __slots__ = ("raw", "record", "word")

    def __init__(self, raw: bytes | None, record: Record | None, word: str) -> None:
        self.raw = raw
        self.record = record
        self.word = word


class Ring:
    """``slots`` records of ``record_bytes`` in ``region``, of the device ``identity``.

    ``pending`` holds what this copy lacks (slot to bytes, in the order to write); `settle` writes it.
    ``refused`` holds the slots that this opening could not write.
    """

    __slots__ = ("failed_settles", "identity", "pending", "record_bytes", "refused", "region", "slots")

    def __init__(self, region: Region, identity: bytes, record_bytes: int, slots: int) -> None:
        self.region = region
        self.identity = identity
        self.record_bytes = record_bytes
        self.slots = slots
        self.pending: dict[int, bytes] = {}
        self.refused: set[int] = set()
        self.failed_settles = 0

    def find_head(self) -> tuple[Record, bytes] | None:
        """The head by bisection and the bytes of `around` it; None is a doubt: scan.

        Raises:
            OSError: a slot cannot be read.
        """
        base = self._claimed_sequence(0)
        if base < 0:
            return None
        low, high = 0, self.slots
        while high - low > 1:
            middle = (low + high) // 2
            sequence = self._claimed_sequence(middle)
            if sequence == base + middle:
                low = middle
            elif self._is_older(sequence, base + middle):
                high = middle
            else:
                return None
        return self._confirmed(low, base + low)

    def around(self, slot: int) -> bytes:
        """The bytes of ``slot`` and the two after it. Raises: OSError."""
        after = min(AROUND_SLOTS, self.slots - slot)
        data = self.read(slot, after)
        return data if after == AROUND_SLOTS else data + self.read(0, AROUND_SLOTS - after)

    def read(self, slot: int, count: int = 1) -> bytes:
        """The bytes of ``count`` slots. Raises: OSError."""
        return self.region.read(slot * self.record_bytes, count * self.record_bytes)

    def scan(self, twin: list[Slot] | None = None) -> list[Slot]:
        """Every slot; never raises. ``twin`` is the scan of another copy: equal bytes are not hashed again."""
        found: list[Slot] = []
        per_chunk = max(1, CHUNK_BYTES // self.record_bytes)
        unreadable = 0
        for first in range(0, self.slots, per_chunk):
            count = min(per_chunk, self.slots - first)
            for raw in self._read_each(first, count, UNREADABLE_SLOTS_MAX - unreadable):
                unreadable += raw is None
                found.append(self._slot(len(found), raw, twin))
        return found

    def settle(self) -> None:
        """Write and flush what is pending, and remember what would not be written; never raises.

        A batch that fails is tried again, the data and not just the flush (after a failed flush a
        second flush alone would tell nothing), then slot by slot, so that one bad sector does not
        cost the copy. Slots refused one by one are left to the next opening.
        """
        while self.pending and self.failed_settles < FAILED_SETTLES_MAX:
            batch = list(self.pending.items())[:UNFLUSHED_WRITES_MAX]
            written = self._write_batch(batch)
            if not written:
                self.failed_settles += 1
                return
            self.failed_settles = 0
            for slot, _ in batch:
                del self.pending[slot]
                if slot in written:
                    self.refused.discard(slot)
                else:
                    self.refused.add(slot)

    def holds(self, slot: int) -> bool:
        """Whether the last bytes meant for ``slot`` are durable, as far as this opening knows."""
        return slot not in self.pending and slot not in self.refused

    def _write_batch(self, batch: list[tuple[int, bytes]]) -> list[int]:
        """The slots of ``batch`` that are durable now."""
        attempts = 1 if self.failed_settles else WRITE_ATTEMPTS_MAX
        for _ in range(attempts):
            if self._write(batch):
                return [slot for slot, _ in batch]
        if len(batch) == 1:
            return []
        return [slot for slot, raw in batch if self._write([(slot, raw)])]

    def _write(self, batch: list[tuple[int, bytes]]) -> bool:
        try:
            for slot, raw in batch:
                self.region.write(slot * self.record_bytes, raw)
        except OSError:
            self._flush()  # the writes before it must not pile up with those of the next attempt
            return False
        return self._flush()

    def _flush(self) -> bool:
        try:
            self.region.flush()
        except OSError:
            return False
        return True

    def _claimed_sequence(self, slot: int) -> int:
        """The sequence that the header in ``slot`` claims, or BLANK, or UNCLEAR."""
        length = max(512, self.region.write_unit)
        start = self.region.read(slot * self.record_bytes, length)
        return self._judge(slot, start)

    def _judge(self, slot: int, start: bytes) -> int:
        sequence = header_sequence(start, self.record_bytes, self.identity)
        if sequence >= 0:
            return sequence if sequence % self.slots == slot else UNCLEAR
        return BLANK if is_blank(start) else UNCLEAR

    def _is_older(self, sequence: int, current: int) -> bool:
        """Whether a healthy ring has this beyond its head: the lap before, or nothing in the first."""
        expected = current - self.slots
        return sequence == expected if expected >= 0 else sequence == BLANK

    def _confirmed(self, slot: int, sequence: int) -> tuple[Record, bytes] | None:
        around = self.around(slot)
        size = self.record_bytes
        head, _ = decode(around[:size])
        if head is None or head.sequence != sequence or head.identity != self.identity:
            return None
        for step in range(1, AROUND_SLOTS):
            raw = around[step * size : (step + 1) * size]
            position = (slot + step) % self.slots
            if not self._is_older(self._judge(position, raw), sequence + step):
                return None
        return (head, around) if decode(around[size : 2 * size])[1] in ("valid", "blank") else None

    def _read_each(self, first: int, count: int, unreadable_max: int) -> list[bytes | None]:
        """The bytes of each slot, None where unreadable, tried one by one if the whole cannot be read."""
        size = self.record_bytes
        if unreadable_max <= 0:
            return [None] * count
        try:
            data = self.read(first, count)
            return [data[start : start + size] for start in range(0, count * size, size)]
        except OSError:
            pass
        found: list[bytes | None] = []
        for slot in range(first, first + count):
            tried = unreadable_max > 0
            raw = self._read_or_none(slot) if tried else None
            unreadable_max -= tried and raw is None
            found.append(raw)
        return found

    def _read_or_none(self, slot: int) -> bytes | None:
        try:
            return self.read(slot)
        except OSError:
            return None

    def _slot(self, number: int, raw: bytes | None, twin: list[Slot] | None) -> Slot:
        if raw is None:
            return Slot(None, None, "unreadable")
        if twin is not None and twin[number].raw == raw:
            return twin[number]
        record, word = decode(raw)
        if record is None:
            return Slot(raw, None, word)
        if record.identity != self.identity:
            return Slot(raw, None, "foreign")
        if record.sequence % self.slots != number:
            return Slot(raw, None, "misplaced")
        return Slot(raw, record, word)
