"""One step of the machine: look up the row, apply its effects to the record. Pure.

This is the look-up that the ordinary boot uses; recovery drives the same table through the `transitions`
package (`recovery.engine`), and a test compares the two for every state and event.
"""

from __future__ import annotations

from statemachine.limits import CYCLES_MAX, TRIED_IMAGES_MAX
from statemachine.record import NO_DIGEST, NO_IMAGE, Record, Slot
from statemachine.table import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class IllegalEventError(Exception):
    """The table has no row for this event in this state. Nothing was changed."""


def step(record: Record, event: str, attempts: int, **fields: object) -> tuple[Record, str]:
    """The record after ``event`` and the action to take once it is persisted.

    ``attempts`` is the device's number of boot attempts; ``fields`` are set in the new record as they are
    (``reason=104``). Raises :class:`IllegalEventError`.
    """
    row = TABLE.get((record.state, event))
    if row is None:
        raise IllegalEventError(f"{event} is not possible in {record.state}")
    following, action, effects = row
    record = record.but(state=following, requested=False, **fields)
    for effect in effects:
        record = _EFFECTS[effect](record, attempts)
    return record, action


def _count_attempt(record: Record, _attempts: int) -> Record:
    return record.but(attempts_left=max(0, record.attempts_left - 1), booted=record.primary)


def _restore_attempts(record: Record, attempts: int) -> Record:
    return record.but(attempts_left=attempts)


def _count_cycle(record: Record, _attempts: int) -> Record:
    return record.but(cycles=min(CYCLES_MAX, record.cycles + 1))


def _clear_cycles(record: Record, _attempts: int) -> Record:
    return record.but(cycles=0)


def _confirm(record: Record, _attempts: int) -> Record:
    image = record.installed
    record = _without_tried(record.with_condition(record.primary, "good"), image.digest)
    return record.but(confirmed=image.digest, confirmed_version=image.version, entered=0)


def _remember_why(record: Record, _attempts: int) -> Record:
    return record.but(entered=record.reason)


def _fresh_upper(record: Record, _attempts: int) -> Record:
    return record.but(upper_generation=(record.upper_generation + 1) & 0xFFFFFFFF)


def _remember_tried(record: Record, _attempts: int) -> Record:
    digest = record.installed.digest
    if digest == NO_DIGEST or digest in record.tried:
        return record
    return record.but(tried=(*record.tried, digest)[-TRIED_IMAGES_MAX:])


def _forget_tried(record: Record, _attempts: int) -> Record:
    return record.but(tried=())


def _forget_elsewhere(record: Record, _attempts: int) -> Record:
    held = [slot.image.digest for slot in record.slots]
    return record.but(tried=tuple([digest for digest in record.tried if digest in held]))


def _retry_target(record: Record, _attempts: int) -> Record:
    return _without_tried(record, record.target.digest)


def _without_tried(record: Record, digest: bytes) -> Record:
    return record.but(tried=tuple([one for one in record.tried if one != digest]))


def _forget_target(record: Record, _attempts: int) -> Record:
    return record.but(target=NO_IMAGE, target_slot=0)


def _adopt_target(record: Record, _attempts: int) -> Record:
    if record.target.digest == NO_DIGEST:
        return record
    if record.target.digest != record.installed.digest or record.target_slot != record.primary:
        record = record.but(packages_digest=NO_DIGEST)  # they are in the system state of the image before
    return record.with_slot(record.target_slot, Slot(record.target)).but(primary=record.target_slot)


def _doubt_target(record: Record, _attempts: int) -> Record:
    return record.doubting(record.target_slot)


def _mark_bad(record: Record, _attempts: int) -> Record:
    return record.with_condition(record.primary, "bad")


def _switch_slot(record: Record, _attempts: int) -> Record:
    return record.but(primary=len(record.slots) - 1 - record.primary, packages_digest=NO_DIGEST)


def _keep_packages(record: Record, _attempts: int) -> Record:
    good = record.packages_serial if record.packages_digest != NO_DIGEST else record.packages_good
    return record.but(packages_good=good, packages_digest=NO_DIGEST)


def _forget_packages(record: Record, _attempts: int) -> Record:
    return record.but(packages_digest=NO_DIGEST)


_EFFECTS: dict[str, Callable[[Record, int], Record]] = {
    "count-attempt": _count_attempt,
    "restore-attempts": _restore_attempts,
    "count-cycle": _count_cycle,
    "clear-cycles": _clear_cycles,
    "confirm": _confirm,
    "remember-why": _remember_why,
    "fresh-upper": _fresh_upper,
    "remember-tried": _remember_tried,
    "forget-tried": _forget_tried,
    "forget-elsewhere": _forget_elsewhere,
    "retry-target": _retry_target,
    "forget-target": _forget_target,
    "adopt-target": _adopt_target,
    "doubt-target": _doubt_target,
    "mark-bad": _mark_bad,
    "switch-slot": _switch_slot,
    "keep-packages": _keep_packages,
    "forget-packages": _forget_packages,
}
