"""The two copies of a slot's header: what of them is believed, repaired, kept."""

from __future__ import annotations

import pytest

from payload.bundle import encode_header
from payload.errors import (
    TargetWriteFailedError,
)
from payload.install import install, read_slot_header, read_slot_headers, write_slot_headers
from statemachine.region import Region
from tests.unit.install_target import HEADER, Target
from tests.unit.payload_samples import (
    Sample,
    believe,
    mixed_image,
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("install"), mixed_image(7))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("older"), mixed_image(5, seed=2), version=3)


def installed(sample: Sample) -> Target:
    target = Target()
    target.install(sample)
    return target


@pytest.mark.fault("R6")
@pytest.mark.parametrize("number", [0, 1])
def test_a_rotten_header_copy_is_repaired_from_the_other(sample: Sample, number: int) -> None:
    target = installed(sample)
    target.storage.disks[0].rot(number * HEADER, HEADER, "random")
    found = read_slot_header(target.headers, believe)
    assert found is not None and found[1].digest == sample.manifest.digest
    assert [region.read(0, len(sample.header.raw)) for region in target.headers] == [sample.header.raw] * 2


def test_healthy_header_copies_are_not_written(sample: Sample) -> None:
    target = installed(sample)
    before = len(target.writes())
    assert read_slot_header(target.headers, believe) is not None
    assert write_slot_headers(target.headers, sample.header) == 2
    assert len(target.writes()) == before


def test_no_header_is_none(sample: Sample) -> None:
    target = Target()
    assert read_slot_header(target.headers, believe) is None
    assert target.writes() == []


def test_two_valid_headers_are_both_kept_and_the_journal_chooses(sample: Sample, older: Sample) -> None:
    target = installed(older)
    write_slot_headers(target.headers[:1], sample.header)
    before = len(target.writes())
    by_digest = {
        None: sample.manifest.digest,
        older.manifest.digest: older.manifest.digest,
        bytes(32): sample.manifest.digest,
    }
    for wanted, expected in by_digest.items():
        found = read_slot_header(target.headers, believe, wanted)
        assert found is not None and found[1].digest == expected
    assert len(target.writes()) == before
    copies = read_slot_headers(target.headers, believe)
    assert [copy[1].version for copy in copies if isinstance(copy, tuple)] == [7, 3]


def test_one_header_region_may_be_dead(sample: Sample) -> None:
    target = Target()

    class DeadRegion:
        size, write_unit, erase_unit = HEADER, 512, 512

        def read(self, offset: int, length: int) -> bytes:
            raise OSError("dead")

        def write(self, offset: int, data: bytes) -> None:
            raise OSError("dead")

        def flush(self) -> None:
            raise OSError("dead")

    regions: list[Region] = [DeadRegion(), target.headers[1]]
    report = install(target.slot, regions, sample.reader, sample.header, sample.image, target_broken=True)
    assert report.header_copies == 1
    assert read_slot_header(regions, believe) is not None
    with pytest.raises(TargetWriteFailedError):
        write_slot_headers([DeadRegion(), DeadRegion()], sample.header)


def test_a_forged_header_copy_is_neither_used_nor_overwritten(sample: Sample) -> None:
    target = installed(sample)
    forged = encode_header(sample.header.manifest_bytes, [], sample.header.tables)
    target.headers[0].write(0, forged)
    found = read_slot_header(target.headers, believe)
    assert found is not None and found[0].raw == sample.header.raw
    assert target.headers[0].read(0, len(forged)) == forged
