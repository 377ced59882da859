"""G1: from any bytes at all in the journal the device comes to rest within K boots of the real table.

The journals are random or mutated ones; the store, the record, the decisions and the table are the
production code's. The OS never says that it runs well, and every action ends in any way it can.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import pytest

from statemachine import bound
from statemachine.decide import REQUESTS, Evidence, decide, give_way
from statemachine.limits import BOOT_ATTEMPTS_DEFAULT, BOOT_ATTEMPTS_MAX, CYCLES_MAX
from statemachine.reasons import CODES
from statemachine.record import CONDITIONS, STATE_NAMES, Image, Record, Slot, decode
from statemachine.step import step
from statemachine.store import JournalUnwritable, Store
from tests.simulator.journals import IDENTITY, MemoryRegion, random_journal

K = bound.boots_max()
FULL_SIZE_SLOTS = 256
SHARE = 10_000


def random_record(chance: random.Random) -> bytes:
    """The body of a record: mostly one that decodes, with any values a record can have; sometimes not."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(600))
    digests = [bytes(32), b"i" * 32, b"c" * 32]
    record = Record(
        chance.choice(STATE_NAMES),
        attempts_left=chance.randrange(BOOT_ATTEMPTS_MAX + 1),
        cycles=chance.randrange(CYCLES_MAX + 1),
        entered=chance.choice((0, *REQUESTS, *CODES.values())),
        requested=chance.random() < 0.2,
        confirmed=chance.choice(digests),
        slots=tuple(random_slot(chance, digests) for _ in range(chance.choice((1, 2)))),
        tried=tuple(chance.choices(digests, k=chance.randrange(4))),
    )
    if len(record.slots) == 2:
        record = record.but(primary=chance.randrange(2), booted=chance.randrange(2), target_slot=chance.randrange(2))
    if chance.random() < 0.2:
        record = record.but(target=random_slot(chance, digests).image)
    return record.encode()


def random_slot(chance: random.Random, digests: list[bytes]) -> Slot:
    image = Image(chance.choice(digests), kind=chance.choice(("none", "immutable", "read-write")))
    return Slot(image, chance.choice(CONDITIONS))


def opened(seed: int, slots: int) -> tuple[Store, Record, str]:
    """A random journal, opened by the production code as a boot does it."""
    store = Store([MemoryRegion(image) for image in random_journal(seed, slots, random_record)], IDENTITY)
    opening = store.open()
    record = decode(opening.body) if opening.body is not None else None
    assert opening.verdict in ("INTACT", "REPAIRED", "LOST")
    return store, bounded(record or Record("JOURNAL_LOST")), opening.verdict


def bounded(record: Record) -> Record:
    return record.but(attempts_left=min(record.attempts_left, BOOT_ATTEMPTS_DEFAULT))


def check_many(first: int, count: int, slots: int) -> dict[str, int]:
    """Open ``count`` journals; every one must have a verdict and a way to rest of at most K boots."""
    known: dict[object, int] = {}
    verdicts: dict[str, int] = {}
    for seed in range(first, first + count):
        _store, record, verdict = opened(seed, slots)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        boots = bound.boots_to_rest(record, BOOT_ATTEMPTS_DEFAULT, known)  # type: ignore[arg-type]
        assert boots <= K, f"seed {seed}: {record.state} takes {boots} boots"
    return verdicts


@pytest.mark.sweep
@pytest.mark.requirement("D5")
@pytest.mark.fault("R1")
@pytest.mark.fault("R2")
def test_any_journal_has_a_verdict_and_a_way_to_rest() -> None:
    verdicts = check_many(0, SHARE, slots=4)
    assert set(verdicts) == {"INTACT", "REPAIRED", "LOST"}
    check_many(0, 100, FULL_SIZE_SLOTS)


@pytest.mark.sweep
@pytest.mark.parametrize("slots", [1, 2])
def test_no_class_of_records_takes_more_than_k_boots(slots: int) -> None:
    """`statemachine.bound` leaves out what changes nothing; here is every record that anything can tell apart."""
    known: dict[object, int] = {}
    longest = max(bound.boots_to_rest(record, BOOT_ATTEMPTS_DEFAULT, known) for record in every_class(slots))  # type: ignore[arg-type]
    assert longest == bound.boots_max(slots=slots)


def every_class(slots: int) -> Iterator[Record]:
    """Slots that hold nothing, the confirmed image, a tried one; with and without a target."""
    digests = (bytes(32), b"i" * 32, b"j" * 32)
    for held in product(product(digests, CONDITIONS), repeat=slots):
        for confirmed, tried, target_slot, entered, attempts, cycles, state in product(
            digests,
            ((), digests[1:2], digests[2:]),
            (None, *range(slots)),
            (CODES["attempts-exhausted"], REQUESTS[0], CODES["tried-again"]),
            range(BOOT_ATTEMPTS_DEFAULT + 1),
            (0, CYCLES_MAX),
            STATE_NAMES,
        ):
            yield Record(
                state,
                attempts_left=attempts,
                cycles=cycles,
                entered=entered,
                confirmed=confirmed,
                tried=tried,
                slots=tuple(Slot(Image(digest, kind="immutable"), condition) for digest, condition in held),
                target=Image() if target_slot is None else Image(b"t" * 32, kind="immutable"),
                target_slot=target_slot or 0,
            )


@pytest.mark.sweep
@pytest.mark.fault("H4")
def test_devices_that_live_through_it_rest_within_k_boots() -> None:
    """Whole lives: every boot opens the journal again, appends its records, and ends somehow."""
    for seed in range(400):
        chance = random.Random(seed)
        images = random_journal(seed, 8, random_record)
        boots = 0
        while True:
            boots += 1
            assert boots <= K, f"seed {seed}"
            if live_one_boot([MemoryRegion(image) for image in images], chance) == "rest":
                break


def live_one_boot(regions: list[MemoryRegion], chance: random.Random) -> str:
    """What the boot ends in: a hand-over, or rest. A journal that takes no more records leads to rest."""
    store = Store(regions, IDENTITY)
    body = store.open().body
    record = bounded((decode(body) if body is not None else None) or Record("JOURNAL_LOST"))
    requested_by = chance.choice((0, 0, REQUESTS[0])) if record.state != "WAITING" else 0
    event, reason = decide(record.but(requested=False), Evidence(requested_by=requested_by))
    fields: dict[str, object] = {}
    try:
        while True:
            following, action = step(record, give_way(record, event), BOOT_ATTEMPTS_DEFAULT, reason=reason, **fields)
            store.append(following.encode())
            record = following
            if action in ("boot", "boot_pristine", "rest"):
                return action
            event, reason, fields = chance.choice(list(bound.endings(record, action)))
    except JournalUnwritable:  # its numbers are used up: nothing may be tried uncounted
        event, reason = decide(record, Evidence(journal_writable=False, reset_cause="unknown"))
        return step(record, event, BOOT_ATTEMPTS_DEFAULT, reason=reason)[1]


@pytest.mark.long
@pytest.mark.parametrize(("journals", "slots"), [(1_000_000, 4), (10_000, FULL_SIZE_SLOTS)])
def test_a_million_journals(journals: int, slots: int) -> None:
    share = min(SHARE, journals // 8)
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(check_many, first, share, slots) for first in range(0, journals, share)]
        assert sum(sum(run.result().values()) for run in runs) == journals
