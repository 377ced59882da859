"""Who installs an image on a disk, and how: ours by a signed bundle, the peers by a script in ``install_peers/``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from payload.create import ZSTD_LEVEL, BundleInput, ImageInput, create
from payload.signing_key import generate_key, load_signing_key
from scripts.benchmarks.measure import Cost, measuring_program, run_and_report
from scripts.benchmarks.private_root import ENVIRONMENT, private_debian
from scripts.benchmarks.rows import OURS
from scripts.virtual.cache import file_digest
from scripts.virtual.commands import SetupError
from scripts.virtual.frozen import freeze_program

CHECKOUT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("install_program.py")
SCRIPTS = Path(__file__).with_name("install_peers")
OURS_HOST = f"{OURS}-host"
BASELINE = "zstd-dd"
PACKAGES = (
    "usr-is-merged", "cpio", "dbus-daemon", "libglib2.0-bin", "mount", "openssl", "rauc", "squashfs-tools",
    "swupdate", "zstd",
)  # fmt: skip
# A bundle made by other sources than these is made again.
FORMAT = tuple(CHECKOUT / "payload" / name for name in ("bundle.py", "create.py", "manifest.py", "trust.py"))
DEVICE_MAPPER = Path("/dev/mapper/control")
PACK_SECONDS_MAX = 600
INSTALL_SECONDS_MAX = 300
HEADER_BYTES = 1 << 20
DISK, NO_DISK = Path("/disk"), Path("/dev/null")


@dataclass(frozen=True)
class InstallImage:
    """An image to install. ``folder`` is where it lies and where packages made of it go."""

    path: Path
    filesystem: str

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def disk_bytes(self) -> int:
        """What the disk must hold: the slot and the regions of its headers."""
        return self.size + 2 * HEADER_BYTES


class Installer(Protocol):
    @property
    def name(self) -> str: ...

    def pack(self, image: InstallImage) -> None:
        """Make what is installed. Raises: BenchmarkError."""

    def install(self, image: InstallImage, device: Path) -> Cost:
        """Install it on ``device``. Raises: BenchmarkError."""


class InstallRoot:
    """The private Debian that everybody runs in but ``unbrick-host``. ``work`` is seen as /measured in it."""

    def __init__(self, cache: Path, work: Path) -> None:
        """Raises: SetupError."""
        if os.geteuid() != 0:
            raise SetupError("installing needs a loop device", "run it as root: sudo ./scripts/bench install")
        self._root = private_debian(cache, "install-peers", PACKAGES)
        self.measure = measuring_program(cache)
        self.work = work

    def inside(self, path: Path) -> str:
        """A path in the work folder, as it is called inside."""
        return f"/measured/{path.relative_to(self.work)}"

    def run(self, words: Sequence[str], seconds_max: float, disk: Path = NO_DISK) -> Cost:
        """Run a program inside, where ``disk`` is called /disk. Raises: BenchmarkError."""
        report = self.work / "cost"
        around: list[str | Path] = ["unshare", "--mount", "--propagation", "private", SCRIPTS / "enter.sh"]
        around += [self._root, SCRIPTS, self.work, disk, self.measure, report]
        return run_and_report([*around, *words], report, seconds_max=seconds_max, environment=ENVIRONMENT)


@dataclass(frozen=True)
class Peer:
    """A script with the words ``pack`` and ``install``; ``more`` are further words for ``pack``."""

    name: str
    root: InstallRoot
    script: str
    more: tuple[str, ...] = ()

    def pack(self, image: InstallImage) -> None:
        folder = self._folder(image)
        folder.mkdir(parents=True, exist_ok=True)
        places = (self.root.inside(image.path), self.root.inside(folder), str(ZSTD_LEVEL))
        once(folder, image, file_digest(SCRIPTS / self.script), lambda: self._pack(places))

    def _pack(self, places: Sequence[str]) -> None:
        self.root.run([f"/bench/{self.script}", "pack", *places, *self.more], PACK_SECONDS_MAX)

    def install(self, image: InstallImage, device: Path) -> Cost:
        words = [f"/bench/{self.script}", "install", self.root.inside(self._folder(image)), str(DISK), str(image.size)]
        return self.root.run(words, INSTALL_SECONDS_MAX, device)

    def _folder(self, image: InstallImage) -> Path:
        return image.folder / self.name


def once(folder: Path, image: InstallImage, how: str, make: Callable[[], None]) -> None:
    """``make`` unless the folder has what it made of the same image in the same way."""
    stamp, recipe = folder / "recipe", f"{file_digest(image.path)} {how} {ZSTD_LEVEL}"
    if not (stamp.exists() and stamp.read_text() == recipe):
        stamp.unlink(missing_ok=True)
        make()
        stamp.write_text(recipe)


@dataclass(frozen=True)
class OurBundle:
    """A signed bundle of an image, and the words that install it."""

    image: InstallImage

    @property
    def folder(self) -> Path:
        return self.image.folder / OURS

    def pack(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        once(self.folder, self.image, " ".join(map(file_digest, FORMAT)), self._create)

    def _create(self) -> None:
        for name in ("signing.key", "root.pub"):
            (self.folder / name).unlink(missing_ok=True)
        generate_key(self.folder / "signing.key", self.folder / "root.pub")
        fields = BundleInput("bench", 1, "bench", "6.1", (ImageInput(self.image.path, self.image.filesystem),))
        create(fields, load_signing_key(self.folder / "signing.key"), self.folder / "root.ubk")

    def words(self, bundle: str, device: Path) -> list[str]:
        key = (self.folder / "root.pub").read_text().strip()
        return [bundle, key, str(device), str(self.image.size), str(HEADER_BYTES)]


@dataclass(frozen=True)
class Ours:
    """The device's executable with ``install_program.py`` in place of its command."""

    root: InstallRoot
    cache: Path
    name: str = OURS

    def pack(self, image: InstallImage) -> None:
        OurBundle(image).pack()
        freeze_program(PROGRAM, CHECKOUT, self.cache, self._program(image))

    def install(self, image: InstallImage, device: Path) -> Cost:
        bundle = OurBundle(image)
        words = bundle.words(self.root.inside(bundle.folder / "root.ubk"), DISK)
        return self.root.run([self.root.inside(self._program(image)), *words], INSTALL_SECONDS_MAX, device)

    def _program(self, image: InstallImage) -> Path:
        return image.folder / OURS / "install"


