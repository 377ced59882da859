"""What recovery does: one function an action of the table, each idempotent, each with a result as an event.

An action gets the workshop and the record that was persisted as its intent, and returns the event, its
reason code and the fields of the record that it learned. It never steps the machine itself.
"""

from __future__ import annotations

import os
import time

from payload import frames, install
from payload.errors import BundleError, TargetError, TargetTooSmallError
from recovery.console import note, say
from recovery.disks import node_of
from recovery.evidence import button_held
from recovery.filesystem import mend
from recovery.workshop import SLOT_CLASS, Workshop, identity, image_of
from statemachine.decide import judge
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from payload.bundle import Header
    from payload.manifest import Manifest
    from payload.sources import Candidate

    Result = tuple[str, int, dict[str, Any]]

REST_POLL_SECONDS = 2.0
REST_SECONDS_FIRST = 300
REST_SECONDS_MAX = 3600


def verify(workshop: Workshop, record: Record) -> Result:
    """Look at the slot: every frame against the signed table, or a read-write slot's file system."""
    event, reason = judge(record, _look(workshop, record, workshop.slot_header(record.installed.digest)))
    return event, reason, {}


def rebuild(workshop: Workshop, record: Record) -> Result:
    """Make a record from what the slot proves. The floor is never below a version that is signed and here."""
    outcome, found = _best_look(workshop, record)
    event, reason = judge(record, outcome)
    if found is None:
        return event, reason, {}
    manifest = found[1]
    trusted = workshop.keyring.fields()  # the chain in the slot's headers brings the root back
    fields = {
        **trusted,
        "installed": image_of(manifest),
        # What is signed and in the slot counts as having run well: so its system state is doubted first.
        "confirmed": manifest.digest,
        "confirmed_version": manifest.version,
        "floor": max(trusted["floor"], manifest.version),
    }
    return event, reason, fields


def _best_look(workshop: Workshop, record: Record) -> tuple[str, tuple[Header, Manifest] | None]:
    """Look at the slot by either header copy: they differ where a cut came while they were written."""
    looks = [(_look(workshop, record, found), found) for found in workshop.slot_headers()]
    for wanted in ("intact", "checked"):
        for outcome, found in looks:
            if outcome == wanted:
                return outcome, found
    return looks[0] if looks else ("unreadable", None)


def _look(workshop: Workshop, record: Record, found: tuple[Header, Manifest] | None) -> str:
    if found is None:
        return "unreadable"
    manifest = found[1]
    if manifest.kernel_release != os.uname().release:
        return "kernel-mismatch"
    image = manifest.image(SLOT_CLASS)
    if image.kind == "read-write" and record.state != "VERIFYING":
        node = node_of(workshop.disk, workshop.config["slot"][SLOT_CLASS]["0"]["region"])
        return "checked" if mend(node, workshop.alive) else "unreadable"
    damaged = frames.verify(workshop.slot, image.frames(), workshop.progress())
    note(f"verified version {manifest.version}: {len(damaged)} of {len(image.frames())} frames damaged")
    return "damaged" if damaged else "intact"


def repair(workshop: Workshop, record: Record) -> Result:
    """Rewrite the frames that do not verify, from any source of the same image."""
    wanted = record.installed.digest
    found = workshop.slot_header(wanted)
    if found is None or wanted in record.tried:
        return "source_missing", CODES["no-source"], {}
    return _write(workshop, record, _offers(workshop, record, wanted), "frames_rewritten", CODES["frames-repaired"])


def reinstall(workshop: Workshop, record: Record) -> Result:
    """Write the best image that is here. Its digest is in the journal before its first frame is in the slot."""
    return _write(workshop, record, _offers(workshop, record), "image_written", CODES["installed"])


def _offers(workshop: Workshop, record: Record, wanted: bytes = NO_DIGEST) -> Iterator[Candidate]:
    """What is here, the best first; and only if none of that did, what servers have."""
    for look in (workshop.candidates, workshop.remote_candidates):
        found = look(record)
        try:
            yield from (one for one in found if wanted in (NO_DIGEST, one.manifest.digest))
        finally:
            workshop.note_received(found)
            workshop.close(found)


