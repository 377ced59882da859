"""Updates while the OS runs: into the other slot, or onto the disk for recovery to install at the next start.

Every function can be killed anywhere and called again. What was decided is in the journal, what was written is
found by hashing it, and no file says how far the work is. The order of the steps is in docs/DESIGN.md,
"Slots, updates, and the way back". Parses no command line and prints nothing.
"""

from __future__ import annotations

import os

from payload import frames, install
from payload.bundle import is_far, read_header
from payload.errors import PayloadError
from payload.place import bundle_bytes, keep, missing, place_for
from recovery.device_journal import DeviceJournal, lock_journal
from recovery.floor import floor_after_commit, kept_versions
from recovery.workshop import SLOT_CLASS, Workshop, image_of
from statemachine.reasons import CODES, label
from statemachine.record import NO_DIGEST, Image, Record
from statemachine.step import IllegalEventError, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from payload.bundle import Header, Reader
    from payload.manifest import Manifest
    from payload.sources import Candidate
    from recovery.device_journal import Opener

INSTALLED, STAGED, CURRENT, WAITS_FOR_RESTART = "installed", "staged", "current", "waits-for-restart"


class UpdateError(Exception):
    """Why an update cannot be done now. ``reason`` is a reason code; nothing bootable was changed."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = CODES[word]

    def __str__(self) -> str:
        return f"{label(self.reason)}: {self.args[0]}"


class NotPossibleError(UpdateError):
    """The state of the device has no row for this."""


class Ledger:
    """The journal as the running OS writes it: each change under the writers' lock, on the newest record."""

    def __init__(
        self,
        config: dict[str, Any],
        disk: str,
        *,
        opener: Opener | None = None,
        lock: Callable[[], int] = lock_journal,
    ) -> None:
        self._config = config
        self._disk = disk
        self._opener = opener
        self._lock = lock

    def look(self) -> Record:
        """The newest record; nothing is written."""
        return DeviceJournal(self._config, self._disk, True, self._opener).record

    def note(self, learn: Callable[[Record], dict[str, Any]]) -> Record:
        """Change fields of the newest record, and nothing that boots. Raises ``JournalError``."""
        lock = self._lock()
        try:
            journal = DeviceJournal(self._config, self._disk, False, self._opener)
            journal.persist(journal.record.but(**learn(journal.record)))
            return journal.record
        finally:
            os.close(lock)

    def advance(
        self,
        event: str,
        reason: int,
        learn: Callable[[Record], dict[str, Any]] = lambda _record: {},
        expected: Record | None = None,
    ) -> Record:
        """Step the newest record and make the result durable. ``learn`` says which of its fields change besides.

        Raises:
            UpdateError: the slots are not any more as in ``expected``, or the event is not possible now.
            JournalError: it could not be persisted.
        """
        lock = self._lock()
        try:
            journal = DeviceJournal(self._config, self._disk, False, self._opener)
            if expected is not None and _slots_of(journal.record) != _slots_of(expected):
                raise UpdateError("update-moved", "the slots are not any more as they were when this began")
            attempts = self._config["boot_attempts"]
            try:
                record, _action = step(journal.record, event, attempts, reason=reason, **learn(journal.record))
            except IllegalEventError as error:
                raise NotPossibleError("update-moved", str(error)) from error
            journal.persist(record)
            return record
        finally:
            os.close(lock)


def _slots_of(record: Record) -> tuple[object, ...]:
    return record.state, record.primary, record.slots, record.target, record.target_slot


