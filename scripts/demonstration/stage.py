"""One scenario's stage: a copy of a confirmed device, its machines, and what is told afterwards.

A scenario damages the disk while the device is off, switches it on and waits. It never types anything:
the only hands are the ones that a scenario is about (a key held, a stick plugged in, the power cut).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qemu.disks import Disk
from qemu.machine import Machine
from qemu.write_log import WriteLog, crash_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.virtual.disk import DeviceDisk
    from scripts.virtual.kit import Kit
    from statemachine.record import Record

CONFIRMED = re.compile(r"unbrick: E100 confirmed: version (\d+)")
# Several starts; a few times what an idle host needs, for a host that is not.
CONFIRMED_SECONDS_MAX = 900.0
POLL_SECONDS = 0.002
UNTOUCHED = ("slot", "payload")


class NotShownError(Exception):
    """The device came back, but not in the way that the scenario is about."""


@dataclass
class Stage:
    """``disk`` belongs to the scenario; ``version`` is what the device ran before and must run again."""

    name: str
    kit: Kit
    disk: DeviceDisk
    folder: Path
    version: int
    say: Callable[[str], None]
    machines: list[Machine] = field(default_factory=list)
    power_cuts: int = 0

    def power_on(self, hold_key: str = "", log: Path | None = None) -> Machine:
        """Switch the device on, with ``hold_key`` down from the first moment if one is named."""
        disk = Disk(self.disk.path, self.kit.device.serial, log=log)
        machine = Machine(
            self.kit.options(self.disk, disks=(disk,)), self.folder, f"{self.name}-{len(self.machines) + 1}"
        )
        self.machines.append(machine)
        machine.start(hold_key)
        return machine

    def until_confirmed(self, machine: Machine) -> None:
        """Wait until the OS says that it runs well, then switch the device off."""
        found = machine.expect(CONFIRMED, CONFIRMED_SECONDS_MAX)
        machine.close()
        if int(found[1]) != self.version:
            raise NotShownError(f"version {found[1]} was confirmed instead of {self.version}")

    def cut_power_while_writing(self, written_bytes: int, seconds: float) -> None:
        """Cut the power when so much was written to the disk; every write that was not flushed is lost."""
        before = self.disk.copy(self.folder / f"{self.name}-before.img")
        log = self.folder / f"{self.name}.log"
        machine = self.power_on(log=log)
        machine.expect(re.compile("unbrick: write "), seconds)
        deadline = time.monotonic() + seconds
        while log.stat().st_size < written_bytes and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        machine.power_off()
        machine.close()
        written = WriteLog.read(log)
        crash_image(written, before.path, self.disk.path)
        self.power_cuts += 1
        lost = len(written.not_durable(len(written.entries)))
        self.say(f"power cut {self.power_cuts}: after {len(written.entries)} requests, {lost} unflushed writes lost")
        before.path.unlink()
        log.unlink()

    def said(self, pattern: str) -> re.Match[str]:
        """The last console line of this scenario that matches. Raises: NotShownError."""
        for machine in reversed(self.machines):
            found = list(re.finditer(pattern, machine.console.path.read_text(errors="replace")))
            if found:
                return found[-1]
        raise NotShownError(f"the console never said {pattern!r}")

    def record(self) -> Record:
        """What the device's journal says now. The device is off."""
        return self.disk.journal(self.kit.config).record


@dataclass(frozen=True)
class Outcome:
    """A row of the report."""

    name: str
    recovered: bool
    final_state: str
    reason: str
    boots: int
    seconds: float
    frames_written: int
    power_cuts: int
    detail: str


def play(stage: Stage, scenario: Callable[[Stage], str]) -> Outcome:
    """Run a scenario and say how it ended, whatever happened."""
    from statemachine.reasons import label

    started = time.monotonic()
    try:
        detail, recovered = scenario(stage), True
    except Exception as error:  # the report names every failure, and the others are still played
        detail, recovered = f"{type(error).__name__}: {error}", False
    finally:
        for machine in stage.machines:
            machine.close()
    record = stage.record()
    return Outcome(
        name=stage.name,
        recovered=recovered and record.state == "CONFIRMED",
        final_state=record.state,
        reason=label(record.reason),
        boots=sum(machine.boots for machine in stage.machines),
        seconds=round(time.monotonic() - started, 1),
        frames_written=record.frames_written,
        power_cuts=stage.power_cuts,
        detail=detail,
    )
