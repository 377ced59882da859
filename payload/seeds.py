"""Old content as a source: which of the blocks that an image needs are here already, and where.

A seed is anything that can be read: the slot's old content, the other slot, the old image in the local
payload. It is never believed: what is taken from it goes into a frame, and a frame is used only if its
signed digest is right. So a seed that is damaged, or lies, costs bytes and nothing else.

The slot that is being written may be a seed of itself. Its rule: *a frame is made only of bytes of the
slot that no write of this run replaces before this frame's own.* Frames are written in rising order, so
these are the bytes at and behind the frame, and those of frames that are right already. After a power
cut the plan is made anew from what is there then; old bytes that were replaced before the cut are
fetched.
"""

from __future__ import annotations

from payload.delta import BLOCK_BYTES, BLOCKS_MAX
from payload.digest import digest
from payload.errors import BundleError
from payload.frames import PlainContent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from payload.delta import BlockIndex
    from payload.frames import Progress
    from payload.manifest import Image, Manifest

    class Readable(Protocol):
        """Plain old content."""

        @property
        def size(self) -> int: ...

        def read(self, offset: int, length: int) -> bytes: ...


SEEDS_MAX = 8
SEED_BYTES_MAX = 64 << 30  # bounds the time of a scan
SCAN_BYTES = 256 << 10
ZEROES = bytes(BLOCK_BYTES)
# A place is a number: the seed's in the upper bits, the block's in the lower ones.
PLACE_BITS = 28
NOWHERE = (1 << 32) - 1
BLOCKS_PER_BUCKET = 8
POSITION_BYTES = 4


class Seed:
    """Old content. ``manifest`` describes it, where that is known; ``is_target``: it is the slot that is written."""

    __slots__ = ("content", "is_target", "manifest", "size")

    def __init__(self, content: Readable, manifest: Manifest | None = None, *, is_target: bool = False) -> None:
        self.content = content
        self.manifest = manifest
        self.is_target = is_target
        self.size = min(content.size, SEED_BYTES_MAX, BLOCK_BYTES << PLACE_BITS)

    def read(self, offset: int, length: int) -> bytes:
        """What the seed holds there; empty where it cannot be read or ends."""
        if offset + length > self.size:
            return b""
        try:
            return self.content.read(offset, length)
        except OSError:
            return b""


