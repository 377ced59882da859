"""Packages in a virtual device: what was staged is finished before the OS runs, and what fails is undone by itself.

The transactions are staged on this host by the package manager's own engine, as the OS would have.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from packagemanager.places import TRANSACTION as UNDER_WAY
from qemu.pytest_plugin import MachineFactory
from scripts.virtual.kit import Kit
from tests.boot.device import CONFIRMED_SECONDS, Device, shown
from tests.boot.package_root import found, mounted, pend, stage

pytestmark = [pytest.mark.boot, pytest.mark.requirement("M7", "M20")]

VERSION, BROKEN = "etc/version", "etc/misbehave"
NEW: dict[str, bytes | None] = {VERSION: b"1, with packages\n", "usr/lib/unbrick/added": b"added\n"}


def left_over(device: Device, folder: Path) -> bool:
    with mounted(device, folder) as root:
        return (root / UNDER_WAY).exists()


@pytest.mark.requirement("M11", "M12")
@pytest.mark.fault("H2", "R4")
def test_packages_that_do_not_boot_are_undone_by_themselves(device: Device, tmp_path: Path) -> None:
    before = found(device, tmp_path, *NEW, BROKEN)
    stage(device, tmp_path, {**NEW, BROKEN: b"panic\n"}, serial=7)
    pend(device, serial=7)
    console = device.boot()
    assert shown(
        console,
        "E601 packages-finished: TRYING",
        "attempt 1 of 3",
        "tiny-os: version 1, with packages up",
        "attempt 3 of 3",
        "Kernel panic",
        "E104 attempts-exhausted: UNDOING_PACKAGES",
        "E602 packages-undone: TRYING",
        "tiny-os: version 1 up",
        "E100 confirmed",
    )
    assert console.count("Kernel panic") == 3
    assert found(device, tmp_path, *NEW, BROKEN) == before
    assert not left_over(device, tmp_path)
    record = device.record
    assert (record.packages_serial, record.packages_good, record.frames_written) == (7, 0, 0)


@pytest.mark.long
@pytest.mark.fault("S1")
def test_a_staged_transaction_is_finished_tried_and_kept(device: Device, tmp_path: Path) -> None:
    stage(device, tmp_path, NEW, serial=7)
    pend(device, serial=7)
    guest = device.power_on("tiny.after=poweroff")
    guest.wait_exit(CONFIRMED_SECONDS)
    console = guest.console.path.read_text(errors="replace")
    assert shown(console, "E601 packages-finished: TRYING", "tiny-os: version 1, with packages up", "E100 confirmed")
    assert found(device, tmp_path, *NEW) == NEW
    assert not left_over(device, tmp_path)
    assert (device.record.packages_good, device.record.packages_digest) == (7, bytes(32))
    assert "E6" not in device.boot(), "the next boot is an ordinary one"


@pytest.mark.long
@pytest.mark.fault("S1")
@pytest.mark.parametrize("lost", [False, True], ids=["not told", "lost"])
def test_a_transaction_that_the_journal_does_not_know_is_found(device: Device, tmp_path: Path, lost: bool) -> None:
    stage(device, tmp_path, NEW)
    if lost:
        for number in range(3):
            device.disk.corrupt(f"journal-{number}")
    console = device.boot()
    assert shown(console, "E604 packages-found: PACKAGES_PENDING", "E601 packages-finished", "version 1, with packages")
    assert found(device, tmp_path, *NEW) == NEW


@pytest.mark.long
@pytest.mark.fault("S1", "H2")
def test_a_read_write_slot_is_finished_and_undone_in_itself(kit: Kit, machine: MachineFactory, tmp_path: Path) -> None:
    bundle = kit.bundle(1, filesystem="ext4", kind="read-write")
    device = Device(kit, kit.disk(tmp_path / "device.img", bundle), machine)
    device.boot()
    before = found(device, tmp_path, *NEW, BROKEN)
    stage(device, tmp_path, {**NEW, BROKEN: b"reboot\n"})
    pend(device)
    console = device.boot()
    assert shown(
        console, "E601 packages-finished: TRYING", "version 1, with packages up", "E602 packages-undone: TRYING"
    )
    assert found(device, tmp_path, *NEW, BROKEN) == before
    assert device.record.installed.kind == "read-write"


@pytest.mark.long
@pytest.mark.fault("S1")
def test_an_undo_that_was_cut_goes_on(device: Device, tmp_path: Path) -> None:
    before = found(device, tmp_path, *NEW)
    stage(device, tmp_path, NEW, then=lambda engine: engine.forward())
    device.remember(state="UNDOING_PACKAGES", packages_serial=1, packages_digest=b"\x51" * 32)
    console = device.boot()
    assert shown(console, "E111 resumed", "E602 packages-undone: TRYING", "tiny-os: version 1 up", "E100 confirmed")
    assert found(device, tmp_path, *NEW) == before
