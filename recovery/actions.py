"""What recovery does: one function an action of the table, each idempotent, each with a result as an event.

An action gets the workshop and the record that was persisted as its intent, and returns the event, its
reason code and the fields of the record that it learned. It never steps the machine itself.
"""

from __future__ import annotations

import os
import time

from payload import frames, install
from payload.errors import BundleError, PayloadError, TargetError, TargetTooSmallError
from recovery.console import note, say
from recovery.disks import node_of
from recovery.filesystem import mend
from recovery.watch import REST_POLL_SECONDS, Watch, looked_again, usable
from recovery.workshop import SLOT_CLASS, Workshop, identity, image_of
from statemachine.decide import judge, slot_to_rewrite
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Record, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any

    from payload.bundle import Header
    from payload.manifest import Manifest
    from payload.sources import Candidate

    Result = tuple[str, int, dict[str, Any]]

REST_SECONDS_FIRST = 300
REST_SECONDS_MAX = 3600


def verify(workshop: Workshop, record: Record) -> Result:
    """Look at the primary slot: every frame against the signed table, or a read-write slot's file system."""
    number = record.primary
    found = workshop.slot_header(number, record.installed.digest)
    outcome = _look(workshop, record, number, found)
    if outcome == "checked":
        from recovery.package_repair import mend_packages

        mend_packages(workshop, record)
    event, reason = judge(record, outcome)
    return event, reason, {}


def rebuild(workshop: Workshop, record: Record) -> Result:
    """Make a record from what the slots prove.

    The best one becomes the primary: an intact one before a damaged one, then the higher version. What is
    intact and signed counts as having run well: so its system state is doubted first. The floor is never below
    the lowest version that is intact here, as after a commit; without one, not below the one that is repaired.
    """
    looks = [_best_look(workshop, record, number) for number in range(len(workshop.slots))]
    number = min(range(len(looks)), key=lambda at: _preference(*looks[at]))
    outcome, found = looks[number]
    event, reason = judge(record, outcome)
    if found is None:
        return event, reason, {}
    manifest = found[1]
    trusted = workshop.keyring.fields()  # the chain in the slots' headers brings the root back
    versions = [held[1].version for seen, held in looks if held is not None and seen in _INTACT]
    fields = {
        **trusted,
        "slots": tuple(_slot_as_found(*look) for look in looks),
        "primary": number,
        "confirmed": manifest.digest,
        "confirmed_version": manifest.version,
        "floor": max(trusted["floor"], min(versions, default=manifest.version)),
    }
    return event, reason, fields


_INTACT = ("intact", "checked")
_BEST_FIRST = (*_INTACT, "damaged", "kernel-mismatch", "unreadable")


def _preference(outcome: str, found: tuple[Header, Manifest] | None) -> tuple[int, int]:
    return _BEST_FIRST.index(outcome), -found[1].version if found is not None else 0


def _slot_as_found(outcome: str, found: tuple[Header, Manifest] | None) -> Slot:
    if found is None:
        return Slot()
    return Slot(image_of(found[1]), "good" if outcome in _INTACT else "bad")


def _best_look(workshop: Workshop, record: Record, number: int) -> tuple[str, tuple[Header, Manifest] | None]:
    """Look at a slot by either header copy: they differ where a cut came while they were written."""
    looks = [(_look(workshop, record, number, found), found) for found in workshop.slot_headers(number)]
    return min(looks, key=lambda look: _BEST_FIRST.index(look[0])) if looks else ("unreadable", None)


def _look(workshop: Workshop, record: Record, number: int, found: tuple[Header, Manifest] | None) -> str:
    if found is None:
        return "unreadable"
    manifest = found[1]
    if manifest.kernel_release != os.uname().release:
        return "kernel-mismatch"
    image = manifest.image(SLOT_CLASS)
    slot = workshop.slots[number]
    if image.kind == "read-write" and record.state != "VERIFYING":
        try:
            node = node_of(workshop.disk, slot.place)
        except OSError as error:
            note(str(error))
            return "unreadable"
        return "checked" if mend(node, workshop.alive) else "unreadable"
    damaged = frames.verify(slot.region, image.frames(), workshop.progress())
    note(f"verified version {manifest.version}: {len(damaged)} of {len(image.frames())} frames damaged")
    return "damaged" if damaged else "intact"


