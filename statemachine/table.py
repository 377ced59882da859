"""The machine: every state, every event, and what follows. This file is the single source of truth.

Theory of operation
-------------------
A device rests in one of four states between two boots: CONFIRMED (the OS said it runs well), TRYING (it
has not said so yet), PRISTINE (its own system state is set aside to see whether that is what breaks it)
and WAITING (nothing more can be done with what is here). Everything else is work in progress: a state
that is found on disk because the power went away in the middle, and whose action is simply done again.
Every action is idempotent, so a rerun is a resume.

Each boot of CONFIRMED, TRYING or PRISTINE takes one attempt; only the OS gives them back, by saying that
it runs well (``marked_good``). So a hang, a panic and a user pulling the plug all end in the same place:
``attempts_exhausted``, and that leads to *looking* (SUSPECT), never to wiping. What the look finds decides:

* damaged frames are rewritten (REPAIRING), read back (VERIFYING), made current (ACTIVATING), tried (TRYING);
* an intact image that ran well before is booted PRISTINE: the image is not the problem, its state may be;
* an intact image that never ran well, or fails even pristine, and a slot that cannot be brought back, give
  way to the other slot if that one ran well (FALLING_BACK: it is verified before it boots);
* without such a slot, to another signed version at or above the floor (REINSTALLING); where there is none,
  the device is WAITING with the reason on its faces.

An update is made while the OS runs. With two slots it stays CONFIRMED while the other slot is written; one
record makes that slot the primary one and the device TRYING. With one slot a whole bundle is brought to
the disk first; STAGED is recorded, and recovery does the writing at the next start. Which rows give a slot
up is listed in GIVING_UP; `decide.give_way` turns their events into ``other_slot_good``.

Packages change inside a slot's system state, by a transaction whose own phase lies beside them (docs/packages.md).
The OS records PACKAGES_PENDING once everything is staged; whoever carries the renames out, the OS (live) or
recovery before the OS runs (offline), then records TRYING with attempts of its own. While packages are being tried
and boots fail, they are what changed: they are undone (UNDOING_PACKAGES) before the slot is suspected. A root
with half a transaction in it is never handed over to, whatever the journal says: what the root says is evidence
(``packages_found``), and counts a cycle.

Going round is bounded: every entry to TRYING or PRISTINE by recovery's own hand counts a *cycle*, and
``repairs_exhausted`` leads to WAITING. Only the OS (``marked_good``), a person (a button) or a source
that was not tried before starts the count anew. `statemachine.bound` computes from this table how many
boots that is at most.

A row is (states, event, next state, action, effects). The record with the effects applied is persisted
*before* the action starts (intent), and the action's result is the next event. An event that has no row
is illegal: it raises, and nothing changes. Effects are words; `statemachine.step` says what each does.

BLANK, PROVISIONING and UPDATING_RECOVERY are states whose work is not part of this image yet. Nothing
writes them; a record that holds one (a newer recovery's) leads to a look at the slot, except BLANK, which
must never be taken for permission to write: it waits.

This module holds data and imports nothing.
"""

# --- states: what is on disk, and how each ends without a person; the record holds the index: append only --

