"""A place on the device's own disk that keeps a whole bundle: what a slot is installed and repaired from.

A place has no record of its own. Its header says what it holds, and is written last, so a place whose header
is whole holds every frame:

1. The first 4 KiB (magic and checksum of the header) are blanked and flushed: whatever else is overwritten from
   now on, nobody takes it for a bundle.
2. The stored frames are copied as they stand, only where they differ: after a cut a rerun goes on. Flush.
   From a network only those come that the place does not hold yet, each verified before it is written.
3. Every frame is read back, past every cache, and verified against the signed table.
4. The rest of the header, flush, then its first 4 KiB, flush, and the header is read back.

Which place may be overwritten is :func:`place_for`. Does not know what a slot is.
"""

from __future__ import annotations

from payload import frames
from payload.bundle import HEADER_UNIT_BYTES, is_far, read_exactly, read_header
from payload.errors import BundleError, PayloadTooLargeError, TargetReadbackFailedError, TargetWriteFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from payload.bundle import Header, Reader
    from payload.frames import Progress
    from payload.manifest import Image, Manifest
    from statemachine.region import Region

CHUNK_BYTES = 1 << 20
CHUNKS_PER_FLUSH = 8


def bundle_bytes(header: Header, manifest: Manifest) -> int:
    """The length of a bundle up to the end of its last plain frame."""
    end = 0
    for image in manifest.images:
        table = image.frames()
        for index in range(len(table)):
            end = max(end, table[index].offset + table[index].stored_length)
    return len(header.raw) + end


def place_for(held: Sequence[bytes | None], wanted: bytes, needed: bytes, in_place: bool = False) -> int | None:
    """The number of the place that may be given the bundle with manifest digest ``wanted``; None: there is none.

    ``held`` is the digest of what each place holds (None: nothing whole), ``needed`` that of the version which
    the device must be able to repair. The last whole copy of that is given up only ``in_place``.
    """
    numbers = range(len(held))
    choices = (
        [number for number in numbers if held[number] == wanted],
        [number for number in numbers if held[number] is None],
        [number for number in numbers if held[number] != needed],
        [number for number in numbers if held.count(needed) > 1 or in_place],
    )
    return next((choice[-1] for choice in choices if choice), None)


def keep(place: Region, source: Reader, header: Header, manifest: Manifest, progress: Progress = frames.silent) -> int:
    """Make ``place`` hold the bundle whose believed header is ``header``. The bytes that had to be written.

    A place that holds it already is read, flushed and not written.

    Raises:
        BundleError: the source does not have every frame, or the bundle does not fit. The place holds
            nothing then.
        TargetError: the place does not keep what is written.
    """
    length = bundle_bytes(header, manifest)
    if _aligned(length, place.write_unit) > place.size:
        raise PayloadTooLargeError(f"the bundle has {length} bytes, its place {place.size}")
    try:
        if _is_whole(place, header, manifest, progress):
            place.flush()  # an interrupted run may not have come here
            return 0
        _write(place, 0, bytes(HEADER_UNIT_BYTES))
        place.flush()
        if is_far(source):
            written = sum(_fetch(place, source, len(header.raw), image, progress) for image in manifest.images)
        else:
            written = _copy(place, source, len(header.raw), length, progress)
        place.flush()
        for error in missing(place, header, manifest, progress):
            raise error
        _write_header(place, header)
    except OSError as error:
        raise TargetWriteFailedError(f"the place for bundles cannot be written: {error}") from error
    return written + len(header.raw)


def _is_whole(place: Region, header: Header, manifest: Manifest, progress: Progress) -> bool:
    try:
        return read_header(place).raw == header.raw and not missing(place, header, manifest, progress)
    except BundleError:
        return False


def missing(place: Reader, header: Header, manifest: Manifest, progress: Progress) -> list[BundleError]:
    """Why the frames that ``place`` lacks of the bundle cannot be had; nothing where it has them all."""
    found: list[BundleError] = []
    for image in manifest.images:
        reader = frames.FrameReader(place, len(header.raw), image.frames())
        found += frames.verify_source(reader, progress).values()
    return found


def _copy(place: Region, source: Reader, start: int, end: int, progress: Progress) -> int:
    """Copy bytes ``start`` to ``end`` where they differ. How many were written."""
    written = 0
    positions = range(start, end, CHUNK_BYTES)
    for done, position in enumerate(positions, 1):
        data = read_exactly(source, position, min(CHUNK_BYTES, end - position))
        data = data.ljust(_aligned(len(data), place.write_unit), b"\0")
        if _held(place, position, len(data)) != data:
            place.write(position, data)
            written += len(data)
        if done % CHUNKS_PER_FLUSH == 0:
            place.flush()
        progress("keep", done, len(positions))
    return written


def _fetch(place: Region, source: Reader, start: int, image: Image, progress: Progress) -> int:
    """Bring the stored frames of ``image`` that ``place`` lacks; the header has ``start`` bytes. How many bytes.

    Raises:
        BundleError: the source does not have one of them. Those before it are in the place.
    """
    table = image.frames()
    here, there = frames.FrameReader(place, start, table), frames.FrameReader(source, start, table)
    lacking = _each_once(there, frames.verify_source(here, progress))
    there.announce(lacking)
    written = 0
    for done, index in enumerate(lacking, 1):
        stored, _plain = there.stored_and_plain(index)
        _write_within(place, start + table[index].offset, stored)
        written += len(stored)
        if done % frames.FLUSH_FRAMES == 0:
            place.flush()
        progress("keep", done, len(lacking))
    return written


def _each_once(reader: frames.FrameReader, indices: Iterable[int]) -> list[int]:
    """Without frames that are stored as the same bytes as one before."""
    return list({tuple(reader.ranges(index)): index for index in indices}.values())


def _write_within(place: Region, offset: int, data: bytes) -> None:
    """Write ``data`` where no unit needs to begin; what is around it in its first and last unit stays."""
    unit = place.write_unit
    first, last = offset // unit * unit, _aligned(offset + len(data), unit) - unit
    before = (_held(place, first, unit) or bytes(unit))[: offset - first]
    after = (_held(place, last, unit) or bytes(unit))[offset + len(data) - last :]
    place.write(first, before + data + after)


def _held(place: Region, offset: int, length: int) -> bytes | None:
    """What is there; None where it cannot be read, for writing is what makes a disk replace a sector."""
    try:
        return place.read(offset, length)
    except OSError:
        return None


def _write_header(place: Region, header: Header) -> None:
    rest = header.raw[HEADER_UNIT_BYTES:]
    if rest:
        _write(place, HEADER_UNIT_BYTES, rest)
        place.flush()
    _write(place, 0, header.raw[:HEADER_UNIT_BYTES])
    place.flush()
    if place.read(0, len(header.raw)) != header.raw:
        raise TargetReadbackFailedError("the header of the place for bundles reads back wrong")


def _write(place: Region, offset: int, data: bytes) -> None:
    if _held(place, offset, len(data)) != data:
        place.write(offset, data)


def _aligned(length: int, unit: int) -> int:
    return -(-length // unit) * unit
