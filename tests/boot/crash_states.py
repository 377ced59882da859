"""What a power cut can leave of the journal, from the write log of a real guest; and who judges it.

:class:`JournalReplay` plays a log's requests onto simulated copies of the journal alone, so thousands of
states cost seconds. What may be on them after a cut is enumerated by the simulated disk: every subset of
the unflushed writes, every one of them torn at every sector from the front and from the back.

The judge knows from the log alone what must not be lost. A record is *acknowledged* once two copies of it
were written and a flush followed each. What an opening finds must be a record that was really written,
not older than the last acknowledged one, and its body must decode. The judge's own reader of records is
``tests/simulator/journal_oracle.py``.

Does not see whether the product waits for its flushes: that shows in the order of the requests, so
:func:`history` gives what was acknowledged when each request was made.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from qemu.write_log import TEAR_BYTES, Entry, Flag, WriteLog
from statemachine.record import Record, decode
from statemachine.store import Store
from tests.simulator.disk import Storage
from tests.simulator.journal_oracle import Found, parse, records
from tests.simulator.landings import SUBSETS_WRITES_MAX

RECORD_BYTES = 4096
QUORUM = 2
TRIES_MAX = 100

Reader = Callable[[Storage, bytes], Found | None]


class Violation(AssertionError):  # noqa: N818 - named for what happened
    """The journal lost, invented or spoiled something. Says in which state."""


class Place(Protocol):
    """Bytes ``offset`` … ``offset + size`` of the disk."""

    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...


class JournalReplay:
    """The journal's copies at ``places``, as ``base`` holds them and as requests change them.

    ``storage`` has one disk a copy, ``acknowledged`` is the last acknowledged record, ``written`` is every
    record that was ever there. With ``flush_works=False`` the medium ignores flushes while the judge
    believes in them.
    """

    def __init__(self, log: WriteLog, base: Path, places: Sequence[Place], identity: bytes) -> None:
        self.log = log
        self.identity = identity
        self.flush_works = True
        self._places = places
        with base.open("rb") as image:
            images = [os.pread(image.fileno(), place.size, place.offset) for place in places]
        self.storage = Storage(images=images)
        self._holders: dict[Found, set[int]] = {}
        self._unflushed: list[tuple[int, Found]] = []
        for copy, content in enumerate(images):
            for record in records(content, identity).values():
                self._holders.setdefault(record, set()).add(copy)

    @property
    def written(self) -> set[Found]:
        return set(self._holders)

    @property
    def acknowledged(self) -> Found:
        return max(record for record, copies in self._holders.items() if len(copies) >= QUORUM)

    @property
    def record(self) -> Record:
        """The last acknowledged record, decoded."""
        record = decode(self.acknowledged.body)
        assert record is not None
        return record

    def copy_of(self, entry: Entry) -> int | None:
        """Which copy of the journal a request changes, if any."""
        for copy, place in enumerate(self._places):
            if (
                entry.changes
                and place.offset < entry.offset + entry.length
                and entry.offset < place.offset + place.size
            ):
                return copy
        return None

    def apply(self, entry: Entry) -> bool:
        """Play one request; whether a cut after it can leave the journal in a state that is new."""
        flushed = bool(entry.flags & Flag.FLUSH and self._unflushed)
        if flushed:
            self._flush()
        copy = self.copy_of(entry)
        if copy is not None:
            self._write(copy, entry)
        return flushed or copy is not None

    def _write(self, copy: int, entry: Entry) -> None:
        if entry.flags:
            raise Violation(f"request {entry.number} on the journal is no plain write: {entry.flags!r}")
        with self.log.path.open("rb") as source:
            data = os.pread(source.fileno(), entry.length, entry.data_offset)
        offset = entry.offset - self._places[copy].offset
        self.storage.disks[copy].write(offset, data)
        for start in range(0, len(data), RECORD_BYTES):
            record = parse(data[start : start + RECORD_BYTES], self.identity)
            if record is not None:
                self._holders.setdefault(record, set())
                self._unflushed.append((copy, record))
        if self.flush_works and self.storage.unflushed > SUBSETS_WRITES_MAX:
            raise Violation(f"{self.storage.unflushed} unflushed journal writes at request {entry.number}")

    def _flush(self) -> None:
        for copy, record in self._unflushed:
            self._holders[record].add(copy)
        self._unflushed.clear()
        if self.flush_works:
            for disk in self.storage.disks:
                disk.flush()


@dataclass
class Count:
    """What a sweep did. A state counts once for a cut, and again where more is acknowledged by then."""

    prefixes: int = 0
    journal_writes: int = 0
    tears: int = 0
    states: int = 0
    rotten_states: int = 0
    unflushed_max: int = 0


@dataclass
class Sweep:
    """Opens every state that a cut can leave with ``read`` and judges what it finds.

    With ``rot`` also each state in which no unflushed write arrived and one copy is random bytes. At each
    cut the first state is that without any unflushed write; ``states_max`` bounds how many are opened.
    """

    replay: JournalReplay
    read: Reader
    rot: bool = True
    states_max: int | None = None
    count: Count = field(default_factory=Count)

    def run(self) -> Count:
        """Raises: Violation: in the first state that is judged wrong."""
        self._cut(0)
        for entry in self.replay.log.entries:
            is_new = self.replay.apply(entry)
            if self.replay.copy_of(entry) is not None:
                self.count.journal_writes += 1
                self.count.tears += entry.length // TEAR_BYTES - 1
            self.count.prefixes += 1
            self.count.unflushed_max = max(self.count.unflushed_max, self.replay.storage.unflushed)
            if is_new:  # else the journal is as it was one request earlier, and so is what must be found
                self._cut(entry.number + 1)
        return self.count

    def _cut(self, upto: int) -> None:
        replay = self.replay
        acknowledged, written = replay.acknowledged, replay.written
        for number, state in enumerate(islice(replay.storage.crash_states(seed=upto), self.states_max)):
            self.count.states += 1
            judge(self.read(state, replay.identity), acknowledged, written, f"{upto} requests, state {number}")
        for copy in range(len(replay.storage.disks) * self.rot):
            rotten = replay.storage.restarted()
            rotten.disks[copy].rot(0, rotten.disks[copy].size, "random", seed=upto)
            self.count.rotten_states += 1
            judge(self.read(rotten, replay.identity), acknowledged, written, f"{upto} requests, copy {copy} random")


def judge(found: Found | None, acknowledged: Found, written: set[Found], where: str) -> None:
    """Raises: Violation."""
    if found is None:
        raise Violation(f"after {where}: LOST, while {acknowledged[:2]} is acknowledged")
    if found[:2] < acknowledged[:2]:
        raise Violation(f"after {where}: found {found[:2]}, while {acknowledged[:2]} is acknowledged")
    if found not in written:
        raise Violation(f"after {where}: nobody ever wrote {found[:2]} with this body")
    if decode(found.body) is None:
        raise Violation(f"after {where}: the body of {found[:2]} does not decode")


def production(storage: Storage, identity: bytes) -> Found | None:
    """What the product finds. Its repairs must outlive one more cut, and the next opening find all well."""
    found, verdict = _open(storage, identity)
    if storage.unflushed_max > SUBSETS_WRITES_MAX:
        raise Violation(f"{verdict}: {storage.unflushed_max} unflushed writes while it was repaired")
    again, verdict_again = _open(storage.restarted(), identity)
    if found is not None and (again, verdict_again) != (found, "INTACT"):
        raise Violation(f"{verdict} at {found[:2]}, and at the next opening {verdict_again}: {again and again[:2]}")
    return found


def _open(storage: Storage, identity: bytes) -> tuple[Found | None, str]:
    opening = Store(storage.disks, identity).open()
    if opening.body is None:
        return None, opening.verdict
    return Found(opening.head.term, opening.head.sequence, opening.body), opening.verdict


def first_valid_copy(storage: Storage, identity: bytes) -> Found | None:
    """A wrong reader: the newest record of the first copy that has any."""
    for disk in storage.disks:
        found = records(disk.peek(0, disk.size), identity)
        if found:
            return max(found.values())
    return None


def last_copy(storage: Storage, identity: bytes) -> Found | None:
    """A wrong reader: looks at one copy alone."""
    disk = storage.disks[-1]
    return max(records(disk.peek(0, disk.size), identity).values(), default=None)


def history(replay: JournalReplay) -> Iterator[tuple[Entry, Record]]:
    """Each request with the record that was acknowledged when it was made."""
    for entry in replay.log.entries:
        yield entry, replay.record
        replay.apply(entry)


@dataclass(frozen=True)
class PowerCut:
    """A whole disk after a cut behind ``upto`` requests: see :func:`qemu.write_log.crash_image`."""

    upto: int
    lose: frozenset[int]
    torn: tuple[tuple[int, int], ...] = ()

    def arrived(self, log: WriteLog) -> object:
        """Which requests changed the disk: equal for cuts that leave the same disk."""
        whole = {entry.number for entry in log.entries[: self.upto] if entry.changes}
        return frozenset(whole - self.lose - {number for number, _ in self.torn}), self.torn


def any_power_cut(log: WriteLog, source: random.Random) -> PowerCut:
    """A cut behind the whole log: of what no flush has followed all, some, or some and a part of one is lost."""
    return source.choice(_KINDS)(log, len(log.entries), source)


def power_cuts(log: WriteLog, count: int, seed: int = 0) -> list[PowerCut]:
    """``count`` cuts, spread evenly over the log, that leave different disks; in the order of the log.

    At each one all unflushed writes are lost, then a random subset of them, then a subset with one torn.
    Where the log has fewer such states, as many as were found.
    """
    source = random.Random(seed)
    places = [number * len(log.entries) // max(1, count - 1) for number in range(count)]
    chosen: dict[object, PowerCut] = {}
    for number, upto in enumerate(places):
        for attempt in range(TRIES_MAX):
            where = upto if attempt < TRIES_MAX // 10 else source.randint(0, len(log.entries))
            cut = _KINDS[(number + attempt) % len(_KINDS)](log, where, source)
            if cut.arrived(log) not in chosen:
                chosen[cut.arrived(log)] = cut
                break
    return sorted(chosen.values(), key=lambda cut: cut.upto)


def _all_lost(log: WriteLog, upto: int, source: random.Random) -> PowerCut:
    return PowerCut(upto, frozenset(log.not_durable(upto)))


def _some_lost(log: WriteLog, upto: int, source: random.Random) -> PowerCut:
    return PowerCut(upto, frozenset(number for number in log.not_durable(upto) if source.random() < 0.5))


def _one_torn(log: WriteLog, upto: int, source: random.Random) -> PowerCut:
    cut = _some_lost(log, upto, source)
    may_tear = [number for number in log.not_durable(upto) if log.entries[number].length > TEAR_BYTES]
    if not may_tear:
        return cut
    torn = source.choice(may_tear)
    sectors = source.randrange(1, log.entries[torn].length // TEAR_BYTES)
    return PowerCut(upto, cut.lose - {torn}, ((torn, sectors * TEAR_BYTES),))


_KINDS = (_all_lost, _some_lost, _one_torn)
