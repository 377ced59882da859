"""Comparing a medium that is read in large pieces, by two threads: the same answers as frame by frame."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from payload import frames
from payload.device_region import DeviceRegion
from payload.frames import FrameReader, runs_of
from payload.table import FrameTable
from tests.unit.payload_samples import FRAME, Sample, mixed_image

COUNT = 40


class Medium:
    """Bytes in memory, some of which cannot be read; ``reads`` are the (offset, length) it was asked for."""

    write_unit = erase_unit = 512

    def __init__(self, content: bytes, unreadable: set[int], *, prefers_large: bool) -> None:
        self.size = len(content)
        self.prefers_large = prefers_large
        self.reads: list[tuple[int, int]] = []
        self.done: list[tuple[str, int, int]] = []
        self.threads: set[int] = set()
        self.content = bytearray(content)
        self._unreadable = unreadable

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        self.threads.add(threading.get_ident())
        if any(offset <= bad < offset + length for bad in self._unreadable):
            raise OSError("a sector cannot be read")
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.done.append(("write", offset // FRAME, len(data) // FRAME))
        if any(offset <= bad < offset + len(data) for bad in self._unreadable):
            raise OSError("a sector cannot be written")
        self.content[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.done.append(("flush", 0, 0))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("frames"), mixed_image(COUNT)[: -FRAME // 2] + b"short")


@pytest.fixture
def table(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> FrameTable:
    """Pieces of three frames, so that one ends in the middle of everything."""
    monkeypatch.setattr(frames, "READ_BYTES_MAX", 3 * FRAME)
    return sample.image.frames()


def content_of(sample: Sample) -> bytes:
    return sample.plain.ljust(sample.image.size, b"\0")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.fault("R3")
def test_large_pieces_find_the_same_frames(sample: Sample, table: FrameTable, seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(content_of(sample))
    wrong = set(chance.sample(range(COUNT), seed % 7))
    for index in wrong:
        content[index * FRAME + chance.randrange(100)] ^= 1
    zeroed = chance.randrange(COUNT)
    content[zeroed * FRAME : (zeroed + 1) * FRAME] = bytes(len(content[zeroed * FRAME : (zeroed + 1) * FRAME]))
    unreadable = {chance.randrange(COUNT) * FRAME + 700 for _ in range(seed % 4)}
    indices = sorted(chance.sample(range(COUNT), chance.randrange(1, COUNT)))
    found = [
        frames.verify(Medium(bytes(content), unreadable, prefers_large=several), table, indices=indices)
        for several in (False, True)
    ]
    assert found[0] == found[1]
    assert set(found[0]) >= (wrong | {bad // FRAME for bad in unreadable}) & set(indices)


def test_a_healthy_medium_is_read_once_in_large_pieces_by_other_threads(sample: Sample, table: FrameTable) -> None:
    medium = Medium(content_of(sample), set(), prefers_large=True)
    told: list[int] = []
    assert frames.read_back(medium, table, lambda _activity, done, _total: told.append(done)) == []
    assert sum(length for _offset, length in medium.reads) == sample.image.size
    assert len(medium.reads) == -(-COUNT // 3)
    assert threading.get_ident() not in medium.threads
    assert told == list(range(1, COUNT + 1))


def test_around_a_sector_that_cannot_be_read_only_its_frame_is_damaged(sample: Sample, table: FrameTable) -> None:
    medium = Medium(content_of(sample), {4 * FRAME + 1000}, prefers_large=True)
    assert frames.verify(medium, table) == [4]
    assert medium.reads.count((5 * FRAME, FRAME)) == 1


def test_frames_of_zeroes_are_told_from_frames_that_should_be_zeroes(sample: Sample, table: FrameTable) -> None:
    blank = Medium(bytes(sample.image.size), set(), prefers_large=True)
    zeroes = [index for index in range(COUNT) if not any(sample.plain[index * FRAME : (index + 1) * FRAME])]
    assert zeroes
    assert frames.verify(blank, table) == [index for index in range(COUNT) if index not in zeroes]


def test_a_disk_of_this_machine_is_read_side_by_side(sample: Sample, table: FrameTable, tmp_path: Path) -> None:
    content = bytearray(content_of(sample))
    content[7 * FRAME] ^= 1
    (tmp_path / "disk").write_bytes(content)
    region = DeviceRegion(str(tmp_path / "disk"), 0, len(content))
    try:
        assert region.prefers_large
        assert frames.verify(region, table) == [7]
    finally:
        region.close()


def reader_of(sample: Sample) -> FrameReader:
    return FrameReader(sample.reader, len(sample.header.raw), sample.image.frames())


@pytest.mark.requirement("M7")
def test_frames_that_follow_each_other_are_written_together_and_flushed_every_eight(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "WRITE_BYTES_MAX", 3 * FRAME)
    medium = Medium(bytes(sample.image.size), set(), prefers_large=True)
    outcome = frames.write(medium, reader_of(sample), [0, 1, 2, 3, 5, 6, 8, 9, 10, 11])
    assert medium.done == [
        ("write", 0, 3), ("write", 3, 1), ("write", 5, 2), ("write", 8, 2), ("flush", 0, 0), ("write", 10, 2),
    ]  # fmt: skip
    assert outcome.written == 10
    assert medium.content[: 4 * FRAME] == sample.plain[: 4 * FRAME]
    assert medium.content[8 * FRAME : 12 * FRAME] == sample.plain[8 * FRAME : 12 * FRAME]


def test_of_frames_written_together_only_the_one_that_is_refused_is_missing(sample: Sample) -> None:
    medium = Medium(bytes(sample.image.size), {2 * FRAME + 9}, prefers_large=True)
    outcome = frames.write(medium, reader_of(sample), [0, 1, 2, 3, 4])
    assert (set(outcome.refused), outcome.written) == ({2}, 4)
    assert medium.content[3 * FRAME : 5 * FRAME] == sample.plain[3 * FRAME : 5 * FRAME]


def test_another_medium_gets_every_frame_by_itself(sample: Sample) -> None:
    medium = Medium(bytes(sample.image.size), set(), prefers_large=False)
    frames.write(medium, reader_of(sample), [0, 1, 2])
    assert medium.done == [("write", 0, 1), ("write", 1, 1), ("write", 2, 1)]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([], []),
        ([5], [range(5, 6)]),
        ([0, 1, 2, 3], [range(3), range(3, 4)]),
        ([1, 2, 4, 5, 6, 9], [range(1, 3), range(4, 7), range(9, 10)]),
    ],
)
def test_runs_of_numbers(indices: list[int], expected: list[range]) -> None:
    assert list(runs_of(indices, 3)) == expected
