"""Real updates to measure: a Debian 12 root before and after its updates, as images of several formats.

Two ways to get from one to the other. *In place*: the image of a root in which nothing is left out, and the same image
after its own dpkg has installed the updates in it, as a system that is maintained by packages lives. *Rebuilt*: two
images that were made anew, from the release and from the release with its updates, small and without documents, as a
device's maker builds them. Nothing is invented: what changed between the two is what Debian changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.comparison import real_root, sides
from scripts.virtual import apt, debian_root
from scripts.virtual.bootstrap import TRACES, bootstrap, removing, without
from scripts.virtual.cache import cached
from scripts.virtual.commands import SetupError, run
from scripts.virtual.debian_root import LEFT_OUT, OF_THIS_MACHINE
from scripts.virtual.image import MAKERS, make_image
from scripts.virtual.layer import SOURCE_DATE_EPOCH

APPLIANCE = (
    *debian_root.PACKAGES, "python3", "perl", "curl", "openssh-server", "bind9-dnsutils", "php8.2-cli",
    "ca-certificates",
)  # fmt: skip
IN_PLACE = {"server": real_root.PACKAGES, "appliance": APPLIANCE}
REBUILT = "rebuilt"
NAMES = (*IN_PLACE, REBUILT)
# By the name of how an image is made: what its manifest calls the file system.
FILE_SYSTEMS = {"ext4-read-only": "ext4", "erofs-plain": "erofs", "erofs": "erofs", "squashfs": "squashfs"}
HINT = "run it as root, where loop devices can be made: sudo ./scripts/bench delta"


class Pair(Protocol):
    @property
    def name(self) -> str: ...

    def image(self, version: str, filesystem: str) -> Path:
        """The file of ``before`` or ``after`` as this file system, made once. Raises: SetupError."""


@dataclass(frozen=True)
class InPlace:
    """``packages`` are installed in the image of ``archive``, mounted; so it is a file system that can be written."""

    name: str
    archive: Path
    packages: Path
    cache: Path

    def image(self, version: str, filesystem: str) -> Path:
        before = _image(self.cache, f"{self.name}-before", filesystem, self.archive)
        if version == "before":
            return before

        def make(folder: Path) -> None:
            shutil.copyfile(before, folder / "rootfs.img")
            _update(folder / "rootfs.img", folder / "root", self.packages)

        recipe = {"before": before.parent.name, "packages": sorted(package.name for package in self.packages.iterdir())}
        return cached(self.cache, f"pair-image-{self.name}-after-{filesystem}", recipe, make) / "rootfs.img"


@dataclass(frozen=True)
class Rebuilt:
    """Two roots as archives."""

    name: str
    before: Path
    after: Path
    cache: Path

    def image(self, version: str, filesystem: str) -> Path:
        archive: Path = getattr(self, version)
        return _image(self.cache, f"{self.name}-{version}", filesystem, archive)


def pair(name: str, cache: Path) -> Pair:
    """A pair of roots, installed now or taken from ``cache``. Raises: SetupError."""
    images = cache / "delta"
    if name in IN_PLACE:
        found = real_root.real_root(cache, IN_PLACE[name])
        return InPlace(name, found.archive, found.new, images)
    release = [line for line in apt.sources() if line.split()[2] == apt.SUITE]
    if not release or release == apt.sources():
        raise SetupError("apt knows no updates beside the release", "add the security suite to apt's sources")
    return Rebuilt(name, _root(release, images), _root(apt.sources(), images), images)


def _image(cache: Path, name: str, filesystem: str, archive: Path) -> Path:
    def make(folder: Path) -> None:
        make_image([archive], filesystem, folder / "rootfs.img")

    recipe = {"archive": archive.parent.name, "filesystem": MAKERS[filesystem]}
    return cached(cache, f"pair-image-{name}-{filesystem}", recipe, make) / "rootfs.img"


def _update(image: Path, place: Path, packages: Path) -> None:
    """The root's own dpkg brings it up to date."""
    place.mkdir()
    run(["mount", "-o", "loop", image, place], hint=HINT)
    try:
        sides.install_all(place, packages)
    finally:
        run(["umount", place], hint=HINT)
    place.rmdir()


def _root(sources: Sequence[str], cache: Path) -> Path:
    recipe = {"sources": sources, "packages": debian_root.PACKAGES, "left_out": LEFT_OUT, "epoch": SOURCE_DATE_EPOCH}
    return cached(cache, "pair-rebuilt", recipe, lambda folder: _install(folder, sources)) / "root.tar"


def _install(folder: Path, sources: Sequence[str]) -> None:
    options = ["--variant=minbase", *without(LEFT_OUT), removing((*OF_THIS_MACHINE, *TRACES))]
    bootstrap(folder / "root.tar", debian_root.PACKAGES, options, sources)
