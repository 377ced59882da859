"""Which pieces of an old image resemble a frame of a new one. Runs on the build host only.

Blocks of 4 KiB that are the same are found by their digests. For the others, short pieces at places that
the content itself chooses are compared: the same pieces begin at the same bytes however far they moved.
Only a proposal comes out of here; how good it is shows in the size of the frame that is made with it.
Memory: about 100 bytes for each block of the old image, and 4 KB for each of its blocks that vanished.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING
from zlib import crc32

from payload.delta import BLOCK_BYTES, EXTENTS_PER_FRAME_MAX, REFERENCE_BYTES_MAX
from payload.digest import digest

if TYPE_CHECKING:
    from payload.delta import Extent

# Two bytes of which a seventh each fits: one place in fifty, in code, tables and text alike.
_CHOSEN = bytes(byte for byte in range(1, 256) if byte * 167 % 256 < 36)
PLACES = re.compile(b"(?s)[" + re.escape(_CHOSEN) + b"](?=[" + re.escape(_CHOSEN[::-1]) + b"])")
PIECE_BYTES = 16
PIECE_PLACES_MAX = 8
RUN_BLOCKS_MAX = 256
NEIGHBOUR_BLOCKS = 8  # on either side of a similar one
ZEROES = bytes(BLOCK_BYTES)

Read = Callable[[int, int], bytes]


def block_digests(read: Read, size: int) -> Iterator[bytes]:
    """The first 16 bytes of the digest of every block; nothing for blocks of zeroes."""
    for start in range(0, size, RUN_BLOCKS_MAX * BLOCK_BYTES):
        run = read(start, min(RUN_BLOCKS_MAX * BLOCK_BYTES, size - start))
        for at in range(0, len(run), BLOCK_BYTES):
            block = run[at : at + BLOCK_BYTES]
            yield b"" if block == ZEROES else digest(block)[:16]


def pieces(content: bytes) -> Iterator[tuple[int, int]]:
    """(where, checksum) of the pieces that stand for ``content``."""
    for match in PLACES.finditer(content):
        start = match.start()
        yield start, crc32(content[start : start + PIECE_BYTES])


class OldContent:
    """An old image, prepared for questions. ``read`` gives its bytes; ``kept`` are the digests of blocks that the new
    image has as well: what resembles them needs no help."""

    def __init__(self, read: Read, size: int, kept: Set[bytes]) -> None:
        self._names = list(block_digests(read, size))
        self._first: dict[bytes, int] = {}
        for number, name in enumerate(self._names):
            self._first.setdefault(name, number)
        self._pieces: dict[int, array[int]] = {}
        for first, blocks in self._runs(kept):
            run = read(first * BLOCK_BYTES, blocks * BLOCK_BYTES)
            for where, piece in pieces(run):
                known = self._pieces.setdefault(piece, array("I"))
                if len(known) <= PIECE_PLACES_MAX:
                    known.append(first + where // BLOCK_BYTES)

    def _runs(self, kept: Set[bytes]) -> Iterator[Extent]:
        """The vanished blocks, neighbours together."""
        first = blocks = 0
        for number, name in enumerate(self._names):
            if name and name not in kept and blocks < RUN_BLOCKS_MAX:
                first, blocks = (first, blocks + 1) if blocks else (number, 1)
            elif blocks:
                yield first, blocks
                blocks = 0
        if blocks:
            yield first, blocks

    def same(self, names: Sequence[bytes]) -> list[int | None]:
        """For each digest the number of the old block that has it; runs stay runs."""
        found: list[int | None] = []
        previous: int | None = None
        for name in names:
            following = None if previous is None else previous + 1
            if following is not None and following < len(self._names) and self._names[following] == name:
                previous = following
            else:
                previous = self._first.get(name) if name else None
            found.append(previous)
        return found

    def similar(self, block: bytes) -> range:
        """The old blocks around the one that has most pieces in common with ``block``; none where nothing has."""
        votes: Counter[int] = Counter()
        for _where, piece in pieces(block):
            places = self._pieces.get(piece, ())
            if len(places) <= PIECE_PLACES_MAX:
                votes.update(set(places))
        for best, _count in votes.most_common(1):
            return range(max(0, best - NEIGHBOUR_BLOCKS), min(self.blocks, best + NEIGHBOUR_BLOCKS + 1))
        return range(0)

    @property
    def blocks(self) -> int:
        return len(self._names)


def choose_extents(old: OldContent, frame: bytes, names: Sequence[bytes]) -> tuple[list[Extent], bool]:
    """Pieces of the old image to compress ``frame`` against, and whether they are the frame itself.

    ``names`` are the digests of its blocks.
    """
    same = old.same(names)
    exact = _as_extents([number for number in same if number is not None])
    if None not in same:
        runs = list(_in_order([number for number in same if number is not None]))
        if len(runs) <= EXTENTS_PER_FRAME_MAX:
            return runs, True
    ranked: list[int] = []
    for position, (number, name) in enumerate(zip(same, names, strict=True)):
        if number is None and name:
            block = frame[position * BLOCK_BYTES : (position + 1) * BLOCK_BYTES + PIECE_BYTES]
            ranked += old.similar(block)
    return _bounded(exact, ranked), False


def _in_order(numbers: Sequence[int]) -> Iterator[Extent]:
    first = blocks = 0
    for number in numbers:
        if blocks and number == first + blocks:
            blocks += 1
            continue
        if blocks:
            yield first, blocks
        first, blocks = number, 1
    if blocks:
        yield first, blocks


def _as_extents(numbers: Sequence[int]) -> list[Extent]:
    return list(_in_order(sorted(set(numbers))))


def _bounded(exact: list[Extent], ranked: Sequence[int]) -> list[Extent]:
    """The exact blocks and as many of the similar ones, the most wanted first, as the bounds allow."""
    chosen = {number for first, blocks in exact for number in range(first, first + blocks)}
    extents = exact[:EXTENTS_PER_FRAME_MAX]
    for number, _count in Counter(ranked).most_common():
        if len(chosen) * BLOCK_BYTES >= REFERENCE_BYTES_MAX:
            break
        chosen.add(number)
    while len(extents := _as_extents(sorted(chosen))) > EXTENTS_PER_FRAME_MAX:
        chosen -= set(range(*_shortest(extents)))
    return extents


def _shortest(extents: Sequence[Extent]) -> tuple[int, int]:
    first, blocks = min(extents, key=lambda extent: extent[1])
    return first, first + blocks
