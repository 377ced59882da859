"""Plays faults on the production store and judges what comes back; the judge shares no code with it.

A *life* is a row of runs of one device. A run opens the journal and appends some records, while faults
strike; then the power goes, in every way it can, and the next run starts from each of the states that
the media may be in. The judge knows which records were attempted and acknowledged, reads the durable
bytes with its own reader (`journal_oracle`), and holds these rules:

* Opening never raises and always has a verdict; the body was really attempted, or the verdict is LOST.
* What an opening answers with is durable on two copies by then, unless one failed: and then it says so.
* What is acknowledged is durable on two copies at that moment (on one, if a medium lied about it).
* What is durable on more copies than faults have hit since is never lost: the next opening finds it or
  a later attempt.
* No more than 8 writes are ever unflushed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from statemachine.store import JournalMoved, JournalUnwritable, Store
from tests.simulator.disk import CAN_HIT, ERRNO, FOREVER, Disk, Fault, PowerCut, Storage
from tests.simulator.journal_oracle import newest, parse, records
from tests.simulator.journals import IDENTITY, RECORD_BYTES

LYING = ("lost-write", "misdirected", "rot")
ONCE_AND_BACK = 10_000  # operations: longer than a run, and over with the restart
BODY_BYTES = 3000  # fills all but the last sector, so that a torn record is a wrong one


class Violation(AssertionError):  # noqa: N818 - named for what it is
    """A rule of the module docstring does not hold."""


@dataclass(frozen=True)
class Device:
    """A device between two runs: what is on its media, and what the judge remembers of its life."""

    storage: Storage
    attempted: int = 0  # bodies are numbered from 1 in the order of the attempts
    acknowledged: int = 0
    kept: frozenset[int] = frozenset()  # copies that held it in the last run and that no fault hit

    def key(self) -> object:
        """Equal for devices that are alike to every reader: slots that hold no record are all one.

        A slot whose header alone looks right is not: bisection looks at headers.
        """
        broken = tuple(frozenset(disk.broken) for disk in self.storage.disks)
        return tuple(map(_slots, self.storage.disks)), broken, self.attempted, self.acknowledged


def _slots(disk: Disk) -> tuple[object, ...]:
    return tuple(_content(disk.peek(at, RECORD_BYTES)) for at in range(0, disk.size, RECORD_BYTES))


@functools.lru_cache(8192)
def _content(raw: bytes) -> object:
    if raw.strip(b"\0") == b"":
        return "blank"
    return parse(raw, IDENTITY) or (raw[:88] if raw.startswith(b"UNBRKJNL") else "noise")


@dataclass
class Count:
    """What a sweep did."""

    runs: int = 0
    operations: int = 0
    crash_states: int = 0


def body(number: int) -> bytes:
    return (b"%09d " % number) * (BODY_BYTES // 10)


def number_of(found: bytes) -> int:
    """The number of a body; a body that is none of ours is a violation."""
    number = int(found[:9]) if found[:9].isdigit() else -1
    if found != body(number):
        raise Violation(f"a body that nobody attempted: {found[:20]!r}")
    return number


def holders(device: Device) -> set[int]:
    """The copies that durably hold what must not be lost: the last acknowledged record, or a later one."""
    found: set[int] = set()
    if not device.acknowledged:
        return found
    for disk in device.storage.restarted().disks:
        image = disk.peek(0, disk.size)
        if any(int(record.body[:9]) >= device.acknowledged for record in records(image, IDENTITY).values()):
            found.add(disk.number)
    return found


def copies_of_the_newest(device: Device) -> int:
    """On how many copies the record is that wins; 0: there is none."""
    copies = [set(records(disk.peek(0, disk.size), IDENTITY).values()) for disk in device.storage.disks]
    best = max((record for copy in copies for record in copy), default=None)
    return sum(best in copy for copy in copies)


def run(device: Device, appends: int, store_class: type[Store], count: Count, lied: bool = False) -> Device:
    """One run under the faults of ``device.storage``; returns the device as the power goes."""
    storage = device.storage
    safe = holders(device)
    count.runs += 1
    try:
        store = store_class(storage.disks, IDENTITY)
        opening = store.open()
        check_opening(device, opening.verdict, opening.body, safe)
        if opening.body is not None and not lied:
            check_repair(device, opening.body, opening.holding)
        for _ in range(appends):
            device = replace(device, attempted=device.attempted + 1)
            try:
                store.append(body(device.attempted))
            except JournalUnwritable:
                continue
            except JournalMoved:
                if opening.verdict != "LOST":
                    raise
                break  # what could not be read is there again: the device opens once more
            device = replace(device, acknowledged=device.attempted)
            safe = holders(device)
            storage.hit = [False] * len(storage.disks)
            if len(safe) < (1 if lied else 2):
                raise Violation(f"acknowledged record {device.acknowledged} is on {safe}")
    except PowerCut:
        pass
    finally:
        count.operations += storage.operations
    if storage.unflushed_max > 8:
        raise Violation(f"{storage.unflushed_max} unflushed writes")
    return replace(device, kept=frozenset(disk for disk in safe if not storage.hit[disk]))


def check_opening(device: Device, verdict: str, found: bytes | None, safe: set[int]) -> None:
    if verdict not in ("INTACT", "REPAIRED", "LOST") or (verdict == "LOST") != (found is None):
        raise Violation(f"verdict {verdict}, body {found!r}")
    number = 0 if found is None else number_of(found)
    if number > device.attempted:
        raise Violation(f"found {number}, attempted {device.attempted}")
    reachable = [disk for disk in safe if not device.storage.hit[disk]]
    if reachable and number < device.acknowledged:
        raise Violation(f"found {number}, acknowledged {device.acknowledged} on copies {safe}")


def check_repair(device: Device, found: bytes, holding: int) -> None:
    """What an opening answers with is durable on two copies, or it says that it is not."""
    images = [disk.peek(0, disk.size) for disk in device.storage.restarted().disks]
    durable = sum(any(record.body == found for record in records(image, IDENTITY).values()) for image in images)
    healthy = not any(device.storage.hit) and not any(disk.broken for disk in device.storage.disks)
    if holding > durable or (healthy and durable < 2):
        raise Violation(f"the head is on {durable} copies, said to be on {holding}")


def after_power_cuts(device: Device, count: Count, faults: Iterable[Fault] = ()) -> Iterator[Device]:
    """The device in every state that its media may be in when the power is back."""
    for storage in device.storage.crash_states(faults=faults):
        count.crash_states += 1
        following = replace(device, storage=storage)
        if device.kept and not holders(following):
            raise Violation(f"acknowledged record {device.acknowledged} is gone from every copy")
        yield following


def faults_at(storage: Storage) -> Iterator[Fault]:
    """Every fault at every operation of a run that has been played without any."""
    for at, operation in enumerate(storage.trace):
        for kind, can_hit in CAN_HIT.items():
            if operation.kind not in can_hit or (kind == "cut" and operation.kind == "read"):
                continue
            yield Fault(kind, at)
            if kind in ERRNO:
                yield Fault(kind, at, 2)
                yield Fault(kind, at, ONCE_AND_BACK)
                yield Fault(kind, at, FOREVER)


def rotten_copies(device: Device) -> Iterator[Device]:
    """The device, and the device with each of its copies destroyed."""
    yield replace(device, storage=device.storage.restarted())
    for disk in device.storage.disks:
        if not disk.broken:
            rotten = device.storage.restarted()
            rotten.disks[disk.number].rot(0, disk.size, "random", disk.number)
            yield replace(device, storage=rotten)


def fresh(slots: int, count: int) -> Device:
    """A healthy device that has ``count`` acknowledged records."""
    storage = Storage(sizes=[slots * RECORD_BYTES] * 3)
    store = Store(storage.disks, IDENTITY)
    store.open()
    for number in range(1, count + 1):
        store.append(body(number))
    assert newest(storage.images(), IDENTITY)[0].body == body(count) if count else True
    return Device(storage.restarted(), count, count)
