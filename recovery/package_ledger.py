"""What the journal is told of packages by the running OS, and what it says of them.

Each step is told before the next one is taken (docs/packages.md): staged before anything is renamed, applied after
the renames are durable, taken back after an undo. Changes no file of the root and decides nothing about packages.
"""

from __future__ import annotations

from recovery.update import UpdateError, check_confirmed
from statemachine.decide import packages_unfinished
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.update import Ledger
    from statemachine.record import Record


class PackageLedger:
    """The journal, for transactions of packages. Every method raises ``JournalError`` where nothing can be written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def check(self) -> int:
        """Whether a transaction may begin now: the serial of the last one. Raises ``UpdateError`` where it may not.

        What runs has to be confirmed, packages included: what is undone is then always a set that ran well.
        """
        record = self._ledger.look()
        check_confirmed(record)
        return record.packages_serial

    def staged(self, serial: int, digest: bytes) -> None:
        """Everything new is durable beside the old, and the phase says forward. ``digest`` names the transaction."""

        def learn(record: Record) -> dict[str, Any]:
            check_confirmed(record)
            return {"packages_serial": max(serial, record.packages_serial), "packages_digest": digest}

        self._ledger.advance("packages_staged", CODES["packages-pending"], learn)

    def applied(self) -> None:
        """The OS carried it out by itself, durably. Its packages have to run well now."""
        self._ledger.advance("packages_applied", CODES["packages-finished"])

    def undoing(self, serial: int, digest: bytes, phase: bytes) -> None:
        """Somebody wants the set before, which is not in the root yet. Raises ``UpdateError`` where this one was
        called good: nobody undoes it any more. The journal may know nothing of it; ``phase`` is what the root says.
        """
        record = self._ledger.look()
        if record.state == "CONFIRMED" and packages_unfinished(record, phase):
            self.staged(serial, digest)
        else:
            _check_on_trial(record)

    def taken_back(self) -> None:
        """The OS undid it by itself, durably."""
        self._ledger.advance("packages_taken_back", CODES["packages-taken-back"], _check_on_trial)

    def resumed(self, serial: int, digest: bytes, on_trial: bool) -> None:
        """What a kill had left is finished, and ``on_trial``, or undone. The journal may know nothing of it."""
        record = self._ledger.look()
        if on_trial and record.state == "CONFIRMED" and record.packages_good != serial:
            self.staged(serial, digest)
        if on_trial and self._ledger.look().state == "PACKAGES_PENDING":
            self.applied()
        elif not on_trial and record.packages_digest != NO_DIGEST:
            self.taken_back()

    def failing(self) -> None:
        """A script failed: recovery undoes the packages at the next start."""
        self._ledger.advance("packages_failing", CODES["packages-script-failed"], _check_on_trial)


def _check_on_trial(record: Record) -> dict[str, Any]:
    if record.packages_digest == NO_DIGEST:
        raise UpdateError("packages-absent", f"the device is in {record.state}")
    return {}
