"""Where bundles come from: the payload region, what a person plugs in, and `payload.fetch`'s servers.

A medium holds a bundle raw, from the first byte of a disk or partition, or as ``/unbrick/*.ubk`` on a
FAT file system (mounted read-only, nosuid, nodev, noexec, and only while its files are opened).
Everything a medium says is hostile: listings, names and sizes are bounded, and no other file system
is ever mounted. A source is only a place to read from; ``candidates`` asks who is to be believed.
"""

from __future__ import annotations

import os
import stat

from payload.bundle import MAGIC, read_header
from payload.errors import PayloadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from typing import Protocol

    from payload.bundle import Header, Reader
    from payload.fetch import HttpSource
    from payload.install import Believe
    from payload.manifest import Manifest

    class Mounter(Protocol):
        """Mounts FAT, read-only. Both raise ``OSError``."""

        def mount(self, device: str, directory: str) -> None: ...
        def unmount(self, directory: str) -> None: ...


DEVICES_MAX = 128
SOURCES_MAX = 32
LISTED_NAMES_MAX = 256
FILES_PER_MEDIUM_MAX = 8
NAME_CHARACTERS_MAX = 64
SYSFS_FILE_BYTES_MAX = 4096
PROBE_BYTES = 512
SECTOR_BYTES = 512
LABEL = "UNBRICK"
FOLDER = "unbrick"
SUFFIX = ".ubk"
# Never a medium that somebody plugs in.
VIRTUAL_DEVICES = ("loop", "ram", "zram", "nbd", "dm-", "md", "sr", "fd")
# <linux/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MNT_DETACH = 2


class FileSource:
    """A bundle in a file or at the start of a block device. ``name`` is for people.

    Raises:
        OSError: it cannot be opened, or is neither a file nor a block device.
    """

    __slots__ = ("_descriptor", "name", "size")

    def __init__(self, path: str, name: str) -> None:
        # Without O_NONBLOCK opening a FIFO would wait for ever.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self.name = name
        try:
            mode = os.fstat(self._descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise OSError(f"{name} is neither a file nor a block device")
            self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            self.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end. Raises ``OSError``."""
        pieces = []
        while length > 0 and (piece := os.pread(self._descriptor, length, offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RegionSource:
    """A bundle at the start of a region of the device's own disk."""

    __slots__ = ("_reader", "name", "size")

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self.name = name
        self.size = reader.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes. Raises ``OSError``."""
        return self._reader.read(offset, length)

    def close(self) -> None:
        """The region belongs to whoever opened it."""


if TYPE_CHECKING:
    Source = FileSource | RegionSource | HttpSource


class Candidate:
    """A source whose bundle this device takes."""

    __slots__ = ("header", "manifest", "source")

    def __init__(self, source: Source, header: Header, manifest: Manifest) -> None:
        self.source = source
        self.header = header
        self.manifest = manifest


def candidates(
    sources: Iterable[Source], believe: Believe
) -> tuple[list[Candidate], list[tuple[Source, PayloadError]]]:
    """The sources whose header is whole and believed, in their order; and the others, with why.

    Says nothing about the frame data behind the headers.
    """
    taken, refused = [], []
    for source in sources:
        try:
            header = read_header(source)
            taken.append(Candidate(source, header, believe(header)))
        except PayloadError as error:
            refused.append((source, error))
    return taken, refused


def believed_still(
    taken: Iterable[Candidate], believe: Believe
) -> tuple[list[Candidate], list[tuple[Source, PayloadError]]]:
    """Those of ``taken`` that are believed when asked again; and the others, with why."""
    kept, refused = [], []
    for candidate in taken:
        try:
            believe(candidate.header)
            kept.append(candidate)
        except PayloadError as error:
            refused.append((candidate.source, error))
    return kept, refused


def order(
    found: Iterable[Candidate],
    *,
    floor: int,
    wanted_digest: bytes | None = None,
    exclude_digests: Container[bytes] = (),
) -> list[Candidate]:
    """What to try, best first: the wanted manifest (the confirmed one, say), then the highest version.

    Equals stay in the order of their sources. Below the floor, or excluded (tried before), is out.
    """
    allowed = [
        candidate
        for candidate in found
        if candidate.manifest.version >= floor and candidate.manifest.digest not in exclude_digests
    ]
    return sorted(allowed, key=lambda one: (one.manifest.digest != wanted_digest, -one.manifest.version))


class DeviceMounter:
    """Mounts by the device's built-in module. vfat only."""

    def mount(self, device: str, directory: str) -> None:
        import _unbrick

        _unbrick.mount(device, directory, "vfat", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "")

    def unmount(self, directory: str) -> None:
        """The name goes now; files that are open stay readable until they are closed."""
        import _unbrick

        _unbrick.umount(directory, MNT_DETACH)


def scan(
    mounter: Mounter,
    alive: Callable[[], None],
    *,
    exclude_disks: Container[str] = (),
    mount_point: str = "/mnt",
    sys_block: str = "/sys/class/block",
    dev: str = "/dev",
) -> list[Source]:
    """Bundles, or what looks like them, on plugged-in media; those labelled UNBRICK first.

    ``alive`` is called before each device: some stall. ``exclude_disks`` are kernel names of whole disks that are not
    looked at (the device's own). A medium that fails is passed over: it may be half plugged in, and the next scan
    sees it.
    """
    sources: list[Source] = []
    for name, label in _block_devices(sys_block, exclude_disks):
        if len(sources) >= SOURCES_MAX:
            break
        alive()
        path = f"{dev}/{name}"
        try:
            start = _first_bytes(path)
            for looks_right, open_sources in _MEDIA:
                if looks_right(start):
                    shown = f"{name} {label!r}" if label else name
                    sources += open_sources(path, shown, mounter, mount_point)
        except OSError:
            continue
    return sources


def _block_devices(sys_block: str, exclude_disks: Container[str]) -> list[tuple[str, str]]:
    """Kernel names and partition labels of the devices that may be media, in a stable order."""
    found = []
    for name in sorted(os.listdir(sys_block))[:DEVICES_MAX]:
        directory = os.path.realpath(f"{sys_block}/{name}")
        whole_disk = os.path.basename(os.path.dirname(directory))
        is_own = name in exclude_disks or whole_disk in exclude_disks
        if is_own or name.startswith(VIRTUAL_DEVICES) or _sysfs(f"{directory}/size") in ("", "0"):
            continue
        found.append((name, _partition_label(_sysfs(f"{directory}/uevent"))))
    return sorted(found, key=lambda one: one[1] != LABEL)


def _partition_label(uevent: str) -> str:
    for line in uevent.split("\n"):
        if line.startswith("PARTNAME="):
            return printable(line.removeprefix("PARTNAME="))
    return ""


def printable(text: str) -> str:
    """A stranger's name, fit for a screen: ASCII, bounded."""
    kept = text[:NAME_CHARACTERS_MAX]
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in kept)


