"""What packages are installed into when that is measured: a real root on a disk of its own, with or without scripts.

Without: no maintainer script is left in the root, and none in the packages, whose data stays byte for byte as it is. So
neither side has anything to run, and nobody is told to leave something out.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.comparison.real_root import RealRoot
from scripts.comparison.sides import copy_root
from scripts.virtual.cache import cached
from scripts.virtual.commands import SetupError, run

# Names of real packages: a libc, an init system, two interpreters, and what they need.
PACKAGES = (
    "libc-bin", "libc6", "libperl5.36", "libpython3.11-minimal", "libpython3.11-stdlib", "libssl3", "libsystemd-shared",
    "libsystemd0", "libudev1", "openssl", "perl", "perl-base", "perl-modules-5.36", "python3.11", "python3.11-minimal",
    "systemd", "systemd-sysv", "systemd-timesyncd", "tzdata", "udev",
)  # fmt: skip
SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")
IMAGE_BYTES = 1280 << 20
HINT = "run it as root, where loop devices can be made: sudo ./scripts/bench packages"
# ar(5): the header of a member, and what an archive begins with
AR_MAGIC, AR_HEADER_BYTES, AR_SIZE = b"!<arch>\n", 60, slice(48, 58)


class PackagePlace:
    """``packages`` is the folder of the packages; ``image`` a file with the root as ext4 before they are installed."""

    def __init__(self, cache: Path, real: RealRoot, *, with_scripts: bool) -> None:
        """Raises: SetupError."""
        recipe = {"root": real.archive.parent.name, "scripts": with_scripts, "size": IMAGE_BYTES, "names": PACKAGES}

        def make(folder: Path) -> None:
            _make(folder, real, with_scripts)

        folder = cached(cache, f"package-place-{'with' if with_scripts else 'without'}", recipe, make)
        self.packages, self.image = folder / "packages", folder / "root.img"
        self.before = real.archive

    @contextmanager
    def mounted(self, folder: Path) -> Iterator[Path]:
        """The root on a disk of its own, as it was before, mounted below ``folder``. Raises: SetupError."""
        disk, root = folder / "disk.img", folder / "root"
        run(["cp", "--sparse=never", self.image, disk], hint=HINT)
        root.mkdir(exist_ok=True)
        node = run(["losetup", "--find", "--show", "--direct-io=on", disk], hint=HINT).decode().strip()
        try:
            run(["mount", "-t", "ext4", node, root], hint=HINT)
            try:
                yield root
            finally:
                run(["umount", root], hint=HINT)
        finally:
            run(["losetup", "--detach", node], hint=HINT)
            disk.unlink()


def _make(folder: Path, real: RealRoot, with_scripts: bool) -> None:
    root = copy_root(real.archive, folder / "root")
    packages = folder / "packages"
    packages.mkdir()
    for name in PACKAGES:
        (package,) = real.new.glob(f"{name}_*.deb")
        data = package.read_bytes()
        (packages / package.name).write_bytes(data if with_scripts else without_scripts(data))
    if not with_scripts:
        for path in (root / "var/lib/dpkg/info").iterdir():
            if path.suffix[1:] in SCRIPTS:
                path.unlink()
    options = ["-q", "-t", "ext4", "-m", "0", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    run(["mke2fs", *options, "-d", root, folder / "root.img", f"{IMAGE_BYTES >> 10}k"], hint=HINT)
    run(["rm", "-rf", root], hint=HINT)


def without_scripts(package: bytes) -> bytes:
    """A `.deb` with every control file but the scripts; its data is not unpacked. Raises: SetupError."""
    made = AR_MAGIC
    for name, header, content in _members(package):
        part, line = content, header
        if name == "control.tar.xz":
            part = _tar_without_scripts(content)
            line = header[: AR_SIZE.start] + b"%-10d" % len(part) + header[AR_SIZE.stop :]
        made += line + part + b"\n" * (len(part) % 2)
    return made


def _members(package: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    place = len(AR_MAGIC)
    if package[:place] != AR_MAGIC or b"control.tar.xz" not in package[:200]:
        raise SetupError("a package is no .deb with a control.tar.xz", "look at build/cache/real-root-*/new")
    while place < len(package):
        header = package[place : place + AR_HEADER_BYTES]
        size = int(header[AR_SIZE])
        start = place + AR_HEADER_BYTES
        yield header[:16].decode().strip().rstrip("/"), header, package[start : start + size]
        place = start + size + size % 2


def _tar_without_scripts(compressed: bytes) -> bytes:
    made = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(lzma.decompress(compressed))) as archive,
        tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as kept,
    ):
        for member in archive:
            if member.name.removeprefix("./") not in SCRIPTS:
                kept.addfile(member, archive.extractfile(member))
    return lzma.compress(made.getvalue())