class ImageInBundle(PlainContent):
    """The plain content of an image whose frames are in a bundle, the local payload for example."""

    __slots__ = ()

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``; fewer at the end. Raises ``OSError`` where the bundle has them not."""
        try:
            return super().read(offset, length)
        except BundleError as error:
            raise OSError(str(error)) from error


class Lookup:
    """Short digests of the wanted blocks, to be found by digest; about 30 bytes of memory for each."""

    __slots__ = ("_buckets", "_digest_bytes", "_mask")

    def __init__(self, index: BlockIndex, frame_blocks: int, frames: Sequence[int]) -> None:
        self._digest_bytes = index.digest_bytes
        count = 1
        while count * BLOCKS_PER_BUCKET < len(frames) * frame_blocks:
            count *= 2
        self._mask = count - 1
        self._buckets = [b""] * count
        for frame in frames:
            for number, name in enumerate(index.frame_digests(frame), frame * frame_blocks):
                if name:
                    self._buckets[self._bucket(name)] += name + number.to_bytes(POSITION_BYTES, "little")

    def _bucket(self, name: bytes) -> int:
        return int.from_bytes(name[:4], "little") & self._mask

    def blocks(self, name: bytes) -> list[int]:
        """The numbers of the wanted blocks with this short digest."""
        bucket = self._buckets[self._bucket(name)]
        at = bucket.find(name)
        if at < 0:
            return []
        size = self._digest_bytes + POSITION_BYTES
        found = []
        while at >= 0:
            if at % size == 0:
                found.append(int.from_bytes(bucket[at + self._digest_bytes : at + size], "little"))
            at = bucket.find(name, at + 1)
        return found


class Places:
    """Where seeds hold the blocks of an image, after looking at all of them: 4 bytes a block."""

    __slots__ = ("_frame_blocks", "_places", "_seeds")

    def __init__(self, seeds: Sequence[Seed], image: Image, index: BlockIndex) -> None:
        once = {id(seed.content): seed for seed in seeds}  # a slot may be there under two names
        self._seeds = sorted(once.values(), key=lambda seed: seed.is_target)[:SEEDS_MAX]  # what stays goes first
        self._frame_blocks = image.frame_size // BLOCK_BYTES
        self._places = memoryview(bytearray(b"\xff" * (4 * index.blocks))).cast("I")

    def scan(self, index: BlockIndex, wanted: Sequence[int], written: Sequence[int], progress: Progress) -> None:
        """Look at every block of every seed for the frames ``wanted``. ``written`` are all that are going to be
        written, in rising order."""
        lookup = Lookup(index, self._frame_blocks, wanted)
        chunks = sum(-(-seed.size // SCAN_BYTES) for seed in self._seeds)
        done = 0
        for number, seed in enumerate(self._seeds):
            allowed = self._before_it_is_replaced(written) if seed.is_target else _anything
            for start in range(0, seed.size, SCAN_BYTES):
                chunk = seed.read(start, min(SCAN_BYTES, seed.size - start))
                self._scan_chunk(chunk, number << PLACE_BITS | start // BLOCK_BYTES, lookup, allowed)
                done += 1
                progress("scan old content", done, chunks)

    def _scan_chunk(self, chunk: bytes, place: int, lookup: Lookup, allowed: Callable[[int, int], bool]) -> None:
        size = lookup._digest_bytes
        places = self._places
        for at in range(0, len(chunk) - BLOCK_BYTES + 1, BLOCK_BYTES):
            block = chunk[at : at + BLOCK_BYTES]
            if block == ZEROES:
                continue
            for number in lookup.blocks(digest(block)[:size]):
                here = place + at // BLOCK_BYTES
                if places[number] == NOWHERE and allowed(number, here & (1 << PLACE_BITS) - 1):
                    places[number] = here

    def _before_it_is_replaced(self, written: Sequence[int]) -> Callable[[int, int], bool]:
        """Whether the target's block ``old`` still is what it was when the frame of block ``new`` is made."""
        replaced = frozenset(written)
        frame_blocks = self._frame_blocks

        def allowed(new: int, old: int) -> bool:
            return old // frame_blocks >= new // frame_blocks or old // frame_blocks not in replaced

        return allowed

    def frame(self, frame: int) -> list[int]:
        """The place of each block of ``frame``; NOWHERE for what has to be fetched (and for zeroes)."""
        first = frame * self._frame_blocks
        return self._places[first : first + self._frame_blocks].tolist()

    def read(self, place: int, blocks: int) -> bytes:
        """The content of ``blocks`` blocks from ``place`` on; empty where it cannot be read any more."""
        seed = self._seeds[place >> PLACE_BITS]
        return seed.read((place & (1 << PLACE_BITS) - 1) * BLOCK_BYTES, blocks * BLOCK_BYTES)


def _anything(new: int, old: int) -> bool:
    return True


class Base:
    """A seed that is said to hold a named version, frame by frame looked at before anything is fetched for it."""

    __slots__ = ("_intact", "_replaced", "seed", "table")

    def __init__(self, seed: Seed, image: Image, wanted: Sequence[int], frame_size: int) -> None:
        self.seed = seed
        self.table = image.frames()
        self._intact: dict[int, bool] = {}
        self._replaced = _ReplacedBytes(wanted, frame_size) if seed.is_target else None

    def holds(self, extents: Sequence[tuple[int, int]], frame: int) -> bool:
        """Whether all of ``extents`` is what it should be, and still is when ``frame`` is made."""
        for first, blocks in extents:
            start, end = first * BLOCK_BYTES, (first + blocks) * BLOCK_BYTES
            if blocks == 0 or end > self.table.image_bytes:
                return False
            if self._replaced is not None and self._replaced.before(frame, start, end):
                return False
            touched = range(start // self.table.frame_bytes, -(-end // self.table.frame_bytes))
            if not all(self._is_intact(index) for index in touched):
                return False
        return True

    def _is_intact(self, index: int) -> bool:
        known = self._intact.get(index)
        if known is None:
            entry = self.table[index]
            known = digest(self.seed.read(self.table.position(index), entry.plain_length)) == entry.digest
            self._intact[index] = known
        return known

    def read(self, extents: Sequence[tuple[int, int]]) -> bytes:
        """The content of ``extents``, one after the other."""
        return b"".join(self.seed.read(first * BLOCK_BYTES, blocks * BLOCK_BYTES) for first, blocks in extents)


class _ReplacedBytes:
    """Which bytes of the target are replaced before a frame is made."""

    __slots__ = ("_frame_size", "_wanted")

    def __init__(self, wanted: Sequence[int], frame_size: int) -> None:
        self._wanted = frozenset(wanted)
        self._frame_size = frame_size

    def before(self, frame: int, start: int, end: int) -> bool:
        touched = range(start // self._frame_size, -(-end // self._frame_size))
        return any(index < frame and index in self._wanted for index in touched)


assert BLOCKS_MAX <= 1 << PLACE_BITS