def update(
    workshop: Workshop,
    ledger: Ledger,
    source: Reader,
    again: bool = False,
    one_way: bool = False,
    keep_far: bool = False,
) -> str:
    """Install the bundle that ``source`` holds: ``installed``, ``staged``, ``current`` or ``waits-for-restart``.

    Upgrade and downgrade are the same. ``again`` allows a version that failed on this device; ``one_way`` the
    update of a single slot whose own version could not be installed again. What comes over a network must not
    have expired. With two slots it goes straight into the other one, and only what the device does not hold
    already is fetched; ``keep_far`` brings the whole bundle to the disk, as it is always done with a local one.

    Raises:
        UpdateError, PayloadError, JournalError: not done; what boots is as before.
    """
    header = read_header(source)
    record = ledger.look()
    workshop.recall(record)
    manifest = workshop.installable(header, network=is_far(source))
    record = keep_trust(workshop, ledger, record)
    image = image_of(manifest)
    if waits_for_restart(record) and image.digest in (record.target.digest, record.installed.digest):
        return WAITS_FOR_RESTART
    check_confirmed(record)
    streamed = is_far(source) and not keep_far and len(record.slots) > 1
    if record.installed.digest == image.digest:
        if not streamed:
            refresh(workshop, record, source)
        return CURRENT
    workshop.keyring.check_complete(header)
    check_not_failed(record, image, again)
    check_intact(workshop, record, record.primary)
    number = len(record.slots) - 1 - record.primary
    slot = workshop.slots[number]
    install.check_room(slot.region, slot.headers, header, manifest.image(SLOT_CLASS))
    if len(record.slots) == 1:
        return _stage(workshop, ledger, record, (source, header, manifest), one_way)
    return _install(workshop, ledger, record, number, (source, header, manifest), streamed)


def keep_trust(workshop: Workshop, ledger: Ledger, record: Record) -> Record:
    """What was learned of roots and times is durable before anything is done because of it. The newest record."""

    def learned(newest: Record) -> dict[str, Any]:
        workshop.recall(newest)
        return workshop.keyring.fields()

    return ledger.note(learned) if record.but(**workshop.keyring.fields()) != record else record


def waits_for_restart(record: Record) -> bool:
    """Whether what is to run next is not what runs now."""
    return record.state == "STAGED" or (record.state == "TRYING" and record.booted != record.primary)


def check_confirmed(record: Record) -> None:
    """Only what runs well is changed. Raises ``UpdateError`` for anything else."""
    if record.state == "PACKAGES_PENDING":
        raise UpdateError("packages-pending", f"the device is in {record.state}")
    if record.state != "CONFIRMED":
        raise UpdateError("not-confirmed", f"the device is in {record.state}")


def check_not_failed(record: Record, image: Image, again: bool = False) -> None:
    """Raises ``UpdateError`` for what was tried on this device and failed, unless it is to be tried ``again``."""
    other = record.other
    if record.target.digest == image.digest:
        return  # it was begun already
    failed = other is not None and other.condition == "bad" and other.image.digest == image.digest
    if (failed or image.digest in record.tried) and not again:
        raise UpdateError("failed-here", f"version {image.version}")


def check_intact(workshop: Workshop, record: Record, number: int) -> None:
    """The version in a slot verifies, frame by frame. Raises ``UpdateError`` where not."""
    image = record.slots[number].image
    found = workshop.slot_header(number, image.digest)
    if found is None:
        raise UpdateError("slot-unreadable", f"slot {number} has no header of version {image.version}")
    if image.kind == "read-write":
        return  # its file system has changed since, as it should
    damaged = frames.verify(workshop.slots[number].region, found[1].image(SLOT_CLASS).frames(), workshop.progress())
    if damaged:
        raise UpdateError("frames-damaged", f"{len(damaged)} frames of slot {number}")


_Bundle = tuple["Reader", "Header", "Manifest"]


def _stage(workshop: Workshop, ledger: Ledger, record: Record, bundle: _Bundle, one_way: bool) -> str:
    """One slot: bring the whole bundle to the disk, and have recovery install it at the next start."""
    manifest = bundle[2]
    number = _place_for(workshop, bundle, needed=record.installed.digest)
    if number is None:
        raise UpdateError("payload-no-place", f"version {record.installed.version} could not be repaired any more")
    if len(workshop.places) > 1 and not one_way:
        _check_way_back(workshop, record)
    keep(workshop.places[number], *bundle, workshop.progress())
    stage(ledger, record, image_of(manifest))
    return STAGED


