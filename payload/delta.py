"""The part of a bundle that makes updates small, as bytes: docs/SPEC.md, "The delta part".

It lies behind the plain frames and repeats them in two other ways: as *units*, blocks of 4 KiB that are
fetched one by one by a device that found the others in old content of any kind; and as *reference frames*,
frames compressed against pieces of one named old version. Everything begins with an image's directory,
whose digest is in the signed manifest. Nothing here reads old content or decides what to fetch.
"""

from __future__ import annotations

import sys
from struct import Struct

from payload.bundle import read_exactly
from payload.codec import zstd_decompress
from payload.digest import DIGEST_BYTES, digest
from payload.errors import PayloadCorruptError, PayloadFormatError
from payload.table import IMAGE_UNIT_BYTES, STORED_OFFSET_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from payload.bundle import Header, Reader
    from payload.manifest import Image, Manifest

    Buffer = bytes | memoryview
    # (first block, number of blocks) of the old version's image
    Extent = tuple[int, int]

BLOCK_BYTES = IMAGE_UNIT_BYTES
NO_DIGEST = bytes(DIGEST_BYTES)

DIRECTORY_BYTES = 4096
DIRECTORY_START = Struct("<II")
# kind, three zero bytes, bytes as stored, bytes when unpacked, offset, digest of what is stored, old manifest
DIRECTORY_ENTRY = Struct(f"<B3sIIQ{DIGEST_BYTES}s{DIGEST_BYTES}s")
DIRECTORY_ENTRIES_MAX = (DIRECTORY_BYTES - DIRECTORY_START.size) // DIRECTORY_ENTRY.size
BLOCKS, REFERENCES = 1, 2
INDEX_BYTES_MAX = 16 << 20

# offset of the first unit, bytes of a digest, bytes of context, blocks, reserved
BLOCK_INDEX_START = Struct("<QIIII")
BLOCK_DIGEST_BYTES = range(4, 17)
CONTEXT_BYTES_MAX = 1 << 20
APART = 1 << 15  # in the length of a unit: it is stored behind all of those without
BLOCKS_MAX = 1 << 20  # an image of 4 GiB: more would not fit a small device's memory
# offset of the first frame, frames, extents
REFERENCE_INDEX_START = Struct("<QII")
EXTENTS_PER_FRAME_MAX = 64
REFERENCE_BYTES_MAX = 1 << 20
# A zstd frame (RFC 8878) up to its first block: magic, no content size, no checksum, a window of 4 KiB.
UNIT_FRAME_START = b"\x28\xb5\x2f\xfd\x00\x10"
LAST_COMPRESSED_BLOCK = 0b101


class Entry:
    """An index of the directory. ``base`` is the digest of the old version's manifest, for REFERENCES."""

    __slots__ = ("base", "digest", "kind", "offset", "plain_length", "stored_length")

    def __init__(
        self, *, kind: int, offset: int, stored_length: int, plain_length: int, digest: bytes, base: bytes = NO_DIGEST
    ) -> None:
        self.kind = kind
        self.offset = offset
        self.stored_length = stored_length
        self.plain_length = plain_length
        self.digest = digest
        self.base = base

    def encode(self) -> bytes:
        """The 84 bytes of this entry."""
        return DIRECTORY_ENTRY.pack(
            self.kind, bytes(3), self.stored_length, self.plain_length, self.offset, self.digest, self.base
        )


def encode_directory(entries: list[Entry]) -> bytes:
    """The 4096 bytes of a directory; ``entries`` are at most DIRECTORY_ENTRIES_MAX."""
    assert len(entries) <= DIRECTORY_ENTRIES_MAX
    start = DIRECTORY_START.pack(len(entries), 0)
    return (start + b"".join(entry.encode() for entry in entries)).ljust(DIRECTORY_BYTES, b"\0")


