"""The decisions that look at more than the state: why are we here (at every boot), what does a look at the
slot mean, does a slot give way to the other one, and which slot may be rewritten. Pure.

Evidence and outcomes are gathered elsewhere (`recovery.evidence`, `recovery.actions`); here they only
become events of the table. On the path of the ordinary boot: imports nothing of its own.
"""

from __future__ import annotations

from statemachine.limits import CYCLES_MAX
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Record
from statemachine.table import BOOTABLE, DOUBTING_PACKAGES, GIVING_UP

REQUESTS = (
    CODES["button-held"], CODES["recovery-on-command-line"], CODES["recovery-requested"], CODES["update-requested"],
)  # fmt: skip
# Why a slot is looked at though nothing has failed in it.
BLAMELESS = (*REQUESTS, CODES["journal-unwritable"])
# A transaction's phases with no mixture in the root; `_ON_TRIAL` is another one, with the wanted set whole.
_WHOLE, _ON_TRIAL = (b"", b"done", b"undone"), b"trying"
_REWRITE_FIRST = ("bad", "unknown", "good")


class Evidence:
    """What a boot found out before it decided.

    ``requested_by`` is a reason code of :data:`REQUESTS` or 0; ``reset_cause`` is ``"clean"``,
    ``"watchdog"``, ``"panic"`` or ``"unknown"``.
    """

    __slots__ = ("journal_writable", "requested_by", "reset_cause")

    def __init__(self, journal_writable: bool = True, requested_by: int = 0, reset_cause: str = "clean") -> None:
        self.journal_writable = journal_writable
        self.requested_by = requested_by
        self.reset_cause = reset_cause


def decide(record: Record, evidence: Evidence) -> tuple[str, int]:
    """The event of this boot and its reason code."""
    if not evidence.journal_writable:
        return _uncounted(record, evidence), CODES["journal-unwritable"]
    requested_by = evidence.requested_by or (CODES["recovery-requested"] if record.requested else 0)
    if record.state not in BOOTABLE:
        if record.state == "WAITING" and requested_by:
            return "recovery_requested", requested_by
        # What it waits for has not changed, and is to be read on the screen.
        return "resumed", record.reason if record.state == "WAITING" else CODES["resumed"]
    if record.attempts_left == 0:
        return "attempts_exhausted", CODES["attempts-exhausted"]
    if requested_by:
        return "recovery_requested", requested_by
    return "started", CODES["started"]


def _uncounted(record: Record, evidence: Evidence) -> str:
    """Nothing may be tried uncounted; a confirmed OS may start when the last reset was a clean one."""
    confirmed = record.state == "CONFIRMED" or (
        record.state == "STAGED" and record.installed.digest == record.confirmed
    )
    if (
        confirmed
        and record.packages_digest == NO_DIGEST
        and record.attempts_left > 0
        and evidence.reset_cause == "clean"
    ):
        return "uncounted_boot_allowed"
    return "journal_unwritable"


def judge(record: Record, outcome: str) -> tuple[str, int]:
    """What a look at the slot means: the event and its reason code.

    ``outcome`` is one of ``intact``, ``damaged``, ``unreadable``, ``kernel-mismatch`` and, for a
    read-write slot, ``checked`` (file system in order).
    """
    verifies = outcome in ("intact", "checked")
    if verifies and record.state != "SUSPECT":
        return "slot_verified", CODES["slot-verified"]
    if verifies and record.entered in BLAMELESS and record.attempts_left > 0:
        confirmed = record.confirmed == record.installed.digest and record.packages_digest == NO_DIGEST
        return ("verified_on_request" if confirmed else "verified_unconfirmed"), CODES["slot-verified"]
    if verifies and record.entered == CODES["tried-again"]:
        return "verified_after_rest", CODES["slot-verified"]
    if record.cycles >= CYCLES_MAX and record.state != "JOURNAL_LOST":
        return "repairs_exhausted", CODES["repairs-exhausted"]
    return _JUDGEMENTS[outcome](record)


def _judge_intact(record: Record) -> tuple[str, int]:
    installed = record.installed.digest
    if installed in record.tried or record.confirmed != installed:
        return "verified_never_good", CODES["image-never-good"]
    return "verified_but_failing", CODES["pristine"]


def _judge_checked(record: Record) -> tuple[str, int]:
    if record.cycles == 0:
        return "filesystem_checked", CODES["filesystem-repaired"]
    return "filesystem_failing", CODES["filesystem-failing"]


_JUDGEMENTS = {
    "intact": _judge_intact,
    "damaged": lambda _record: ("frames_damaged", CODES["frames-damaged"]),
    "unreadable": lambda _record: ("slot_unreadable", CODES["slot-unreadable"]),
    "kernel-mismatch": lambda _record: ("kernel_mismatched", CODES["kernel-mismatch"]),
    "checked": _judge_checked,
}


def packages_unfinished(record: Record, phase: bytes) -> bool:
    """Whether the root must not be handed over to: ``phase`` is what it says of a transaction, empty for none.

    A mixture never is, whatever the record says, nor what does not read; a set on trial only by a record that
    knows of it, or that has called it good.
    """
    if phase == _ON_TRIAL and record.packages_digest == NO_DIGEST:
        return record.state == "TRYING" or record.packages_good != record.packages_serial
    if phase == _ON_TRIAL:
        return False
    return phase not in _WHOLE


def give_way(record: Record, event: str) -> str:
    """``event``, or the one that takes its place.

    ``packages_failing`` where boots failed while packages were being tried; ``other_slot_good`` where it would give the
    primary slot up and the other one ran well; ``boot_failed`` where a transaction in the root was found too often.
    The caller keeps the event's reason.
    """
    if event == "packages_found" and record.cycles >= CYCLES_MAX:
        event = "boot_failed"
    if (record.state, event) in DOUBTING_PACKAGES and record.packages_digest != NO_DIGEST:
        return "packages_failing"
    if (record.state, event) in GIVING_UP and _other_is_good(record):
        return "other_slot_good"
    return event


def _other_is_good(record: Record) -> bool:
    other = record.other
    if other is None or other.condition != "good" or other.image.digest == NO_DIGEST:
        return False
    return other.image.version >= record.floor and other.image.digest not in record.tried


def slot_to_rewrite(record: Record) -> int:
    """The number of the slot that recovery may give another image: the one whose loss costs least.

    A bad one before an unknown one before a good one; between equals the primary one.
    """
    numbers = sorted(range(len(record.slots)), key=lambda number: number != record.primary)
    return min(numbers, key=lambda number: _REWRITE_FIRST.index(record.slots[number].condition))
