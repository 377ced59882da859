"""The delta part of a new bundle: units, reference frames, their indexes. Runs on the build host only.

Streams through the image; memory is a few frames for the units, and what ``payload.similarity`` needs for
an old version. The same input gives the same bytes (with the same version of the zstd library).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import zstandard

from payload.bundle import read_header
from payload.delta import (
    BLOCK_BYTES,
    BLOCKS,
    BLOCKS_MAX,
    NO_DIGEST,
    REFERENCES,
    UNIT_FRAME_START,
    Entry,
    Reference,
    encode_block_index,
    encode_reference_index,
)
from payload.digest import digest
from payload.errors import PayloadInputError
from payload.frames import FrameReader
from payload.manifest import Image, decode
from payload.seeds import ImageInBundle
from payload.similarity import OldContent, block_digests, choose_extents
from payload.sources import FileSource
from payload.table import ZERO
from payload.trust import attach_tables

if TYPE_CHECKING:
    from payload.frames import Progress

Work = TypeVar("Work")
Made = TypeVar("Made")

CONTEXT_BYTES = 256 << 10
UNIT_FRAME = {"write_content_size": False, "write_checksum": False, "write_dict_id": False}
DIGEST_BYTES = 6
# Nearly all of the time goes into looking at the context; deeper than 4 costs more than it finds.
UNIT_PARAMETERS = zstandard.ZstdCompressionParameters(
    window_log=(CONTEXT_BYTES + BLOCK_BYTES).bit_length(),
    hash_log=17,
    chain_log=19,
    search_log=4,
    min_match=3,
    target_length=256,
    strategy=zstandard.STRATEGY_BTULTRA2,
    **UNIT_FRAME,
)
# A block that an old version has is hardly ever fetched: it sees less, in an eighth of the time, and its unit lies
# apart, so that what is fetched lies side by side.
KEPT_CONTEXT_BYTES = 32 << 10
KEPT_PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    19, source_size=BLOCK_BYTES, dict_size=KEPT_CONTEXT_BYTES, **UNIT_FRAME
)
REFERENCE_LEVEL = 19
INDEX_LEVEL = 19
BLOCK_TYPE_COMPRESSED = 2
BLOCK_START_BYTES = 3


@dataclass(frozen=True)
class NewImage:
    """An image as it is in the bundle so far: its file, and its frame table inside of ``image``."""

    path: Path
    image: Image

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the image, filled up with zeroes to whole blocks."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length).ljust(min(length, self.image.size - offset), b"\0")

    def frames(self) -> Iterator[int]:
        yield from range(len(self.image.frames()))


class OldVersion:
    """A bundle that devices have installed.

    Raises:
        PayloadError: it is no whole bundle.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = FileSource(str(path), str(path))
        self.header = read_header(self.source)
        self.manifest = decode(self.header.manifest_bytes)
        attach_tables(self.manifest, self.header.tables)

    def image(self, slot_class: str) -> OldImage | None:
        """The content for a class of slots, if this version had one."""
        for image in self.manifest.images:
            if image.slot_class == slot_class:
                return OldImage(self.path, FrameReader(self.source, len(self.header.raw), image.frames()))
        return None


