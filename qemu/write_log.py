"""Honest power cuts: what a disk would hold if the power had failed at a chosen moment.

Killing an emulator loses nothing: what the guest wrote is in the host's page cache, flushed or not. A
disk may lose any write that no flush has followed. A :class:`qemu.disks.Disk` with a ``log`` records
every write and flush, and the functions here build from it the image after any prefix, without any
of the writes that were not durable then, or with one of them torn.

    log = WriteLog.read(path)
    crash_image(log, base, crashed, upto=17)             # nothing that was not flushed survives
    crash_image(log, base, crashed, upto=17, lose={16})  # only this write is lost

``base`` is a copy of the disk from before the boot (:func:`qemu.sparse_copy.copy_image`).

The emulator appends an entry when the request is done. A logged disk takes one request at a time, so
no write overlaps a flush, and "durable" is exactly "a flush came later in the log". In a log of a disk
with a deeper queue a write that overlaps a flush cannot be told from one before it: do not use one.
A guest that switches itself off, or an emulator that is asked to end, adds a last flush that is not
the guest's: cut with ``power_off``, or leave that entry out.

Format: the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst,
drivers/md/dm-log-writes.c), all little-endian: a superblock ``<QQQI`` (magic, version, entries, sector
size) in the first sector; per entry one sector with ``<QQQQ`` (sector, sectors, flags, length of a
mark's text), zero-padded, and then the data. It has no checksums: a flipped bit in the data is not
seen; in a header it is, wherever it makes the entry impossible.
"""

from __future__ import annotations

import enum
import itertools
import os
import random
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from qemu.errors import WriteLogError
from qemu.sparse_copy import CHUNK_BYTES, copy_image, is_hole, write_all

MAGIC = 0x6A736677736872
VERSION = 1
SUPERBLOCK = struct.Struct("<QQQI")
HEADER = struct.Struct("<QQQQ")
SECTOR_SIZES = tuple(512 << shift for shift in range(8))  # 512 bytes to 64 KiB
ENTRIES_MAX = 4_000_000
TEAR_BYTES = 512  # a disk writes a sector whole, or not at all


class Flag(enum.IntFlag):
    """What a request was. A flush with data comes *before* its data."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


_ALL_FLAGS = sum(Flag)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. ``offset`` and ``length`` are bytes on the disk, ``data_offset`` is one in the log."""

    number: int
    offset: int
    length: int
    flags: Flag
    data_offset: int

    @property
    def changes(self) -> bool:
        """Whether the request changed the disk's content: a write or a discard."""
        return self.length > 0 and not self.flags & Flag.MARK


@dataclass(frozen=True)
class WriteLog:
    """A log's entries in memory (about 150 bytes each); their data stay in the file."""

    path: Path
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, path: Path, entries_max: int = ENTRIES_MAX) -> WriteLog:
        """Read every header of the log; the data are skipped.

        Raises: WriteLogError: it is no such log, is cut short, has an impossible entry, or has more
            than ``entries_max``.
        """
        with path.open("rb") as stream:
            count, sector_size = _superblock(path, stream)
            if count > entries_max:
                raise WriteLogError(f"{path}: {count} entries are more than {entries_max}")
            return cls(path, tuple(_entries(path, stream, count, sector_size)))

    def not_durable(self, upto: int) -> tuple[int, ...]:
        """The numbers of the requests among the first ``upto`` that a power cut then may lose.

        Those are what changed the disk and is followed by no flush; a write with FUA is never lost.
        """
        volatile: list[int] = []
        for entry in self.entries[: self._prefix(upto)]:
            if entry.flags & Flag.FLUSH:
                volatile.clear()
            if entry.changes and not entry.flags & Flag.FUA:
                volatile.append(entry.number)
        return tuple(volatile)

    def _prefix(self, upto: int | None) -> int:
        if upto is None:
            return len(self.entries)
        if not 0 <= upto <= len(self.entries):
            raise WriteLogError(f"{self.path} has no prefix of {upto} entries: it has {len(self.entries)}")
        return upto


def crash_image(
    log: WriteLog,
    base_image: Path,
    out_image: Path,
    upto: int | None = None,
    lose: Collection[int] | None = None,
    tear: Mapping[int, int] | None = None,
    start: int = 0,
) -> None:
    """Build the disk after a power cut behind the first ``upto`` requests (all of them if None).

    ``lose`` are the numbers of the requests that did not arrive, by default every one that may be
    lost and is not torn. ``tear`` and ``start`` are those of :func:`replay`.

    Raises: WriteLogError: a request that was durable, or was never made, cannot be lost or torn.
    """
    upto = log._prefix(upto)
    torn = tear or {}
    volatile = set(log.not_durable(upto))
    lost = volatile - torn.keys() if lose is None else set(lose)
    durable = sorted((lost | torn.keys()) - volatile)
    if durable:
        raise WriteLogError(
            f"{log.path}: after {upto} requests these cannot be lost or torn: {durable}",
            f"these can: {sorted(volatile)}",
        )
    replay(log, base_image, out_image, upto, lost, torn, start)