def decode_directory(raw: bytes) -> list[Entry]:
    """The entries of a directory whose digest is right. Raises ``PayloadFormatError``."""
    count, _reserved = DIRECTORY_START.unpack_from(raw)
    if count > DIRECTORY_ENTRIES_MAX:
        raise PayloadFormatError(f"a directory of {count} indexes, allowed are {DIRECTORY_ENTRIES_MAX}")
    entries = [
        _decode_entry(*DIRECTORY_ENTRY.unpack_from(raw, DIRECTORY_START.size + number * DIRECTORY_ENTRY.size))
        for number in range(count)
    ]
    if encode_directory(entries) != raw:
        raise PayloadFormatError("the directory of the delta part has bytes that say nothing")
    return entries


def _decode_entry(
    kind: int, _zeroes: bytes, stored_length: int, plain_length: int, offset: int, name: bytes, base: bytes
) -> Entry:
    if kind not in (BLOCKS, REFERENCES) or (kind == BLOCKS) != (base == NO_DIGEST):
        raise PayloadFormatError(f"an index of unknown kind {kind}")
    if max(stored_length, plain_length) > INDEX_BYTES_MAX or offset > STORED_OFFSET_MAX:
        raise PayloadFormatError(f"an index of {stored_length} bytes, {plain_length} unpacked, at {offset}")
    return Entry(
        kind=kind, offset=offset, stored_length=stored_length, plain_length=plain_length, digest=name, base=base
    )


