"""A real Debian takes a libc that installs well and does not start, and comes back by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu.pytest_plugin import MachineFactory
from scripts.virtual import debian_root
from scripts.virtual.kit import CACHE, Kit
from scripts.virtual.layer import Layer
from tests.boot.conftest import made_once
from tests.boot.debian_packages import BROKEN, Base
from tests.boot.device import Device
from tests.boot.package_root import found

pytestmark = [pytest.mark.boot, pytest.mark.long, pytest.mark.requirement("M7", "M11", "M12", "M20")]

FOLDER = Path(__file__).parents[2] / "build" / "boot-tests" / "debian"
SECONDS = 400.0
LIBC = f"usr/{BROKEN}"
STATUS = "var/lib/dpkg/status"
APPLY = """[Unit]
Description=Take a transaction, as somebody would from afar
After=unbrick-mark-good.service unbrick-packages-restore.service
DefaultDependencies=no
Conflicts=shutdown.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '{first}; unbrick packages apply {options} {where} >/dev/console 2>&1; code=$$?; \\
  sync; echo "apply ended with $$code" >/dev/console; [ $$code != {restart} ] || unbrick reboot'
"""


@pytest.fixture(scope="module")
def kit() -> Kit:
    return made_once(FOLDER, "debian")


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(debian_root.build_base(CACHE))


def taking(options: str = "", restart: int = 4, where: str = "/data/t.ubk", first: str = "true") -> Layer:
    """What makes the OS take the transaction at ``where``, and restart where the command ends with ``restart``.

    ``first`` is a command of the shell that comes before.
    """
    layer = Layer()
    unit = APPLY.format(options=options, restart=restart, where=where, first=first)
    layer.file("etc/systemd/system/take.service", unit)
    layer.file("etc/systemd/system/multi-user.target.d/take.conf", "[Unit]\nWants=take.service\n")
    return layer


@pytest.fixture
def device(kit: Kit, base: Base, machine: MachineFactory, tmp_path: Path) -> Device:
    """A Debian from the factory, with a transaction for a libc that crashes in its user data."""
    device = Device(kit, kit.disk(tmp_path / "device.img", kit.bundle(1)), machine)
    base.transaction([base.broken_libc(tmp_path)], 7, kit.device.compatible, kit.folder / "signing.key", tmp_path / "t")
    device.disk.data.write("/user/t.ubk", (tmp_path / "t").read_bytes())
    return device


def take(device: Device, *lines: str, options: str = "", restart: int = 4) -> str:
    """Switch it on, have its OS take the transaction, wait for these lines in turn, switch it off."""
    device.lay_over(taking(options, restart))
    guest = device.power_on()
    for line in lines:
        guest.expect(line, SECONDS)
    guest.close()
    return guest.console.path.read_text(errors="replace")


@pytest.mark.fault("H2", "S1")
def test_a_libc_that_does_not_start_is_undone(device: Device, tmp_path: Path) -> None:
    before = found(device, tmp_path / "look", LIBC, STATUS)
    take(
        device,
        "E100 confirmed: version 1",
        "apply ended with 4",
        "E601 packages-finished: TRYING",
        "TRYING: handing over to version 1, attempt 3 of 3",
        "E104 attempts-exhausted: UNDOING_PACKAGES",
        "E602 packages-undone: TRYING",
        "E100 confirmed: version 1",
        "transaction 7 is not newer than 7",
    )
    assert found(device, tmp_path / "look", LIBC, STATUS) == before
    record = device.record
    assert (record.state, record.packages_serial, record.packages_good) == ("CONFIRMED", 7, 0)
    assert (record.upper_generation, record.frames_written) == (0, 0), "neither the image nor the state was suspected"


@pytest.mark.fault("H2")
def test_a_libc_that_ends_the_scripts_of_a_live_change_is_taken_back_at_once(device: Device, tmp_path: Path) -> None:
    before = found(device, tmp_path / "look", LIBC, STATUS)
    console = take(device, "E100 confirmed: version 1", "the script libc6.", "apply ended with 1", options="--live")
    assert "UNDOING_PACKAGES" not in console and console.count("handing over") == 1
    assert found(device, tmp_path / "look", LIBC, STATUS) == before
    assert (device.record.state, device.record.packages_good) == ("TRYING", 0)
