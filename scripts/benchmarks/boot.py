"""How long an initramfs takes: from the kernel's "Run /init" to the first act of the real root's init.

All contenders boot the same kernel on the same machine, taking turns, so that whatever else this host does meets all
of them. Each boots a copy of the same disk on which it has booted once before, confirmed: the first boot of a new
device, which makes an overlay's folders, is not measured. The kernel is quiet: what it logs is read afterwards, and no
serial line slows anybody down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from qemu.errors import LabError
from qemu.machine import Disk, Machine, MachineOptions
from scripts.benchmarks import table
from scripts.benchmarks.boot_log import Boot, parse_boot
from scripts.benchmarks.device import DEVICE
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.rows import Results, Row, Target, host_rows, target_rows
from scripts.benchmarks.workplace import Workplace
from scripts.virtual.disk import DeviceDisk

ARGUMENTS = "console=ttyS0 quiet panic=1 net.ifnames=0"
MEMORY_MIB = 512
BOOT_SECONDS_MAX = 90
TARGETS = (Target("initramfs_seconds", 1.6, "busybox"),)
COLUMNS = (
    ("initramfs_seconds", "/init → root"),
    ("initramfs_seconds", "×"),
    ("initramfs_seconds_min", "min"),
    ("initramfs_seconds_max", "max"),
    ("init_seconds", "start → /init"),
    ("first_line_seconds", "start → root"),
)


def run(place: Workplace) -> Results:
    """Boot everybody ``place.runs`` times, in turns."""
    boots: dict[str, list[Boot]] = defaultdict(list)
    host = host_rows()
    for name in place.contenders:
        place.attempt(name, lambda name: place.say(f"{name}: {place.image(name).stat().st_size / 1e6:.2f} MB"))

    def boot(name: str) -> None:
        boots[name].append(boot_once(place, name, settled_disk(place, name)))

    for name in place.contenders:
        place.attempt(name, lambda name: settle(place, name))
    for turn in range(place.runs):
        for name in place.contenders:
            place.attempt(name, boot)
        times = (f"{name} {done[-1].initramfs:.2f}" for name, done in boots.items() if name not in place.failures)
        place.say(f"boot {turn + 1} of {place.runs}, seconds: {', '.join(times)}")
    results = Results(row for name in boots if name not in place.failures for row in rows_of(name, boots[name]))
    return Results([*host, *results.rows, *target_rows(results, TARGETS)])


def settle(place: Workplace, name: str) -> None:
    """Make the disk that every measured boot starts from: booted once, let go of, confirmed."""
    disk = place.device.disk.copy(settled_disk(place, name))
    boot_once(place, name, disk.path, keep=True)
    place.device.confirm(disk)


def settled_disk(place: Workplace, name: str) -> Path:
    folder = place.folder / "boots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.settled"


def boot_once(place: Workplace, name: str, disk: Path, *, keep: bool = False) -> Boot:
    """One boot to the first line, on ``disk`` itself (``keep``) or on a copy; the console stays in the folder.

    Raises: BenchmarkError: it got nowhere, or takes too long.
    """
    used = disk if keep else DeviceDisk(disk, place.device.disk.layout).copy(disk.with_suffix(".disk")).path
    machine = Machine(options(place, name, used), disk.parent, name)
    try:
        with machine:
            machine.wait_exit(BOOT_SECONDS_MAX)
    except LabError as error:
        raise BenchmarkError(f"did not boot: {error}") from error
    finally:
        if not keep:
            used.unlink()
    return parse_boot(machine.console.path.read_text(errors="replace"))


def options(place: Workplace, name: str, disk: Path) -> MachineOptions:
    """The machine, the same for all but for the image and the words that it wants."""
    return MachineOptions(
        kernel=place.kernel.image,
        initrd=place.image_path(name),
        append=f"{ARGUMENTS} {place.contenders[name].append}".strip(),
        memory_mib=MEMORY_MIB,
        disks=(Disk(disk, DEVICE.serial),),
        watchdog="i6300esb",
        usb=True,
        reboot=False,
    )


def rows_of(name: str, boots: Sequence[Boot]) -> list[Row]:
    """Medians, and the range of what is compared."""
    times = [boot.initramfs for boot in boots]
    values = {
        "initramfs_seconds": median(times),
        "initramfs_seconds_min": min(times),
        "initramfs_seconds_max": max(times),
        "init_seconds": median(boot.init for boot in boots),
        "first_line_seconds": median(boot.first_line for boot in boots),
    }
    rows = [Row(name, metric, value, "s") for metric, value in values.items()]
    return [*rows, Row(name, "boots", len(boots), "1")]


def report(results: Results) -> Iterator[str]:
    yield 'boot: from "Run /init" to the first act of the real root\'s init (medians; × ours)'
    yield from table.table(results, COLUMNS)
    yield from table.verdicts(results, TARGETS)
    yield table.host_line(results)
