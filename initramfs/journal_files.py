"""The journal on a PC: of a disk image, or of dumped copies. Reads, never repairs.

The device's own reader does the work (`statemachine.store`), so what is shown here is what the device
sees. :func:`replay` holds the recorded steps against the table: the black box, played again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from initramfs.config import Config
from initramfs.errors import BuildError
from payload.device_region import DeviceRegion
from recovery.history import Entry, entries
from statemachine.reasons import label
from statemachine.record import Image, Record, Slot
from statemachine.region import Region
from statemachine.store import Opening, Store, identities
from statemachine.table import TABLE

REGION_UNIT_BYTES = 4096


@dataclass(frozen=True)
class JournalCopies:
    """A journal, found and not changed. ``entries`` are oldest first."""

    opening: Opening
    entries: list[Entry]

    def facts(self) -> dict[str, Any]:
        return {
            "verdict": self.opening.verdict,
            "records": len(self.entries),
            "copies": [{"state": copy.state, "slots": copy.words} for copy in self.opening.copies],
            "head": {"term": self.opening.head.term, "sequence": self.opening.head.sequence},
            "record": record_facts(self.entries[-1].record) if self.entries else {},
        }


def open_disk(disk: Path, config: Config) -> JournalCopies:
    """The three copies inside an image of a device's whole disk.

    Raises:
        BuildError: the file is no disk of this device.
    """
    return _open([_region(disk, region.offset, region.size) for region in config.journal.regions])


def open_copies(files: Sequence[Path]) -> JournalCopies:
    """Dumped copies, one file each.

    Raises:
        BuildError: a file cannot be read, or holds no record at all.
    """
    sizes = [_size(file) // REGION_UNIT_BYTES * REGION_UNIT_BYTES for file in files]
    return _open([_region(file, 0, size) for file, size in zip(files, sizes, strict=True)])


def record_facts(record: Record) -> dict[str, Any]:
    """Every field of a record as a plain value."""
    return {name: _plain(name, getattr(record, name)) for name in sorted(record.__slots__)}


def replay(told: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """Each step between two records: the events of the table that explain it, or none."""
    for before, after in pairwise(told):
        yield {
            "sequence": after.sequence,
            "before": before.record.state,
            "after": after.record.state,
            "reason": label(after.record.reason),
            "events": explanations(before.record.state, after.record.state),
        }


def explanations(before: str, after: str) -> list[str]:
    """The events by which the table leads from one state to the other, or that leave it where it is."""
    return [event for (state, event), (following, _, _) in TABLE.items() if (state, following) == (before, after)]


def _open(regions: list[Region]) -> JournalCopies:
    try:
        owners = identities(regions)
        if not owners:
            raise BuildError("there is no record of a journal", "Name a copy of the journal, or a disk and -c.")
        store = Store(regions, max(owners, key=lambda owner: owners[owner]))
        return JournalCopies(store.inspect(), entries(store))
    except OSError as error:
        raise BuildError(f"the journal cannot be read: {error.strerror}") from error


def _region(file: Path, offset: int, size: int) -> Region:
    try:
        return DeviceRegion(str(file), offset, size, writable=False)
    except OSError as error:
        hint = "A whole disk is read with -c device.toml; a dumped copy without."
        raise BuildError(f"{file}: {error.strerror or error}", hint) from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise BuildError(f"{file}: {error.strerror}") from error


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Image | Slot):
        return {field: _plain(field, getattr(value, field)) for field in value.__slots__}
    if isinstance(value, bytes):
        return value.hex() if any(value) else ""
    if isinstance(value, tuple):
        return [_plain(name, item) for item in value]
    return label(value) if name in ("reason", "entered") and value else value
