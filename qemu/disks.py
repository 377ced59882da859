"""A disk of the machine as the emulator's block layer is told about it.

Between the guest's disk and the file may stand a write log (:mod:`qemu.write_log`) and faults
(:mod:`qemu.faults`)::

    guest -> write log -> format -> fault -> … -> format -> file

Does not create, size or format the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qemu.errors import OptionsError
from qemu.faults import Fault

Node = Mapping[str, object]

SERIAL_BYTES_MAX = 20  # VIRTIO_BLK_ID_BYTES, virtio 1.1 section 5.2.6: a longer one is cut silently
SECTOR_BYTES = 512


@dataclass(frozen=True)
class Disk:
    """A virtio disk. The guest finds it by ``serial``: the order on the bus is not the order here.

    With ``log`` every write and flush is recorded into that file, and the disk takes one request at
    a time: so no write can overlap a flush, and the log's order is the order that the medium saw.
    A path to a file that exists is emptied.
    """

    path: Path
    serial: str
    format: str = "raw"
    read_only: bool = False
    log: Path | None = None
    faults: tuple[Fault, ...] = ()

    def check(self) -> None:
        """Raises: OptionsError: the serial number is unusable, or the file is not there."""
        if not 0 < len(self.serial.encode()) <= SERIAL_BYTES_MAX or "," in self.serial:
            raise OptionsError(f"disk serial {self.serial!r}: 1 to {SERIAL_BYTES_MAX} bytes, no comma, are possible")
        if not self.path.is_file():
            raise OptionsError(f"disk image {self.path} does not exist", "create it before the boot")
        if self.log is not None and (self.read_only or self.path.stat().st_size % SECTOR_BYTES):
            raise OptionsError(
                f"{self.path} cannot have a write log", "make it writable, and whole 512-byte sectors long"
            )


def file_node(path: Path) -> Node:
    """The file itself. A flush ends here: the host's own disk is not what is tested, and would be slow.

    So a flush takes no time, and nothing can overtake it on its way to the log above.
    """
    return {"driver": "file", "filename": str(path), "cache": {"direct": False, "no-flush": True}}


def block_node(disk: Disk, name: str) -> Node:
    """The tree of block nodes for ``disk``; its root is called ``name``."""
    node: Node = {"driver": disk.format, "file": file_node(disk.path)}
    for fault in disk.faults:
        # Reads and writes are counted only by a format that stands directly on the faulty node.
        node = {"driver": "raw", "file": {**fault.node(), "image": node}}
    if disk.log is not None:
        node = {
            "driver": "blklogwrites",
            "file": node,
            "log": {"driver": "raw", "file": file_node(disk.log)},
            "log-sector-size": SECTOR_BYTES,
            "log-super-update-interval": 1,
        }
    return {**node, "node-name": name, "read-only": disk.read_only}


def device_properties(disk: Disk, name: str) -> str:
    """The ``-device`` value of ``disk`` on top of the node ``name``; errors reach the guest."""
    properties: dict[str, object] = {
        "driver": "virtio-blk-pci",
        "drive": name,
        "id": f"device-{name}",
        "serial": disk.serial,
        "werror": "report",
        "rerror": "report",
    }
    if disk.log is not None:
        # A request takes two (flush) or three (write) of four descriptors: they come one by one.
        properties |= {"num-queues": 1, "queue-size": 4, "indirect_desc": False}
    return json.dumps(properties)


def disk_arguments(disks: Sequence[Disk]) -> list[str]:
    """The command line's part for all the disks."""
    arguments: list[str] = []
    for number, disk in enumerate(disks):
        name = f"disk{number}"
        arguments += ["-blockdev", json.dumps(block_node(disk, name))]
        arguments += ["-device", device_properties(disk, name)]
    return arguments