def _check_way_back(workshop: Workshop, record: Record) -> None:
    """The version that runs can be installed again if the new one fails. Raises ``UpdateError`` where not."""
    for candidate in workshop.kept():
        is_ours = candidate is not None and candidate.manifest.digest == record.installed.digest
        if candidate is not None and is_ours and _is_whole(workshop, candidate):
            return
    raise UpdateError("no-way-back", f"the bundle of version {record.installed.version} on the disk is damaged")


def _is_whole(workshop: Workshop, candidate: Candidate) -> bool:
    return not missing(candidate.source, candidate.header, candidate.manifest, workshop.progress())


def stage(ledger: Ledger, record: Record, image: Image) -> None:
    """Record that recovery is to install ``image`` from a place at the next start."""
    requested = CODES["update-requested"]
    fields = {"target": image, "target_slot": record.primary, "entered": requested}
    ledger.advance("update_staged", requested, lambda _record: fields, record)


def _install(workshop: Workshop, ledger: Ledger, record: Record, number: int, bundle: _Bundle, streamed: bool) -> str:
    """Two slots: write the other one, read it back, make it the primary one."""
    source, header, manifest = bundle
    place = None if streamed else _place_for(workshop, bundle, needed=record.installed.digest)
    if place is not None:
        keep(workshop.places[place], *bundle, workshop.progress())
        source = workshop.places[place]
    fields = {"target": image_of(manifest), "target_slot": number}
    record = ledger.advance("update_started", CODES["update-started"], lambda _record: fields, record)
    slot = workshop.slots[number]
    image = manifest.image(SLOT_CLASS)
    report = install.install(
        slot.region,
        slot.headers,
        source,
        header,
        image,
        target_broken=True,
        reuse=workshop.reuse(source, manifest, number),
        progress=workshop.progress(),
    )
    written = {"frames_written": report.frames_written}
    ledger.advance("update_installed", CODES["installed"], lambda _record: written, record)
    return INSTALLED


def _place_for(workshop: Workshop, bundle: _Bundle, needed: bytes, last: bool = False) -> int | None:
    """The place for a bundle, or None. ``last``: better a place that was needed than none."""
    _source, header, manifest = bundle
    held = [None if candidate is None else candidate.manifest.digest for candidate in workshop.kept()]
    in_place = last or bool(workshop.config["payload"].get("in_place"))
    number = place_for(held, manifest.digest, needed, in_place)
    is_fit = number is not None and bundle_bytes(header, manifest) <= workshop.places[number].size
    return number if is_fit else None


def refresh(workshop: Workshop, record: Record, source: Reader) -> bool:
    """Have a place keep the bundle of the confirmed version, so that it can be repaired without anything else.

    The bundle of the version in the other slot stays where there is room for both. False: ``source`` holds
    another version, or no place is large enough.
    """
    header = read_header(source)
    workshop.recall(record)
    manifest = workshop.believe(header)
    if record.state != "CONFIRMED" or manifest.digest != record.installed.digest:
        return False
    other = record.other
    needed = other.image.digest if other is not None and other.condition == "good" else NO_DIGEST
    if not workshop.keyring.is_complete(header) and is_kept(workshop, manifest.digest):
        return True  # what is here has the same frames, and may have the roots that this one lacks
    number = _place_for(workshop, (source, header, manifest), needed, last=True)
    if number is not None:
        keep(workshop.places[number], source, header, manifest, workshop.progress())
    return number is not None


def is_kept(workshop: Workshop, digest: bytes) -> bool:
    """Whether a place holds the bundle with this manifest digest. The workshop has recalled the record."""
    return any(candidate is not None and candidate.manifest.digest == digest for candidate in workshop.kept())