def repair(workshop: Workshop, record: Record) -> Result:
    """Rewrite the frames that do not verify, from any source of the same image."""
    wanted = record.installed.digest
    found = workshop.slot_header(record.primary, wanted)
    if found is None or wanted in record.tried:
        return "source_missing", CODES["no-source"], {}
    return _write_best(workshop, record, record.primary, wanted, "frames_rewritten")


def prepare(workshop: Workshop, record: Record) -> Result:
    """Verify that a place on the disk holds the whole bundle that is to replace the slot's image."""
    slot = workshop.slots[record.target_slot]
    for candidate in workshop.kept():
        if candidate is None or candidate.manifest.digest != record.target.digest:
            continue
        try:
            manifest = workshop.installable(candidate.header)
            image = manifest.image(SLOT_CLASS)
            install.check_room(slot.region, slot.headers, candidate.header, image)
            reader = frames.FrameReader(candidate.source, len(candidate.header.raw), image.frames())
            for error in frames.verify_source(reader, workshop.progress()).values():
                raise error
        except PayloadError as error:
            say(CODES.get(error.reason, CODES["no-source"]), f"{candidate.source.name}: {error}")
            continue
        return "replacement_verified", CODES["replacement-verified"], {}
    return "source_missing", CODES["no-source"], {}


def reinstall(workshop: Workshop, record: Record) -> Result:
    """Write the best image that is here. Its digest is in the journal before its first frame is in a slot."""
    begun = record.target.digest != NO_DIGEST
    number = record.target_slot if begun else slot_to_rewrite(record)
    return _write_best(workshop, record, number, NO_DIGEST, "image_written")


def _write_best(workshop: Workshop, record: Record, number: int, wanted: bytes, done: str) -> Result:
    offers = _offers(workshop, record, wanted)
    try:
        return _write(workshop, record, number, offers, done)
    finally:
        offers.close()


def _offers(workshop: Workshop, record: Record, wanted: bytes) -> Generator[Candidate, None, None]:
    """What is here, the best first; and only if none of that did, what servers have."""
    for look in (workshop.candidates, workshop.remote_candidates):
        found = look(record)
        try:
            yield from (one for one in found if wanted in (NO_DIGEST, one.manifest.digest))
        finally:
            workshop.note_received(found)
            workshop.close(found)


_DONE = {"frames_rewritten": CODES["frames-repaired"], "image_written": CODES["installed"]}


def _write(workshop: Workshop, record: Record, number: int, candidates: Iterable[Candidate], done: str) -> Result:
    refusal = CODES["no-source"]
    slot = workshop.slots[number]
    # A slot that could still boot is written only where the source has every frame that is missing.
    broken = done == "frames_rewritten" or record.slots[number].condition == "bad"
    workshop.of_no_use.clear()
    for candidate in candidates:
        record = workshop.keep_trust(record)
        note(f"from {candidate.source.name}: version {candidate.manifest.version}")
        image = candidate.manifest.image(SLOT_CLASS)
        try:
            install.check_room(slot.region, slot.headers, candidate.header, image)
            if not broken and not _may_stream(workshop, record, number, candidate):
                install.check_source(slot.region, candidate.source, candidate.header, image, workshop.progress())
            if done == "image_written":
                record = _intend(workshop, record, number, candidate.manifest)
            report = install.install(
                slot.region,
                slot.headers,
                candidate.source,
                candidate.header,
                image,
                target_broken=True,
                kept=workshop.header_to_keep(number, candidate),
                reuse=workshop.reuse(candidate.source, candidate.manifest, number),
                progress=workshop.progress(),
            )
        except (BundleError, TargetTooSmallError) as error:
            refusal = CODES.get(error.reason, refusal)
            say(refusal, f"{candidate.source.name}: {error}")
            if not workshop.may_come_back(candidate, error):
                workshop.of_no_use.add(identity(candidate))
            continue
        except TargetError as error:
            note(str(error))
            return "write_failed", CODES["slot-write-failed"], {}
        note(f"{report.frames_written} frames written")
        return done, _DONE[done], {"frames_written": report.frames_written}
    workshop.keep_trust(record)  # what a refused source has revoked stays revoked
    return "source_missing", workshop.why_nothing_came(refusal), {}