STATES = {
    "BLANK": (
        "No OS was ever installed.",
        "Waits for signed factory evidence; a source that appears leads to a look at the slot.",
    ),
    "PROVISIONING": ("The factory's writing is under way.", "The slot is looked at."),
    "CONFIRMED": (
        "The slot holds an image whose OS said that it runs well.",
        "Boots it; each boot takes an attempt that the OS gives back.",
    ),
    "TRYING": (
        "The slot holds a verified image that has not said yet that it runs well.",
        "Boots it until it says so or its attempts are used up.",
    ),
    "SUSPECT": ("Boots failed, or somebody asked: the slot's content is in doubt.", "Verifies every frame."),
    "REPAIRING": (
        "The slot is known to be damaged: some of its frames are being rewritten.",
        "Rewrites the frames that do not verify from a source of the same image.",
    ),
    "REINSTALLING": (
        "The slot is given up: another image may be half written to it.",
        "Writes the frames that are missing from the best source.",
    ),
    "VERIFYING": ("All frames are written and flushed.", "Reads them back past every cache."),
    "ACTIVATING": ("The slot verifies.", "Makes its image the current one."),
    "PRISTINE": (
        "The slot verifies but its OS fails; its system state is set aside.",
        "Boots it with a temporary overlay, without user data, until it says that it runs well.",
    ),
    "PACKAGES_PENDING": (
        "A package transaction is staged, and perhaps half carried out.",
        "Carries it out, or undoes it, as its phase in the root says.",
    ),
    "UPDATING_RECOVERY": ("A new recovery image is being tried.", "The slot is looked at."),
    "JOURNAL_LOST": (
        "No copy of the journal holds a record of this device.",
        "Rebuilds the record from the slot's signed header and its frames.",
    ),
    "WAITING": (
        "Nothing that is here can make the device run; the reason is in the record.",
        "Looks again when a source appears, and by itself after a growing, capped delay.",
    ),
    "STAGED": (
        "The slot is untouched; a whole bundle that is to replace its image lies on the device.",
        "Verifies the bundle and writes the slot, or goes back to the slot as it is.",
    ),
    "FALLING_BACK": (
        "The primary slot was given up; the other one, which ran well, is the primary one now.",
        "Verifies every frame and boots it.",
    ),
    "UNDOING_PACKAGES": (
        "Boots failed with the packages that were being tried.",
        "Brings the set of packages before them back and boots it.",
    ),
}

BOOTABLE = ("CONFIRMED", "TRYING", "PRISTINE")
NOT_IN_THIS_IMAGE = ("PROVISIONING", "UPDATING_RECOVERY")

# --- events: what happened ------------------------------------------------------------------------------

EVENTS = {
    "started": "The device started; nothing is suspicious and attempts are left.",
    "attempts_exhausted": "The device started and no attempt is left.",
    "recovery_requested": "A person held the button, or the command line or the OS asked for recovery.",
    "resumed": "The device started in a state whose action was cut short.",
    "journal_unwritable": "Fewer than two copies of the journal take writes.",
    "uncounted_boot_allowed": "The same, but the OS is confirmed and the last reset was a clean one.",
    "boot_failed": "The root file system could not be mounted or handed over to.",
    "verified_on_request": "The slot verifies, nothing failed, and its OS had said that it runs well.",
    "verified_unconfirmed": "The slot verifies, nothing failed, and its OS has not said so yet.",
    "verified_after_rest": "The slot verifies, its OS failed, and a rest has not brought anything better.",
    "verified_but_failing": "The slot verifies, it ran well once, and its OS fails now.",
    "verified_never_good": "The slot verifies, and its OS fails and never ran well or fails pristine too.",
    "filesystem_checked": "The read-write slot's file system was checked and put in order.",
    "filesystem_failing": "The read-write slot's OS fails with its file system in order.",
    "frames_damaged": "Frames of the slot differ from its signed frame table.",
    "slot_unreadable": "No signed header describes the slot's content.",
    "kernel_mismatched": "The slot's image was made for another kernel than the one that runs.",
    "frames_rewritten": "Every damaged frame was written and flushed.",
    "image_written": "Every frame of the new image is written and flushed.",
    "source_missing": "No source here holds a signed, matching, untried image at or above the floor.",
    "write_failed": "The slot did not take a write or a flush.",
    "slot_verified": "Every frame reads back from the medium as signed.",
    "activated": "The slot's header copies describe the new content.",
    "repairs_exhausted": "Recovery went round as often as it may.",
    "source_appeared": "A source that was not tried before is here.",
    "backoff_elapsed": "The waiting time is over.",
    "marked_good": "The OS said that it runs well.",
    "other_slot_good": "The primary slot would be given up, and the other one ran well.",
    "update_started": "The OS is about to write another image to the other slot.",
    "update_installed": "The other slot is written, read back, and described by its headers.",
    "update_staged": "A whole bundle to replace the slot's image lies on the device, verified.",
    "replacement_verified": "The bundle that is to replace the slot's image verifies.",
    "rolled_back": "A person chose the other slot, and it verifies; or took back what was staged.",
    "packages_staged": "A package transaction is staged durably; whoever comes finishes or undoes it.",
    "packages_applied": "The OS carried the transaction out by itself; its packages are being tried.",
    "packages_taken_back": "The OS undid the transaction by itself.",
    "packages_found": "The root holds a transaction under way that the journal does not know.",
    "packages_failing": "The OS fails, or a package's script did, while packages are being tried.",
    "packages_finished": "The wanted set is in the root, whole; the one before it is kept beside it.",
    "packages_undone": "The set before the transaction is in the root, whole.",
    "packages_damaged": "The transaction could neither be finished nor undone.",
}

