"""A real guest reinstalls a blank slot through a write log; then the power goes everywhere.

The recorded device had run well. Its slot is zeroed, and one copy of its journal has come back from an
earlier time: so the log holds the repair of a copy, the whole way from CONFIRMED over SUSPECT to the OS
that confirms itself, and every frame of the slot. What a cut can leave of the journal is opened by the
production code, state by state; some whole disks are booted by the real image.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from qemu.disks import Disk
from qemu.errors import LabError
from qemu.machine import Machine
from qemu.write_log import Flag, WriteLog, crash_image
from recovery.device_journal import identity
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.kit import Kit
from statemachine.limits import TRIED_IMAGES_MAX
from statemachine.record import DIGEST_BYTES
from tests.boot.crash_states import (
    JournalReplay,
    PowerCut,
    Reader,
    Sweep,
    Violation,
    first_valid_copy,
    history,
    last_copy,
    power_cuts,
    production,
)
from tests.boot.device import CONFIRMED_SECONDS, ONCE

pytestmark = [pytest.mark.boot, pytest.mark.fault("S1", "S2", "S3", "S4")]

COPIES = ("journal-0", "journal-1", "journal-2")
STALE_RECORDS = 9  # what the copy that came back lacks: the head, and a full batch of unflushed writes
WAY = ["CONFIRMED", "SUSPECT", "REPAIRING", "VERIFYING", "ACTIVATING", "TRYING", "CONFIRMED"]
SLOT_UNBOOTABLE = ("REPAIRING", "REINSTALLING")
USER_DATA = b"a person's data\n" * 4096
STATES_BOOTED = 200
FAILURES_MAX = 3
MACHINES = 2


@dataclass(frozen=True)
class Recording:
    """``base`` is the disk before the recorded boot, ``slot`` the digest that the slot must have after it."""

    kit: Kit
    base: DeviceDisk
    log: WriteLog
    slot: str
    frames_written: int

    def replay(self) -> JournalReplay:
        places = [self.base.layout[copy] for copy in COPIES]
        return JournalReplay(self.log, self.base.path, places, identity(self.kit.config))


@pytest.fixture(scope="module")
def recording(kit: Kit, confirmed_disk: DeviceDisk, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("recording")
    base = confirmed_disk.copy(folder / "base.img")
    base.data.write("/user/photo", USER_DATA)
    make_stale(kit, base, COPIES[0])
    slot = base.digest("slot")
    base.zero("slot")
    disk = base.copy(folder / "device.img")
    log = folder / "log"
    options = kit.options(disk, disks=(Disk(disk.path, kit.device.serial, log=log),))
    with Machine(options, folder, "recorded") as guest:
        guest.expect(ONCE, CONFIRMED_SECONDS)
    assert disk.digest("slot") == slot
    return Recording(kit, base, WriteLog.read(log), slot, frames_written(guest))


def make_stale(kit: Kit, disk: DeviceDisk, copy: str) -> None:
    """Let one copy of the journal miss the last records, as if it had been away.

    The records are as long as they can get, so that a torn one is torn within its body.
    """
    older = disk.read(copy)
    journal = disk.journal(kit.config)
    tried = tuple(bytes([number + 1]) * DIGEST_BYTES for number in range(TRIED_IMAGES_MAX))
    for _ in range(STALE_RECORDS):
        journal.persist(journal.record.but(boots=journal.record.boots + 1, tried=tried))
    with disk.path.open("r+b") as image:
        image.seek(disk.layout[copy].offset)
        image.write(older)


def frames_written(guest: Machine) -> int:
    console = guest.console.path.read_text(errors="replace")
    return sum(int(count) for count in re.findall(r"unbrick: (\d+) frames written", console))


# The journal alone, in every state.


@pytest.mark.requirement("M7")
@pytest.mark.sweep
def test_no_acknowledged_record_is_lost_in_any_state_of_the_journal(recording: Recording) -> None:
    count = Sweep(recording.replay(), production).run()
    print(count)
    assert count.prefixes == len(recording.log.entries)
    assert count.unflushed_max == 8, "the repair of the copy that came back is not in the log"
    assert count.tears >= 7 * count.journal_writes > 7 * 3 * len(WAY)
    assert count.states > 1000


def test_each_step_is_acknowledged_before_the_slot_is_written(recording: Recording) -> None:
    slot = recording.base.layout["slot"]
    written = [
        record.state
        for entry, record in history(recording.replay())
        if entry.changes and slot.offset <= entry.offset < slot.offset + slot.size
    ]
    assert written, "no frame was written"
    assert set(written) <= set(SLOT_UNBOOTABLE)
    assert way(recording.replay()) == WAY


def test_a_product_that_does_not_flush_would_be_seen(recording: Recording) -> None:
    entries = tuple(replace(entry, flags=entry.flags & ~Flag.FLUSH) for entry in recording.log.entries)
    replay = recording.replay()
    replay.log = replace(recording.log, entries=entries)
    with pytest.raises(Violation, match="unflushed journal writes"):
        way(replay)


def test_a_medium_that_ignores_flushes_would_be_seen(recording: Recording) -> None:
    replay = recording.replay()
    replay.flush_works = False
    with pytest.raises(Violation, match="is acknowledged"):
        Sweep(replay, production, rot=False, states_max=1).run()


@pytest.mark.parametrize("wrong", [first_valid_copy, last_copy])
def test_a_wrong_reader_would_be_seen(recording: Recording, wrong: Reader) -> None:
    with pytest.raises(Violation, match="is acknowledged"):
        Sweep(recording.replay(), wrong, rot=False, states_max=1).run()


def way(replay: JournalReplay) -> list[str]:
    """The states of the acknowledged records, one after the other."""
    states = [record.state for _, record in history(replay)]
    return [state for state, _ in itertools.groupby([*states, replay.record.state])]


# Whole disks, booted.


@dataclass(frozen=True)
class Comeback:
    """How a device came back; ``failure`` is empty if it did."""

    cut: PowerCut
    boots: int
    frames_written: int
    seconds: float
    failure: str


def come_back(recording: Recording, cut: PowerCut, folder: Path, name: str) -> Comeback:
    """Boot the disk that ``cut`` leaves until its OS confirms itself, and look at what is on it then."""
    started = time.monotonic()
    disk = DeviceDisk(folder / f"{name}.img", recording.base.layout)
    crash_image(recording.log, recording.base.path, disk.path, cut.upto, cut.lose, dict(cut.torn))
    failure = ""
    with Machine(recording.kit.options(disk), folder, name) as guest:
        try:
            guest.expect(ONCE, CONFIRMED_SECONDS)
        except LabError as error:
            failure = str(error)
    failure = failure or wrong_on(disk, recording)
    if not failure:
        disk.path.unlink()
    seconds = round(time.monotonic() - started, 1)
    return Comeback(cut, guest.boots, frames_written(guest), seconds, failure)


def wrong_on(disk: DeviceDisk, recording: Recording) -> str:
    """What is not as it should be on the disk of a device that came back; empty if all is."""
    state = disk.journal(recording.kit.config).record.state
    if state != "CONFIRMED":
        return f"the journal says {state}"
    if disk.digest("slot") != recording.slot:
        return "the slot differs from the image"
    return "" if disk.data.read("/user/photo") == USER_DATA else "user data changed"


def come_back_from(recording: Recording, cuts: list[PowerCut], folder: Path) -> Iterator[Comeback]:
    """Each of them as it is done, ``MACHINES`` at a time; no more are tried after some failures."""
    failures = 0
    with ThreadPoolExecutor(MACHINES) as pool:
        started = [pool.submit(come_back, recording, cut, folder, f"state-{number}") for number, cut in enumerate(cuts)]
        for one in as_completed(started):
            yield one.result()
            failures += bool(one.result().failure)
            if failures >= FAILURES_MAX:
                pool.shutdown(cancel_futures=True)
                return


@pytest.mark.requirement("D6", "M7")
def test_some_states_boot_to_confirmed(recording: Recording, tmp_path: Path) -> None:
    cuts = power_cuts(recording.log, STATES_BOOTED)[25::50]
    done = list(come_back_from(recording, cuts, tmp_path))
    assert [one for one in done if one.failure] == []
    assert len(done) == 4


@pytest.mark.requirement("D6", "M7")
@pytest.mark.long
def test_200_states_boot_to_confirmed(recording: Recording, tmp_path: Path) -> None:
    """What has come back so far is in ``write-log.json`` beside the device's key, rewritten for each."""
    started = time.monotonic()
    done: list[Comeback] = []
    for one in come_back_from(recording, power_cuts(recording.log, STATES_BOOTED), tmp_path):
        done.append(one)
        report = summary(recording, done, time.monotonic() - started)
        (recording.kit.folder / "write-log.json").write_text(json.dumps(report, indent=1) + "\n")
    print({name: value for name, value in report.items() if name != "states"})
    assert [one for one in done if one.failure] == []
    assert len(done) == STATES_BOOTED
    assert {one.frames_written for one in done} >= {0, recording.frames_written}, "the cuts are not spread"


def summary(recording: Recording, done: list[Comeback], seconds: float) -> dict[str, object]:
    return {
        "entries": len(recording.log.entries),
        "states_booted": len(done),
        "states_torn": sum(bool(one.cut.torn) for one in done),
        "failures": sum(bool(one.failure) for one in done),
        "boots": sum(one.boots for one in done),
        "frames_rewritten": sum(one.frames_written for one in done),
        "frames_of_the_image": recording.frames_written,
        "seconds": round(seconds, 1),
        "states": [{**asdict(one), "cut": {**asdict(one.cut), "lose": sorted(one.cut.lose)}} for one in done],
    }
