"""A slot on a simulated disk, to install into."""

from __future__ import annotations

from payload.install import Report, install
from tests.simulator.disk import Disk, Fault, Operation, Storage, Window
from tests.unit.payload_samples import (
    FRAME,
    Sample,
)

HEADER = 8192
SLOT = 16 * FRAME


class Target:
    """A slot and its two header regions on one simulated disk."""

    def __init__(self, *faults: Fault, slot_bytes: int = SLOT, header_bytes: int = HEADER) -> None:
        self.storage = Storage([2 * header_bytes + slot_bytes], faults=faults)
        disk: Disk = self.storage.disks[0]
        self.headers = [disk.window(0, header_bytes), disk.window(header_bytes, header_bytes)]
        self.slot: Window = disk.window(2 * header_bytes, slot_bytes)

    def install(self, sample: Sample, target_broken: bool = True) -> Report:
        return install(self.slot, self.headers, sample.reader, sample.header, sample.image, target_broken=target_broken)

    def writes(self) -> list[Operation]:
        return [operation for operation in self.storage.trace if operation.kind == "write"]

    def content(self, length: int) -> bytes:
        return self.slot.disk.peek(self.slot.offset, length)
