"""A real guest finishes a package transaction, or undoes it, through a write log; then the power goes everywhere.

What the cut leaves is booted by the real image, and cut once more where the test says so. Every disk has to come to the
set of packages that it was meant to have, whole, with nothing left over, and nobody types anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from packagemanager.places import TRANSACTION as UNDER_WAY
from qemu.disks import Disk
from qemu.errors import LabError
from qemu.machine import Machine
from qemu.pytest_plugin import MachineFactory
from qemu.write_log import WriteLog, crash_image
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.kit import Kit
from tests.boot.crash_states import PowerCut, power_cuts
from tests.boot.device import CONFIRMED_SECONDS, ONCE, Device
from tests.boot.package_root import mounted, pend, stage

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long,
    pytest.mark.requirement("M7", "M20"),
    pytest.mark.fault("S1", "S2", "S3", "S4"),
]

STATES = 50  # of each recording, booted
PLAN: dict[str, bytes | None] = {
    "etc/version": b"1, with packages\n",
    **{f"usr/lib/added/{number}": b"%d\n" % number * 512 for number in range(40)},
}
BROKEN: dict[str, bytes | None] = {"etc/misbehave": b"reboot\n"}
Found = dict[str, bytes]


@dataclass(frozen=True)
class Recording:
    """``base`` is the disk before the recorded boots; ``ends`` are the files that the root must have in the end."""

    device: Device
    base: DeviceDisk
    log: WriteLog
    ends: Found


def files_of(device: Device, folder: Path) -> Found:
    """Every file of the root that packages touch here, and what is left of a transaction."""
    with mounted(device, folder) as root:
        places = [root / "etc", root / "usr/lib/added", root / UNDER_WAY]
        found = [path for place in places if place.is_dir() for path in place.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def until_confirmed(kit: Kit, disk: DeviceDisk, folder: Path, name: str, log: Path | None = None) -> str:
    """Boot until the OS says that it runs well. Why it did not; empty if it did."""
    disks = (Disk(disk.path, kit.device.serial, log=log),)
    with Machine(kit.options(disk, disks=disks), folder, name) as guest:
        try:
            guest.expect(ONCE, CONFIRMED_SECONDS)
            guest.expect("tiny-os: good", CONFIRMED_SECONDS)
        except LabError as error:
            return str(error)
    return ""


@pytest.fixture(params=["finished", "undone"])
def recording(
    request: pytest.FixtureRequest, kit: Kit, confirmed_disk: DeviceDisk, machine: MachineFactory, tmp_path: Path
) -> Recording:
    device = Device(kit, confirmed_disk.copy(tmp_path / "device.img"), machine)
    before = files_of(device, tmp_path / "before")
    undone = request.param == "undone"
    stage(device, tmp_path / "staging", {**PLAN, **(BROKEN if undone else {})})
    pend(device)
    base = device.disk.copy(tmp_path / "base.img")
    log = tmp_path / "log"
    assert until_confirmed(kit, device.disk, tmp_path, "recorded", log) == ""
    ends = files_of(device, tmp_path / "after")
    wanted = before if undone else {**before, **{path: content for path, content in PLAN.items() if content}}
    assert ends == wanted
    return Recording(device, base, WriteLog.read(log), ends)


def problems(recording: Recording, cuts: list[PowerCut], folder: Path, cut_again: bool = False) -> Iterator[str]:
    """Boot what each cut leaves, one after the other."""
    kit = recording.device.kit
    for number, cut in enumerate(cuts):
        disk = DeviceDisk(folder / f"state-{number}.img", recording.base.layout)
        crash_image(recording.log, recording.base.path, disk.path, cut.upto, cut.lose, dict(cut.torn))
        if cut_again:
            disk = _cut_again(kit, disk, folder, number)
        failure = until_confirmed(kit, disk, folder, f"state-{number}")
        device = Device(kit, disk, recording.device._machine)
        if failure or device.record.state != "CONFIRMED":
            yield f"{cut}: {failure or device.record.state}"
        elif files_of(device, folder / "look") != recording.ends:
            yield f"{cut}: the root is not as it should be"
        disk.path.unlink()


def _cut_again(kit: Kit, disk: DeviceDisk, folder: Path, number: int) -> DeviceDisk:
    """The same disk after a boot that was cut anywhere."""
    base = disk.copy(folder / f"again-{number}.img")
    log = folder / f"again-{number}.log"
    until_confirmed(kit, disk, folder, f"again-{number}", log)
    written = WriteLog.read(log)
    cut = Random(number).choice(power_cuts(written, 20, seed=number))
    crash_image(written, base.path, disk.path, cut.upto, cut.lose, dict(cut.torn))
    base.path.unlink()
    log.unlink()
    return disk


def test_every_state_comes_to_the_set_that_was_meant(recording: Recording, tmp_path: Path) -> None:
    assert list(problems(recording, power_cuts(recording.log, STATES), tmp_path)) == []


def test_a_second_cut_in_what_the_first_one_left(recording: Recording, tmp_path: Path) -> None:
    cuts = power_cuts(recording.log, STATES, seed=1)[:: STATES // 10]
    assert list(problems(recording, cuts, tmp_path, cut_again=True)) == []
