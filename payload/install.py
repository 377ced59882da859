"""Making a slot hold an image, and its header regions the header that describes it.

The order, and why (a power cut may come between any two steps, and within each):

1. *Before* this module runs, the caller has recorded in the journal that the target is not to be
   booted. So whatever the slot holds meanwhile, nothing starts it.
2. The target is verified. What is right stays untouched: a rerun after a cut goes on where the cut
   came, and a healthy target is only read.
3. If the target was bootable until now, every missing frame is first verified in the source: the
   last good copy is not overwritten on a promise.
4. Missing frames are written, each from the buffer that was verified, with a flush every few frames
   (so a cut takes little back) and one at the end; then the whole
   image is read back past the cache. What is wrong is written again, a bounded number of times.
   After a failed flush the frames are written again: the data may be gone while a second flush
   succeeds.
5. Only now, with the content proven, the header copies: copy 0, flush, read back, then copy 1. A cut
   in one of them leaves the other valid, the old one or the new one. So at any moment at least one
   signed header can be read, and a header that is valid in copy 0 describes either what the slot
   holds or a slot that the journal calls bad.
6. *After* this module, the caller records success.

Both header copies valid and different means that a cut came within step 5, or that one copy can no
longer be written: the caller chooses by the digest in the journal or, if that is lost, by verifying
the slot against both.
"""

from __future__ import annotations

