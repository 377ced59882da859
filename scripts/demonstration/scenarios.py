"""What goes wrong, and what has to be seen afterwards. One function a scenario, in the report's order.

Each returns a sentence of what was measured, and raises where the device came back in another way than the
one that the scenario is about.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from payload.table import FRAME_BYTES_DEFAULT
from scripts.demonstration.stage import UNTOUCHED, NotShownError, Stage
from scripts.virtual.usb_stick import make_fat_stick

if TYPE_CHECKING:
    from collections.abc import Callable

DAMAGED_FRAMES = 5
POWER_CUTS = 3
LOOKED_AT_SECONDS = 600.0
SYSTEMD = "usr/lib/systemd/systemd"
HANGING_INIT = b"#!/bin/sh\nwhile :; do sleep 3600; done\n"


def damaged_frames(stage: Stage) -> str:
    """Garbage in the middle of the slot, over frames that systemd itself is in."""
    first = _frame_of(stage, SYSTEMD) - DAMAGED_FRAMES // 2
    intact = stage.disk.digest("slot")
    stage.disk.corrupt("slot", offset=first * FRAME_BYTES_DEFAULT, length=DAMAGED_FRAMES * FRAME_BYTES_DEFAULT)
    stage.until_confirmed(stage.power_on())
    written = stage.record().frames_written
    _demand(written == DAMAGED_FRAMES, f"{written} frames were written, {DAMAGED_FRAMES} were damaged")
    _demand(stage.disk.digest("slot") == intact, "the slot differs from what it was")
    return f"{written} of {stage.said('verified version .* of ([0-9]+) frames')[1]} frames rewritten, bit for bit"


def blank_slot(stage: Stage) -> str:
    """The whole slot is zeroes, and the power goes three times while it is written."""
    intact = stage.disk.digest("slot")
    stage.disk.zero("slot")
    share = stage.record().installed.size // (POWER_CUTS + 2)
    for _ in range(POWER_CUTS):
        stage.cut_power_while_writing(share, LOOKED_AT_SECONDS)
    stage.until_confirmed(stage.power_on())
    _demand(stage.disk.digest("slot") == intact, "the slot differs from what it was")
    return f"reinstalled bit for bit through {stage.power_cuts} power cuts"


def panic(stage: Stage) -> str:
    """A signed, newer version is installed, and its kernel panics at every start."""
    stage.kit.install(stage.disk, stage.kit.bundle(stage.version + 1, "panic"))
    stage.until_confirmed(stage.power_on())
    stage.said("Kernel panic")
    return f"version {stage.version + 1} never ran well, version {stage.version} is back from the payload"


def hang(stage: Stage) -> str:
    """The OS's own state is broken so that its init hangs; the image itself is fine."""
    digests = {name: stage.disk.digest(name) for name in UNTOUCHED}
    record = stage.record()
    upper = f"/system/{record.installed.digest[:16].hex()}-{record.upper_generation}/upper"
    stage.disk.data.write(f"{upper}/{SYSTEMD}", HANGING_INIT, 0o755)
    before = record.frames_written
    stage.until_confirmed(stage.power_on())
    stage.said("E109 pristine")
    _demand(stage.record().frames_written == before, "frames were written")
    _demand(digests == {name: stage.disk.digest(name) for name in UNTOUCHED}, "the slot or the payload changed")
    return "image verified intact, booted pristine, nothing rewritten"


def journal_lost(stage: Stage) -> str:
    """All three copies of the journal are random bytes."""
    digests = {name: stage.disk.digest(name) for name in UNTOUCHED}
    for copy in range(3):
        stage.disk.corrupt(f"journal-{copy}", seed=copy + 1)
    stage.until_confirmed(stage.power_on())
    stage.said("E202 journal-lost")
    _demand(digests == {name: stage.disk.digest(name) for name in UNTOUCHED}, "the slot or the payload changed")
    return "record rebuilt from the slot's signed header, nothing rewritten"


def payload_lost(stage: Stage) -> str:
    """Slot and payload are both gone: the device waits, and goes on when a stick is plugged in."""
    stick = make_fat_stick(stage.kit.bundle(stage.version), stage.folder / "stick.img")
    stage.disk.zero("slot")
    stage.disk.corrupt("payload")
    machine = stage.power_on()
    machine.expect(re.compile("E4[0-9]+ .*WAITING"), LOOKED_AT_SECONDS)
    stage.say("waiting with its reason on the console; plugging in a USB stick")
    machine.hotplug_usb(stick, "unbrick-stick")
    stage.until_confirmed(machine)
    return f"waited with {stage.said('(E4[0-9]+ [a-z-]+).*WAITING')[1]}, went on by itself from the stick"


def button(stage: Stage) -> str:
    """The button is held while a healthy device is switched on."""
    user = "/user/photo"
    stage.disk.data.write(user, b"a person's data\n" * 4096)
    before = [stage.disk.digest(name) for name in UNTOUCHED], stage.disk.data.read(user)
    machine = stage.power_on(hold_key="r")
    machine.expect("E106 button-held", LOOKED_AT_SECONDS)
    machine.expect("E113 slot-verified", LOOKED_AT_SECONDS)
    machine.release_key()
    stage.until_confirmed(machine)
    after = [stage.disk.digest(name) for name in UNTOUCHED], stage.disk.data.read(user)
    _demand(before == after, "the slot, the payload or user data changed")
    return "verified, said so, handed over; slot, payload and user data unchanged"


SCENARIOS: dict[str, Callable[[Stage], str]] = {
    "damaged-frames": damaged_frames,
    "blank-slot": blank_slot,
    "panic": panic,
    "hang": hang,
    "journal-lost": journal_lost,
    "payload-lost": payload_lost,
    "button": button,
}


def _demand(shown: bool, otherwise: str) -> None:
    if not shown:
        raise NotShownError(otherwise)


def _frame_of(stage: Stage, path: str) -> int:
    """A frame without which ``path`` cannot be read from the slot's squashfs, found by cutting it shorter.

    A squashfs has its tables at its end, so the image is not truncated: zeroes are laid over a growing
    tail of the file data until the file's content changes.
    """
    image = stage.folder / "slot.squashfs"
    content = stage.disk.read("slot", length=stage.record().installed.size)
    image.write_bytes(content)
    whole = _content(stage, path)
    low, high = 1, len(content) // FRAME_BYTES_DEFAULT * 9 // 10
    while high - low > 1:
        middle = (low + high) // 2
        with image.open("r+b") as file:
            file.seek(middle * FRAME_BYTES_DEFAULT)
            file.write(bytes((high - middle) * FRAME_BYTES_DEFAULT))
        damaged = _content(stage, path) != whole
        with image.open("r+b") as file:
            file.seek(middle * FRAME_BYTES_DEFAULT)
            file.write(content[middle * FRAME_BYTES_DEFAULT : high * FRAME_BYTES_DEFAULT])
        low, high = (middle, high) if damaged else (low, middle)
    image.unlink()
    return low


def _content(stage: Stage, path: str) -> bytes:
    command = ["unsquashfs", "-cat", str(stage.folder / "slot.squashfs"), path]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).stdout
