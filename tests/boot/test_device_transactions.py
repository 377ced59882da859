"""A running OS takes signed transactions with the device's own command, and recovery looks after them."""

from __future__ import annotations

from pathlib import Path

import pytest

from packagemanager.master.emit import Order
from packagemanager.master.package import Package
from packagemanager.master.repository import deb_file
from packagemanager.master.transaction_file import Label, create_transaction
from payload.signing_key import load_signing_key
from tests.boot.device import CONFIRMED_SECONDS, Device
from tests.boot.package_root import found
from tests.unit.transaction_samples import make_deb

pytestmark = [pytest.mark.boot, pytest.mark.long, pytest.mark.requirement("M7")]

APPLY = "tiny.unbrick=packages,apply,--offline,/data/t.ubk tiny.after=reboot"
LIVE = "tiny.unbrick=packages,apply,--live,/data/t.ubk tiny.after=reboot"
RESTORE = "tiny.unbrick=packages,restore tiny.after=reboot"
ENDED = "tiny-os: unbrick ended with"
NEW = "1, with packages"


def offer(device: Device, folder: Path, serial: int, misbehave: str = "") -> None:
    """Put a transaction into the user data: one package, which says that it is there and perhaps misbehaves."""
    files = {"etc/version": f"{NEW}\n".encode(), "usr/lib/sample/file": b"sample" * 2000}
    if misbehave:
        files["etc/misbehave"] = f"{misbehave}\n".encode()
    package = deb_file(make_deb(folder / "debs", "sample", f"{serial}.0", files))
    output = folder / "t.ubk"
    order = Order("amd64", [package], [package], (), [{}], _nobody_has_it, full=True)
    label = Label(device.kit.device.compatible, serial, str(serial), 100, 200)
    create_transaction(order, label, [load_signing_key(device.kit.folder / "signing.key")], [], output)
    device.disk.data.write("/user/t.ubk", output.read_bytes())


def _nobody_has_it(_key: str, _version: str) -> Package | None:
    return None


def until(device: Device, append: str, *lines: str) -> str:
    """Switch it on, wait for these lines in turn, switch it off."""
    guest = device.power_on(append)
    for line in lines:
        guest.expect(line, CONFIRMED_SECONDS)
    guest.close()
    return guest.console.path.read_text(errors="replace")


@pytest.mark.fault("S1")
def test_a_transaction_is_finished_before_the_next_start_of_the_os(device: Device, tmp_path: Path) -> None:
    offer(device, tmp_path, 7)
    staged = (f"{ENDED} 4", "E601 packages-finished: TRYING", f"version {NEW} up", "E100 confirmed")
    until(device, APPLY, *staged, f"{ENDED} 2")
    assert (device.record.packages_good, device.record.state) == (7, "CONFIRMED")


@pytest.mark.requirement("M20")
@pytest.mark.fault("H2")
def test_a_live_transaction_that_does_not_start_again_is_undone(device: Device, tmp_path: Path) -> None:
    offer(device, tmp_path, 7, "panic")
    before = found(device, tmp_path / "look", "etc/version", "etc/misbehave", "usr/lib/sample/file")
    undone = ("E104 attempts-exhausted: UNDOING_PACKAGES", "E602 packages-undone: TRYING", "E100 confirmed")
    until(device, LIVE, f"{ENDED} 0", "attempt 3 of 3", *undone, f"{ENDED} 1")
    assert found(device, tmp_path / "look", *before) == before
    assert (device.record.packages_serial, device.record.packages_good) == (7, 0)


@pytest.mark.requirement("D8", "M20")
@pytest.mark.fault("R4")
def test_packages_come_back_where_the_system_state_was_lost(device: Device, tmp_path: Path) -> None:
    offer(device, tmp_path, 7)
    device.disk.data.write("/user/photo", b"a person's data")
    until(device, LIVE, f"{ENDED} 0", f"version {NEW} up", "E100 confirmed", f"{ENDED} 2")
    device.break_os("panic")
    came_back = (
        "E104 attempts-exhausted: SUSPECT",
        "E109 pristine: PRISTINE",
        "E100 confirmed",
        f"{ENDED} 4",  # this state is a temporary one
        "E100 confirmed",
        f"{ENDED} 4",  # staged from the data partition
        "E601 packages-finished: TRYING",
        f"version {NEW} up",
        "E100 confirmed",
        f"{ENDED} 2",
    )
    until(device, RESTORE, *came_back)
    assert (device.record.packages_good, device.record.upper_generation) == (7, 1)
    assert device.record.frames_written == 0, "the image was intact"
    assert device.disk.data.read("/user/photo") == b"a person's data"
