"""What a slot's format costs at every start: the virtual Debian, from recovery's hand-over until it runs well.

The same system in every format, on a fresh device each, in turns. Wall clock of the emulator: the two lines are read
from the console as they come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from payload.create import BundleInput, ImageInput, create
from payload.signing_key import load_signing_key
from qemu.errors import LabError
from qemu.machine import Disk, Machine
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.pairs import FILE_SYSTEMS
from scripts.benchmarks.rows import OURS, Row
from scripts.benchmarks.workplace import Workplace
from scripts.virtual import debian_root
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.image import OsRecipe
from scripts.virtual.kit import CACHE, Kit, make_kit
from scripts.virtual.layout import MIB, plan

SECONDS_MAX = 240.0
LAYOUT = plan(slot_bytes=256 * MIB, payload_bytes=96 * MIB, data_bytes=256 * MIB)
HAND_OVER, CONFIRMED = r"E900 handover", r"E100 confirmed"


def rows(place: Workplace) -> Iterator[Row]:
    """Medians of ``place.runs`` starts, by format."""
    kit = make_kit(place.folder / "formats", "debian", say=place.say, layout=LAYOUT)
    disks = {name: _disk(kit, name) for name in FILE_SYSTEMS}
    seconds: dict[str, list[float]] = {name: [] for name in FILE_SYSTEMS}
    for turn in range(place.runs):
        for name, disk in disks.items():
            seconds[name].append(_start(kit, disk))
        times = ", ".join(f"{name} {done[-1]:.2f}" for name, done in seconds.items())
        place.say(f"start {turn + 1} of {place.runs}, seconds: {times}")
    for name, done in seconds.items():
        yield Row(OURS, f"{name}_start_seconds", median(done), "s")
        yield Row(OURS, f"{name}_start_seconds_min", min(done), "s")
        yield Row(OURS, f"{name}_start_seconds_max", max(done), "s")


def _disk(kit: Kit, slot_format: str) -> DeviceDisk:
    """A device of this format, started once and confirmed. Raises: SetupError, BenchmarkError."""
    recipe = OsRecipe(1, slot_format, "", kit.unbrick_binary)
    made = debian_root.build_os(recipe, CACHE)
    image = ImageInput(made.path, FILE_SYSTEMS[slot_format], watchdog_owner=made.watchdog_owner, init=made.init)
    key = load_signing_key(kit.folder / "signing.key")
    bundle = kit.folder / f"{slot_format}.ubk"
    create(BundleInput(kit.device.compatible, 1, made.version_name, kit.kernel_release, (image,)), key, bundle)
    disk = kit.disk(kit.folder / f"{slot_format}.img", bundle)
    _run(kit, disk)
    return disk


def _start(kit: Kit, disk: DeviceDisk) -> float:
    """Seconds of one start, of a copy."""
    copy = disk.copy(disk.path.with_suffix(".disk"))
    try:
        return _run(kit, copy)
    finally:
        copy.path.unlink()


def _run(kit: Kit, disk: DeviceDisk) -> float:
    machine = Machine(kit.options(disk, disks=(Disk(disk.path, kit.device.serial),)), kit.folder, disk.path.stem)
    try:
        with machine:
            machine.expect(HAND_OVER, SECONDS_MAX)
            begun = time.monotonic()
            machine.expect(CONFIRMED, SECONDS_MAX)
            return time.monotonic() - begun
    except LabError as error:
        raise BenchmarkError(f"did not start: {error}") from error
