"""What the scans of the copies amount to: which record is the head, what each copy lacks. Pure.

The rule is the highest (term, sequence), over all copies. Not the highest sequence: a copy that fails
and comes back may hold records of an older term beyond the point where the others went on without it.
Not the first valid copy: the one that was written first may be the one that lags.
"""

from __future__ import annotations

from statemachine import journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from statemachine.journal import Record
    from statemachine.ring import Slot


def pick_head(scans: list[list[Slot]]) -> Record | None:
    """The valid record with the highest (term, sequence) of any copy.

    Two different records with the same one take two writers at once, which the lock of the writers
    prevents. The one on more copies is taken then, and with equal votes the higher digest, so that
    every opening decides the same.
    """
    best: Record | None = None
    for scan in scans:
        for slot in scan:
            record = slot.record
            if record is None or record is best:
                continue
            if best is None or (record.term, record.sequence) > (best.term, best.sequence):
                best = record
            elif (record.term, record.sequence) == (best.term, best.sequence):
                best = _preferred(best, record, scans)
    return best


def history(scans: list[list[Slot]], head: Record) -> list[Record]:
    """The records that led to ``head``, newest first, each of another slot.

    Follows the digest of the previous record. Where that record is lost, goes on with what lies
    before the gap; never with a record that the chain contradicts (a fork).
    """
    found = [head]
    slots = len(scans[0])
    for sequence in range(head.sequence - 1, max(-1, head.sequence - slots), -1):
        record = _before(found[-1], sequence, [scan[sequence % slots].record for scan in scans])
        if record is not None:
            found.append(record)
    return found


def missing(scan: list[Slot], records: list[Record]) -> dict[int, bytes]:
    """What to write into this copy, slot to bytes in the order of ``records``, to make it hold just them.

    Slots beyond the head in the first lap are blanked: rot and forks would cost a scan at every boot. A
    record that is lost in every copy leaves a gap, which does cost a scan until the ring overwrites it.
    """
    slots, head = len(scan), records[0]
    wanted = {record.sequence % slots: record.raw for record in records}
    lacking = {slot: raw for slot, raw in wanted.items() if scan[slot].raw != raw}
    gap, blank = journal.gap(len(head.raw)), bytes(len(head.raw))
    for number, slot in enumerate(scan):
        if number in wanted:
            continue
        word, raw = ("blank", blank) if number > head.sequence else ("gap", gap)
        if slot.word != word:
            lacking[number] = raw
    return lacking


def words(scan: list[Slot]) -> dict[str, int]:
    """How many slots there are of each word."""
    count: dict[str, int] = {}
    for slot in scan:
        count[slot.word] = count.get(slot.word, 0) + 1
    return count


def state(count: dict[str, int], lacking: int, holds_head: bool) -> str:
    """One word for a copy as it was found; ``count`` is that of `words`.

    ``intact``, ``damaged`` (holds the head, other slots are wrong), ``lagging`` (holds older records
    only), and without any record of this device: ``unreadable``, ``foreign``, ``blank``, ``rotten``.
    """
    if holds_head:
        return "damaged" if lacking else "intact"
    if "valid" in count:
        return "lagging"
    for word in ("unreadable", "foreign"):
        if word in count:
            return word
    return "blank" if set(count) == {"blank"} else "rotten"


def _preferred(one: Record, other: Record, scans: list[list[Slot]]) -> Record:
    slot = one.sequence % len(scans[0])
    held = [scan[slot].raw for scan in scans]
    if (held.count(other.raw), other.digest) > (held.count(one.raw), one.digest):
        return other
    return one


def _before(record: Record, sequence: int, candidates: list[Record | None]) -> Record | None:
    """The record of ``sequence`` that ``record`` (the next one found) descends from, or None."""
    fitting = [
        candidate
        for candidate in candidates
        if candidate is not None and candidate.sequence == sequence and candidate.term <= record.term
    ]
    if sequence == record.sequence - 1:
        fitting = [candidate for candidate in fitting if candidate.digest == record.previous]
    best: Record | None = None
    for candidate in fitting:
        if best is None or (candidate.term, candidate.digest) > (best.term, best.digest):
            best = candidate
    return best
