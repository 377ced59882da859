"""Frames into a slot: only what is missing, only what is signed, proven before it is called done."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payload import frames
from payload.bundle import Header, encode_header, read_header
from payload.device_region import DeviceRegion
from payload.digest import digest
from payload.errors import (
    BundleError,
    PayloadCorruptError,
    PayloadTooLargeError,
    PayloadTruncatedError,
    TargetReadbackFailedError,
    TargetTooSmallError,
    TargetWriteFailedError,
)
from payload.install import install
from payload.manifest import Image, Manifest, encode
from payload.pipeline import items_ahead
from payload.signing_key import sign
from payload.sources import FileSource
from payload.table import RAW, ZERO, Frame
from tests.simulator.disk import FOREVER, Fault
from tests.unit.install_target import SLOT, Target
from tests.unit.payload_samples import (
    COMPATIBLE,
    FRAME,
    KERNEL,
    KEY,
    BytesReader,
    Sample,
    believe,
    make,
    mixed_image,
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("install"), mixed_image(7))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("older"), mixed_image(5, seed=2), version=3)


@pytest.mark.requirement("D6")
@pytest.mark.requirement("M6")
def test_an_empty_slot_gets_the_image_and_both_headers(sample: Sample) -> None:
    target = Target()
    report = target.install(sample)
    assert target.content(len(sample.plain)) == sample.plain
    assert [region.read(0, len(sample.header.raw)) for region in target.headers] == [sample.header.raw] * 2
    assert (report.frames_damaged, report.header_copies) == (5, 2)  # zero frames were there already


def test_content_that_verifies_is_never_rewritten(sample: Sample) -> None:
    target = Target()
    target.install(sample)
    before = len(target.writes())
    report = target.install(sample)
    assert len(target.writes()) == before
    assert (report.frames_damaged, report.frames_written, report.header_copies) == (0, 0, 2)


@pytest.mark.fault("R3")
def test_only_damaged_frames_are_rewritten(sample: Sample) -> None:
    target = Target()
    target.install(sample)
    target.storage.disks[0].rot(target.slot.offset + 2 * FRAME + 17, 1)
    target.storage.disks[0].rot(target.slot.offset + 4 * FRAME, FRAME, "random")
    before = len(target.writes())
    report = target.install(sample)
    offsets = [operation.offset - target.slot.offset for operation in target.writes()[before:]]
    assert offsets == [2 * FRAME, 4 * FRAME]
    assert report.frames_written == 2
    assert target.content(len(sample.plain)) == sample.plain


@pytest.mark.requirement("M7")
def test_what_an_interrupted_run_wrote_is_not_written_again(sample: Sample) -> None:
    target = Target()
    reader = frames.FrameReader(sample.reader, len(sample.header.raw), sample.image.frames())
    frames.write(target.slot, reader, [0, 1, 3])
    before = len(target.writes())
    assert target.install(sample).frames_written == 2
    slot_writes = [one for one in target.writes()[before:] if one.offset >= target.slot.offset]
    assert [(one.offset - target.slot.offset) // FRAME for one in slot_writes] == [4, 6]


@pytest.mark.fault("R5")
def test_a_rotten_source_gives_what_it_has_and_another_finishes(sample: Sample) -> None:
    target = Target()
    rotten = [bytearray(sample.content), bytearray(sample.content)]
    for content, index in zip(rotten, (1, 4), strict=True):
        content[len(sample.header.raw) + sample.image.frames()[index].offset] ^= 1
    for content, remaining in zip(rotten, ([1], []), strict=True):
        try:
            install(
                target.slot,
                target.headers,
                BytesReader(bytes(content)),
                sample.header,
                sample.image,
                target_broken=True,
            )
        except PayloadCorruptError:
            assert remaining
        assert frames.verify(target.slot, sample.image.frames()) == remaining
    assert target.content(len(sample.plain)) == sample.plain


def test_a_bootable_slot_is_not_touched_for_a_source_that_is_not_whole(sample: Sample, older: Sample) -> None:
    target = Target()
    target.install(older)
    before = len(target.writes())
    cut = BytesReader(sample.content[:-100])
    with pytest.raises(PayloadTruncatedError):
        install(target.slot, target.headers, cut, sample.header, sample.image, target_broken=False)
    assert len(target.writes()) == before
    assert target.content(len(older.plain)) == older.plain


def test_a_slot_that_is_too_small_is_not_touched(sample: Sample) -> None:
    target = Target(slot_bytes=6 * FRAME)
    with pytest.raises(TargetTooSmallError):
        target.install(sample)
    assert target.storage.trace == []


def test_a_header_that_does_not_fit_its_region_is_refused_first(sample: Sample) -> None:
    target = Target(header_bytes=2048)
    with pytest.raises(PayloadTooLargeError):
        target.install(sample)
    assert target.storage.trace == []


def write_numbers(sample: Sample) -> list[int]:
    target = Target()
    target.install(sample)
    return [number for number, one in enumerate(target.storage.trace) if one.kind == "write"]


@pytest.mark.parametrize("kind", ["eio", "lost-write", "misdirected"])
def test_a_write_that_fails_once_is_made_good(sample: Sample, kind: str) -> None:
    for number in write_numbers(sample):
        target = Target(Fault(kind, number))
        report = target.install(sample)
        assert target.storage.struck == 1
        assert target.content(len(sample.plain)) == sample.plain
        assert report.header_copies == 2


@pytest.mark.fault("S7")
@pytest.mark.parametrize("kind", ["eio", "full", "read-only"])
def test_a_target_that_never_takes_anything_is_a_reason(sample: Sample, kind: str) -> None:
    target = Target(Fault(kind, write_numbers(sample)[0], FOREVER))
    with pytest.raises(TargetWriteFailedError):
        target.install(sample)


@pytest.mark.fault("S5")
def test_a_target_that_lies_for_ever_is_a_reason(sample: Sample) -> None:
    target = Target(Fault("lost-write", write_numbers(sample)[0], FOREVER))
    with pytest.raises(TargetReadbackFailedError):
        target.install(sample)


@pytest.mark.fault("S8")
def test_after_a_failed_flush_the_frames_are_written_again(sample: Sample) -> None:
    clean = Target()
    clean.install(sample)
    flush = next(number for number, one in enumerate(clean.storage.trace) if one.kind == "flush")
    target = Target(Fault("eio", flush))
    report = target.install(sample)
    assert report.frames_written == 2 * report.frames_damaged
    restarted = target.storage.restarted().disks[0]
    assert restarted.peek(target.slot.offset, len(sample.plain)) == sample.plain


class ForgetfulCache:
    """As a page cache: after a failed flush it shows the data still, and no longer means to write it."""

    size, write_unit, erase_unit = SLOT, 512, 512

    def __init__(self) -> None:
        self.shown, self.medium = bytearray(SLOT), bytearray(SLOT)
        self.dirty: list[tuple[int, bytes]] = []
        self.flushes = 0

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.shown[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.shown[offset : offset + len(data)] = data
        self.dirty.append((offset, data))

    def flush(self) -> None:
        dirty, self.dirty = self.dirty, []
        self.flushes += 1
        if self.flushes == 1:
            raise OSError("simulated")
        for offset, data in dirty:
            self.medium[offset : offset + len(data)] = data


@pytest.mark.fault("S8")
def test_a_second_flush_alone_is_not_believed(sample: Sample) -> None:
    slot, headers = ForgetfulCache(), Target().headers
    install(slot, headers, sample.reader, sample.header, sample.image, target_broken=True)
    assert slot.medium.startswith(sample.plain)


def test_a_disk_that_vanishes_ends_in_bounded_time(sample: Sample) -> None:
    target = Target(Fault("vanished", 0, FOREVER))
    with pytest.raises(TargetWriteFailedError):
        target.install(sample)
    assert len(target.storage.trace) < 200


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([b"\0", b"a", b"noise"]), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, SLOT // 512 - 1), st.sampled_from(["flip", "zero", "random"]))),
)
def test_any_image_over_any_content(tmp_path: Path, pieces: list[bytes], damages: list[tuple[int, str]]) -> None:
    image = b"".join((piece * 4096)[:4096] if piece != b"noise" else digest(piece) * 128 for piece in pieces)
    sample = Sample(tmp_path, image)
    target = Target()
    target.install(sample)
    for sector, how in damages:
        target.storage.disks[0].rot(target.slot.offset + sector * 512, 512, how)
    behind = target.content(SLOT)[len(image) :]
    target.install(sample)
    assert target.content(len(image)) == image
    assert target.content(SLOT)[len(image) :] == behind


def test_images_are_filled_up_to_whole_units(tmp_path: Path) -> None:
    sample = Sample(tmp_path, b"short")
    target = Target()
    target.install(sample)
    assert target.content(FRAME) == b"short".ljust(FRAME, b"\0")


def test_a_last_frame_may_be_shorter(tmp_path: Path) -> None:
    path, created = make(tmp_path, mixed_image(5), frame_size=2 * FRAME)
    source = FileSource(str(path), "test")
    header = read_header(source)
    target = Target()
    image = believe(header).image("rootfs")
    install(target.slot, target.headers, source, header, image, target_broken=True)
    source.close()
    assert target.content(5 * FRAME) == mixed_image(5)
    assert sum(created.frames.values()) == 3


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    frame = 256 << 10
    count = 128
    image = b"".join(index.to_bytes(4, "big") * (frame // 4) for index in range(count))
    path, _created = make(tmp_path, image, frame_size=frame)
    del image
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate((count + 1) * frame)
    slot = DeviceRegion(str(disk), 0, count * frame)
    headers = [DeviceRegion(str(disk), count * frame + number * 16384, 16384) for number in (0, 1)]
    source = FileSource(str(path), "test")
    tracemalloc.start()
    try:
        header = read_header(source)
        image_in = believe(header).image("rootfs")
        install(slot, headers, source, header, image_in, target_broken=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (items_ahead(frame) + 6) * frame + 2 * frames.WRITE_BYTES_MAX < len(image_in.frames()) * frame // 4
    source.close()
    for region in (slot, *headers):
        region.close()


def test_images_and_bundles_above_four_gigabytes(tmp_path: Path) -> None:
    frame, gap, count = 4 << 20, 5 << 30, 1537
    zero, last = bytes(frame), b"the end " * (FRAME // 8)
    entries = Frame(ZERO, 0, 0, frame, digest(zero)).encode() * (count - 1)
    entries += Frame(RAW, gap, FRAME, FRAME, digest(last)).encode()
    size = (count - 1) * frame + FRAME
    header = big_header(size, frame, entries)
    bundle, disk = tmp_path / "big.ubk", tmp_path / "disk"
    with bundle.open("wb") as file:
        file.write(header.raw)
        file.seek(len(header.raw) + gap)
        file.write(last)
    with disk.open("wb") as file:
        file.truncate(size)
    slot, source = DeviceRegion(str(disk), 0, size), FileSource(str(bundle), "big")
    reader = frames.FrameReader(source, len(header.raw), believe(header).image("rootfs").frames())
    assert frames.verify(slot, reader.table, indices=[0, count - 1]) == [count - 1]
    assert frames.write(slot, reader, [count - 1]).written == 1
    assert slot.read(size - FRAME, FRAME) == last
    assert frames.verify(slot, reader.table, indices=[count - 1]) == []


def big_header(size: int, frame: int, entries: bytes) -> Header:
    image = Image(
        slot_class="rootfs",
        kind="immutable",
        filesystem="erofs",
        size=size,
        frame_size=frame,
        table_digest=digest(entries),
        watchdog_owner="none",
        init="/sbin/init",
    )
    manifest_bytes = encode(
        Manifest(
            compatible=COMPATIBLE,
            version=1,
            version_name="big",
            kernel_release=KERNEL,
            images=(image,),
        )
    )
    return read_header(BytesReader(encode_header(manifest_bytes, [sign(KEY, manifest_bytes)], entries)))


def test_progress_is_told_for_every_frame(sample: Sample) -> None:
    target = Target()
    told: list[tuple[str, int, int]] = []
    install(
        target.slot,
        target.headers,
        sample.reader,
        sample.header,
        sample.image,
        target_broken=False,
        progress=lambda activity, done, total: told.append((activity, done, total)),
    )
    activities = list(dict.fromkeys(activity for activity, _done, _total in told))
    assert activities == ["verify", "verify source", "write", "read back"]
    assert [done for activity, done, _total in told if activity == "write"] == [1, 2, 3, 4, 5]


def test_verify_source_names_every_frame_that_is_missing(sample: Sample) -> None:
    cut = BytesReader(sample.content[: len(sample.header.raw) + 10])
    reader = frames.FrameReader(cut, len(sample.header.raw), sample.image.frames())
    missing = frames.verify_source(reader)
    assert set(missing) == {0, 1, 3, 4, 6}
    assert all(isinstance(error, BundleError) for error in missing.values())