def _sysfs(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(SYSFS_FILE_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _first_bytes(path: str) -> bytes:
    source = FileSource(path, path)
    try:
        return source.read(0, PROBE_BYTES)
    finally:
        source.close()


def _is_raw_bundle(start: bytes) -> bool:
    return start.startswith(MAGIC)


def _is_fat(start: bytes) -> bool:
    """Boot sector signature and a FAT type text (Microsoft's FAT specification 1.03, section 3)."""
    is_boot_sector = start[510:512] == b"\x55\xaa"
    return is_boot_sector and (start[54:59] in (b"FAT12", b"FAT16") or start[82:87] == b"FAT32")


def _open_raw(path: str, shown: str, mounter: Mounter, mount_point: str) -> Iterator[Source]:
    yield FileSource(path, shown)


def _open_fat(path: str, shown: str, mounter: Mounter, mount_point: str) -> Iterator[Source]:
    mounter.mount(path, mount_point)
    try:
        folder = f"{mount_point}/{FOLDER}"
        for name in _bundle_names(folder):
            try:
                yield FileSource(f"{folder}/{name}", f"{shown} {printable(name)}")
            except OSError:
                continue
    finally:
        mounter.unmount(mount_point)


def _bundle_names(folder: str) -> list[str]:
    names: list[str] = []
    with os.scandir(folder) as listing:
        for _count, entry in zip(range(LISTED_NAMES_MAX), listing):  # noqa: B905 - shorter is the point
            if entry.name.lower().endswith(SUFFIX):
                names.append(entry.name)
    return sorted(names)[:FILES_PER_MEDIUM_MAX]


_MEDIA: tuple[tuple[Callable[[bytes], bool], Callable[[str, str, Mounter, str], Iterator[Source]]], ...] = (
    (_is_raw_bundle, _open_raw),
    (_is_fat, _open_fat),
)