def directory_offset(manifest: Manifest, image: Image) -> int:
    """Where the directory of ``image`` is, counted from the end of the header.

    The directories of all images follow each other behind the last plain frame.
    """
    plain_end = max(each.frames().stored_end() for each in manifest.images)
    return -(-plain_end // DIRECTORY_BYTES) * DIRECTORY_BYTES + manifest.images.index(image) * DIRECTORY_BYTES


def read_directory(reader: Reader, header: Header, manifest: Manifest, image: Image) -> list[Entry]:
    """The indexes that a bundle has for ``image``; none where its manifest names no directory.

    Raises:
        BundleError: the directory is not there, or not the signed one.
    """
    if image.delta_digest == NO_DIGEST:
        return []
    raw = read_exactly(reader, len(header.raw) + directory_offset(manifest, image), DIRECTORY_BYTES)
    if digest(raw) != image.delta_digest:
        raise PayloadCorruptError("the directory of the delta part is damaged")
    return decode_directory(raw)


def read_index(reader: Reader, data_offset: int, entry: Entry) -> bytes:
    """The bytes of an index, unpacked. Its signed digest is compared before anything interprets it.

    Raises:
        BundleError: it is not there, or damaged.
    """
    stored = read_exactly(reader, data_offset + entry.offset, entry.stored_length)
    if digest(stored) != entry.digest:
        raise PayloadCorruptError("an index of the delta part is damaged")
    try:
        return zstd_decompress(stored, entry.plain_length)
    except ValueError as error:
        raise PayloadFormatError(f"an index of the delta part: {error}") from error


class BlockIndex:
    """For every block of an image: a short digest, and where its unit is stored.

    A block of zeroes has neither. Decoding costs 2 bytes a block and 20 bytes a frame on top of ``raw``.

    Raises:
        PayloadFormatError: the index does not fit the image.
    """

    __slots__ = ("_digests", "_first_apart", "_first_digests", "_first_units", "_frame_blocks", "_lengths", "blocks",
                 "context_bytes", "digest_bytes")  # fmt: skip

    def __init__(self, raw: bytes, image: Image) -> None:
        self._check_start(raw, image)
        offset, self.digest_bytes, self.context_bytes, self.blocks, _reserved = BLOCK_INDEX_START.unpack_from(raw)
        columns = bytearray(2 * self.blocks)
        low_end = BLOCK_INDEX_START.size + self.blocks
        little = sys.byteorder == "little"
        columns[not little :: 2] = raw[BLOCK_INDEX_START.size : low_end]
        columns[little::2] = raw[low_end : low_end + self.blocks]
        self._lengths = memoryview(columns).cast("H")
        self._digests = memoryview(raw)[low_end + self.blocks :]
        self._frame_blocks = image.frame_size // BLOCK_BYTES
        self._sum_up(offset)

    @staticmethod
    def _check_start(raw: bytes, image: Image) -> None:
        if len(raw) < BLOCK_INDEX_START.size:
            raise PayloadFormatError(f"a block index of {len(raw)} bytes")
        offset, digest_bytes, context_bytes, blocks, reserved = BLOCK_INDEX_START.unpack_from(raw)
        if blocks != image.size // BLOCK_BYTES or blocks > BLOCKS_MAX or len(raw) < BLOCK_INDEX_START.size + 2 * blocks:
            raise PayloadFormatError(f"a block index of {blocks} blocks does not fit its image")
        if digest_bytes not in BLOCK_DIGEST_BYTES or reserved or offset > STORED_OFFSET_MAX:
            raise PayloadFormatError("a block index that this device does not know")
        if context_bytes > CONTEXT_BYTES_MAX or context_bytes % BLOCK_BYTES:
            raise PayloadFormatError(f"units with a context of {context_bytes} bytes")

    def _sum_up(self, unit_offset: int) -> None:
        """Where each frame's units and digests begin."""
        frames = range(-(-self.blocks // self._frame_blocks))
        self._first_units = memoryview(bytearray(8 * len(frames))).cast("Q")
        self._first_apart = memoryview(bytearray(8 * len(frames))).cast("Q")
        self._first_digests = memoryview(bytearray(4 * len(frames))).cast("I")
        digest_count = apart_bytes = 0
        for frame in frames:
            self._first_units[frame], self._first_digests[frame] = unit_offset, digest_count
            self._first_apart[frame] = apart_bytes
            lengths = self._frame_lengths(frame)
            apart = [length - APART for length in lengths if length >= APART]
            together = [length for length in lengths if length < APART]
            if max((*apart, *together)) > BLOCK_BYTES or 0 in apart:
                raise PayloadFormatError(f"a unit of frame {frame} has not the length of one")
            unit_offset += sum(together)
            apart_bytes += sum(apart)
            digest_count += len(lengths) - lengths.count(0)
        for frame in frames:
            self._first_apart[frame] += unit_offset
        if digest_count * self.digest_bytes != len(self._digests):
            raise PayloadFormatError("a block index has another number of digests than of blocks")

    def frame_digests(self, frame: int) -> list[bytes]:
        """The short digests of the blocks of ``frame``, empty for a block of zeroes."""
        at = self._first_digests[frame] * self.digest_bytes
        found = []
        for length in self._frame_lengths(frame):
            end = at + (self.digest_bytes if length else 0)
            found.append(bytes(self._digests[at:end]))
            at = end
        return found

    def frame_units(self, frame: int) -> list[tuple[int, int]]:
        """(offset, length) of the units of ``frame``; the length of a block of zeroes is 0."""
        at, at_apart = self._first_units[frame], self._first_apart[frame]
        found = []
        for length in self._frame_lengths(frame):
            if length >= APART:
                found.append((at_apart, length - APART))
                at_apart += length - APART
            else:
                found.append((at, length))
                at += length
        return found

    def _frame_lengths(self, frame: int) -> list[int]:
        """As they are stored."""
        first = frame * self._frame_blocks
        return self._lengths[first : first + self._frame_blocks].tolist()


def encode_block_index(
    offset: int, digest_bytes: int, context_bytes: int, blocks: list[tuple[int, bytes, bool]]
) -> bytes:
    """An index before it is packed. ``blocks`` are (length of the unit, short digest, whether it is stored apart) of
    every block."""
    lengths = [length + (APART if is_apart else 0) for length, _digest, is_apart in blocks]
    return b"".join(
        (
            BLOCK_INDEX_START.pack(offset, digest_bytes, context_bytes, len(blocks), 0),
            bytes(length & 0xFF for length in lengths),
            bytes(length >> 8 for length in lengths),
            *(name for length, name, _is_apart in blocks if length),
        )
    )


def unpack_unit(stored: Buffer, context: Buffer) -> Buffer:
    """The block of 4 KiB that ``stored`` is, given the bytes of the image in front of it.

    A unit is one compressed block of zstd without the frame around it, or the plain block.

    Raises:
        ValueError: it is not.
    """
    if len(stored) == BLOCK_BYTES:
        return stored
    block_start = (len(stored) << 3 | LAST_COMPRESSED_BLOCK).to_bytes(3, "little")
    return zstd_decompress(b"".join((UNIT_FRAME_START, block_start, stored)), BLOCK_BYTES, context)


class Reference:
    """How to make one frame from the old version: its ``extents``, and what is fetched beside them.

    ``stored_length`` 0: the extents, one after the other, are the frame.
    """

    __slots__ = ("extents", "offset", "stored_length")

    def __init__(self, offset: int, stored_length: int, extents: list[Extent]) -> None:
        self.offset = offset
        self.stored_length = stored_length
        self.extents = extents


class ReferenceIndex:
    """The reference frames of an image for one old version.

    Raises:
        PayloadFormatError: the index does not fit the image.
    """

    __slots__ = ("_counts", "_extents", "_first_extents", "_first_offsets", "_stored_lengths", "frames")

    def __init__(self, raw: bytes, image: Image) -> None:
        if len(raw) < REFERENCE_INDEX_START.size:
            raise PayloadFormatError(f"a reference index of {len(raw)} bytes")
        offset, self.frames, extents = REFERENCE_INDEX_START.unpack_from(raw)
        if offset > STORED_OFFSET_MAX or self.frames != len(image.frames()):
            raise PayloadFormatError("a reference index does not fit its image")
        if len(raw) != REFERENCE_INDEX_START.size + 5 * self.frames + 6 * extents:
            raise PayloadFormatError("a reference index has another length than it says")
        lengths_at = REFERENCE_INDEX_START.size
        counts_at = lengths_at + 4 * self.frames
        self._stored_lengths = memoryview(raw)[lengths_at:counts_at]
        self._counts = memoryview(raw)[counts_at : counts_at + self.frames]
        self._extents = memoryview(raw)[counts_at + self.frames :]
        self._sum_up(offset, image)
        if sum(self._counts) != extents:
            raise PayloadFormatError("a reference index has another number of extents than its frames")

    def _sum_up(self, offset: int, image: Image) -> None:
        self._first_offsets = memoryview(bytearray(8 * self.frames)).cast("Q")
        self._first_extents = memoryview(bytearray(4 * self.frames)).cast("I")
        first_extent = 0
        for frame, count in enumerate(self._counts):
            self._first_offsets[frame], self._first_extents[frame] = offset, first_extent
            stored_length = self._stored_length(frame)
            if count > EXTENTS_PER_FRAME_MAX or stored_length >= image.frame_size:
                raise PayloadFormatError(f"reference frame {frame} has {count} extents, {stored_length} bytes")
            offset += stored_length
            first_extent += count

    def _stored_length(self, frame: int) -> int:
        return int.from_bytes(self._stored_lengths[4 * frame : 4 * frame + 4], "little")

    def frame(self, frame: int) -> Reference | None:
        """How to make ``frame``, or None where the index does not say. Raises ``PayloadFormatError``."""
        count, first = self._counts[frame], self._first_extents[frame]
        if count == 0:
            return None
        extents = [_EXTENT.unpack_from(self._extents, 6 * number) for number in range(first, first + count)]
        if sum(blocks for _start, blocks in extents) * BLOCK_BYTES > REFERENCE_BYTES_MAX:
            raise PayloadFormatError(f"reference frame {frame} wants too much of the old version")
        return Reference(self._first_offsets[frame], self._stored_length(frame), extents)


_EXTENT = Struct("<IH")


def encode_reference_index(offset: int, references: list[Reference | None]) -> bytes:
    """An index before it is packed: one reference, or None, for every frame; stored one after the other."""
    extents = [extent for reference in references if reference for extent in reference.extents]
    lengths = [reference.stored_length if reference else 0 for reference in references]
    return b"".join(
        (
            REFERENCE_INDEX_START.pack(offset, len(references), len(extents)),
            b"".join(length.to_bytes(4, "little") for length in lengths),
            bytes(len(reference.extents) if reference else 0 for reference in references),
            *(_EXTENT.pack(*extent) for extent in extents),
        )
    )


def unpack_reference(stored: bytes, old: bytes, size: int) -> bytes:
    """The frame of ``size`` bytes that ``stored`` is, given its extents of the old version.

    Raises:
        ValueError: it is not.
    """
    return zstd_decompress(stored, size, old) if stored else old
