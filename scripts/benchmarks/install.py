"""How long a full installation takes: from a local package to a disk that is proven to hold the image.

A real Debian root, as ext4 and as squashfs. Everybody writes the same image to the same disk, taking turns; before each
turn the disk holds other bytes (every frame is wrong) or zeroes, durable and in no cache. The packages are in the page
cache for all. After each turn the disk is compared with the image, which is not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import table
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.installers import BASELINE, Installer, InstallImage, installers
from scripts.benchmarks.loop_device import LoopDevice, loop_device
from scripts.benchmarks.measure import Cost, cost_rows
from scripts.benchmarks.rows import OURS, Results, Row, Target, host_rows, target_rows
from scripts.benchmarks.workplace import Workplace
from scripts.virtual import debian_root
from scripts.virtual.cache import cached
from scripts.virtual.image import MAKERS, make_image

# A device with a network, a shell and an interpreter or two.
PACKAGES = (
    *debian_root.PACKAGES, "ca-certificates", "gdb", "git", "network-manager", "nginx-light", "openssh-server", "perl",
    "python3", "vim",
)  # fmt: skip
FILESYSTEMS = ("ext4", "squashfs")
INVERTED = bytes(range(255, -1, -1))
PIECE_BYTES = 4 << 20
RATIO_MAX = 1.3


@dataclass(frozen=True)
class Case:
    """An image on a disk that holds other bytes, or zeroes."""

    filesystem: str
    blank: bool = False

    @property
    def name(self) -> str:
        return f"{self.filesystem}_blank" if self.blank else self.filesystem


CASES = (Case("ext4"), Case("ext4", blank=True), Case("squashfs"))
TARGETS = tuple(Target(f"{case.name}_seconds", RATIO_MAX, BASELINE) for case in CASES)


def run(place: Workplace) -> Results:
    """Everybody installs every image ``place.runs`` times, in turns."""
    folder = place.folder / "install"
    place.say("peers: a private Debian with rauc and swupdate")
    contenders = [one for one in installers(place.cache / "bench", folder, place.cache) if one.name in place.who]
    rows = host_rows()
    place.say("image: a Debian root")
    images = {name: image_of(place.cache, folder, name) for name in FILESYSTEMS}
    for case in CASES:
        image = images[case.filesystem]
        with loop_device(folder / "disk.img", image.disk_bytes) as disk:
            rows += measure(place, case, image, disk, contenders)
    return Results([*rows, *target_rows(Results(rows), TARGETS)])


def image_of(cache: Path, folder: Path, filesystem: str) -> InstallImage:
    """The image, in the folder of all that is made of it. Raises: SetupError."""
    base = debian_root.build_base(cache, PACKAGES)
    recipe = {"base": base.parent.name, "filesystem": MAKERS[filesystem]}

    def make(made: Path) -> None:
        make_image([base], filesystem, made / "rootfs.img")
        with (made / "rootfs.img").open("rb") as image, (made / "other.img").open("wb") as other:
            while piece := image.read(PIECE_BYTES):
                other.write(piece.translate(INVERTED))

    kept = cached(cache, "install-image", recipe, make)
    image = InstallImage(folder / filesystem / "rootfs.img", filesystem)
    image.folder.mkdir(parents=True, exist_ok=True)
    for name in ("rootfs.img", "other.img"):
        (image.folder / name).unlink(missing_ok=True)
        (image.folder / name).hardlink_to(kept / name)
    return image


def measure(
    place: Workplace, case: Case, image: InstallImage, disk: LoopDevice, contenders: Sequence[Installer]
) -> list[Row]:
    costs: dict[str, list[Cost]] = defaultdict(list)
    by_name = {one.name: one for one in contenders}

    def pack(name: str) -> None:
        by_name[name].pack(image)

    def install(name: str) -> None:
        disk.fill(None if case.blank else image.folder / "other.img", image.disk_bytes)
        costs[name].append(by_name[name].install(image, disk.node))
        if not disk.holds(image.path):
            raise BenchmarkError(f"{case.name}: the disk does not hold the image")

    for name in by_name:
        place.attempt(name, pack)
    for turn in range(place.runs):
        for name in by_name:
            place.attempt(name, install)
        times = (f"{name} {done[-1].wall_seconds:.2f}" for name, done in costs.items() if name not in place.failures)
        place.say(f"{case.name}: turn {turn + 1} of {place.runs}, seconds: {', '.join(times)}")
    size = [Row(name, f"{case.name}_bytes", image.size, "B") for name in costs]
    done = [name for name in costs if name not in place.failures]
    return [*size, *(row for name in done for row in cost_rows(case.name, name, costs[name]))]


def columns(case: Case) -> list[tuple[str, str]]:
    return [
        (f"{case.name}_seconds", "time"),
        (f"{case.name}_seconds", "×"),
        (f"{case.name}_seconds_min", "fastest"),
        (f"{case.name}_seconds_min", "×"),
        (f"{case.name}_processor_seconds", "processor"),
        (f"{case.name}_resident_bytes", "memory"),
    ]


def report(results: Results) -> Iterator[str]:
    for case in CASES:
        size = table.shown(results.value(OURS, f"{case.name}_bytes"), "B")
        before = "zeroes" if case.blank else "other bytes"
        yield f"install: {case.filesystem}, {size}, on a disk of {before} (medians; × ours; memory of one process)"
        yield from table.table(results, columns(case))
        yield ""
    yield from table.verdicts(results, TARGETS)
    yield table.host_line(results)