# --- actions: what recovery does next -------------------------------------------------------------------

ACTIONS = {
    "boot": "Mount the slot and its system state, hand over to the OS.",
    "boot_pristine": "Mount the slot with a temporary overlay, hand over to the OS.",
    "verify": "Compare every frame of the slot with its signed frame table.",
    "repair": "Rewrite the frames that do not verify, from a source of the same image.",
    "prepare": "Verify the whole bundle that is to replace the slot's image.",
    "reinstall": "Write another image, frame by frame, those that are already there excepted.",
    "read_back": "Read the whole slot past every cache and compare.",
    "activate": "Write both copies of the slot's signed header.",
    "rebuild": "Make a record from what the slot proves.",
    "finish_packages": "Carry the transaction in the root out, or undo it, as its phase says.",
    "undo_packages": "Bring the set of packages before the transaction back.",
    "rest": "Write nothing; look for a source, a person, the end of the delay.",
    "none": "Nothing: the OS runs.",
}

# --- effects: how the record changes -------------------------------------------------------------------

EFFECTS = {
    "count-attempt": "One attempt less for the primary slot, which is the booted one now.",
    "restore-attempts": "All attempts again.",
    "count-cycle": "One cycle more.",
    "clear-cycles": "No cycles counted, the request is answered.",
    "confirm": "The slot is good, its image is the confirmed one, and none that failed.",
    "remember-why": "The event's reason is why recovery works now.",
    "fresh-upper": "The next boot starts with an empty system state; the old one is kept aside.",
    "remember-tried": "The slot's image failed here. It is chosen again when what ran well fails, or by a person.",
    "forget-tried": "Every image may be tried again.",
    "forget-elsewhere": "Every image may be tried again but those in the slots.",
    "retry-target": "The image that is to be installed may be tried again.",
    "forget-target": "No installation is intended any more.",
    "adopt-target": "The image that was being installed is its slot's image, and that slot is the primary one. Another"
    " image starts without the packages that were being tried.",
    "doubt-target": "The slot that the target goes to is bad from now on; the other slot's image is forgotten.",
    "mark-bad": "The primary slot is bad.",
    "switch-slot": "The other slot is the primary one; packages that were being tried stay behind.",
    "keep-packages": "The packages that were being tried are the good ones.",
    "forget-packages": "No packages are being tried.",
}

_ALL = tuple(STATES)
_GOOD = ("confirm", "restore-attempts", "clear-cycles")
_GIVE_UP = ("remember-why", "remember-tried")
_TRY = ("count-cycle", "restore-attempts", "count-attempt")
_CHOSEN = ("forget-target", "forget-tried", "restore-attempts", "clear-cycles")
_LOOK = ("remember-why", "forget-target")
_WITHOUT = ("forget-packages", "restore-attempts")
_LOOK_ANEW = (*_LOOK, "forget-elsewhere")