def commit(workshop: Workshop, ledger: Ledger, packages_on_trial: bool = False) -> Record:
    """The OS that runs says that it runs well. The floor may rise.

    ``packages_on_trial``: the root that runs has them; without that, those of the journal are not what ran well.

    Raises:
        UpdateError: it is not the version that is to be confirmed.
    """
    workshop.recall(ledger.look())
    versions = kept_versions(workshop)

    def learn(record: Record) -> dict[str, Any]:
        if record.booted != record.primary:
            raise UpdateError("not-booted", f"version {record.installed.version} was not started yet")
        on_trial = record.packages_digest if packages_on_trial else NO_DIGEST
        workshop.recall(record)
        trusted = workshop.keyring.lacking(record)
        floor = floor_after_commit(record.but(**trusted), versions)
        return {**trusted, "floor": floor, "packages_digest": on_trial}

    return ledger.advance("marked_good", CODES["confirmed"], learn)


def rollback(workshop: Workshop, ledger: Ledger) -> Record:
    """The other version that ran well becomes the one that boots next; it has to be confirmed again.

    Raises:
        UpdateError: there is none at or above the floor, or it is damaged.
    """
    record = ledger.look()
    workshop.recall(record)
    if workshop.keyring.lacking(record):
        record = keep_trust(workshop, ledger, record)
    if record.state == "STAGED":
        return ledger.advance("rolled_back", CODES["rolled-back"], expected=record)
    if len(record.slots) == 1:
        stage(ledger, record, _kept_to_go_back_to(workshop, record))
        return ledger.look()
    other = record.other
    if other is None or other.condition != "good" or other.image.version < record.floor:
        raise UpdateError("nothing-to-roll-back", "the other slot holds no version that ran well")
    check_intact(workshop, record, 1 - record.primary)
    return ledger.advance("rolled_back", CODES["rolled-back"], expected=record)


def _kept_to_go_back_to(workshop: Workshop, record: Record) -> Image:
    """The confirmed version, if that is not the one in the slot, else the newest other one on the disk."""
    found = []
    for candidate in workshop.kept():
        if candidate is None or candidate.manifest.digest == record.installed.digest:
            continue
        try:
            manifest = workshop.installable(candidate.header)
        except PayloadError:
            continue
        if _is_whole(workshop, candidate):
            found.append(manifest)
    found.sort(key=lambda manifest: (manifest.digest != record.confirmed, -manifest.version))
    if not found:
        raise UpdateError("nothing-to-roll-back", "the disk holds no bundle of another version")
    return image_of(found[0])


def findings(workshop: Workshop, record: Record) -> list[dict[str, object]]:
    """What each slot and each place holds, and how many of its frames are damaged. Writes nothing."""
    workshop.recall(record)
    found: list[dict[str, object]] = []
    for number, slot in enumerate(record.slots):
        known = {"what": f"slot {number}", "version": slot.image.version, "condition": slot.condition}
        held = [copy for copy in workshop.slot_headers(number) if copy[1].digest == slot.image.digest]
        if not held:
            found.append({**known, "damaged": None})
            continue
        table = held[0][1].image(SLOT_CLASS).frames()
        damaged = frames.verify(workshop.slots[number].region, table, workshop.progress())
        found.append({**known, "damaged": len(damaged)})
    for number, candidate in enumerate(workshop.kept()):
        if candidate is None:
            found.append({"what": f"place {number}", "version": 0, "condition": "empty", "damaged": None})
            continue
        table = candidate.manifest.image(SLOT_CLASS).frames()
        reader = frames.FrameReader(candidate.source, len(candidate.header.raw), table)
        missing = frames.verify_source(reader, workshop.progress())
        version = candidate.manifest.version
        found.append({"what": f"place {number}", "version": version, "condition": "kept", "damaged": len(missing)})
    return found
