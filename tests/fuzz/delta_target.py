"""The fuzz targets of the delta part: its directory, its indexes, units and reference frames.

An index is compared with a signed digest before anything interprets it; here any bytes are interpreted.
"""

from __future__ import annotations

from contextlib import suppress

from payload.delta import (
    BLOCK_BYTES,
    DIRECTORY_BYTES,
    EXTENTS_PER_FRAME_MAX,
    REFERENCE_BYTES_MAX,
    BlockIndex,
    Entry,
    Reference,
    ReferenceIndex,
    decode_directory,
    encode_block_index,
    encode_directory,
    encode_reference_index,
    unpack_reference,
    unpack_unit,
)
from payload.digest import digest
from payload.errors import PayloadError
from payload.manifest import Image
from payload.table import ZERO, Frame, FrameTable
from tests.fuzz.bundle_mutations import mutate_bytes
from tests.fuzz.target import Target

BLOCKS, FRAME_BYTES = 12, 4 * BLOCK_BYTES
FRAMES = BLOCKS * BLOCK_BYTES // FRAME_BYTES


def small_image() -> Image:
    image = Image(
        slot_class="rootfs", kind="immutable", filesystem="ext4", size=BLOCKS * BLOCK_BYTES, frame_size=FRAME_BYTES,
        table_digest=bytes(32), watchdog_owner="none", init="/init",
    )  # fmt: skip
    row = Frame(ZERO, 0, 0, FRAME_BYTES, digest(bytes(FRAME_BYTES))).encode()
    image.table = FrameTable(image.size, FRAME_BYTES, row * FRAMES)
    return image


IMAGE = small_image()


def check_directory(data: bytes) -> None:
    raw = data[:DIRECTORY_BYTES].ljust(DIRECTORY_BYTES, b"\0")
    try:
        entries = decode_directory(raw)
    except PayloadError:
        return
    assert encode_directory(entries) == raw


def check_blocks(data: bytes) -> None:
    """An index; its units are then unpacked from the same bytes."""
    try:
        index = BlockIndex(data, IMAGE)
    except PayloadError:
        return
    ends = [index.frame_units(0)[0][0]]
    for frame in range(FRAMES):
        digests, units = index.frame_digests(frame), index.frame_units(frame)
        assert len(digests) == len(units) == FRAME_BYTES // BLOCK_BYTES
        for name, (offset, length) in zip(digests, units, strict=True):
            assert length <= BLOCK_BYTES and len(name) == (index.digest_bytes if length else 0)
            if offset not in ends:  # the first of those that lie apart
                ends.append(offset)
            ends[ends.index(offset)] = offset + length
            with suppress(ValueError):
                assert not length or len(unpack_unit(data[:length], data[-BLOCK_BYTES:])) == BLOCK_BYTES


def check_references(data: bytes) -> None:
    try:
        index = ReferenceIndex(data, IMAGE)
    except PayloadError:
        return
    for frame in range(FRAMES):
        with suppress(PayloadError):
            reference = index.frame(frame)
            if reference is not None:
                assert 0 < len(reference.extents) <= EXTENTS_PER_FRAME_MAX
                assert sum(blocks for _first, blocks in reference.extents) * BLOCK_BYTES <= REFERENCE_BYTES_MAX
                with suppress(ValueError):
                    unpack_reference(data[: reference.stored_length], data, FRAME_BYTES)


def directory_seeds() -> list[bytes]:
    one = Entry(kind=1, offset=4096, stored_length=90, plain_length=200, digest=bytes(range(32)))
    two = Entry(kind=2, offset=8192, stored_length=7, plain_length=9, digest=bytes(32), base=bytes(range(32)))
    return [encode_directory(entries) for entries in ([], [one], [one, two], [two] * 48)]


def block_seeds() -> list[bytes]:
    blocks = [(0, b"", False), (4096, b"123456", False), (17, b"abcdef", True)] * (BLOCKS // 3)
    return [encode_block_index(4096, 6, context, blocks) for context in (0, 65_536)]


def reference_seeds() -> list[bytes]:
    references = [Reference(0, 100, [(0, 4), (7, 1)]), None, Reference(100, 0, [(3, 4)])]
    return [encode_reference_index(4096, references), encode_reference_index(0, [None] * FRAMES)]


TARGETS = {
    "delta-directory": Target(check_directory, directory_seeds, mutate_bytes, 500_000),
    "delta-blocks": Target(check_blocks, block_seeds, mutate_bytes, 500_000),
    "delta-references": Target(check_references, reference_seeds, mutate_bytes, 500_000),
}