def replay(
    log: WriteLog,
    base_image: Path,
    out_image: Path,
    upto: int | None = None,
    drop: Collection[int] = (),
    tear: Mapping[int, int] | None = None,
    start: int = 0,
) -> None:
    """Copy ``base_image`` and apply the first ``upto`` requests, except ``drop``, to the copy.

    Of a request in ``tear`` only its first so many bytes arrive, a multiple of 512. ``base_image``
    already holds the requests before ``start``. Asks nothing about durability. Memory is bounded
    by one chunk, holes stay holes.

    Raises: WriteLogError: a request ends behind the image, or a tear is none. OSError.
    """
    upto = log._prefix(upto)
    torn = tear or {}
    if any(length < 0 or length % TEAR_BYTES for length in torn.values()):
        raise WriteLogError(f"a write tears at multiples of {TEAR_BYTES} bytes")
    copy_image(base_image, out_image)
    size = base_image.stat().st_size
    with log.path.open("rb") as source, out_image.open("r+b") as target:
        for entry in log.entries[start:upto]:
            if not entry.changes or entry.number in drop:
                continue
            if entry.offset + entry.length > size:
                raise WriteLogError(f"{log.path}: entry {entry.number} ends behind {base_image}, {size} bytes")
            _apply(entry, min(entry.length, torn.get(entry.number, entry.length)), source, target)


def lost_sets(candidates: Sequence[int], count_max: int, seed: int = 0) -> Iterator[frozenset[int]]:
    """Which requests to lose: every subset of ``candidates`` if those are at most ``count_max``.

    Otherwise ``count_max`` of them: all lost, none lost, each one alone lost, each one alone kept, then
    random ones. The same ``seed`` gives the same sets.
    """
    everything = frozenset(candidates)
    if 2 ** len(everything) <= count_max:
        sizes = range(len(everything), -1, -1)
        subsets = (itertools.combinations(sorted(everything), size) for size in sizes)
        yield from map(frozenset, itertools.chain.from_iterable(subsets))
        return
    chosen: dict[frozenset[int], None] = dict.fromkeys((everything, frozenset()))
    for alone in candidates:
        chosen |= dict.fromkeys((frozenset({alone}), everything - {alone}))
    source = random.Random(seed)
    while len(chosen) < count_max:
        chosen[frozenset(number for number in candidates if source.random() < 0.5)] = None
    yield from itertools.islice(chosen, count_max)


def _apply(entry: Entry, length: int, source: BinaryIO, target: BinaryIO) -> None:
    """Put the first ``length`` bytes of one request on the disk. What was discarded reads as zeros."""
    for position in range(0, length, CHUNK_BYTES):
        size = min(CHUNK_BYTES, length - position)
        if entry.flags & Flag.DISCARD:
            chunk = bytes(size)
        else:
            chunk = os.pread(source.fileno(), size, entry.data_offset + position)
        if len(chunk) != size:
            raise WriteLogError(f"the log shrank while entry {entry.number} was read")
        if chunk != bytes(size) or not is_hole(target.fileno(), entry.offset + position, size):
            write_all(target.fileno(), chunk, entry.offset + position)


def _superblock(path: Path, stream: BinaryIO) -> tuple[int, int]:
    """The number of entries, and the sector size in bytes."""
    block = stream.read(SUPERBLOCK.size)
    if len(block) < SUPERBLOCK.size:
        raise WriteLogError(f"{path}: {len(block)} bytes are no write log", "did the guest write anything?")
    magic, version, count, sector_size = SUPERBLOCK.unpack(block)
    if magic != MAGIC or version != VERSION:
        raise WriteLogError(f"{path}: no write log of version {VERSION}: magic {magic:#x}, version {version}")
    if sector_size not in SECTOR_SIZES:
        raise WriteLogError(f"{path}: sectors of {sector_size} bytes are impossible")
    return count, sector_size


def _entries(path: Path, stream: BinaryIO, count: int, sector_size: int) -> Iterator[Entry]:
    log_size = os.fstat(stream.fileno()).st_size
    position = sector_size
    for number in range(count):
        block = os.pread(stream.fileno(), sector_size, position)
        if len(block) < sector_size:
            raise WriteLogError(f"{path}: cut short: entry {number} of {count} begins at byte {position}")
        entry = _entry(path, number, block, position + sector_size)
        has_data = entry.changes and not entry.flags & Flag.DISCARD
        position = entry.data_offset + (entry.length if has_data else 0)
        if position > log_size:
            raise WriteLogError(
                f"{path}: cut short: entry {number} of {count} ends at byte {position}, the log at {log_size}"
            )
        yield entry


def _entry(path: Path, number: int, block: bytes, data_offset: int) -> Entry:
    sector, sectors, flags, text_length = HEADER.unpack_from(block)
    is_mark = bool(flags & Flag.MARK)
    padding = block[HEADER.size + (text_length if is_mark else 0) :]
    impossible = flags & ~_ALL_FLAGS or (text_length and not is_mark) or not (flags or sectors)
    if impossible or padding != bytes(len(padding)):
        raise WriteLogError(f"{path}: entry {number} is damaged: flags {flags:#x}, text {text_length} bytes")
    return Entry(number, sector * len(block), sectors * len(block), Flag(flags), data_offset)
