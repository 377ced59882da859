"""The device's disk and the nodes of its regions, found by serial number and by address.

Never by a name in /dev (names follow the order of discovery) and never through the partition table: a
node is only used because the kernel says that it begins and ends where the configuration says.
"""

from __future__ import annotations

import os
import time

from payload.device_region import DeviceRegion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from statemachine.region import Region

DISK_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.01
_TELL_SECONDS = 1.0
_SECTOR_BYTES = 512
_SERIAL_FILES = ("serial", "device/serial", "device/cid", "device/wwid")
_BLOCK = "/sys/class/block"


class DiskMissingError(Exception):
    """No disk with the configured serial number appeared in time."""


def find_disk(serial: str) -> str:
    """The node of the whole disk with this serial number. Raises :class:`DiskMissingError`."""
    deadline = time.monotonic() + DISK_SECONDS_MAX
    while True:
        for name in _whole_disks():
            if _serial(name) == serial:
                return f"/dev/{name}"
        if time.monotonic() > deadline:
            raise DiskMissingError(f"no disk with serial number {serial!r} after {DISK_SECONDS_MAX:.0f} s")
        time.sleep(_POLL_SECONDS)


def open_region(disk: str, place: dict[str, int], writable: bool = True) -> Region:
    """``place`` (bytes) of ``disk``. What cannot be had is not an error here but in every access to it.

    A disk that takes no writes is still read; where it ends before the region, nothing is.
    """
    offset, size = place["offset"], place["size"]
    for access in (writable, False):
        try:
            return DeviceRegion(disk, offset, size, writable=access)
        except OSError:
            continue
    return MissingRegion(size)


class Opened:
    """Opens regions, and closes them together."""

    def __init__(self) -> None:
        self._regions: list[Region] = []

    def __call__(self, disk: str, place: dict[str, int], writable: bool = True) -> Region:
        region = open_region(disk, place, writable)
        self._regions.append(region)
        return region

    def close(self) -> None:
        for region in self._regions:
            if isinstance(region, DeviceRegion):
                region.close()


class ToldRegion:
    """``region``, with ``alive`` called about once a second: a dying medium may take seconds for each access."""

    __slots__ = ("_alive", "_region", "_told", "erase_unit", "size", "write_unit")

    def __init__(self, region: Region, alive: Callable[[], None]) -> None:
        self._region = region
        self._alive = alive
        self._told = time.monotonic()
        self.size = region.size
        self.write_unit, self.erase_unit = region.write_unit, region.erase_unit

    def read(self, offset: int, length: int) -> bytes:
        self._tell()
        return self._region.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._tell()
        self._region.write(offset, data)

    def flush(self) -> None:
        self._tell()
        self._region.flush()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_SECONDS:
            self._alive()
            self._told = now


class MissingRegion:
    """A region whose medium is not there. Follows `statemachine.region.Region`; every access fails."""

    write_unit = erase_unit = _SECTOR_BYTES

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        raise OSError("the disk ends before this region")

    def write(self, offset: int, data: bytes) -> None:
        raise OSError("the disk ends before this region")

    def flush(self) -> None:
        raise OSError("the disk ends before this region")


def node_of(disk: str, region: dict[str, int]) -> str:
    """The partition node that covers ``region`` (bytes) of ``disk``; added where no table names it.

    A table that is wrong names others there: the kernel allows no two of the same bytes, so those go, from the
    kernel's memory alone.

    Raises ``OSError`` where the kernel does not take the partition.
    """
    name = disk.rpartition("/")[2]
    first, count = region["offset"] // _SECTOR_BYTES, region["size"] // _SECTOR_BYTES
    numbers, in_the_way = [], []
    for entry in os.listdir(f"{_BLOCK}/{name}"):
        if not entry.startswith(name):
            continue
        start, size = _number(f"{_BLOCK}/{entry}/start"), _number(f"{_BLOCK}/{entry}/size")
        if (start, size) == (first, count):
            return f"/dev/{entry}"
        number = _number(f"{_BLOCK}/{entry}/partition")
        if number == 0:
            continue  # a boot area of an eMMC, say: a disk of its own below the disk's name
        numbers.append(number)
        if start < first + count and first < start + size:
            in_the_way.append(number)
    return _add_partition(disk, max(numbers, default=0) + 1, region, in_the_way)


def _add_partition(disk: str, number: int, region: dict[str, int], in_the_way: list[int]) -> str:
    import _unbrick

    # The kernel would take a partition that goes on where the disk has ended.
    if region["offset"] + region["size"] > _number(f"{_BLOCK}/{disk.rpartition('/')[2]}/size") * _SECTOR_BYTES:
        raise OSError(f"{disk} ends before the region")
    descriptor = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for other in in_the_way:
            _unbrick.delete_partition(descriptor, other)
        _unbrick.add_partition(descriptor, number, region["offset"], region["size"])
    finally:
        os.close(descriptor)
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def _whole_disks() -> list[str]:
    return sorted(name for name in os.listdir("/sys/block") if not name.startswith(("loop", "ram", "zram")))


def _serial(name: str) -> str:
    for file in _SERIAL_FILES:
        text = _first_line(f"/sys/block/{name}/{file}")
        if text:
            return text
    return ""


def _number(path: str) -> int:
    return int(_first_line(path) or "0")


def _first_line(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 256).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
