"""Random and mutated journals: always a verdict, never an exception, and what a second reader finds."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import pytest

from statemachine.store import JournalUnwritable, Store
from tests.simulator.journal_oracle import LIMIT, newest, records
from tests.simulator.journals import IDENTITY, MemoryRegion, random_journal

SHARE = 10_000
FULL_SIZE_SLOTS = 256


def check_many(first: int, count: int, slots: int) -> dict[str, int]:
    """How often each verdict came."""
    verdicts: dict[str, int] = {}
    for seed in range(first, first + count):
        verdict = check(seed, slots)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    return verdicts


def check(seed: int, slots: int) -> str:
    """Open it, compare with the second reader; every eighth: append, open again.

    Half of the journals hold forged records. Bisection may overlook one of those (no medium makes valid
    records), so where no slot was scanned a body is only required to be in the journal.
    """
    forged = seed % 2 == 0
    images = random_journal(seed, slots, forged=forged)
    expected = newest([bytes(image) for image in images], IDENTITY)
    regions = [MemoryRegion(image) for image in images]
    store = Store(regions, IDENTITY)
    opening = store.open()
    found = None if opening.body is None else (opening.head.term, opening.head.sequence, opening.body)
    scanned = any(copy.words for copy in opening.copies)
    if forged and not scanned:
        assert found in records(bytes(images[0]), IDENTITY).values(), f"seed {seed}"
    else:
        assert found in expected if expected else found is None, f"seed {seed}"
    assert (opening.verdict == "LOST") == (not expected), f"seed {seed}"
    if seed % 8 < 2 and (scanned or not forged):
        check_next(store, regions, seed)
    return opening.verdict


def check_next(store: Store, regions: list[MemoryRegion], seed: int) -> None:
    head = store.head
    assert Store(regions, IDENTITY).open().head == head, f"seed {seed}: a repaired journal reads otherwise"
    body = b"after seed %d" % seed
    try:
        store.append(body)
    except JournalUnwritable:
        assert max(head.term, head.sequence) + 1 >= LIMIT, f"seed {seed}"
        return
    opening = Store(regions, IDENTITY).open()
    assert (opening.verdict != "LOST", opening.body, opening.holding) == (True, body, 3), f"seed {seed}"
    assert opening.head.term > head.term, f"seed {seed}"


@pytest.mark.sweep
@pytest.mark.fault("R1")
@pytest.mark.fault("R2")
@pytest.mark.parametrize(("journals", "slots"), [(20_000, 4), (2_000, 7), (400, FULL_SIZE_SLOTS)])
def test_any_journal_opens_as_the_second_reader_says(journals: int, slots: int) -> None:
    verdicts = check_many(0, journals, slots)
    assert set(verdicts) == {"INTACT", "REPAIRED", "LOST"}


@pytest.mark.long
@pytest.mark.parametrize(("journals", "slots"), [(1_000_000, 4), (10_000, FULL_SIZE_SLOTS)])
def test_a_million_journals_open_as_the_second_reader_says(journals: int, slots: int) -> None:
    share = min(SHARE, journals // 8)
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(check_many, first, share, slots) for first in range(0, journals, share)]
        assert sum(sum(run.result().values()) for run in runs) == journals
