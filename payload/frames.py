"""Frames between a bundle and a region: verify, write what is missing, and nothing else.

There is no progress file: after a cut the target is hashed and the rest is written. Content that
verifies is never rewritten. Memory is a few frames, whatever the size of the image. Which image goes
where, and what is recorded around it, is decided elsewhere.
"""

from __future__ import annotations

from payload.bundle import read_exactly
from payload.codec import zstd_decompress
from payload.digest import digest
from payload.errors import BundleError, PayloadCorruptError
from payload.table import RAW, ZERO, ZSTD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
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
        def announce(self, indices: Sequence[int]) -> None: ...
        def frame(self, index: int) -> bytes: ...


FLUSH_FRAMES = 8


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
        while True:
            try:
                return self._frame(index)
            except PayloadCorruptError:
                if not self._doubt(index):
                    raise

    def _doubt(self, index: int) -> bool:
        """Whether the source, told that its bytes were wrong, has others to give: another mirror's, say."""
        doubt = getattr(self.reader, "doubt", None)
        entry = self.table[index]
        return doubt is not None and bool(doubt(self.data_offset + entry.offset, entry.stored_length))

    def _frame(self, index: int) -> bytes:
        entry = self.table[index]
        try:
            stored = b"".join(read_exactly(self.reader, *wanted) for wanted in self.ranges(index))
            plain = _DECODERS[entry.kind](stored, entry.plain_length)
        except ValueError as error:
            raise PayloadCorruptError(f"frame {index} of the bundle: {error}") from error
        if digest(plain) != entry.digest:
            raise PayloadCorruptError(f"frame {index} of the bundle is damaged")
        return plain


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
    for done, index in enumerate(wanted, 1):
        if not _is_intact(region, table, index):
            damaged.append(index)
        progress(activity, done, len(wanted))
    return damaged


def _is_intact(region: Region, table: FrameTable, index: int) -> bool:
    frame = table[index]
    try:
        content = region.read(table.position(index), frame.plain_length)
    except OSError:
        return False
    return digest(content) == frame.digest


def verify_source(
    frames: Frames, progress: Progress = silent, indices: Sequence[int] | None = None
) -> dict[int, BundleError]:
    """The frames that the bundle cannot give, each with its reason; of ``indices`` or of all."""
    wanted: Sequence[int] = range(len(frames.table)) if indices is None else indices
    missing: dict[int, BundleError] = {}
    frames.announce(wanted)
    for done, index in enumerate(wanted, 1):
        try:
            frames.frame(index)
        except BundleError as error:
            missing[index] = error
        progress("verify source", done, len(wanted))
    return missing


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
    frames.announce(indices)
    for done, index in enumerate(indices, 1):
        try:
            # The buffer that was verified is the buffer that is written.
            region.write(frames.table.position(index), frames.frame(index))
            outcome.written += 1
        except BundleError as error:
            outcome.unavailable[index] = error
        except OSError as error:
            outcome.refused[index] = error
        if done % FLUSH_FRAMES == 0 and done < len(indices):
            outcome.flush_failure = flush_error(region) or outcome.flush_failure
        progress("write", done, len(indices))
    return outcome


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