@dataclass(frozen=True)
class OursOnHost:
    """The same code by this machine's Python, without the device's C module: through the page cache, then dropped."""

    root: InstallRoot
    name: str = OURS_HOST

    def pack(self, image: InstallImage) -> None:
        OurBundle(image).pack()

    def install(self, image: InstallImage, device: Path) -> Cost:
        bundle = OurBundle(image)
        report = self.root.work / "cost"
        program: list[str | Path] = [self.root.measure, report, sys.executable, "-P", PROGRAM]
        program += bundle.words(str(bundle.folder / "root.ubk"), device)
        environment = {"PYTHONPATH": str(CHECKOUT)}
        return run_and_report(program, report, seconds_max=INSTALL_SECONDS_MAX, environment=environment)


def installers(cache: Path, work: Path, device_cache: Path) -> list[Installer]:
    """Everybody, in the order of the report; RAUC's verity bundles only where there is a device mapper.

    Raises: SetupError.
    """
    root = InstallRoot(cache, work)
    everybody: list[Installer] = [
        Ours(root, device_cache),
        OursOnHost(root),
        Peer(BASELINE, root, "zstd-dd.sh"),
        Peer("rauc-plain", root, "rauc.sh", ("plain",)),
    ]
    if DEVICE_MAPPER.exists():
        everybody.append(Peer("rauc-verity", root, "rauc.sh", ("verity",)))
    return [*everybody, Peer("swupdate", root, "swupdate.sh")]


NAMES = (OURS, OURS_HOST, BASELINE, "rauc-plain", "rauc-verity", "swupdate")
