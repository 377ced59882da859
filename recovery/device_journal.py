"""The journal of this device: its regions found by compiled-in addresses, its records as values."""

from __future__ import annotations

import os
from _blake2 import blake2b

from recovery.disks import open_region
from statemachine.reasons import CODES
from statemachine.record import NO_IMAGE, Record, Slot, decode
from statemachine.store import JournalUnwritable, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from statemachine.region import Region

    Opener = Callable[[str, dict[str, int], bool], Region]

_VERDICT_REASONS = {
    "INTACT": CODES["journal-intact"],
    "REPAIRED": CODES["journal-repaired"],
    "LOST": CODES["journal-lost"],
}
LOCK = "/run/unbrick/journal.lock"
UPDATE_LOCK = "/run/unbrick/update.lock"


def identity(config: dict[str, Any]) -> bytes:
    """16 bytes that bind a journal to a device: its kind and its disk's serial number."""
    text = f"{config['compatible']}\0{config['disk']['serial']}"
    return blake2b(text.encode(), digest_size=16).digest()


def regions(config: dict[str, Any], disk: str, writable: bool = True, opener: Opener | None = None) -> list[Region]:
    opener = opener or open_region
    return [opener(disk, place, writable) for place in config["journal"]["regions"]]


class DeviceJournal:
    """The open journal: ``record`` is the newest one, :meth:`persist` makes it durable before it counts.

    A record that does not decode, or whose format is not known, counts as lost. ``look_only`` repairs
    nothing, starts no term, and cannot persist. ``opener`` opens a region of the disk.
    """

    def __init__(
        self, config: dict[str, Any], disk: str, look_only: bool = False, opener: Opener | None = None
    ) -> None:
        self.store = Store(regions(config, disk, not look_only, opener), identity(config))
        opening = self.store.inspect() if look_only else self.store.open()
        record = decode(opening.body) if opening.body is not None else None
        self.verdict: str = opening.verdict if record is not None else "LOST"
        self.reason: int = _VERDICT_REASONS[self.verdict]
        self.record = self._bounded(record, config) if record is not None else self._lost(config)

    def persist(self, record: Record) -> None:
        """Make ``record`` the newest one on two copies.

        Raises ``JournalUnwritable``; ``JournalMoved`` where a journal that was lost is there again: open it
        and decide again.
        """
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
        """A record of another configuration grants no more attempts than this one, and has this one's slots."""
        record = record.but(attempts_left=min(record.attempts_left, config["boot_attempts"]))
        count = len(config["slot"]["rootfs"])
        if count == len(record.slots):
            return record
        slots = (record.slots + (Slot(),) * count)[:count]
        if max(record.primary, record.booted, record.target_slot) < count:
            return record.but(slots=slots)
        return record.but(
            state="JOURNAL_LOST", slots=(Slot(),) * count, primary=0, booted=0, target=NO_IMAGE, target_slot=0
        )  # what is in the slots that there are says the rest

    @staticmethod
    def _lost(config: dict[str, Any]) -> Record:
        return Record(
            "JOURNAL_LOST", slots=(Slot(),) * len(config["slot"]["rootfs"]), floor=config.get("floor", 0),
            reason=CODES["journal-lost"], entered=CODES["journal-lost"], attempts_left=config["boot_attempts"],
        )  # fmt: skip


def uncharged(record: Record, before: Record | None) -> Record:
    """``record``, found after a rest that began with ``before``: an attempt that only one copy counted was none."""
    if before is None or (record.state, record.installed.digest) != (before.state, before.installed.digest):
        return record
    return record.but(attempts_left=max(record.attempts_left, before.attempts_left))


def lock_journal() -> int:
    """Serialise writers in the OS: a kernel lock that dies with its holder. Returns its descriptor."""
    return _lock(LOCK)


def lock_update() -> int:
    """One installation at a time, by the same kind of lock. Raises ``BlockingIOError`` where one is at work."""
    return _lock(UPDATE_LOCK, wait=False)


def _lock(path: str, wait: bool = True) -> int:
    import fcntl

    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
