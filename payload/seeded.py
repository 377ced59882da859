"""Frames from the cheapest place: old content that is here, a reference frame, units, the plain frame.

:func:`plan` looks at the seeds once and decides for each frame by the bytes that would be fetched; what it
returns is used like a ``FrameReader``. Every frame is compared with its signed digest before it is handed
out. Whatever goes wrong with seeds and the delta part (damaged, lying, gone meanwhile) ends in the plain
frame. Memory: the indexes, two frames, and the pieces one frame is made of.
"""

from __future__ import annotations

from payload.bundle import read_exactly
from payload.delta import (
    BLOCK_BYTES,
    BLOCKS,
    REFERENCES,
    BlockIndex,
    ReferenceIndex,
    read_directory,
    read_index,
    unpack_reference,
    unpack_unit,
)
from payload.digest import digest
from payload.errors import BundleError, PayloadError
from payload.frames import FrameReader, silent
from payload.seeds import NOWHERE, SEEDS_MAX, Base, Places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol

    from payload.bundle import Header, Reader
    from payload.delta import Entry, Reference
    from payload.frames import Progress
    from payload.manifest import Image, Manifest
    from payload.seeds import Seed
    from statemachine.region import Region

    Range = tuple[int, int]

    class Way(Protocol):
        """One way to make a frame. ``ranges`` are what it fetches, ``frame`` makes it, unverified."""

        def ranges(self, index: int) -> list[Range]: ...
        def frame(self, index: int) -> bytes: ...


# The index must promise to save more than it costs: below so many times its bytes plain frames are fetched.
INDEX_WORTH = 2


class SeededFrames:
    """The frames of one image, as ``FrameReader``. Made by :func:`plan`."""

    __slots__ = ("_plain", "_ways", "table")

    def __init__(self, plain: FrameReader, ways: dict[int, Way]) -> None:
        self._plain = plain
        self._ways = ways
        self.table = plain.table

    @property
    def is_far(self) -> bool:
        """As ``FrameReader.is_far``."""
        return self._plain.is_far

    def announce(self, indices: Sequence[int]) -> None:
        """Tell the source which of its bytes will be read for ``indices``, in order."""
        self._plain.announce_ranges(wanted for index in indices for wanted in self.ranges(index))

    def ranges(self, index: int) -> list[Range]:
        """The (offset, length) of the bundle that frame ``index`` is going to need."""
        way = self._ways.get(index)
        return self._plain.ranges(index) if way is None else way.ranges(index)

    def frame(self, index: int) -> bytes:
        """The plain bytes of frame ``index``, verified.

        The planned way is tried once: a second request comes because writing went wrong, and then old
        content of the same slot may be gone.

        Raises:
            BundleError: this bundle does not have them.
        """
        way = self._ways.pop(index, None)
        if way is not None:
            try:
                plain = way.frame(index)
            except (BundleError, OSError, ValueError):
                plain = b""
            if digest(plain) == self.table[index].digest:
                return plain
        return self._plain.frame(index)


class _FromReference:
    """A frame that is, or is compressed against, pieces of an old version that were looked at."""

    __slots__ = ("_base", "_plain", "reference")

    def __init__(self, plain: FrameReader, base: Base, reference: Reference) -> None:
        self._plain = plain
        self._base = base
        self.reference = reference

    def ranges(self, index: int) -> list[Range]:
        stored = self.reference.stored_length
        return [(self._plain.data_offset + self.reference.offset, stored)] if stored else []

    def frame(self, index: int) -> bytes:
        stored = b"".join(read_exactly(self._plain.reader, *wanted) for wanted in self.ranges(index))
        return unpack_reference(stored, self._base.read(self.reference.extents), self._plain.table[index].plain_length)


class _FromBlocks:
    """Frames put together from blocks that seeds hold, and units. ``target`` holds the frames before."""

    __slots__ = ("_index", "_places", "_plain", "_target")

    def __init__(self, plain: FrameReader, index: BlockIndex, places: Places, target: Region) -> None:
        self._plain = plain
        self._index = index
        self._places = places
        self._target = target

    def cost(self, frame: int) -> int:
        """How many bytes of units are missing."""
        return sum(length for _offset, length in self.ranges(frame))

    def ranges(self, frame: int) -> list[Range]:
        missing = [
            (self._plain.data_offset + offset, length)
            for (offset, length), place in zip(self._index.frame_units(frame), self._places.frame(frame), strict=True)
            if length and place == NOWHERE
        ]
        return list(_joined(missing))

    def frame(self, index: int) -> bytes:
        position = self._plain.table.position(index)
        at = context = min(self._index.context_bytes, position)
        made = memoryview(bytearray(context + self._plain.table[index].plain_length))
        made[:at] = self._target.read(position - context, context) if context else b""
        stored = memoryview(b"".join(read_exactly(self._plain.reader, *wanted) for wanted in self.ranges(index)))
        for place, length, blocks in self._pieces(index):
            end = at + blocks * BLOCK_BYTES
            if place != NOWHERE:
                made[at:end] = self._places.read(place, blocks)
            elif length:
                made[at:end] = unpack_unit(stored[:length], made[max(0, at - self._index.context_bytes) : at])
                stored = stored[length:]
            at = end
        return bytes(made[context:])

    def _pieces(self, index: int) -> Iterator[tuple[int, int, int]]:
        """(place, length of the unit, number of blocks): blocks that lie side by side in a seed are one piece."""
        place, blocks = NOWHERE, 0
        for (_offset, length), here in zip(self._index.frame_units(index), self._places.frame(index), strict=True):
            if blocks and here == place + blocks:
                blocks += 1
                continue
            if blocks:
                yield place, 0, blocks
            place, blocks = here, int(here != NOWHERE)
            if here == NOWHERE:
                yield NOWHERE, length, 1
        if blocks:
            yield place, 0, blocks


