"""A place keeps a whole bundle or nothing, and the one that is needed is not given away."""

from __future__ import annotations

import pytest

from payload.bundle import read_header
from payload.errors import BundleError, PayloadCorruptError, PayloadMissingError, PayloadTooLargeError, TargetError
from payload.place import bundle_bytes, keep, missing, place_for
from tests.simulator.disk import FOREVER, Fault, Storage
from tests.unit.payload_samples import BytesReader, Sample, mixed_image

SIZE = 1 << 20
OURS, OTHER, NEW = b"o" * 32, b"x" * 32, b"n" * 32


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("place"), mixed_image(7))


def kept(sample: Sample, storage: Storage, content: bytes | None = None) -> int:
    source = BytesReader(sample.content if content is None else content)
    return keep(storage.disks[0], source, sample.header, sample.manifest)


def test_a_bundle_ends_with_its_last_plain_frame(sample: Sample) -> None:
    assert bundle_bytes(sample.header, sample.manifest) == len(sample.content)


@pytest.mark.requirement("D6")
def test_a_place_gets_the_whole_bundle_and_then_it_is_only_read(sample: Sample) -> None:
    storage = Storage([SIZE])
    assert kept(sample, storage) > 0
    assert storage.disks[0].peek(0, len(sample.content)) == sample.content
    assert not missing(storage.disks[0], sample.header, sample.manifest, lambda *_: None)
    before = storage.operations
    assert kept(sample, storage) == 0
    assert not [one for one in storage.trace[before:] if one.kind == "write"]


@pytest.mark.requirement("M7")
def test_what_an_interrupted_run_did_not_flush_is_durable_after_the_next(sample: Sample) -> None:
    storage = Storage([SIZE])
    storage.disks[0].write(0, sample.content.ljust(-(-len(sample.content) // 512) * 512, b"\0"))
    assert storage.unflushed > 0
    assert kept(sample, storage) == 0
    assert storage.unflushed == 0


def test_what_follows_the_plain_frames_is_left_out(sample: Sample) -> None:
    storage = Storage([SIZE])
    kept(sample, storage, sample.content + b"delta" * 1000)
    assert storage.disks[0].peek(len(sample.content) + 4096, 512) == bytes(512)


def test_the_header_is_the_last_thing_that_is_written(sample: Sample) -> None:
    storage = Storage([SIZE])
    kept(sample, storage)
    writes = [one.offset for one in storage.trace if one.kind == "write"]
    assert writes[-1] == 0
    assert 0 not in writes[:-1], "an empty place has no header to blank"


@pytest.mark.requirement("M7")
def test_a_rerun_writes_what_is_missing(sample: Sample) -> None:
    storage = Storage([SIZE])
    kept(sample, storage)
    disk = storage.disks[0]
    disk.rot(len(sample.header.raw) + 100, 1)
    assert kept(sample, storage) > 0
    assert disk.peek(0, len(sample.content)) == sample.content


def test_a_damaged_source_leaves_a_place_that_holds_nothing(sample: Sample) -> None:
    storage = Storage([SIZE])
    kept(sample, storage)
    storage.disks[0].rot(len(sample.content) - 50, 1)
    damaged = bytearray(sample.content)
    damaged[-1] ^= 1
    with pytest.raises(PayloadCorruptError):
        kept(sample, storage, bytes(damaged))
    with pytest.raises(PayloadMissingError):
        read_header(storage.disks[0])


def test_a_source_that_is_cut_short_or_a_place_that_is_too_small_is_refused(sample: Sample) -> None:
    with pytest.raises(BundleError):
        kept(sample, Storage([SIZE]), sample.content[:-1])
    small = Storage([8192])
    with pytest.raises(PayloadTooLargeError):
        kept(sample, small)
    assert not small.trace


@pytest.mark.fault("S7", "S9", "S11")
@pytest.mark.parametrize("kind", ["eio", "read-only", "vanished"])
def test_a_place_that_takes_no_writes_is_an_error_of_the_target(sample: Sample, kind: str) -> None:
    storage = Storage([SIZE], faults=[Fault(kind, 2, FOREVER, disk=0)])
    with pytest.raises((TargetError, BundleError)):
        kept(sample, storage)


@pytest.mark.requirement("M7")
def test_the_place_that_is_needed_is_given_away_last_and_only_in_place() -> None:
    assert place_for([OURS], NEW, OURS) is None
    assert place_for([OURS], NEW, OURS, in_place=True) == 0
    assert place_for([OURS, None], NEW, OURS) == 1
    assert place_for([None, OURS], NEW, OURS) == 0
    assert place_for([OURS, OTHER], NEW, OURS) == 1
    assert place_for([OTHER, OURS], NEW, OURS) == 0
    assert place_for([OURS, OURS], NEW, OURS) == 1
    assert place_for([NEW, OTHER], NEW, OURS) == 0, "it is there already"
    assert place_for([OTHER, None], NEW, OURS) == 1, "nothing is lost"
