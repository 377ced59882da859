"""The tiny virtual device, made once, and confirmed once: every test gets a copy of its disk."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from qemu.machine import Machine
from qemu.pytest_plugin import MachineFactory
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.kit import Kit, make_kit
from tests.boot.device import CONFIRMED_SECONDS, ONCE, Device

FOLDER = Path(__file__).parents[2] / "build" / "boot-tests"


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Key, recovery image and kernel of a device with the tiny operating system."""
    return made_once(FOLDER)


def made_once(folder: Path, system: str = "tiny", **options: Any) -> Kit:
    """A device's kit in ``folder``; tests run in several processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_kit(folder, system, say=lambda _text: None, **options)


@pytest.fixture(scope="session")
def confirmed_disk(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> DeviceDisk:
    """The disk of a device whose OS, version 1, has said that it runs well."""
    folder = tmp_path_factory.mktemp("confirmed")
    disk = kit.disk(folder / "device.img", kit.bundle(1))
    with Machine(kit.options(disk), folder, "first-boot") as guest:
        guest.expect(ONCE, CONFIRMED_SECONDS)
    return disk


@pytest.fixture
def fresh(kit: Kit, machine: MachineFactory, tmp_path: Path) -> Device:
    """A device as it leaves the factory: version 1 is installed and was never booted."""
    return Device(kit, kit.disk(tmp_path / "device.img", kit.bundle(1)), machine)


@pytest.fixture
def device(kit: Kit, confirmed_disk: DeviceDisk, machine: MachineFactory, tmp_path: Path) -> Device:
    """A device that runs well: version 1 is confirmed."""
    return Device(kit, confirmed_disk.copy(tmp_path / "device.img"), machine)
