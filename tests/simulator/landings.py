"""What may be on the media after a cut, given the writes that were not flushed.

Pure enumeration, used by ``tests/simulator/disk.py``; it knows nothing of disks but a number.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

SECTOR_BYTES = 512
SUBSETS_WRITES_MAX = 8  # above this many unflushed writes, subsets are sampled
TEAR_SUBSETS_WRITES_MAX = 4  # above this many, the writes beside a torn one are sampled
SAMPLES = 64

Sectors = dict[int, bytes]
Write = tuple[int, Sectors]  # number of the disk, sectors by their number


def to_sectors(offset: int, data: bytes) -> Sectors:
    assert offset % SECTOR_BYTES == 0 and len(data) % SECTOR_BYTES == 0, "not whole sectors"
    first = offset // SECTOR_BYTES
    return {
        first + index: data[index * SECTOR_BYTES : (index + 1) * SECTOR_BYTES]
        for index in range(len(data) // SECTOR_BYTES)
    }


def landings(writes: Sequence[Write], seed: int, erase_unit: int) -> Iterator[list[Write]]:
    """Lists of writes, each of which may be what reached the media, in that order."""
    for subset in _subsets(len(writes), SUBSETS_WRITES_MAX, seed):
        landed = [writes[index] for index in subset]
        yield landed
        if _overlap(landed):
            yield landed[::-1]
    for torn, (disk, sectors) in enumerate(writes):
        others = [*writes[:torn], *writes[torn + 1 :]]
        pieces = list(_torn(sectors))
        if erase_unit > SECTOR_BYTES:
            pieces.append(_wiped(sectors, erase_unit // SECTOR_BYTES))
        for subset in _subsets(len(others), TEAR_SUBSETS_WRITES_MAX - 1, seed):
            for piece in pieces:
                yield [*(others[index] for index in subset), (disk, piece)]


def _subsets(count: int, exhaustive_max: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Index tuples: every subset, or above ``exhaustive_max`` none, all, all but one, and a sample."""
    everything = tuple(range(count))
    if count <= exhaustive_max:
        for size in range(count + 1):
            yield from itertools.combinations(everything, size)
        return
    yield ()
    yield everything
    chance = random.Random(seed)
    for missing in everything[-SAMPLES:]:
        yield everything[:missing] + everything[missing + 1 :]
    for _ in range(SAMPLES):
        yield tuple(index for index in everything if chance.random() < 0.5)


def _torn(sectors: Sectors) -> Iterator[Sectors]:
    items = list(sectors.items())
    for cut in range(1, len(items)):
        yield dict(items[:cut])
        yield dict(items[cut:])


def _wiped(sectors: Sectors, sectors_per_unit: int) -> Sectors:
    units = {number // sectors_per_unit for number in sectors}
    wiped = b"\xff" * SECTOR_BYTES
    return {unit * sectors_per_unit + index: wiped for unit in units for index in range(sectors_per_unit)}


def _overlap(writes: Sequence[Write]) -> bool:
    total = sum(len(sectors) for _, sectors in writes)
    return total > len({(disk, number) for disk, sectors in writes for number in sectors})