ROWS = (
    # the ordinary boot
    ("CONFIRMED", "started", "CONFIRMED", "boot", ("count-attempt",)),
    ("TRYING", "started", "TRYING", "boot", ("count-attempt",)),
    ("PRISTINE", "started", "PRISTINE", "boot_pristine", ("count-attempt",)),
    (("CONFIRMED", "STAGED"), "uncounted_boot_allowed", "CONFIRMED", "boot", ()),
    # the OS says that it runs well
    (("CONFIRMED", "TRYING"), "marked_good", "CONFIRMED", "none", (*_GOOD, "keep-packages")),
    ("PRISTINE", "marked_good", "CONFIRMED", "none", (*_GOOD, "fresh-upper", "forget-packages")),
    # the OS installs another image, or a person chooses the other slot; the next start boots it
    ("CONFIRMED", "update_started", "CONFIRMED", "none", ("doubt-target",)),
    ("CONFIRMED", "update_installed", "TRYING", "none", ("adopt-target", *_CHOSEN)),
    ((*BOOTABLE, "STAGED"), "update_staged", "STAGED", "none", ("retry-target",)),
    (BOOTABLE, "rolled_back", "TRYING", "none", ("switch-slot", *_CHOSEN)),
    ("STAGED", "rolled_back", "TRYING", "none", _CHOSEN),
    # packages: the OS stages them; it carries them out itself, or leaves that to recovery
    ("CONFIRMED", "packages_staged", "PACKAGES_PENDING", "none", ()),
    ("PACKAGES_PENDING", "packages_applied", "TRYING", "none", ("restore-attempts",)),
    (("PACKAGES_PENDING", "TRYING"), "packages_taken_back", "TRYING", "none", _WITHOUT),
    (BOOTABLE, "packages_found", "PACKAGES_PENDING", "finish_packages", ("remember-why", "count-cycle")),
    ("PACKAGES_PENDING", "packages_finished", "TRYING", "boot", ("restore-attempts", "count-attempt")),
    ("TRYING", "packages_failing", "UNDOING_PACKAGES", "undo_packages", ("remember-why",)),
    (
        ("PACKAGES_PENDING", "UNDOING_PACKAGES"), "packages_undone",
        "TRYING", "boot", (*_WITHOUT, "count-attempt"),
    ),
    (
        ("PACKAGES_PENDING", "UNDOING_PACKAGES"), "packages_damaged",
        "SUSPECT", "verify", (*_LOOK, "forget-packages"),
    ),
    # one slot: nothing is written before the whole replacement verifies
    ("STAGED", "replacement_verified", "REINSTALLING", "reinstall", ("doubt-target", "clear-cycles")),
    ("STAGED", "source_missing", "SUSPECT", "verify", ("forget-target",)),
    # into recovery: first a look, always. What ran well does so no more: what failed before may be all there is now
    ("CONFIRMED", ("attempts_exhausted", "boot_failed", "recovery_requested"), "SUSPECT", "verify", _LOOK_ANEW),
    ("TRYING", ("attempts_exhausted", "boot_failed"), "SUSPECT", "verify", _LOOK),
    (("TRYING", "PRISTINE"), "recovery_requested", "SUSPECT", "verify", _LOOK),
    ("PRISTINE", ("attempts_exhausted", "boot_failed"), "REINSTALLING", "reinstall", _GIVE_UP),
    # what the look finds
    ("SUSPECT", "verified_on_request", "CONFIRMED", "boot", ("count-attempt",)),
    ("SUSPECT", "verified_unconfirmed", "TRYING", "boot", ("count-attempt",)),
    ("SUSPECT", "verified_but_failing", "PRISTINE", "boot_pristine", _TRY),
    ("SUSPECT", "verified_after_rest", "TRYING", "boot", _TRY),
    ("SUSPECT", "verified_never_good", "REINSTALLING", "reinstall", ("remember-tried",)),
    ("SUSPECT", "filesystem_checked", "TRYING", "boot", _TRY),
    ("SUSPECT", "filesystem_failing", "WAITING", "rest", ()),
    ("SUSPECT", "frames_damaged", "REPAIRING", "repair", ()),
    ("SUSPECT", "slot_unreadable", "REINSTALLING", "reinstall", ("mark-bad",)),
    ("SUSPECT", "kernel_mismatched", "REINSTALLING", "reinstall", ()),
    # the other slot ran well
    (
        ("SUSPECT", "PRISTINE", "REPAIRING", "REINSTALLING", "VERIFYING", "ACTIVATING"), "other_slot_good",
        "FALLING_BACK", "verify", (*_GIVE_UP, "mark-bad", "switch-slot", "forget-target"),
    ),
    ("FALLING_BACK", "slot_verified", "ACTIVATING", "activate", ()),
    ("FALLING_BACK", "frames_damaged", "REPAIRING", "repair", ()),
    # nothing that ran well is left in a slot: what failed may be all there is now
    ("FALLING_BACK", "slot_unreadable", "REINSTALLING", "reinstall", ("mark-bad", "forget-tried")),
    ("FALLING_BACK", "kernel_mismatched", "REINSTALLING", "reinstall", ("forget-tried",)),
    # bringing the content back
    ("REPAIRING", "frames_rewritten", "VERIFYING", "read_back", ()),
    ("REPAIRING", "source_missing", "REINSTALLING", "reinstall", ("mark-bad",)),
    ("REINSTALLING", "image_written", "VERIFYING", "read_back", ()),
    ("REINSTALLING", "source_missing", "WAITING", "rest", ("forget-target",)),
    (("REPAIRING", "REINSTALLING", "ACTIVATING"), "write_failed", "WAITING", "rest", ()),
    ("VERIFYING", "slot_verified", "ACTIVATING", "activate", ()),
    ("VERIFYING", "frames_damaged", "REINSTALLING", "reinstall", ("count-cycle",)),
    ("VERIFYING", "slot_unreadable", "REINSTALLING", "reinstall", ("count-cycle",)),
    ("ACTIVATING", "activated", "TRYING", "boot", ("adopt-target", "forget-target", *_TRY)),
    # the record itself is gone: the slot says what it holds
    ("JOURNAL_LOST", "slot_verified", "ACTIVATING", "activate", ()),
    ("JOURNAL_LOST", "frames_damaged", "REPAIRING", "repair", ()),
    ("JOURNAL_LOST", ("slot_unreadable", "kernel_mismatched"), "REINSTALLING", "reinstall", ()),
    # rest
    (("SUSPECT", "VERIFYING", "FALLING_BACK"), "repairs_exhausted", "WAITING", "rest", ("remember-tried",)),
    (("WAITING", "BLANK"), "source_appeared", "SUSPECT", "verify", (*_LOOK, "clear-cycles")),
    ("WAITING", "backoff_elapsed", "SUSPECT", "verify", _LOOK),
    ("WAITING", "recovery_requested", "SUSPECT", "verify", (*_LOOK, "clear-cycles", "forget-tried")),
    ("WAITING", "resumed", "WAITING", "rest", ()),
    ("BLANK", "resumed", "BLANK", "rest", ()),
    # after a cut: the same again
    ("SUSPECT", "resumed", "SUSPECT", "verify", ()),
    ("REPAIRING", "resumed", "REPAIRING", "repair", ()),
    ("REINSTALLING", "resumed", "REINSTALLING", "reinstall", ()),
    ("VERIFYING", "resumed", "VERIFYING", "read_back", ()),
    ("ACTIVATING", "resumed", "ACTIVATING", "activate", ()),
    ("JOURNAL_LOST", "resumed", "JOURNAL_LOST", "rebuild", ()),
    ("STAGED", "resumed", "STAGED", "prepare", ()),
    ("PACKAGES_PENDING", "resumed", "PACKAGES_PENDING", "finish_packages", ()),
    ("UNDOING_PACKAGES", "resumed", "UNDOING_PACKAGES", "undo_packages", ()),
    ("FALLING_BACK", "resumed", "FALLING_BACK", "verify", ()),
    (NOT_IN_THIS_IMAGE, "resumed", "SUSPECT", "verify", ()),
    # the journal takes no writes: nothing may be tried uncounted
    (_ALL, "journal_unwritable", "WAITING", "rest", ()),
)  # fmt: skip

