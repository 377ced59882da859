"""The real region, on files: bounded, exact, and safe against short transfers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from payload.device_region import DeviceRegion

SIZE = 64 << 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes([1]) * SIZE + bytes([2]) * SIZE + bytes([3]) * SIZE)
    return path


@pytest.fixture
def region(path: Path) -> Iterator[DeviceRegion]:
    region = DeviceRegion(str(path), SIZE, SIZE)
    yield region
    region.close()


def test_what_is_written_is_read_and_nothing_else_changes(path: Path, region: DeviceRegion) -> None:
    region.write(4096, b"x" * 8192)
    region.flush()
    assert region.read(4096, 8192) == b"x" * 8192
    assert region.read(4000, 200) == bytes([2]) * 96 + b"x" * 104
    expected = bytes([1]) * SIZE + bytes([2]) * 4096 + b"x" * 8192
    assert path.read_bytes() == expected.ljust(2 * SIZE, bytes([2])) + bytes([3]) * SIZE


@pytest.mark.parametrize(("offset", "length"), [(-512, 512), (SIZE, 512), (SIZE - 512, 1024), (0, SIZE + 512)])
def test_nothing_outside_is_touched(path: Path, region: DeviceRegion, offset: int, length: int) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError):
        region.write(offset, bytes(length))
    with pytest.raises(ValueError):
        region.read(offset, length)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("offset", "length"), [(1, 512), (512, 100)])
def test_parts_of_blocks_are_not_written(region: DeviceRegion, offset: int, length: int) -> None:
    with pytest.raises(ValueError):
        region.write(offset, bytes(length))


def test_a_medium_that_is_too_small_is_refused(path: Path) -> None:
    with pytest.raises(OSError, match="ends before"):
        DeviceRegion(str(path), 2 * SIZE, SIZE + 512)


@pytest.mark.parametrize(("offset", "size"), [(100, 512), (0, 100), (-512, 512)])
def test_regions_are_whole_blocks(path: Path, offset: int, size: int) -> None:
    with pytest.raises(ValueError):
        DeviceRegion(str(path), offset, size)


def test_a_missing_medium_is_an_operating_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        DeviceRegion(str(tmp_path / "none"), 0, 512)


def test_a_region_for_reading_does_not_write(path: Path) -> None:
    region = DeviceRegion(str(path), 0, SIZE, writable=False)
    with pytest.raises(OSError):
        region.write(0, bytes(512))
    region.close()


def test_short_transfers_are_continued(region: DeviceRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may move fewer bytes than it was asked to."""
    real_write, real_read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_write(fd, data[:1024], at))
    monkeypatch.setattr(os, "pread", lambda fd, length, at: real_read(fd, min(length, 700), at))
    content = os.urandom(SIZE)
    region.write(0, content)
    region.flush()
    assert region.read(0, SIZE) == content


def test_a_medium_that_moves_nothing_is_an_error(region: DeviceRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    monkeypatch.setattr(os, "pread", lambda fd, length, at: b"")
    with pytest.raises(OSError):
        region.write(0, bytes(512))
    with pytest.raises(OSError):
        region.read(0, 512)


def test_a_failed_flush_is_told(region: DeviceRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no"):
        region.flush()


def test_the_ordinary_boot_pays_for_few_modules() -> None:
    """The region is the only part of this package that every boot imports."""
    import subprocess
    import sys

    program = (
        "import sys, os, fcntl, errno; before = set(sys.modules); "
        "import payload.device_region; print(*sorted(set(sys.modules) - before))"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=root, capture_output=True, text=True, check=True, timeout=20
    )
    assert answer.stdout.split() == ["payload", "payload.device_region"]