def _joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges that touch become one."""
    start = end = 0
    for offset, length in ranges:
        if offset != end and end > start:
            yield start, end - start
        if offset != end:
            start = offset
        end = offset + length
    if end > start:
        yield start, end - start


class Reuse:
    """What may be reused for an image of ``manifest``: ``seeds``, at most SEEDS_MAX of them.

    The manifest, with its images' tables, is believed already (``payload.trust``).
    """

    __slots__ = ("manifest", "seeds")

    def __init__(self, manifest: Manifest, seeds: Sequence[Seed]) -> None:
        self.manifest = manifest
        self.seeds = seeds[:SEEDS_MAX]

    def plan(
        self,
        source: Reader,
        header: Header,
        image: Image,
        target: Region,
        indices: Sequence[int],
        progress: Progress = silent,
    ) -> SeededFrames:
        """How to get the frames ``indices``, written to ``target`` in this order, for the fewest bytes of ``source``.

        Reads seeds and indexes. Never raises for what a seed or the delta part holds: then frames come
        from where they always can.
        """
        plain = FrameReader(source, len(header.raw), image.frames())
        ways: dict[int, Way] = {}
        try:
            entries = read_directory(source, header, self.manifest, image) if self.seeds and indices else []
            _plan_references(plain, image, entries, self.seeds, indices, ways, progress)
            _plan_blocks(plain, image, entries, self.seeds, target, indices, ways, progress)
        except BundleError:
            pass  # a damaged delta part
        return SeededFrames(plain, ways)


def _plan_references(
    plain: FrameReader,
    image: Image,
    entries: Sequence[Entry],
    seeds: Sequence[Seed],
    indices: Sequence[int],
    ways: dict[int, Way],
    progress: Progress,
) -> None:
    """Frames for which a seed holds the old version that the builder knew. The smallest of several."""
    for seed, entry in _named(entries, seeds):
        try:
            old = seed.manifest.image(image.slot_class) if seed.manifest else image
            base = Base(seed, old, indices, image.frame_size)
            index = ReferenceIndex(read_index(plain.reader, plain.data_offset, entry), image)
        except PayloadError:
            continue
        for done, frame in enumerate(indices, 1):
            progress("look at the old version", done, len(indices))
            reference = index.frame(frame)
            known = ways.get(frame)
            best = known.reference.stored_length if isinstance(known, _FromReference) else _plain_cost(plain, frame)
            if reference and reference.stored_length < best and base.holds(reference.extents, frame):
                ways[frame] = _FromReference(plain, base, reference)


def _named(entries: Sequence[Entry], seeds: Sequence[Seed]) -> Iterator[tuple[Seed, Entry]]:
    """Seeds and the reference index made for their version; those that stay where they are go first."""
    for seed in sorted(seeds, key=lambda seed: seed.is_target):
        for entry in entries:
            if entry.kind == REFERENCES and seed.manifest is not None and seed.manifest.digest == entry.base:
                yield seed, entry


def _plan_blocks(
    plain: FrameReader,
    image: Image,
    entries: Sequence[Entry],
    seeds: Sequence[Seed],
    target: Region,
    indices: Sequence[int],
    ways: dict[int, Way],
    progress: Progress,
) -> None:
    """What is left, block by block, if that is worth its index."""
    left = [index for index in indices if index not in ways]
    for entry in entries:
        if (
            entry.kind == BLOCKS
            and sum(_plain_cost(plain, index) for index in left) > INDEX_WORTH * entry.stored_length
        ):
            blocks = BlockIndex(read_index(plain.reader, plain.data_offset, entry), image)
            places = Places(seeds, image, blocks)
            places.scan(blocks, left, indices, progress)
            way = _FromBlocks(plain, blocks, places, target)
            ways.update({frame: way for frame in left if way.cost(frame) < _plain_cost(plain, frame)})
            return


def _plain_cost(plain: FrameReader, index: int) -> int:
    return plain.table[index].stored_length
