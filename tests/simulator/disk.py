"""A simulated disk with the production interface (``statemachine.region.Region``).

The faults that it plays, and that what is written for it must survive. Names in brackets are rows of
the fault model.

* ``cut`` at any operation (S1): the write in progress is unflushed, everything stops with `PowerCut`.
* Unflushed writes lost in any subset and order (S2, S3), each torn at any 512 B (S4):
  `Storage.crash_states` enumerates what the media may hold after the power is back. Where
  ``erase_unit`` is larger than a sector, the erase unit of a write in progress may be wiped too.
* ``lost-write``: acknowledged, flushed, never there (S5). ``misdirected``: lands elsewhere (S6).
* ``eio``: the operation fails, once or for ever (S7, S8, S9). A failed write or flush leaves the data
  *doubtful*: a later flush does not make it durable, a crash may or may not find it there.
* ``full`` (S10), ``read-only`` (S11), ``vanished`` (S12): with a duration, so that a medium can fail
  once and come back.
* Rot (R1 … R10): `Disk.rot` flips, zeroes, sets or randomises bytes, `Disk.restore` brings back a
  stale copy; ``rot`` does the first to the bytes an operation is about to touch.

It does not play time (a stall, S13). The same calls give the same run: nothing here is random but what
a seed given by the caller decides. A disk's own write cache is visible to reads, as on real media;
doubtful data is not.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from tests.simulator.landings import SECTOR_BYTES, Sectors, landings, to_sectors

FOREVER = 1 << 60


class PowerCut(BaseException):
    """The power is gone. Not an `Exception`: no handler of the code under test may swallow it."""


class Operation(NamedTuple):
    """One call that reached a medium; ``offset`` and ``length`` are bytes (0 for a flush)."""

    kind: str
    disk: int
    offset: int
    length: int


@dataclass(frozen=True)
class Fault:
    """``kind`` strikes the storage's operation number ``at`` (from 0, over all its disks).

    It then strikes the same disk's next operations of the kinds it can hit, ``duration`` in all; an
    ``eio`` goes on with the kind of operation that it struck first. ``distance`` is for
    ``misdirected``: by how many times its own length the write misses. `FOREVER` also breaks the disk
    for later restarts. A fault whose first operation is of a kind that it cannot hit does nothing
    (`Storage.struck` stays 0); with a ``disk`` it waits from ``at`` on for one that it can, on that disk.
    """

    kind: str
    at: int
    duration: int = 1
    distance: int = 1
    disk: int | None = None

    def begins(self, number: int, operation: Operation) -> bool:
        if operation.kind not in CAN_HIT[self.kind]:
            return False
        return self.at == number if self.disk is None else self.at <= number and self.disk == operation.disk


ERRNO = {"eio": errno.EIO, "full": errno.ENOSPC, "read-only": errno.EROFS, "vanished": errno.ENODEV}
CAN_HIT = {
    "cut": ("read", "write", "flush"),
    "eio": ("read", "write", "flush"),
    "full": ("write",),
    "read-only": ("write",),
    "vanished": ("read", "write", "flush"),
    "lost-write": ("write",),
    "misdirected": ("write",),
    "rot": ("read", "write"),
}


class Disk:
    """One medium of a `Storage`; a region over all of it. `window` gives a region over a part.

    ``broken`` maps kinds of operation to the errno that they fail with for ever, ``unreadable`` holds
    the numbers of sectors that cannot be read until they are written again. Both survive a restart.
    """

    def __init__(self, storage: Storage, number: int, size: int, base: bytes) -> None:
        self.storage = storage
        self.number = number
        self.size = size
        self.write_unit = storage.write_unit
        self.erase_unit = storage.erase_unit
        self.prefers_large = storage.prefers_large
        self.base = base
        self.durable: Sectors = {}
        self.cache: Sectors = {}
        self.pending: list[Sectors] = []
        self.doubtful: list[Sectors] = []
        self.broken: dict[str, int] = {}
        self.unreadable: set[int] = set()

    def window(self, offset: int, size: int) -> Window:
        assert offset >= 0 and offset + size <= self.size, "window outside of its disk"
        return Window(self, offset, size)

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length, 1)
        self.storage.start(Operation("read", self.number, offset, length))
        if self.unreadable and not self.unreadable.isdisjoint(_covered(offset, length)):
            raise OSError(errno.EIO, "simulated unreadable sector")
        return self.peek(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._check(offset, len(data), self.write_unit)
        landing = self.storage.start(Operation("write", self.number, offset, len(data)), data)
        if landing is not None:
            self.begin(landing, data)

    def flush(self) -> None:
        self.storage.start(Operation("flush", self.number, 0, 0))
        for write in self.pending:
            self.durable.update(write)
            for old in self.doubtful:
                for number in write:
                    old.pop(number, None)
        self.pending.clear()
        self.cache.clear()

    def peek(self, offset: int, length: int) -> bytes:
        """What a read would return, without being an operation."""
        covered = _covered(offset, length)
        data = b"".join([self.sector(number) for number in covered])
        start = offset - covered.start * SECTOR_BYTES
        return data[start : start + length]

    def sector(self, number: int) -> bytes:
        known = self.cache.get(number) or self.durable.get(number)
        if known is not None:
            return known
        start = number * SECTOR_BYTES
        return self.base[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")

    def put(self, offset: int, data: bytes) -> None:
        """Change the durable bytes behind everybody's back (rot, a restored image)."""
        covered = _covered(offset, len(data))
        first = covered.start * SECTOR_BYTES
        whole = bytearray(self.peek(first, len(covered) * SECTOR_BYTES))
        whole[offset - first : offset - first + len(data)] = data
        self.durable.update(to_sectors(first, bytes(whole)))

    def rot(self, offset: int, length: int, how: str = "flip", seed: int = 0) -> None:
        """``how``: ``flip`` one bit, or fill with ``zero``, ``ones``, ``random``."""
        self.put(offset, ROT[how](self.peek(offset, length), random.Random(seed)))

    def restore(self, older: Disk, offset: int, length: int) -> None:
        """These bytes become again what they were in ``older`` (a stale copy)."""
        self.put(offset, older.peek(offset, length))

    def fail_pending(self) -> None:
        """A flush failed: what was unflushed may or may not become durable; no flush will tell."""
        self.doubtful += self.pending
        self.pending = []
        self.cache.clear()

    def leave_doubtful(self, offset: int, data: bytes) -> None:
        """A write failed: some of it may be there."""
        self.doubtful.append(to_sectors(offset, data))

    def begin(self, offset: int, data: bytes) -> None:
        """Take a write into the disk's own cache; it is durable after the next good flush."""
        write = to_sectors(offset, data)
        self.pending.append(write)
        self.cache.update(write)
        self.unreadable.difference_update(write)
        self.storage.note_unflushed()

    def copy_to(self, storage: Storage) -> Disk:
        """The durable part of this disk as a disk of ``storage``; the base is shared."""
        disk = Disk(storage, self.number, self.size, self.base)
        disk.durable = dict(self.durable)
        disk.broken = dict(self.broken)
        disk.unreadable = set(self.unreadable)
        return disk

    def _check(self, offset: int, length: int, unit: int) -> None:
        assert offset >= 0 and length > 0 and offset + length <= self.size, "outside of the region"
        assert offset % unit == 0 and length % unit == 0, "not aligned to the write unit"


