"""Bundles that are signed and hold nothing for a slot: where images are looked for, they are passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from payload.bundle import read_header
from payload.create import BundleInput, ImageInput, create
from payload.sources import FileSource
from recovery import update
from recovery.workshop import Workshop
from tests.simulator.devices import ATTEMPTS, FRAMES, HEADER, RELEASE, Device, Kind, Version, factory
from tests.simulator.disk import Storage
from tests.unit.payload_samples import COMPATIBLE, FRAME, KEY, BytesReader, mixed_image
from tests.unit.transaction_samples import Master


def of_another_class(folder: Path) -> Path:
    """For this kind of device and its kernel, and for another slot class."""
    image, output = folder / "other.img", folder / "other.ubk"
    image.write_bytes(mixed_image(FRAMES))
    fields = (ImageInput(image, "squashfs", slot_class="other", frame_size=FRAME),)
    create(BundleInput(COMPATIBLE, 9, "9.0", RELEASE, fields), KEY, output)
    return output


def of_packages(folder: Path) -> Path:
    master = Master(folder)
    output = folder / "packages.ubk"
    output.write_bytes(master.transaction([master.add("sample", "1.0", {"etc/sample": b"1.0"})], [{}]))
    return output


def of_a_larger_slot(folder: Path) -> Path:
    """As an image leaves it that was built for slots of another size."""
    image, output = folder / "larger.img", folder / "larger.ubk"
    image.write_bytes(mixed_image(FRAMES + 1))
    fields = (ImageInput(image, "squashfs", frame_size=FRAME),)
    create(BundleInput(COMPATIBLE, 9, "9.0", RELEASE, fields), KEY, output)
    return output


@pytest.fixture(params=[of_another_class, of_packages])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = request.param(tmp_path)
    return path


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return factory(Kind(tuple(Version(tmp_path, number, number) for number in (1, 2))), installed=1, other=2)


def with_content(device: Device, *contents: tuple[dict[str, int], bytes]) -> Device:
    disk, *sticks = device.storage.images()
    for place, content in contents:
        at = place["offset"]
        disk = disk[:at] + content + disk[at + len(content) :]
    return Device(device.kind, Storage(images=[disk, *sticks]))


@pytest.mark.requirement("D5")
@pytest.mark.fault("R1", "R2")
def test_a_lost_journal_is_rebuilt_beside_a_slot_that_such_a_header_describes(device: Device, foreign: Path) -> None:
    config = device.config
    header = read_header(BytesReader(foreign.read_bytes())).raw
    assert len(header) == HEADER
    headers = [(place, header) for place in config["slot"]["rootfs"]["1"]["headers"]]
    journals = [(place, b"rot!" * (place["size"] // 4)) for place in config["journal"]["regions"]]
    record = with_content(device, *headers, *journals).boot()
    assert (record.primary, record.installed.version, record.attempts_left) == (0, 1, ATTEMPTS - 1)
    assert record.slots[1].condition == "unknown"


@pytest.mark.fault("S6")
@pytest.mark.parametrize("journal_is_lost", [True, False])
def test_a_header_of_an_image_that_does_not_fit_describes_no_slot(
    device: Device, tmp_path: Path, journal_is_lost: bool
) -> None:
    config = device.config
    header = read_header(BytesReader(of_a_larger_slot(tmp_path).read_bytes())).raw
    headers = [(place, header) for slot in ("0", "1") for place in config["slot"]["rootfs"][slot]["headers"]]
    journals = [(place, b"rot!" * (place["size"] // 4)) for place in config["journal"]["regions"]]
    device = with_content(device, *headers, *(journals if journal_is_lost else []))
    if not journal_is_lost:
        journal = device.journal()
        journal.persist(journal.record.but(requested=True))
    assert {one["condition"] for one in update.findings(device.workshop(), device.journal(look_only=True).record)}
    assert device.boot().installed.version == 1, "from the bundle on the disk, though nothing in a slot can be read"


def test_a_place_for_bundles_that_holds_one_is_empty(device: Device, foreign: Path) -> None:
    spare = device.config["payload"]["spare"]
    assert foreign.stat().st_size <= spare["size"]
    device = with_content(device, (spare, foreign.read_bytes()))
    found = update.findings(device.workshop(), device.journal(look_only=True).record)
    assert [(one["what"], one["version"]) for one in found[2:]] == [("place 0", 1), ("place 1", 0)]


def test_a_stick_with_one_is_no_source(device: Device, foreign: Path) -> None:
    workshop = Workshop(
        device.config,
        "simulated",
        lambda: None,
        lambda _record: None,
        opener=device.opener,
        media=lambda: [FileSource(str(foreign), foreign.name)],
    )
    record = device.journal(look_only=True).record
    workshop.recall(record)
    assert {candidate.source.name for candidate in workshop.candidates(record)} == {"payload region"}
