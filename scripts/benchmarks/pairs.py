"""Real updates to measure: the same Debian 12 root before and after its updates, as images of several formats.

*Before* is the release as its archive has it; *after* is the same list of packages with the security updates and the
others that this machine's apt knows. Nothing is invented: what changed between the two is what Debian changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts.virtual import apt
from scripts.virtual.bootstrap import bootstrap, without
from scripts.virtual.cache import cached
from scripts.virtual.commands import SetupError
from scripts.virtual.debian_root import LEFT_OUT, OF_THIS_MACHINE
from scripts.virtual.image import MAKERS, make_image
from scripts.virtual.layer import SOURCE_DATE_EPOCH

PACKAGES = {
    "base": ("usr-is-merged", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "procps"),
    "appliance": (
        "usr-is-merged", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "procps", "python3", "perl", "curl",
        "openssh-server", "bind9-dnsutils", "php8.2-cli", "ca-certificates",
    ),
}  # fmt: skip
NAMES = tuple(PACKAGES)
# By the name of how an image is made: what its manifest calls the file system.
FILE_SYSTEMS = {"ext4-read-only": "ext4", "erofs-plain": "erofs", "erofs": "erofs", "squashfs": "squashfs"}


@dataclass(frozen=True)
class Pair:
    """Two roots as archives."""

    name: str
    before: Path
    after: Path
    cache: Path

    def image(self, version: str, filesystem: str) -> Path:
        """The file of ``before`` or ``after`` as this file system, made once. Raises: SetupError."""
        archive: Path = getattr(self, version)

        def make(folder: Path) -> None:
            make_image([archive], filesystem, folder / "rootfs.img")

        recipe = {"archive": archive.parent.name, "filesystem": MAKERS[filesystem]}
        return cached(self.cache, f"pair-image-{self.name}-{version}-{filesystem}", recipe, make) / "rootfs.img"


def pair(name: str, cache: Path) -> Pair:
    """A pair of roots, installed now or taken from ``cache``. Raises: SetupError."""
    release = [line for line in apt.sources() if line.split()[2] == apt.SUITE]
    if not release or release == apt.sources():
        raise SetupError("apt knows no updates beside the release", "add the security suite to apt's sources")
    return Pair(name, _root(name, release, cache), _root(name, apt.sources(), cache), cache)


def _root(name: str, sources: list[str], cache: Path) -> Path:
    packages = PACKAGES[name]
    recipe = {"sources": sources, "packages": packages, "left_out": LEFT_OUT, "epoch": SOURCE_DATE_EPOCH}

    def make(folder: Path) -> None:
        _install(folder, packages, sources)

    return cached(cache, f"pair-{name}", recipe, make) / "root.tar"


def _install(folder: Path, packages: tuple[str, ...], sources: list[str]) -> None:
    this_machine = f"--customize-hook=rm -f {' '.join('$1/' + path for path in OF_THIS_MACHINE)}"
    traces = "--customize-hook=rm -rf $1/var/cache/ldconfig $1/var/log/*.log $1/var/log/apt"
    options = ["--variant=minbase", *without(LEFT_OUT), this_machine, traces]
    bootstrap(folder / "root.tar", packages, options, sources)
