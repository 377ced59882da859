"""The journal as a story: every record that is still in the ring, oldest first, decoded."""

from __future__ import annotations

from statemachine.record import Record, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from statemachine.store import Store

ENTRIES_MAX = 1024


class Entry:
    """A record at its place. ``changed`` is whether it says something the one before did not."""

    __slots__ = ("changed", "record", "sequence", "term")

    def __init__(self, term: int, sequence: int, record: Record, changed: bool) -> None:
        self.term = term
        self.sequence = sequence
        self.record = record
        self.changed = changed


def entries(store: Store) -> list[Entry]:
    """What an open ``store`` still holds. Records of an unknown format are left out."""
    told: list[Entry] = []
    previous = None
    for kept in store.history(ENTRIES_MAX):
        record = decode(kept.body)
        if record is None:
            continue
        told.append(Entry(kept.term, kept.sequence, record, _story(record) != previous))
        previous = _story(record)
    return told


def _story(record: Record) -> tuple[object, ...]:
    return record.state, record.reason, record.boots