# (state, event) -> (next state, action, effects)
TABLE: dict[tuple[str, str], tuple[str, str, tuple[str, ...]]] = {
    (state, event): (following, action, effects)
    for states, events, following, action, effects in ROWS
    for state in ((states,) if isinstance(states, str) else states)
    for event in ((events,) if isinstance(events, str) else events)
}

# Where packages that are being tried are given up before the slot is suspected: `decide.give_way` makes these
# ``packages_failing``.
DOUBTING_PACKAGES = (("TRYING", "attempts_exhausted"), ("TRYING", "boot_failed"))

# Where a slot is given up: the rows of the table that are not taken if the other slot ran well.
GIVING_UP: frozenset[tuple[str, str]] = frozenset((
    *(("SUSPECT", event) for event in (
        "verified_never_good", "slot_unreadable", "kernel_mismatched", "repairs_exhausted", "filesystem_failing",
    )),
    *(("PRISTINE", event) for event in ("attempts_exhausted", "boot_failed")),
    *((state, event) for state in ("REPAIRING", "REINSTALLING") for event in ("source_missing", "write_failed")),
    *(("VERIFYING", event) for event in ("frames_damaged", "slot_unreadable", "repairs_exhausted")),
    ("ACTIVATING", "write_failed"),
))  # fmt: skip
