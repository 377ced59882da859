"""The journal of this device: its regions found by compiled-in addresses, its records as values."""

from __future__ import annotations

import os
from _blake2 import blake2b

from recovery.disks import open_region
from statemachine.reasons import CODES
from statemachine.record import Image, Record, decode
from statemachine.store import JournalUnwritable, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from statemachine.region import Region

_VERDICT_REASONS = {
    "INTACT": CODES["journal-intact"],
    "REPAIRED": CODES["journal-repaired"],
    "LOST": CODES["journal-lost"],
}
LOCK = "/run/unbrick/journal.lock"


def identity(config: dict[str, Any]) -> bytes:
    """16 bytes that bind a journal to a device: its kind and its disk's serial number."""
    text = f"{config['compatible']}\0{config['disk']['serial']}"
    return blake2b(text.encode(), digest_size=16).digest()


def regions(config: dict[str, Any], disk: str, writable: bool = True) -> list[Region]:
    return [open_region(disk, place, writable) for place in config["journal"]["regions"]]


class DeviceJournal:
    """The open journal: ``record`` is the newest one, :meth:`persist` makes it durable before it counts.

    A record that does not decode, or whose format is not known, counts as lost. ``look_only`` repairs
    nothing, starts no term, and cannot persist.
    """

    def __init__(self, config: dict[str, Any], disk: str, look_only: bool = False) -> None:
        self.store = Store(regions(config, disk, writable=not look_only), identity(config))
        opening = self.store.inspect() if look_only else self.store.open()
        record = decode(opening.body) if opening.body is not None else None
        self.verdict: str = opening.verdict if record is not None else "LOST"
        self.reason: int = _VERDICT_REASONS[self.verdict]
        self.record = self._bounded(record, config) if record is not None else self._lost(config)

    def persist(self, record: Record) -> None:
        """Make ``record`` the newest one on two copies. Raises ``JournalUnwritable``."""
        self.store.append(record.encode())
        self.record = record

    def try_persist(self, record: Record) -> bool:
        """As :meth:`persist`; ``False`` and no change where the journal takes no writes."""
        try:
            self.persist(record)
        except JournalUnwritable:
            return False
        return True

    @staticmethod
    def _bounded(record: Record, config: dict[str, Any]) -> Record:
        """A record of another configuration never grants more attempts than this one."""
        return record.but(attempts_left=min(record.attempts_left, config["boot_attempts"]))

    @staticmethod
    def _lost(config: dict[str, Any]) -> Record:
        return Record(
            "JOURNAL_LOST", installed=Image(), floor=config.get("floor", 0), reason=CODES["journal-lost"],
            entered=CODES["journal-lost"], attempts_left=config["boot_attempts"],
        )  # fmt: skip


def lock_journal() -> int:
    """Serialise writers in the OS: a kernel lock that dies with its holder. Returns its descriptor."""
    import fcntl

    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
