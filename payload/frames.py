"""Frames between a bundle and a region: verify, write what is missing, and nothing else.

There is no progress file: after a cut the target is hashed and the rest is written. Content that
verifies is never rewritten. Memory is a few frames, whatever the size of the image. Which image goes
where, and what is recorded around it, is decided elsewhere.
"""

from __future__ import annotations

from payload.bundle import is_far, read_exactly
from payload.codec import zstd_decompress
from payload.digest import digest
from payload.errors import BundleError, PayloadCorruptError
from payload.pipeline import items_ahead, pipelined
from payload.table import RAW, ZERO, ZSTD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from payload.bundle import Reader
    from payload.table import FrameTable
    from statemachine.region import Region

    # (what is being done, frames done, frames in all)
    Progress = Callable[[str, int, int], None]

    class Frames(Protocol):
        """Where frames come from: ``FrameReader``, or ``payload.seeded.SeededFrames``."""

        @property
        def table(self) -> FrameTable: ...
        @property
        def is_far(self) -> bool: ...
        def announce(self, indices: Sequence[int]) -> None: ...
        def frame(self, index: int) -> bytes: ...


FLUSH_FRAMES = 8
READ_BYTES_MAX = 512 << 10
WRITE_BYTES_MAX = 1 << 20
RUNS_AHEAD = 2


def silent(activity: str, done: int, total: int) -> None:
    """A progress that nobody watches."""


