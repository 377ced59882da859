"""K: how many boots it takes at most, from any record, until the device rests or its OS runs well.

Walks every record the table can tell apart (state, attempts, cycles, why recovery works, whether the
image ran well before or was tried, whether packages are being tried, the condition of each slot) with
the production `decide`, `judge`, `give_way` and `step`, an OS that never says that it runs well, a root
that may hold a transaction at any hand-over, and actions that end in every way they can end. Power cuts
are left out (each adds at most one boot), and so are new sources and persons, who may start anew as often
as they like.
A path that comes back to where it was without ending would be an endless reboot: it is an error here.
Runs on the host only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

from statemachine.decide import BLAMELESS, REQUESTS, Evidence, decide, give_way, judge, slot_to_rewrite
from statemachine.limits import BOOT_ATTEMPTS_DEFAULT, CYCLES_MAX, SLOTS_MAX
from statemachine.reasons import CODES
from statemachine.record import CONDITIONS, NO_DIGEST, Image, Record, Slot
from statemachine.step import step
from statemachine.table import STATES, TABLE

_IMAGE = Image(digest=b"\1" * 32, version=1, kind="immutable")
_OTHER = Image(digest=b"\2" * 32, version=2, kind="immutable")
_NEW = Image(digest=b"\3" * 32, version=3, kind="immutable")
_PACKAGES = b"\4" * 32
_AFTER_REST = CODES["tried-again"]
_FAILING = CODES["attempts-exhausted"]
_START = "start"
_Key = tuple[object, ...]
_Edge = tuple[Record, str, int]  # the record, the action or a start, and how many boots that takes

# How each action can end: outcomes go through `judge`, events are taken as they are.
_OUTCOMES = {
    "verify": ("intact", "damaged", "unreadable", "kernel-mismatch", "checked"),
    "read_back": ("intact", "damaged", "unreadable"),
    "rebuild": ("intact", "damaged", "unreadable", "kernel-mismatch"),
}
_RESULTS = {
    "prepare": ("replacement_verified", "source_missing"),
    "repair": ("frames_rewritten", "source_missing", "write_failed"),
    "reinstall": ("image_written", "source_missing", "write_failed"),
    "activate": ("activated", "write_failed"),
    "finish_packages": ("packages_finished", "packages_undone", "packages_damaged"),
    "undo_packages": ("packages_undone", "packages_damaged"),
}


class EndlessRebootError(Exception):
    """A device can go round without resting, by boots or within one; the message names the states."""


@cache
def boots_max(attempts: int = BOOT_ATTEMPTS_DEFAULT, slots: int = SLOTS_MAX) -> int:
    """K for a device with this many boot attempts and slots. Raises :class:`EndlessRebootError`."""
    known: dict[_Key, int] = {}
    return max(boots_to_rest(record, attempts, known) for record in every_record(attempts, slots))


def every_record(attempts: int = BOOT_ATTEMPTS_DEFAULT, slots: int = SLOTS_MAX) -> Iterator[Record]:
    """One record for each class that the decisions can tell apart."""
    for state, attempts_left, cycles, entered, confirmed, tried, packages, held in product(
        STATES,
        range(attempts + 1),
        range(CYCLES_MAX + 1),
        (_FAILING, REQUESTS[0], _AFTER_REST),
        (_IMAGE.digest, _OTHER.digest),
        ((), (_IMAGE.digest,)),
        (NO_DIGEST, _PACKAGES),
        product(CONDITIONS, repeat=slots),
    ):
        yield Record(
            state,
            attempts_left=attempts_left,
            cycles=cycles,
            entered=entered,
            slots=tuple(Slot(image, condition) for image, condition in zip((_IMAGE, _OTHER), held, strict=False)),
            confirmed=confirmed,
            tried=tried,
            packages_digest=packages,
        )


def boots_to_rest(start: Record, attempts: int, known: dict[_Key, int]) -> int:
    """Boots on the longest path from a start with this record. ``known`` keeps what was found on the way.

    Depth first, without recursion. Raises :class:`EndlessRebootError`.
    """
    path: list[tuple[_Key, Iterator[_Edge], int]] = []
    best: dict[_Key, int] = {}

    def enter(record: Record, action: str, boots: int) -> None:
        key = _key(record, action)
        path.append((key, _following(record, action, attempts), boots))
        best[key] = 0

    enter(start, _START, 1)
    while True:
        key, edges, boots = path[-1]
        edge = next(edges, None)
        if edge is None:
            known[key] = best[key]
            path.pop()
            if not path:
                return known[key] + boots
            best[path[-1][0]] = max(best[path[-1][0]], known[key] + boots)
        elif (reached := _key(edge[0], edge[1])) in known:
            best[key] = max(best[key], known[reached] + edge[2])
        elif reached in best:
            raise EndlessRebootError(" -> ".join(str(passed[0]) for passed, _edges, _boots in path))
        else:
            enter(*edge)


def _following(record: Record, action: str, attempts: int) -> Iterator[_Edge]:
    """What can come next: from a start what `decide` says, from an action each of its endings."""
    if action == _START:
        for requested_by in (0, REQUESTS[0]):
            if record.state == "WAITING" and requested_by:
                continue  # a person at a resting device
            event, reason = decide(record, Evidence(requested_by=requested_by))
            event = give_way(record, event)
            yield (*step(record, event, attempts, reason=reason), 0)
        return
    if action in ("boot", "boot_pristine"):
        yield record, _START, 1
        for failure in ("boot_failed", "packages_found"):
            event = give_way(record, failure)
            yield (*step(record, event, attempts, reason=CODES["boot-failed"]), 0)
    for event, reason, fields in endings(record, action):
        yield (*step(record, event, attempts, reason=reason, **fields), 0)


def endings(record: Record, action: str) -> Iterator[tuple[str, int, dict[str, object]]]:
    """Every way in which ``action`` can end: the event, its reason, and what it changes in the record."""
    for event, reason in _endings(record, action):
        yield give_way(record, event), reason, {}
        if event == "image_written":
            number = slot_to_rewrite(record)
            slots = record.doubting(number).slots
            yield event, reason, {"target": _NEW, "target_slot": number, "slots": slots}
        if event == "packages_finished":
            yield event, reason, {"packages_digest": _PACKAGES}


def _endings(record: Record, action: str) -> Iterator[tuple[str, int]]:
    for outcome in _OUTCOMES.get(action, ()):
        event, reason = judge(record, outcome)
        if (record.state, event) in TABLE:
            yield event, reason
    for event in _RESULTS.get(action, ()):
        if (record.state, event) in TABLE:
            yield event, 0


def _key(record: Record, action: str) -> _Key:
    return (
        record.state,
        action,
        record.attempts_left,
        record.cycles,
        record.entered in BLAMELESS,
        record.entered == _AFTER_REST,
        record.primary,
        record.packages_digest != NO_DIGEST,
        record.target.digest != NO_DIGEST,
        record.target_slot,
        *(
            (
                slot.condition,
                slot.image.digest == NO_DIGEST,
                slot.image.digest == record.confirmed,
                slot.image.digest in record.tried,
            )
            for slot in record.slots
        ),
    )