from payload import frames
from payload.bundle import read_header
from payload.errors import (
    BundleError,
    PayloadError,
    PayloadTooLargeError,
    TargetError,
    TargetReadbackFailedError,
    TargetTooSmallError,
    TargetWriteFailedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from payload.bundle import Header, Reader
    from payload.frames import Frames, Outcome, Progress
    from payload.manifest import Image, Manifest
    from payload.seeded import Reuse
    from statemachine.region import Region

    # turns a header into the manifest that this device takes, or raises PayloadError
    Believe = Callable[[Header], Manifest]

WRITE_ROUNDS_MAX = 4


class Report:
    """What an installation did: frames found damaged, frames written (rewrites included), and how
    many of the header copies are good now."""

    __slots__ = ("frames_damaged", "frames_written", "header_copies")

    def __init__(self, frames_damaged: int, frames_written: int, header_copies: int) -> None:
        self.frames_damaged = frames_damaged
        self.frames_written = frames_written
        self.header_copies = header_copies


def install(
    slot: Region,
    header_regions: Sequence[Region],
    source: Reader,
    header: Header,
    image: Image,
    *,
    target_broken: bool,
    kept: Header | None = None,
    reuse: Reuse | None = None,
    progress: Progress = frames.silent,
) -> Report:
    """Make ``slot`` hold ``image`` and ``header_regions`` hold ``header``. A rerun resumes.

    ``image`` comes from ``payload.trust.verify(header, …)`` and ``source`` is a bundle with that
    header. ``target_broken`` is true only where the slot is already proven unable to boot. A repair
    is the same call, with the header that the slot has. ``kept`` is what ``header_regions`` are to hold where that is
    another header of the same manifest. ``reuse`` saves bytes of a source that is slow;
    it is not looked at where the target is not broken: then the whole replacement is on local storage.

    Where the source lacks frames, the others are in place when this raises: another source of the
    same header can finish.

    Raises:
        TargetError: the slot is too small, or does not keep what is written.
        BundleError: the source does not have every frame that is missing.
    """
    kept = kept or header
    check_room(slot, header_regions, kept, image)
    if not target_broken:
        check_source(slot, source, header, image, progress)
    reader: Frames = frames.FrameReader(source, len(header.raw), image.frames())
    damaged = frames.verify(slot, image.frames(), progress)
    if target_broken and reuse is not None:
        reader = reuse.plan(source, header, image, slot, damaged, progress)
    written = _bring_in(slot, reader, damaged, progress)
    return Report(len(damaged), written, write_slot_headers(header_regions, kept))


def check_source(
    slot: Region, source: Reader, header: Header, image: Image, progress: Progress = frames.silent
) -> None:
    """Whether ``source`` has every frame that ``slot`` lacks of ``image``. Raises ``BundleError`` where not."""
    reader = frames.FrameReader(source, len(header.raw), image.frames())
    damaged = frames.verify(slot, image.frames(), progress)
    for error in frames.verify_source(reader, progress, damaged).values():
        raise error


def check_room(slot: Region, header_regions: Sequence[Region], header: Header, image: Image) -> None:
    """Raises ``TargetTooSmallError`` or ``PayloadTooLargeError`` where the image or its header does not fit."""
    if image.size > slot.size:
        raise TargetTooSmallError(f"the image needs {image.size} bytes, the slot has {slot.size}")
    for region in header_regions:
        if len(header.raw) > region.size:
            raise PayloadTooLargeError(
                f"the header has {len(header.raw)} bytes, the region that keeps it {region.size}"
            )


def _bring_in(slot: Region, reader: Frames, damaged: list[int], progress: Progress) -> int:
    """Write ``damaged`` until the whole image reads back right. The number of frames written.

    A source that lacks frames is asked for them once more if it is near: a stick may have hiccupped. One behind a
    network has asked all its servers already. What is there by then stays, and the next run looks at everything.
    """
    owed = damaged
    written = 0
    lacking: set[int] = set()
    for _round in range(WRITE_ROUNDS_MAX):
        outcome = frames.write(slot, reader, owed, progress)
        written += outcome.written
        failure = frames.flush_error(slot) or outcome.flush_failure
        if outcome.unavailable and (reader.is_far or outcome.unavailable.keys() == lacking):
            break
        lacking = set(outcome.unavailable)
        if failure is not None:
            # What was written is in doubt, and so is what an interrupted run wrote before us.
            owed = sorted({*owed, *frames.verify(slot, reader.table, progress)})
        elif owed:
            owed = frames.read_back(slot, reader.table, progress)
        if failure is None and not owed:
            return written
    raise _explained(outcome, failure, owed)


def _explained(outcome: Outcome, flush_failure: OSError | None, owed: list[int]) -> PayloadError:
    for unavailable in outcome.unavailable.values():
        return unavailable
    for refused in [*outcome.refused.values(), flush_failure]:
        if refused is not None:
            return TargetWriteFailedError(f"the target does not take {len(owed)} frames: {refused}")
    return TargetReadbackFailedError(f"{len(owed)} frames read back wrong after {WRITE_ROUNDS_MAX} rounds")


def write_slot_headers(header_regions: Sequence[Region], header: Header) -> int:
    """Make every copy hold ``header``, one after the other. How many do.

    A copy that is right already is not written. One that cannot be written is left behind.

    Raises:
        TargetError: not a single copy holds the header.
    """
    failures = [_write_slot_header(region, header) for region in header_regions]
    copies = failures.count(None)
    for failure in failures:
        if failure is not None and copies == 0:
            raise failure
    return copies


def _write_slot_header(region: Region, header: Header) -> TargetError | None:
    failure: TargetError | None = None
    for _round in range(WRITE_ROUNDS_MAX):
        try:
            if failure is not None or not _holds(region, header):
                region.write(0, header.raw)
            region.flush()  # also where nothing was written: an interrupted run may not have come here
            if _holds(region, header):
                return None
            failure = TargetReadbackFailedError("a copy of the slot's header reads back wrong")
        except OSError as error:
            failure = TargetWriteFailedError(f"a copy of the slot's header cannot be written: {error}")
    return failure


def _holds(region: Region, header: Header) -> bool:
    return region.read(0, len(header.raw)) == header.raw


def read_slot_headers(
    header_regions: Sequence[Region], believe: Believe
) -> list[tuple[Header, Manifest] | PayloadError]:
    """What each copy holds: a header with its manifest, or why not. Never raises for any bytes."""
    return [_read_slot_header(region, believe) for region in header_regions]


def _read_slot_header(region: Region, believe: Believe) -> tuple[Header, Manifest] | PayloadError:
    try:
        header = read_header(region)
        return header, believe(header)
    except PayloadError as error:
        return error


def read_slot_header(
    header_regions: Sequence[Region], believe: Believe, wanted: bytes | None = None
) -> tuple[Header, Manifest] | None:
    """The header that describes the slot, or None. A copy that is damaged is repaired from it.

    ``wanted`` is the digest of the manifest that the journal names; without it copy 0 goes first
    (step 5 above says why). Another valid header is never overwritten here: it is evidence.
    """
    found = read_slot_headers(header_regions, believe)
    valid = [copy for copy in found if not isinstance(copy, PayloadError)]
    if not valid:
        return None
    chosen = next((copy for copy in valid if copy[1].digest == wanted), valid[0])
    for region, copy in zip(header_regions, found, strict=True):
        if isinstance(copy, BundleError) and len(chosen[0].raw) <= region.size:
            _write_slot_header(region, chosen[0])
    return chosen