class Window:
    """A region over a part of a disk. Its flush flushes the whole disk, as on real media."""

    def __init__(self, disk: Disk, offset: int, size: int) -> None:
        self.disk = disk
        self.offset = offset
        self.size = size
        self.write_unit = disk.write_unit
        self.erase_unit = disk.erase_unit
        self.prefers_large = disk.prefers_large

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        return self.disk.read(self.offset + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._check(offset, len(data))
        self.disk.write(self.offset + offset, data)

    def flush(self) -> None:
        self.disk.flush()

    def _check(self, offset: int, length: int) -> None:
        assert offset >= 0 and offset + length <= self.size, "outside of the region"


@dataclass
class _Active:
    """A fault that has struck and goes on."""

    fault: Fault
    disk: int
    kinds: tuple[str, ...]
    left: int


class Storage:
    """The media of one device, behind one power supply; operations are counted over all of them.

    ``images`` are the initial bytes of each disk, ``sizes`` (bytes) makes zeroed disks instead. ``prefers_large`` is
    what a real medium says of itself: then it is given few large writes, and read by several threads where it is read
    in several pieces (`payload.frames`); only with small images is the order of operations the same every time.
    ``struck`` counts the operations that a fault changed, ``hit`` says for each disk whether one (other
    than a cut) did.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (),
        images: Sequence[bytes] = (),
        faults: Iterable[Fault] = (),
        write_unit: int = SECTOR_BYTES,
        erase_unit: int = SECTOR_BYTES,
        prefers_large: bool = False,
    ) -> None:
        self.write_unit = write_unit
        self.erase_unit = erase_unit
        self.prefers_large = prefers_large
        self.trace: list[Operation] = []
        self.struck = 0
        self.unflushed_max = 0
        self.off = False
        self._waiting = list(faults)
        self._active: list[_Active] = []
        media = [(len(image), image) for image in images] or [(size, b"") for size in sizes]
        self.disks = [Disk(self, number, size, base) for number, (size, base) in enumerate(media)]
        self.hit = [False] * len(self.disks)

    def heal(self) -> None:
        """Whatever went on ends; what is lost stays lost."""
        self._active.clear()
        for disk in self.disks:
            disk.broken.clear()

    @property
    def operations(self) -> int:
        return len(self.trace)

    @property
    def unflushed(self) -> int:
        return sum(len(disk.pending) for disk in self.disks)

    def images(self) -> list[bytes]:
        """What reads would see of each disk now."""
        return [disk.peek(0, disk.size) for disk in self.disks]

    def restarted(self, faults: Iterable[Fault] = ()) -> Storage:
        """The same durable bytes after a restart that lost every unflushed and doubtful write."""
        return self._with({}, faults)

    def start(self, operation: Operation, data: bytes = b"") -> int | None:
        """Count an operation, let the faults strike it; where a write lands (None: nowhere)."""
        if self.off:
            raise PowerCut
        number = len(self.trace)
        self.trace.append(operation)
        broken = self.disks[operation.disk].broken.get(operation.kind)
        if broken is not None:
            self._refuse(operation, data, broken)
        for fault in [fault for fault in self._waiting if fault.begins(number, operation)]:
            self._waiting.remove(fault)
            self._activate(fault, operation)
        for active in self._active:
            if active.disk == operation.disk and operation.kind in active.kinds and active.left > 0:
                active.left -= 1
                self.struck += 1
                return self._strike(active.fault, operation, data)
        return operation.offset

    def note_unflushed(self) -> None:
        self.unflushed_max = max(self.unflushed_max, self.unflushed)

    def crash_states(self, seed: int = 0, faults: Iterable[Fault] = ()) -> Iterator[Storage]:
        """Every state the media may be in when the power returns, each once, as a new storage.

        All subsets of the unflushed writes when there are at most 8 (else a sample decided by
        ``seed``), in both orders where two overlap; each of them torn at every sector, from the
        front and from the back, together with subsets of the others; each erase unit that was
        being written wiped.
        """
        seen: set[int] = set()
        faults = tuple(faults)
        for landed in landings(self._unsettled(), seed, self.erase_unit):
            delta: dict[tuple[int, int], bytes] = {}
            for number, sectors in landed:
                delta.update({(number, sector): data for sector, data in sectors.items()})
            changed = {k: data for k, data in delta.items() if self._durable_sector(k) != data}
            digest = hash(frozenset(changed.items()))
            if digest not in seen:
                seen.add(digest)
                yield self._with(changed, faults)

    def _unsettled(self) -> list[tuple[int, Sectors]]:
        """The writes that may or may not be on the media; the same one tried again counts once."""
        writes: dict[object, tuple[int, Sectors]] = {}
        for disk in self.disks:
            for write in disk.doubtful + disk.pending:
                key = (disk.number, frozenset(write.items()))
                writes.pop(key, None)
                writes[key] = (disk.number, write)
        return list(writes.values())

    def _activate(self, fault: Fault, operation: Operation) -> None:
        kinds = (operation.kind,) if fault.kind == "eio" else CAN_HIT[fault.kind]
        self._active.append(_Active(fault, operation.disk, kinds, fault.duration))
        if fault.duration == FOREVER and fault.kind in ERRNO:
            self.disks[operation.disk].broken.update(dict.fromkeys(kinds, ERRNO[fault.kind]))

    def _strike(self, fault: Fault, operation: Operation, data: bytes) -> int | None:
        disk = self.disks[operation.disk]
        if fault.kind in ERRNO:
            self._refuse(operation, data, ERRNO[fault.kind])
        if fault.kind == "cut":
            if operation.kind == "write":
                disk.begin(operation.offset, data)
            self.off = True
            raise PowerCut
        self.hit[disk.number] = True
        if fault.kind == "rot":
            disk.rot(operation.offset, operation.length, "flip", fault.at)
        if fault.kind == "lost-write":
            return None
        if fault.kind == "misdirected":
            step = fault.distance * operation.length
            landing = (operation.offset + step) % (disk.size // operation.length * operation.length)
            return min(landing, disk.size - operation.length)
        return operation.offset

    def _refuse(self, operation: Operation, data: bytes, number: int) -> NoReturn:
        disk = self.disks[operation.disk]
        self.hit[disk.number] = True
        if operation.kind == "flush":
            disk.fail_pending()
        elif operation.kind == "write" and number == errno.EIO:
            disk.leave_doubtful(operation.offset, data)
        raise OSError(number, f"simulated failure of operation {len(self.trace) - 1}: {operation}")

    def _with(self, delta: dict[tuple[int, int], bytes], faults: Iterable[Fault]) -> Storage:
        storage = Storage((), (), faults, self.write_unit, self.erase_unit, self.prefers_large)
        storage.disks = [disk.copy_to(storage) for disk in self.disks]
        storage.hit = [False] * len(self.disks)
        for (disk, number), data in delta.items():
            storage.disks[disk].durable[number] = data
        return storage

    def _durable_sector(self, place: tuple[int, int]) -> bytes:
        disk = self.disks[place[0]]
        known = disk.durable.get(place[1])
        start = place[1] * SECTOR_BYTES
        return known or disk.base[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


ROT: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": _flip,
    "zero": lambda data, chance: bytes(len(data)),
    "ones": lambda data, chance: b"\xff" * len(data),
    "random": lambda data, chance: chance.randbytes(len(data)),
}


def _covered(offset: int, length: int) -> range:
    return range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES))
