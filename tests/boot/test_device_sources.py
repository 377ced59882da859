"""A whole device without a slot and without a payload waits, and goes on by itself when a good stick comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from payload.bundle import encode_header, read_header
from payload.create import BundleInput, ImageInput, create
from payload.signatures import key_id
from payload.signing_key import generate_key, load_signing_key
from payload.sources import FileSource
from qemu.machine import Machine
from scripts.virtual.kit import Kit
from scripts.virtual.usb_stick import make_fat_stick, make_raw_stick
from tests.boot.device import LOOKED_AT_SECONDS, Device, change_byte

pytestmark = [pytest.mark.boot, pytest.mark.requirement("D6", "M15", "M20"), pytest.mark.fault("R3", "R5")]


def waiting(device: Device) -> Machine:
    """The device after slot and payload were lost: it says what it lacks."""
    device.disk.zero("slot")
    device.disk.corrupt("payload")
    guest = device.power_on()
    guest.expect("E400 no-source: WAITING", LOOKED_AT_SECONDS)
    guest.expect("what to do: Plug in a USB stick labelled UNBRICK", LOOKED_AT_SECONDS)
    return guest


@pytest.mark.parametrize(
    "make",
    [
        make_fat_stick,
        pytest.param(lambda bundle, stick: make_fat_stick(bundle, stick, partitioned=True), marks=pytest.mark.long),
        pytest.param(make_raw_stick, marks=pytest.mark.long),
    ],
    ids=["FAT", "FAT in a partition", "raw"],
)
def test_a_stick_is_found_by_itself(device: Device, tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    intact = device.digests("slot")
    stick = make(device.kit.bundle(1), tmp_path / "stick.img")
    guest = waiting(device)
    guest.hotplug_usb(stick, "stick")
    device.until_confirmed(guest)
    assert device.digests("slot") == intact


def test_a_stick_that_was_there_before_the_start_is_found(device: Device, tmp_path: Path) -> None:
    device.disk.zero("slot")
    device.disk.zero("payload")
    stick = make_fat_stick(device.kit.bundle(2), tmp_path / "stick.img")
    drive = f"if=none,id=plugged,format=raw,file={stick}"
    device.boot(version=2, extra=("-drive", drive, "-device", "usb-storage,bus=usb.0,drive=plugged"))


@pytest.mark.fault("T1", "T4")
@pytest.mark.long
def test_bad_sticks_are_refused_by_name_with_a_reason_and_a_good_one_ends_the_waiting(
    device: Device, tmp_path: Path
) -> None:
    guest = waiting(device)
    for name, (stick, reason) in bad_sticks(device.kit, tmp_path).items():
        plugged = guest.hotplug_usb(stick, name)
        guest.expect(f"{reason}: sd", LOOKED_AT_SECONDS, unless="handing over")
        guest.unplug(plugged)
    guest.hotplug_usb(make_fat_stick(device.kit.bundle(1), tmp_path / "good.img"), "good")
    device.until_confirmed(guest)


def bad_sticks(kit: Kit, folder: Path) -> dict[str, tuple[Path, str]]:
    """What must never be installed, and how it must be refused."""
    generate_key(folder / "other.key", folder / "other.pub")
    good = kit.bundle(1).read_bytes()
    bundles = {
        "wrong-key": (foreign(kit, folder, key=folder / "other.key"), "E402 payload-wrong-key"),
        "compatible": (foreign(kit, folder, compatible="other"), "E405 payload-wrong-compatible"),
        "kernel": (foreign(kit, folder, kernel_release="6.6.6"), "E407 payload-kernel-mismatch"),
        "below-floor": (foreign(kit, folder, version=0), "E406 payload-below-floor"),
        "cut-header": (written(folder, "cut-header", good[:600]), "E404 payload-truncated"),
        "cut-frames": (written(folder, "cut-frames", good[: len(good) // 2]), "E404 payload-truncated"),
        "unsigned": (signed_by(folder, kit.bundle(1)), "E401 payload-unsigned"),
        "forged": (signed_by(folder, kit.bundle(1), (key_id(kit.root_key), bytes(64))), "E412 payload-forged"),
        "bit-in-header": (change_byte(written(folder, "flip-1", good), 100), "E403 payload-corrupt"),
        "bit-in-frame": (change_byte(written(folder, "flip-2", good), len(good) // 2), "E403 payload-corrupt"),
        "too-large": (foreign(kit, folder, image_bytes=kit.layout["slot"].size + 4096), "E304 target-too-small"),
    }
    return {
        name: (make_fat_stick(bundle, folder / f"{name}.img"), reason) for name, (bundle, reason) in bundles.items()
    }


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / f"{name}.ubk"
    path.write_bytes(content)
    return path


def signed_by(folder: Path, good: Path, *signatures: tuple[bytes, bytes]) -> Path:
    """A good bundle with other signatures."""
    header = read_header(FileSource(str(good), good.name))
    other = encode_header(header.manifest_bytes, list(signatures), header.tables)
    return written(folder, f"signed-{len(signatures)}", other + good.read_bytes()[len(header.raw) :])


def foreign(
    kit: Kit,
    folder: Path,
    key: Path | None = None,
    compatible: str = "",
    kernel_release: str = "",
    version: int = 3,
    image_bytes: int = 1 << 20,
) -> Path:
    """A well-formed, signed bundle that is for this device but for one thing."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(image_bytes)
    made = BundleInput(
        compatible or kit.device.compatible,
        version,
        "foreign",
        kernel_release or kit.kernel_release,
        (ImageInput(image, "squashfs"),),
    )
    output = folder / f"foreign-{len(list(folder.iterdir()))}.ubk"
    create(made, load_signing_key(key or kit.folder / "signing.key"), output)
    return output
