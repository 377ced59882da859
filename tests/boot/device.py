"""A virtual device of one test: a disk that the test may damage, and its machines, one a power-on.

Nothing here types on the console: a device comes back by itself, or by what the test is about (a key held,
a stick plugged in).
"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from qemu.disks import SECTOR_BYTES, Disk
from recovery.device_journal import DeviceJournal
from recovery.history import entries
from scripts.virtual.ext4 import Ext4
from scripts.virtual.tiny_root import breakage

if TYPE_CHECKING:
    from qemu.faults import Fault
    from qemu.machine import Machine
    from qemu.pytest_plugin import MachineFactory
    from scripts.virtual.disk import DeviceDisk
    from scripts.virtual.kit import Kit
    from scripts.virtual.layer import Layer
    from statemachine.record import Record

LOOKED_AT_SECONDS = 120.0  # a start, and a look at everything
CONFIRMED_SECONDS = 240.0  # several starts
ONCE = re.compile(r"unbrick: E100 confirmed: version (\d+)")


class Device:
    """``disk`` may be changed while no machine of this device runs."""

    def __init__(self, kit: Kit, disk: DeviceDisk, machine: MachineFactory) -> None:
        self.kit = kit
        self.disk = disk
        self._machine = machine

    def power_on(
        self, append: str = "", *, hold_key: str = "", faults: tuple[Fault, ...] = (), **changes: Any
    ) -> Machine:
        """Switch it on. ``append`` goes to the kernel's command line, ``changes`` to the machine's options."""
        disk = Disk(self.disk.path, self.kit.device.serial, faults=faults, read_only=changes.pop("read_only", False))
        options = self.kit.options(self.disk, append, **{"disks": (disk,), **changes})
        return self._machine(options, hold_key=hold_key)

    def until_confirmed(self, guest: Machine, version: int = 1) -> Record:
        """Wait until the OS says that it runs well, switch the device off, and say what it remembers."""
        found = guest.expect(ONCE, CONFIRMED_SECONDS)
        guest.close()
        assert int(found[1]) == version, f"version {found[1]} was confirmed"
        record = self.record
        assert record.state == "CONFIRMED", record.state
        return record

    def boot(self, append: str = "", version: int = 1, **how: Any) -> str:
        """Switch it on, wait until it is confirmed, switch it off: what the console said meanwhile."""
        guest = self.power_on(append, **how)
        self.until_confirmed(guest, version)
        return guest.console.path.read_text(errors="replace")

    @property
    def journal(self) -> DeviceJournal:
        """The journal, only looked at."""
        return DeviceJournal(self.kit.config, str(self.disk.path), look_only=True)

    @property
    def record(self) -> Record:
        return self.journal.record

    @property
    def states(self) -> list[str]:
        """The states of every record, oldest first; the same state again is left out."""
        names = [entry.record.state for entry in entries(self.journal.store)]
        return [name for number, name in enumerate(names) if number == 0 or name != names[number - 1]]

    def next_sector(self, copy: str, records: int = 1) -> int:
        """The disk's sector where the next record (or the one ``records`` later) of a copy of the journal begins."""
        store = self.journal.store
        slot = (store.head.sequence + records) % store.slots
        return (self.disk.layout[copy].offset + slot * store.record_bytes) // SECTOR_BYTES

    def remember(self, **fields: Any) -> None:
        """Change what the device remembers, as its own recovery would write it."""
        journal = self.disk.journal(self.kit.config)
        journal.persist(journal.record.but(**fields))

    def suspect(self) -> None:
        """Its OS did not say that it runs well in any of its attempts."""
        self.remember(attempts_left=0)

    def break_os(self, misbehave: str) -> str:
        """Its OS's own state makes it fail, the image is fine. The folder of that state."""
        return self.lay_over(breakage(misbehave))

    def lay_over(self, layer: Layer) -> str:
        """Files of its OS's own state, as if that had written them. The folder of that state."""
        record = self.record
        folder = f"{record.installed.digest[:16].hex()}-{record.upper_generation}"
        for path, content, mode in layer.files():
            self.disk.data.write(f"/system/{folder}/upper/{path}", content, mode)
        return folder

    def digests(self, *names: str) -> dict[str, str]:
        return {name: self.disk.digest(name) for name in names or ("slot", "payload")}

    def filesystem(self, name: str) -> Ext4:
        """The ext4 in a region, read and changed without mounting it."""
        extent = self.disk.layout[name]
        return Ext4(self.disk.path, extent.offset, extent.size)

    def rot(self, offset: int, length: int) -> None:
        """Random bytes anywhere on the disk; a negative ``offset`` counts from its end."""
        self.write(offset, Random(offset).randbytes(length))

    def write(self, offset: int, content: bytes) -> None:
        """As :meth:`rot`, with bytes of one's choice."""
        with self.disk.path.open("r+b") as image:
            image.seek(offset % self.disk.layout.size)
            image.write(content)


def shown(console: str, *lines: str) -> bool:
    """Whether the console says all of these, one after the other."""
    position = 0
    for line in lines:
        position = console.find(line, position) + 1
        assert position > 0, f"the console does not say {line!r} where it should:\n{console[-4000:]}"
    return True


def change_byte(path: Path, offset: int) -> Path:
    """One bit of a file is another one."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 1,)))
    return path
