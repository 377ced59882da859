"""The sweep can fail: each of these broken stores is caught by it, under its name.

A mutant is the production store with one thing wrong. The sweep that passes for the store must end in
a violation for the mutant.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from statemachine import merge, ring, store
from statemachine.journal import Record, decode
from statemachine.ring import Ring, Slot
from statemachine.store import Opening, Store
from tests.simulator.journal_sweep import Violation, fresh
from tests.simulator.test_journal_sweep import SLOTS, STARTS, hide_and_come_back, sweep

pytestmark = pytest.mark.sweep
Patch = pytest.MonkeyPatch


def with_rings(ring_class: type[Ring]) -> type[Store]:
    class Mutant(Store):
        def _new_rings(self) -> list[Ring]:
            return [ring_class(region, self.identity, self.record_bytes, self.slots) for region in self._regions]

    return Mutant


class RingWithoutFlush(Ring):
    def _flush(self) -> bool:
        return True


class RingThatOnlyFlushesAgain(Ring):
    """After a failed flush the data is not written again."""

    def _flush(self) -> bool:
        return super()._flush() or super()._flush()


class RingThatIsSkipped(Ring):
    """Copies 1 and 2 say that they took a record and do not write it."""

    def settle(self) -> None:
        if self.region.number == 0:  # type: ignore[attr-defined]
            super().settle()
        else:
            self.pending.clear()


class RingThatForgetsItsFailure(Ring):
    """What could not be written counts as written."""

    def holds(self, slot: int) -> bool:
        return True


class StoreWithoutTerms(Store):
    def _open(self, repair: bool) -> Opening:
        opening = super()._open(repair)
        self._term = max(1, opening.head.term)
        return opening


class StoreWithoutRepair(Store):
    def _write_missing(self, slot: int, raw: bytes, lacking: list[dict[int, bytes]]) -> list[bool]:
        return [slot not in lack for lack in lacking]


def first_valid(scans: list[list[Slot]]) -> Record | None:
    for scan in scans:
        head = original_pick_head([scan])
        if head is not None:
            return head
    return None


def highest_sequence(scans: list[list[Slot]]) -> Record | None:
    valid = [slot.record for scan in scans for slot in scan if slot.record is not None]
    return max(valid, key=lambda record: record.sequence, default=None)


def without_digest(raw: bytes) -> tuple[Record | None, str]:
    record, word = decode(raw)
    if word != "digest":
        return record, word
    length = int.from_bytes(raw[16:20], "little")
    term, sequence = (int.from_bytes(raw[at : at + 8], "little") for at in (40, 48))
    return Record(raw[24:40], term, sequence, raw[56:88], raw[88 : 88 + length], raw), "valid"


def first_copy_alone(rings: list[Ring]) -> Record | None:
    """The head of copy 0 is the journal's; the others are not compared."""
    try:
        found = rings[0].find_head()
    except OSError:
        return None
    return found[0] if found is not None else None


original_pick_head = merge.pick_head

SUBCLASSES: dict[str, type[Store]] = {
    "flush dropped": with_rings(RingWithoutFlush),
    "failed flush is only flushed again": with_rings(RingThatOnlyFlushesAgain),
    "one copy alone is written": with_rings(RingThatIsSkipped),
    "failed write counts as written": with_rings(RingThatForgetsItsFailure),
    "term not written": StoreWithoutTerms,
    "repair skipped": StoreWithoutRepair,
}

PATCHES: dict[str, Callable[[Patch], None]] = {
    "first valid instead of highest": lambda patch: patch.setattr(merge, "pick_head", first_valid),
    "highest sequence instead of highest term": lambda patch: patch.setattr(merge, "pick_head", highest_sequence),
    "digest check skipped": lambda patch: patch.setattr(ring, "decode", without_digest),
    "first copy trusted": lambda patch: patch.setattr(store, "_agreed_head", first_copy_alone),
    "acknowledged at one copy": lambda patch: patch.setattr(store, "QUORUM", 1),
}


@pytest.mark.parametrize("name", [*SUBCLASSES, *PATCHES])
def test_a_mutant_is_caught(name: str, monkeypatch: Patch) -> None:
    if name in PATCHES:
        PATCHES[name](monkeypatch)
    store_class = SUBCLASSES.get(name, Store)
    with pytest.raises(Violation):
        for records in range(1, 2 * SLOTS + 1):
            hide_and_come_back(fresh(SLOTS, records), store_class)
        for start in ("second lap", "damaged"):
            sweep(STARTS[start](), store_class, second_faults=8)