def _may_stream(workshop: Workshop, record: Record, number: int, candidate: Candidate) -> bool:
    """Whether frames may go into the slot before all of them are known to come (G4).

    They may where the content is proven broken, and for a download that is the rule: it could not be kept
    anywhere. Only a slot that waits for another kernel may be as good as ever: there, all is first looked at.
    """
    if not workshop.is_remote(candidate):
        return False
    found = workshop.slot_header(number, record.slots[number].image.digest)
    if found is None or found[1].kernel_release == os.uname().release:
        return True
    image = found[1].image(SLOT_CLASS)
    return image.kind == "immutable" and bool(
        frames.verify(workshop.slots[number].region, image.frames(), workshop.progress())
    )


def _intend(workshop: Workshop, record: Record, number: int, manifest: Manifest) -> Record:
    """Persist that the slot is bad and what it is to hold, before its first frame is written."""
    intended = record.but(target=image_of(manifest), target_slot=number).doubting(number)
    if intended != record:
        workshop.intend(intended)
    return intended


def read_back(workshop: Workshop, record: Record) -> Result:
    """Read everything past every cache and compare with the signed table."""
    number, digest = _current(record)
    found = workshop.slot_header(number, digest)
    if found is None:
        event, reason = judge(record, "unreadable")
        return event, reason, {}
    image = found[1].image(SLOT_CLASS)
    damaged = frames.read_back(workshop.slots[number].region, image.frames(), workshop.progress())
    event, reason = judge(record, "damaged" if damaged else "intact")
    return event, reason, {}


def activate(workshop: Workshop, record: Record) -> Result:
    """Make both header copies describe the slot's content."""
    number, digest = _current(record)
    found = workshop.slot_header(number, digest)
    try:
        if found is not None:
            install.write_slot_headers(workshop.slots[number].headers, found[0])
    except (TargetError, BundleError) as error:
        note(str(error))
        return "write_failed", CODES["slot-write-failed"], {}
    return "activated", CODES["installed"], {}


def finish_packages(workshop: Workshop, record: Record) -> Result:
    """Finish or undo the transaction in the root, as its phase says."""
    from recovery import packages

    return packages.finish(workshop, record)


def undo_packages(workshop: Workshop, record: Record) -> Result:
    """Bring the set of packages before the transaction back."""
    from recovery import packages

    return packages.undo(workshop, record)


def rest(workshop: Workshop, record: Record) -> Result:
    """Write nothing. Leave on a new source, a person, or when the delay is over."""
    known = set(workshop.of_no_use)
    ended_here = workshop.has_worked and record.state == "WAITING" and record.reason in _AFTER_ACTION
    if ended_here:
        known |= usable(workshop, workshop.candidates(record))
    # None: what the first look at the network finds did not help
    remote_known = None if ended_here else set(workshop.of_no_use)
    watch = Watch(workshop, record, known)
    sources = "a USB stick labelled UNBRICK, the network" if workshop.network else "a USB stick labelled UNBRICK"
    note(f"waiting for {sources}, the button, or the next try")
    deadline = time.monotonic() + min(REST_SECONDS_FIRST << record.cycles, REST_SECONDS_MAX)
    while time.monotonic() < deadline:
        workshop.alive()
        time.sleep(REST_POLL_SECONDS)
        if not watch() and workshop.network and workshop.network.is_due():
            here = usable(workshop, workshop.remote_candidates(record, watch))
            if remote_known is not None and here - remote_known:
                return "source_appeared", looked_again(record, CODES["resumed"]), {}
            remote_known = here  # what was out of reach in between is new
        if watch.result is not None:
            return watch.result
    if record.state != "WAITING":
        return "resumed", record.reason, {}
    return "backoff_elapsed", looked_again(record, CODES["tried-again"]), {}


# Reasons of work that ends in WAITING. Within this boot: the sources that are here did not help.
_AFTER_ACTION = tuple(
    CODES[word] for word in ("slot-write-failed", "repairs-exhausted", "filesystem-failing", "journal-unwritable")
)


def _current(record: Record) -> tuple[int, bytes]:
    """The slot that is worked on and the digest of what it should hold: the target, else what is installed."""
    if record.target.digest != NO_DIGEST:
        return record.target_slot, record.target.digest
    return record.primary, record.installed.digest


ACTIONS: dict[str, Callable[[Workshop, Record], Result]] = {
    "verify": verify,
    "rebuild": rebuild,
    "prepare": prepare,
    "repair": repair,
    "reinstall": reinstall,
    "read_back": read_back,
    "activate": activate,
    "finish_packages": finish_packages,
    "undo_packages": undo_packages,
    "rest": rest,
}