class OldImage(ImageInBundle):
    """An image of the old version at ``path``."""

    __slots__ = ("_path",)

    def __init__(self, path: Path, frames: FrameReader) -> None:
        super().__init__(frames)
        self._path = path

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``; fewer at the end. Raises: PayloadInputError."""
        try:
            return super().read(offset, length)
        except OSError as error:
            raise PayloadInputError(f"{self._path} cannot be read: {error}") from error


class DeltaWriter:
    """Appends to a bundle behind its plain frames. ``offset`` is where the file stands, from the header's end."""

    def __init__(self, file: BinaryIO, offset: int, pool: Executor, batch: int, progress: Progress) -> None:
        self._file = file
        self.offset = offset
        self._pool = pool
        self._batch = batch
        self._progress = progress

    def blocks(self, new: NewImage, old_versions: Iterable[OldVersion]) -> Entry:
        """Write the units of an image and their index."""
        if new.image.size > BLOCKS_MAX * BLOCK_BYTES:
            raise PayloadInputError(f"{new.path} is too large for units: {new.image.size} bytes")
        first = self.offset
        kept = set(self._kept(new.image.slot_class, old_versions))
        blocks = [(0, b"", False)] * (new.image.size // BLOCK_BYTES)
        for are_kept in (False, True) if kept else (False,):
            work = (_unit_work(new, frame, kept, are_kept) for frame in new.frames())
            activity = "units of old blocks" if are_kept else "units"
            units = self._map(_pack_units, work, activity, len(new.image.frames()))
            for number, (unit, name) in enumerate(chain.from_iterable(units)):
                if unit:
                    blocks[number] = (len(unit), name, are_kept)
                    self._append(unit)
        return self._index(BLOCKS, encode_block_index(first, DIGEST_BYTES, CONTEXT_BYTES, blocks), NO_DIGEST)

    def _kept(self, slot_class: str, old_versions: Iterable[OldVersion]) -> Iterator[bytes]:
        """The names of the blocks that these versions have."""
        for old in old_versions:
            content = old.image(slot_class)
            if content is not None:
                self._progress(f"look at {old.path.name}", 0, 1)
                yield from block_digests(content.read, content.size)

    def references(self, new: NewImage, old: OldVersion) -> Entry | None:
        """Write the reference frames of an image for an old version and their index, if that had such an image."""
        content = old.image(new.image.slot_class)
        return None if content is None else self._references(new, old, content)

    def _references(self, new: NewImage, old: OldVersion, content: OldImage) -> Entry:
        first = self.offset
        self._progress(f"look at {old.path.name}", 0, 1)
        kept = set(block_digests(new.read, new.image.size))
        prepared = OldContent(content.read, content.size, kept)
        references: list[Reference | None] = []
        work = (_reference_work(new, frame, prepared, content) for frame in new.frames())
        activity = f"references to {old.path.name}"
        for stored, extents in self._map(_pack_reference, work, activity, len(new.image.frames())):
            references.append(Reference(self.offset, len(stored), extents) if extents else None)
            self._append(stored)
        return self._index(REFERENCES, encode_reference_index(first, references), old.manifest.digest)

    def _map(self, pack: Callable[[Work], Made], work: Iterator[Work], activity: str, total: int) -> Iterator[Made]:
        done = 0
        while batch := list(islice(work, self._batch)):
            for made in self._pool.map(pack, batch):
                yield made
                done += 1
                self._progress(activity, done, total)

    def _index(self, kind: int, plain: bytes, base: bytes) -> Entry:
        stored = zstandard.ZstdCompressor(level=INDEX_LEVEL).compress(plain)
        entry = Entry(
            kind=kind,
            offset=self.offset,
            stored_length=len(stored),
            plain_length=len(plain),
            digest=digest(stored),
            base=base,
        )
        self._append(stored)
        return entry

    def _append(self, stored: bytes) -> None:
        self._file.write(stored)
        self.offset += len(stored)


def _unit_work(new: NewImage, frame: int, kept: Set[bytes], are_kept: bool) -> tuple[bytes, int, list[bool], bool]:
    """A frame with the content in front of it, how much that is, and which blocks to pack: ``kept`` ones, or others."""
    table = new.image.frames()
    position = table.position(frame)
    context = min(CONTEXT_BYTES, position)
    content = new.read(position - context, context + table[frame].plain_length)
    names = block_digests(lambda offset, length: content[context + offset :][:length], len(content) - context)
    return content, context, [name != b"" and (name in kept) == are_kept for name in names], are_kept


def _pack_units(work: tuple[bytes, int, list[bool], bool]) -> list[tuple[bytes, bytes]]:
    """The units of a frame with the short digests of their blocks; nothing of a block that is not chosen."""
    content, context, chosen, are_kept = work
    seen, parameters = (KEPT_CONTEXT_BYTES, KEPT_PARAMETERS) if are_kept else (CONTEXT_BYTES, UNIT_PARAMETERS)
    units = []
    for at, is_chosen in zip(range(context, len(content), BLOCK_BYTES), chosen, strict=True):
        if not is_chosen:
            units.append((b"", b""))
            continue
        block = content[at : at + BLOCK_BYTES]
        unit = _pack_unit(block, content[max(0, at - seen) : at], parameters)
        units.append((unit, digest(block)[:DIGEST_BYTES]))
    return units


def _pack_unit(block: bytes, context: bytes, parameters: zstandard.ZstdCompressionParameters) -> bytes:
    """The one compressed block of a zstd frame; the plain block where that is not smaller, or not one block."""
    dictionary = zstandard.ZstdCompressionDict(context, zstandard.DICT_TYPE_RAWCONTENT) if context else None
    packed = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(block)
    unit = packed[len(UNIT_FRAME_START) + BLOCK_START_BYTES :]
    start = int.from_bytes(packed[len(UNIT_FRAME_START) :][:BLOCK_START_BYTES], "little")
    is_one_block = start == len(unit) << 3 | BLOCK_TYPE_COMPRESSED << 1 | 1
    return unit if is_one_block and 0 < len(unit) < BLOCK_BYTES else block


def _reference_work(
    new: NewImage, frame: int, old: OldContent, content: OldImage
) -> tuple[bytes, bytes, list[tuple[int, int]], bool]:
    """A frame, what it is compressed against, where that is, and whether it is just that."""
    entry = new.image.frames()[frame]
    if entry.kind == ZERO:
        return b"", b"", [], True
    plain = new.read(new.image.frames().position(frame), entry.plain_length)
    names = list(block_digests(lambda offset, length: plain[offset : offset + length], len(plain)))
    extents, is_copy = choose_extents(old, plain, names)
    pieces = b"".join(content.read(first * BLOCK_BYTES, blocks * BLOCK_BYTES) for first, blocks in extents)
    return plain, pieces, extents, is_copy


def _pack_reference(
    work: tuple[bytes, bytes, list[tuple[int, int]], bool],
) -> tuple[bytes, list[tuple[int, int]]]:
    """What is stored beside the extents; no extents where the old version does not help."""
    plain, pieces, extents, is_copy = work
    if is_copy or not extents:
        return b"", extents
    parameters = zstandard.ZstdCompressionParameters.from_level(
        REFERENCE_LEVEL, source_size=len(plain), dict_size=len(pieces), write_dict_id=False
    )
    dictionary = zstandard.ZstdCompressionDict(pieces, zstandard.DICT_TYPE_RAWCONTENT)
    stored = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(plain)
    return (stored, extents) if len(stored) < len(plain) else (b"", [])