class FrameReader:
    """The frames of one image, from a bundle that may be cut short or rotten.

    ``data_offset`` is the length of that bundle's header.
    """

    __slots__ = ("data_offset", "reader", "table")

    def __init__(self, reader: Reader, data_offset: int, table: FrameTable) -> None:
        self.reader = reader
        self.data_offset = data_offset
        self.table = table

    def ranges(self, index: int) -> list[tuple[int, int]]:
        """The (offset, length) of the bundle that frame ``index`` needs."""
        entry = self.table[index]
        return [(self.data_offset + entry.offset, entry.stored_length)] if entry.stored_length else []

    def announce(self, indices: Sequence[int]) -> None:
        """Tell the source which of its bytes will be read for ``indices``, in order."""
        self.announce_ranges(wanted for index in indices for wanted in self.ranges(index))

    @property
    def is_far(self) -> bool:
        """Whether reading costs more than time on this machine: the source wants announcements."""
        return is_far(self.reader)

    def announce_ranges(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Tell a source that wants to know (one behind a network) what will be read, in order."""
        announce = getattr(self.reader, "announce", None)
        if announce is not None:
            announce(list(ranges))

    def frame(self, index: int) -> bytes:
        """The plain bytes of frame ``index``, verified: no other bytes ever come out of here.

        Raises:
            BundleError: this bundle does not have them, wherever its source looked.
        """
        return self.stored_and_plain(index)[1]

    def stored_and_plain(self, index: int) -> tuple[bytes, bytes]:
        """What the bundle holds for frame ``index``, and the verified bytes that it stands for.

        Raises:
            BundleError: as :meth:`frame`.
        """
        while True:
            try:
                stored = self.stored(index)
                return stored, self.decode(index, stored)
            except PayloadCorruptError:
                if not self._doubt(index):
                    raise

    def _doubt(self, index: int) -> bool:
        """Whether the source, told that its bytes were wrong, has others to give: another mirror's, say."""
        doubt = getattr(self.reader, "doubt", None)
        return doubt is not None and bool(doubt(self.data_offset + self.table[index].offset))

    def stored(self, index: int) -> bytes:
        """What the bundle holds for frame ``index``, whatever it is. Raises ``BundleError``."""
        return b"".join(read_exactly(self.reader, *wanted) for wanted in self.ranges(index))

    def decode(self, index: int, stored: bytes) -> bytes:
        """The second half of :meth:`frame`: touches nothing but ``stored``. Raises ``BundleError``."""
        entry = self.table[index]
        try:
            plain = _DECODERS[entry.kind](stored, entry.plain_length)
        except ValueError as error:
            raise PayloadCorruptError(f"frame {index} of the bundle: {error}") from error
        if digest(plain) != entry.digest:
            raise PayloadCorruptError(f"frame {index} of the bundle is damaged")
        return plain

    def try_stored(self, index: int) -> bytes | None:
        """:meth:`stored`, or None."""
        try:
            return self.stored(index)
        except BundleError:
            return None

    def try_decode(self, index: int, stored: bytes | None) -> bytes | None:
        """:meth:`decode`, or None."""
        try:
            return None if stored is None else self.decode(index, stored)
        except BundleError:
            return None


class PlainContent:
    """The plain content of an image, read anywhere in it; the frame that was read last is kept."""

    __slots__ = ("_index", "_plain", "frames", "size")

    def __init__(self, frames: FrameReader) -> None:
        self.frames = frames
        self._index = -1
        self._plain = b""
        self.size = frames.table.image_bytes

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``; fewer at the end. Raises ``BundleError`` where the bundle has them not."""
        pieces = []
        length = min(length, self.size - offset)
        frame_bytes = self.frames.table.frame_bytes
        while length > 0:
            start = offset % frame_bytes
            piece = self._frame(offset // frame_bytes)[start : start + length]
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _frame(self, index: int) -> bytes:
        if index != self._index:
            self._plain, self._index = self.frames.frame(index), index
        return self._plain


_DECODERS: dict[int, Callable[[bytes, int], bytes]] = {
    ZERO: lambda stored, plain_length: bytes(plain_length),
    RAW: lambda stored, plain_length: stored,
    ZSTD: zstd_decompress,
}


def verify(
    region: Region,
    table: FrameTable,
    progress: Progress = silent,
    indices: Sequence[int] | None = None,
    activity: str = "verify",
) -> list[int]:
    """The frames of ``region`` that are not what ``table`` says; all of them, or those of ``indices``.

    A frame that cannot be read counts as damaged: writing it is what makes a disk replace a sector.
    """
    wanted: Sequence[int] = range(len(table)) if indices is None else indices
    damaged = []
    compare = _Comparison(region, table)
    for done, (index, is_intact) in enumerate(compare.each(wanted), 1):
        if not is_intact:
            damaged.append(index)
        progress(activity, done, len(wanted))
    return damaged


class _Comparison:
    """A region against a frame table. A frame of zeroes is recognised without computing its digest."""

    __slots__ = ("_region", "_table", "_zeroes", "_zeroes_digest")

    def __init__(self, region: Region, table: FrameTable) -> None:
        self._region = region
        self._table = table
        self._zeroes = bytes(table.frame_bytes)
        self._zeroes_digest = digest(self._zeroes)

    def each(self, indices: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """Each index with whether that frame is what it should be."""
        if getattr(self._region, "prefers_large", False):
            return self._each_of_runs(indices)
        return pipelined(indices, self._read, self._is_intact, items_ahead(self._table.frame_bytes))

    def _each_of_runs(self, indices: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """The same on a real medium: it is asked for several frames at once, and again before it has answered."""
        runs = list(runs_of(indices, max(1, READ_BYTES_MAX // self._table.frame_bytes)))
        for run, results in pipelined(runs, lambda run: None, lambda run, _: self._run(run), RUNS_AHEAD):
            yield from zip(run, results, strict=True)

    def _run(self, run: range) -> list[bool]:
        lengths = [self._table[index].plain_length for index in run]
        try:
            content = self._region.read(self._table.position(run.start), sum(lengths))
        except OSError:
            return [self._is_intact(index, self._read(index)) for index in run]
        size = self._table.frame_bytes
        return [
            self._is_intact(index, content[number * size : number * size + length])
            for number, (index, length) in enumerate(zip(run, lengths, strict=True))
        ]

    def _read(self, index: int) -> bytes | None:
        try:
            return self._region.read(self._table.position(index), self._table[index].plain_length)
        except OSError:
            return None

    def _is_intact(self, index: int, content: bytes | None) -> bool:
        if content is None:
            return False
        found = self._zeroes_digest if content == self._zeroes else digest(content)
        return found == self._table[index].digest


def runs_of(indices: Sequence[int], length_max: int) -> Iterator[range]:
    """``indices`` in order, as runs of numbers that follow each other."""
    start = stop = -1
    for index in indices:
        if index != stop or stop - start == length_max:
            if stop > start:
                yield range(start, stop)
            start = index
        stop = index + 1
    if stop > start:
        yield range(start, stop)


def verify_source(
    frames: Frames, progress: Progress = silent, indices: Sequence[int] | None = None
) -> dict[int, BundleError]:
    """The frames that the bundle cannot give, each with its reason; of ``indices`` or of all."""
    wanted: Sequence[int] = range(len(frames.table)) if indices is None else indices
    missing: dict[int, BundleError] = {}
    for done, (index, plain) in enumerate(_prepared(frames, wanted), 1):
        try:
            if plain is None:
                frames.frame(index)
        except BundleError as error:
            missing[index] = error
        progress("verify source", done, len(wanted))
    return missing


def _prepared(frames: Frames, indices: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """Each frame with its plain bytes, verified; or None: then ``frames.frame`` has them, or says why not.

    Only frames of a source that is near are read before they are asked for. From one that wants to know
    what will be read, a power cut would take back what it cost time to fetch.
    """
    frames.announce(indices)
    if not isinstance(frames, FrameReader) or frames.is_far:
        return ((index, None) for index in indices)
    return pipelined(indices, frames.try_stored, frames.try_decode, items_ahead(frames.table.frame_bytes))


class Outcome:
    """What :func:`write` could not do. ``unavailable``: frames the bundle lacks, with the reason.
    ``refused``: frames the target did not take, with its error. ``written``: how many it took.
    ``flush_failure``: the first flush that failed; every frame before it is in doubt."""

    __slots__ = ("flush_failure", "refused", "unavailable", "written")

    def __init__(self) -> None:
        self.flush_failure: OSError | None = None
        self.unavailable: dict[int, BundleError] = {}
        self.refused: dict[int, OSError] = {}
        self.written = 0


def write(region: Region, frames: Frames, indices: Sequence[int], progress: Progress = silent) -> Outcome:
    """Write the frames ``indices``. Not durable before a flush, not proven before a read-back.

    A frame that cannot be had or written does not stop the others: another source may have it. A flush
    every few frames bounds what a power cut takes back; the last one is the caller's.
    """
    outcome = Outcome()
    gathered = _Gathered(region, frames, outcome)
    for done, (index, prepared) in enumerate(_prepared(frames, indices), 1):
        try:
            # What was verified is what is written: it is not read a second time.
            gathered.add(index, frames.frame(index) if prepared is None else prepared)
        except BundleError as error:
            outcome.unavailable[index] = error
        if done % FLUSH_FRAMES == 0 and done < len(indices):
            gathered.write()
            outcome.flush_failure = flush_error(region) or outcome.flush_failure
        progress("write", done, len(indices))
    gathered.write()
    return outcome


class _Gathered:
    """Frames that follow each other, written to a real medium by one call. Elsewhere each is written at once.

    Frames of a source that puts them together from the target itself are not kept back either.
    """

    __slots__ = ("_frames_max", "_indices", "_outcome", "_plain", "_region", "_table")

    def __init__(self, region: Region, frames: Frames, outcome: Outcome) -> None:
        large = getattr(region, "prefers_large", False) and isinstance(frames, FrameReader)
        self._frames_max = max(1, WRITE_BYTES_MAX // frames.table.frame_bytes) if large else 1
        self._region = region
        self._table = frames.table
        self._outcome = outcome
        self._indices: list[int] = []
        self._plain: list[bytes] = []

    def add(self, index: int, plain: bytes) -> None:
        if self._indices and index != self._indices[-1] + 1:
            self.write()
        self._indices.append(index)
        self._plain.append(plain)
        if len(self._indices) == self._frames_max:
            self.write()

    def write(self) -> None:
        """Write what is kept. If that fails, frame by frame: the medium may refuse one of them only."""
        indices, plain = self._indices, self._plain
        self._indices, self._plain = [], []
        if len(indices) > 1:
            try:
                self._region.write(self._table.position(indices[0]), b"".join(plain))
                self._outcome.written += len(indices)
                return
            except OSError:
                pass
        for index, content in zip(indices, plain, strict=True):
            try:
                self._region.write(self._table.position(index), content)
                self._outcome.written += 1
            except OSError as error:
                self._outcome.refused[index] = error


def flush_error(region: Region) -> OSError | None:
    """Flush; the error where that failed."""
    try:
        region.flush()
    except OSError as error:
        return error
    return None


def read_back(region: Region, table: FrameTable, progress: Progress = silent) -> list[int]:
    """The frames that the medium does not hold, after a flush, past every cache (see ``Region.read``).

    All of them are read, not only those just written: a write that went astray hits another frame.
    """
    return verify(region, table, progress, activity="read back")
