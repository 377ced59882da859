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
from tests.boot.device import CONFIRMED_SECONDS, Device
from tests.boot.package_root import mounted, pend, stage
from tests.boot.test_device_transactions import ENDED, LIVE, offer

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long,
    pytest.mark.requirement("M7", "M20"),
    pytest.mark.fault("S1", "S2", "S3", "S4"),
]

STATES = 34  # of each recording, booted; and so many that are cut once more
OFF = "tiny.after=poweroff"
THERE = f"{ENDED} 2"  # there is nothing left to apply
PLAN: dict[str, bytes | None] = {
    "etc/version": b"1, with packages\n",
    **{f"usr/lib/added/{number}": b"%d\n" % number * 512 for number in range(40)},
}
TOUCHED = ("etc", "usr/lib/added", "usr/lib/sample", "var/lib/dpkg", UNDER_WAY)
BROKEN: dict[str, bytes | None] = {"etc/misbehave": b"reboot\n"}
Found = dict[str, bytes]


@dataclass(frozen=True)
class Recording:
    """``base`` is the disk before the recorded boots; ``ends`` are the files that the root must have in the end.

    ``work`` is what the OS is asked for at every start, on the kernel's command line.
    """

    device: Device
    base: DeviceDisk
    log: WriteLog
    ends: Found
    work: str


def files_of(device: Device, folder: Path) -> Found:
    """Every file of the root that packages touch here, and what is left of a transaction."""
    with mounted(device, folder) as root:
        places = [root / place for place in TOUCHED]
        found = [path for place in places if place.is_dir() for path in place.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def until_over(kit: Kit, disk: DeviceDisk, folder: Path, name: str, work: str, log: Path | None = None) -> str:
    """Boot until the OS has what it was to have and switches itself off. Why that did not happen; empty if it did."""
    disks = (Disk(disk.path, kit.device.serial, log=log),)
    append = work.replace("=reboot", "=reboot-until-done") or OFF
    try:
        with Machine(kit.options(disk, append, disks=disks), folder, name) as guest:
            if work:
                guest.expect(THERE, CONFIRMED_SECONDS)
            guest.wait_exit(CONFIRMED_SECONDS)
    except LabError as error:
        return str(error)
    return ""


@pytest.fixture(params=["finished", "undone", "live"])
def recording(
    request: pytest.FixtureRequest, kit: Kit, confirmed_disk: DeviceDisk, machine: MachineFactory, tmp_path: Path
) -> Recording:
    device = Device(kit, confirmed_disk.copy(tmp_path / "device.img"), machine)
    before = files_of(device, tmp_path / "before")
    work = LIVE if request.param == "live" else ""
    if work:
        offer(device, tmp_path, 7)
    else:
        broken = BROKEN if request.param == "undone" else {}
        stage(device, tmp_path / "staging", {**PLAN, **broken})
        pend(device)
    base = device.disk.copy(tmp_path / "base.img")
    log = tmp_path / "log"
    assert until_over(kit, device.disk, tmp_path, "recorded", work, log) == ""
    ends = files_of(device, tmp_path / "after")
    assert (ends == before) == (request.param == "undone")
    assert not any(path.startswith(UNDER_WAY) for path in ends)
    return Recording(device, base, WriteLog.read(log), ends, work)


def problems(recording: Recording, cuts: list[PowerCut], folder: Path, cut_again: bool = False) -> Iterator[str]:
    """Boot what each cut leaves, one after the other."""
    kit = recording.device.kit
    for number, cut in enumerate(cuts):
        disk = DeviceDisk(folder / f"state-{number}.img", recording.base.layout)
        crash_image(recording.log, recording.base.path, disk.path, cut.upto, cut.lose, dict(cut.torn))
        if cut_again:
            disk = _cut_again(recording, disk, folder, number)
        failure = until_over(kit, disk, folder, f"state-{number}", recording.work)
        device = Device(kit, disk, recording.device._machine)
        if failure or device.record.state != "CONFIRMED":
            yield f"{cut}: {failure or device.record.state}"
        elif files_of(device, folder / "look") != recording.ends:
            yield f"{cut}: the root is not as it should be"
        disk.path.unlink()


def _cut_again(recording: Recording, disk: DeviceDisk, folder: Path, number: int) -> DeviceDisk:
    """The same disk after a boot that was cut anywhere."""
    base = disk.copy(folder / f"again-{number}.img")
    log = folder / f"again-{number}.log"
    until_over(recording.device.kit, disk, folder, f"again-{number}", recording.work, log)
    written = WriteLog.read(log)
    cut = Random(number).choice(power_cuts(written, 20, seed=number))
    crash_image(written, base.path, disk.path, cut.upto, cut.lose, dict(cut.torn))
    base.path.unlink()
    log.unlink()
    return disk


def test_every_state_comes_to_the_set_that_was_meant(recording: Recording, tmp_path: Path) -> None:
    assert list(problems(recording, power_cuts(recording.log, STATES), tmp_path)) == []


def test_a_second_cut_in_what_the_first_one_left(recording: Recording, tmp_path: Path) -> None:
    cuts = power_cuts(recording.log, STATES, seed=1)
    assert list(problems(recording, cuts, tmp_path, cut_again=True)) == []