def _write(workshop: Workshop, record: Record, candidates: Iterable[Candidate], done: str, reason: int) -> Result:
    refusal = CODES["no-source"]
    workshop.of_no_use.clear()
    for candidate in candidates:
        record = workshop.keep_trust(record)
        image = image_of(candidate.manifest)
        note(f"from {candidate.source.name}: version {candidate.manifest.version}")
        if done == "image_written" and record.target != image:
            record = record.but(target=image)
            workshop.intend(record)
        try:
            report = install.install(
                workshop.slot,
                workshop.headers,
                candidate.source,
                candidate.header,
                candidate.manifest.image(SLOT_CLASS),
                target_broken=done == "frames_rewritten" or _may_stream(workshop, record, candidate),
                reuse=workshop.reuse(candidate),
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
        return done, reason, {"frames_written": report.frames_written, "target": record.target}
    workshop.keep_trust(record)  # what a refused source has revoked stays revoked
    return "source_missing", workshop.why_nothing_came(refusal), {}


def _may_stream(workshop: Workshop, record: Record, candidate: Candidate) -> bool:
    """Whether frames may go into the slot before all of them are known to come (G4).

    They may where the content is proven broken, and for a download that is the rule: it could not be kept
    anywhere. Only a slot that waits for another kernel may be as good as ever: there, all is first looked at.
    """
    if not workshop.is_remote(candidate):
        return False
    found = workshop.slot_header(record.installed.digest)
    if found is None or found[1].kernel_release == os.uname().release:
        return True
    image = found[1].image(SLOT_CLASS)
    return image.kind == "immutable" and bool(frames.verify(workshop.slot, image.frames(), workshop.progress()))


def read_back(workshop: Workshop, record: Record) -> Result:
    """Read everything past every cache and compare with the signed table."""
    found = workshop.slot_header(_current(record))
    if found is None:
        event, reason = judge(record, "unreadable")
        return event, reason, {}
    image = found[1].image(SLOT_CLASS)
    damaged = frames.read_back(workshop.slot, image.frames(), workshop.progress())
    event, reason = judge(record, "damaged" if damaged else "intact")
    return event, reason, {}


def activate(workshop: Workshop, record: Record) -> Result:
    """Make both header copies describe the slot's content."""
    found = workshop.slot_header(_current(record))
    try:
        if found is not None:
            install.write_slot_headers(workshop.headers, found[0])
    except (TargetError, BundleError) as error:
        note(str(error))
        return "write_failed", CODES["slot-write-failed"], {}
    return "activated", CODES["installed"], {}


def rest(workshop: Workshop, record: Record) -> Result:
    """Write nothing. Leave on a new source, a person, or when the delay is over."""
    known = set(workshop.of_no_use)
    ended_here = record.state == "WAITING" and record.reason in _AFTER_ACTION
    if ended_here:
        known |= _usable(workshop, workshop.candidates(record))
    # None: what the first look at the network finds did not help
    remote_known = None if ended_here else set(workshop.of_no_use)
    button = workshop.config.get("button")
    released = button is not None and not button_held(button)
    sources = "a USB stick labelled UNBRICK, the network" if workshop.network else "a USB stick labelled UNBRICK"
    note(f"waiting for {sources}, the button, or the next try")
    deadline = time.monotonic() + min(REST_SECONDS_FIRST << record.cycles, REST_SECONDS_MAX)
    while time.monotonic() < deadline:
        workshop.alive()
        time.sleep(REST_POLL_SECONDS)
        here = _usable(workshop, workshop.candidates(record))
        if here - known:
            return "source_appeared", CODES["resumed"], {}
        known &= here  # what is pulled out and plugged in again, better copied perhaps, is new
        if workshop.network and workshop.network.is_due():
            here = _usable(workshop, workshop.remote_candidates(record))
            if remote_known is not None and here - remote_known:
                return "source_appeared", CODES["resumed"], {}
            remote_known = here  # what was out of reach in between is new
        if button and record.state == "WAITING":
            held = button_held(button)
            if held and released:
                return "recovery_requested", CODES["button-held"], {}
            released = released or not held
    if record.state != "WAITING":
        return "resumed", record.reason, {}
    return "backoff_elapsed", CODES["resumed"], {}


# Reasons of work that ended in WAITING within this boot: the sources that are here did not help.
_AFTER_ACTION = tuple(
    CODES[word] for word in ("slot-write-failed", "repairs-exhausted", "filesystem-failing", "journal-unwritable")
)


def _usable(workshop: Workshop, here: list[Candidate]) -> set[tuple[str, bytes]]:
    workshop.close(here)
    return {identity(candidate) for candidate in here}


def _current(record: Record) -> bytes:
    """The digest of what the slot should hold: what is being installed, else what is installed."""
    return record.target.digest if record.target.digest != NO_DIGEST else record.installed.digest


ACTIONS: dict[str, Callable[[Workshop, Record], Result]] = {
    "verify": verify,
    "rebuild": rebuild,
    "repair": repair,
    "reinstall": reinstall,
    "read_back": read_back,
    "activate": activate,
    "rest": rest,
}
