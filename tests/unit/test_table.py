"""One test for each transition of the table, by name: the last test here fails when one is missing.

Each says the next state, the action, and every field of the record that changes; whatever is not named
must stay as it was. The expectations are written out, not read from the table.
"""

import sys
from itertools import product

import pytest

from recovery.engine import Engine
from statemachine.limits import TRIED_IMAGES_MAX
from statemachine.record import Image, Record, Slot
from statemachine.step import IllegalEventError, step
from statemachine.table import ACTIONS, EFFECTS, EVENTS, GIVING_UP, STATES, TABLE

ATTEMPTS = 3
NONE = Image()
PACKAGES, NO_PACKAGES = b"p" * 32, bytes(32)
INSTALLED = Image(b"i" * 32, 5, 4096, "immutable")
OTHER = Image(b"a" * 32, 4, 4096, "immutable")
TARGET = Image(b"t" * 32, 6, 4096, "immutable")
OLD = b"o" * 32
REASON = 113


BACK: dict[str, object] = {
    "primary": 0, "attempts_left": 3, "cycles": 0, "tried": (), "target": NONE, "packages_digest": NO_PACKAGES,
}  # fmt: skip


def slots(other: Image = OTHER, other_condition: str = "good", condition: str = "unknown") -> tuple[Slot, ...]:
    """The two slots: the other one (0), then the primary one (1)."""
    return Slot(other, other_condition), Slot(INSTALLED, condition)


def record_in(state: str) -> Record:
    """The primary slot is 1; what runs was booted from 0, and 0 is what the target goes to."""
    return Record(
        state,
        attempts_left=2,
        cycles=1,
        boots=7,
        floor=3,
        entered=104,
        requested=True,
        tried=(OLD,),
        slots=slots(),
        primary=1,
        booted=0,
        target=TARGET,
        target_slot=0,
        confirmed=b"c" * 32,
        confirmed_version=4,
        upper_generation=1,
        packages_serial=9,
        packages_good=8,
        packages_digest=PACKAGES,
    )


def expect(state: str, event: str, following: str, action: str, **changed: object) -> None:
    before = record_in(state)
    after, then = step(before, event, ATTEMPTS, reason=REASON)
    assert then == action
    assert after == before.but(state=following, requested=False, reason=REASON, **changed)
    assert before == record_in(state), "the record before the step must not change"


def test_confirmed_started() -> None:
    expect("CONFIRMED", "started", "CONFIRMED", "boot", attempts_left=1, booted=1)


def test_trying_started() -> None:
    expect("TRYING", "started", "TRYING", "boot", attempts_left=1, booted=1)


def test_pristine_started() -> None:
    expect("PRISTINE", "started", "PRISTINE", "boot_pristine", attempts_left=1, booted=1)


def test_confirmed_uncounted_boot_allowed() -> None:
    expect("CONFIRMED", "uncounted_boot_allowed", "CONFIRMED", "boot")


def test_confirmed_marked_good() -> None:
    expect(
        "CONFIRMED",
        "marked_good",
        "CONFIRMED",
        "none",
        attempts_left=3,
        cycles=0,
        entered=0,
        slots=slots(condition="good"),
        confirmed=INSTALLED.digest,
        confirmed_version=5,
        packages_good=9,
        packages_digest=NO_PACKAGES,
    )


def test_trying_marked_good() -> None:
    expect(
        "TRYING",
        "marked_good",
        "CONFIRMED",
        "none",
        attempts_left=3,
        cycles=0,
        entered=0,
        slots=slots(condition="good"),
        confirmed=INSTALLED.digest,
        confirmed_version=5,
        packages_good=9,
        packages_digest=NO_PACKAGES,
    )


def test_pristine_marked_good() -> None:
    expect(
        "PRISTINE",
        "marked_good",
        "CONFIRMED",
        "none",
        attempts_left=3,
        cycles=0,
        entered=0,
        upper_generation=2,
        slots=slots(condition="good"),
        confirmed=INSTALLED.digest,
        confirmed_version=5,
        packages_digest=NO_PACKAGES,
    )


def test_what_runs_well_and_what_is_chosen_has_not_failed() -> None:
    before = record_in("TRYING").but(tried=(OLD, INSTALLED.digest, TARGET.digest))
    assert step(before, "marked_good", ATTEMPTS)[0].tried == (OLD, TARGET.digest)
    assert step(before, "update_staged", ATTEMPTS)[0].tried == (OLD, INSTALLED.digest)


def test_of_many_images_that_failed_the_last_ones_are_remembered() -> None:
    failed = tuple(bytes([number]) * 32 for number in range(200, 200 + TRIED_IMAGES_MAX))
    before = record_in("SUSPECT").but(tried=failed)
    assert step(before, "verified_never_good", ATTEMPTS)[0].tried == (*failed[1:], INSTALLED.digest)


def test_confirmed_attempts_exhausted() -> None:
    expect("CONFIRMED", "attempts_exhausted", "SUSPECT", "verify", entered=113, target=NONE, tried=())


def test_trying_attempts_exhausted() -> None:
    expect("TRYING", "attempts_exhausted", "SUSPECT", "verify", entered=113, target=NONE)


def test_confirmed_boot_failed() -> None:
    expect("CONFIRMED", "boot_failed", "SUSPECT", "verify", entered=113, target=NONE, tried=())


def test_trying_boot_failed() -> None:
    expect("TRYING", "boot_failed", "SUSPECT", "verify", entered=113, target=NONE)


def test_confirmed_recovery_requested() -> None:
    expect("CONFIRMED", "recovery_requested", "SUSPECT", "verify", entered=113, target=NONE, tried=())


def test_trying_recovery_requested() -> None:
    expect("TRYING", "recovery_requested", "SUSPECT", "verify", entered=113, target=NONE)


def test_pristine_recovery_requested() -> None:
    expect("PRISTINE", "recovery_requested", "SUSPECT", "verify", entered=113, target=NONE)


def test_pristine_attempts_exhausted() -> None:
    expect("PRISTINE", "attempts_exhausted", "REINSTALLING", "reinstall", entered=113, tried=(OLD, INSTALLED.digest))


def test_pristine_boot_failed() -> None:
    expect("PRISTINE", "boot_failed", "REINSTALLING", "reinstall", entered=113, tried=(OLD, INSTALLED.digest))


def test_suspect_verified_on_request() -> None:
    expect("SUSPECT", "verified_on_request", "CONFIRMED", "boot", attempts_left=1, booted=1)


def test_suspect_verified_unconfirmed() -> None:
    expect("SUSPECT", "verified_unconfirmed", "TRYING", "boot", attempts_left=1, booted=1)


def test_suspect_verified_after_rest() -> None:
    expect("SUSPECT", "verified_after_rest", "TRYING", "boot", attempts_left=2, cycles=2, booted=1)


def test_suspect_verified_but_failing() -> None:
    expect("SUSPECT", "verified_but_failing", "PRISTINE", "boot_pristine", cycles=2, booted=1)


def test_suspect_verified_never_good() -> None:
    expect("SUSPECT", "verified_never_good", "REINSTALLING", "reinstall", tried=(OLD, INSTALLED.digest))


def test_suspect_filesystem_checked() -> None:
    expect("SUSPECT", "filesystem_checked", "TRYING", "boot", cycles=2, booted=1)


def test_suspect_filesystem_failing() -> None:
    expect("SUSPECT", "filesystem_failing", "WAITING", "rest")


def test_suspect_frames_damaged() -> None:
    expect("SUSPECT", "frames_damaged", "REPAIRING", "repair")


def test_suspect_slot_unreadable() -> None:
    expect("SUSPECT", "slot_unreadable", "REINSTALLING", "reinstall", slots=slots(condition="bad"))


def test_suspect_kernel_mismatched() -> None:
    expect("SUSPECT", "kernel_mismatched", "REINSTALLING", "reinstall")


def test_repairing_frames_rewritten() -> None:
    expect("REPAIRING", "frames_rewritten", "VERIFYING", "read_back")


def test_repairing_source_missing() -> None:
    expect("REPAIRING", "source_missing", "REINSTALLING", "reinstall", slots=slots(condition="bad"))


def test_reinstalling_image_written() -> None:
    expect("REINSTALLING", "image_written", "VERIFYING", "read_back")


def test_reinstalling_source_missing() -> None:
    expect("REINSTALLING", "source_missing", "WAITING", "rest", target=NONE)


def test_repairing_write_failed() -> None:
    expect("REPAIRING", "write_failed", "WAITING", "rest")


def test_reinstalling_write_failed() -> None:
    expect("REINSTALLING", "write_failed", "WAITING", "rest")


def test_activating_write_failed() -> None:
    expect("ACTIVATING", "write_failed", "WAITING", "rest")


def test_verifying_slot_verified() -> None:
    expect("VERIFYING", "slot_verified", "ACTIVATING", "activate")


def test_verifying_frames_damaged() -> None:
    expect("VERIFYING", "frames_damaged", "REINSTALLING", "reinstall", cycles=2)


def test_verifying_slot_unreadable() -> None:
    expect("VERIFYING", "slot_unreadable", "REINSTALLING", "reinstall", cycles=2)


def test_activating_activated() -> None:
    installed = slots(TARGET, "unknown")
    adopted = {"slots": installed, "primary": 0, "target": NONE, "packages_digest": NO_PACKAGES}
    expect("ACTIVATING", "activated", "TRYING", "boot", cycles=2, **adopted)


def test_journal_lost_slot_verified() -> None:
    expect("JOURNAL_LOST", "slot_verified", "ACTIVATING", "activate")


def test_journal_lost_frames_damaged() -> None:
    expect("JOURNAL_LOST", "frames_damaged", "REPAIRING", "repair")


def test_journal_lost_slot_unreadable() -> None:
    expect("JOURNAL_LOST", "slot_unreadable", "REINSTALLING", "reinstall")


def test_journal_lost_kernel_mismatched() -> None:
    expect("JOURNAL_LOST", "kernel_mismatched", "REINSTALLING", "reinstall")


def test_suspect_repairs_exhausted() -> None:
    expect("SUSPECT", "repairs_exhausted", "WAITING", "rest", tried=(OLD, INSTALLED.digest))


def test_verifying_repairs_exhausted() -> None:
    expect("VERIFYING", "repairs_exhausted", "WAITING", "rest", tried=(OLD, INSTALLED.digest))


def test_waiting_source_appeared() -> None:
    expect("WAITING", "source_appeared", "SUSPECT", "verify", cycles=0, entered=113, target=NONE)


def test_blank_source_appeared() -> None:
    expect("BLANK", "source_appeared", "SUSPECT", "verify", cycles=0, entered=113, target=NONE)


def test_waiting_backoff_elapsed() -> None:
    expect("WAITING", "backoff_elapsed", "SUSPECT", "verify", entered=113, target=NONE)


def test_waiting_recovery_requested() -> None:
    expect("WAITING", "recovery_requested", "SUSPECT", "verify", cycles=0, entered=113, tried=(), target=NONE)


def test_waiting_resumed() -> None:
    expect("WAITING", "resumed", "WAITING", "rest")


def test_blank_resumed() -> None:
    expect("BLANK", "resumed", "BLANK", "rest")


def test_suspect_resumed() -> None:
    expect("SUSPECT", "resumed", "SUSPECT", "verify")


def test_repairing_resumed() -> None:
    expect("REPAIRING", "resumed", "REPAIRING", "repair")


def test_reinstalling_resumed() -> None:
    expect("REINSTALLING", "resumed", "REINSTALLING", "reinstall")


def test_verifying_resumed() -> None:
    expect("VERIFYING", "resumed", "VERIFYING", "read_back")


def test_activating_resumed() -> None:
    expect("ACTIVATING", "resumed", "ACTIVATING", "activate")


def test_journal_lost_resumed() -> None:
    expect("JOURNAL_LOST", "resumed", "JOURNAL_LOST", "rebuild")


def test_provisioning_resumed() -> None:
    expect("PROVISIONING", "resumed", "SUSPECT", "verify")


def test_packages_pending_resumed() -> None:
    expect("PACKAGES_PENDING", "resumed", "PACKAGES_PENDING", "finish_packages")


def test_undoing_packages_resumed() -> None:
    expect("UNDOING_PACKAGES", "resumed", "UNDOING_PACKAGES", "undo_packages")


def test_confirmed_packages_staged() -> None:
    expect("CONFIRMED", "packages_staged", "PACKAGES_PENDING", "none")


def test_packages_pending_packages_applied() -> None:
    expect("PACKAGES_PENDING", "packages_applied", "TRYING", "none", attempts_left=3)


def test_packages_pending_packages_taken_back() -> None:
    taken_back = {"attempts_left": 3, "packages_digest": NO_PACKAGES}
    expect("PACKAGES_PENDING", "packages_taken_back", "TRYING", "none", **taken_back)


def test_trying_packages_taken_back() -> None:
    taken_back = {"attempts_left": 3, "packages_digest": NO_PACKAGES}
    expect("TRYING", "packages_taken_back", "TRYING", "none", **taken_back)


def test_confirmed_packages_found() -> None:
    expect("CONFIRMED", "packages_found", "PACKAGES_PENDING", "finish_packages", entered=113, cycles=2)


def test_trying_packages_found() -> None:
    expect("TRYING", "packages_found", "PACKAGES_PENDING", "finish_packages", entered=113, cycles=2)


def test_pristine_packages_found() -> None:
    expect("PRISTINE", "packages_found", "PACKAGES_PENDING", "finish_packages", entered=113, cycles=2)


def test_packages_pending_packages_finished() -> None:
    expect("PACKAGES_PENDING", "packages_finished", "TRYING", "boot", booted=1)


def test_trying_packages_failing() -> None:
    expect("TRYING", "packages_failing", "UNDOING_PACKAGES", "undo_packages", entered=113)


def test_packages_pending_packages_undone() -> None:
    expect("PACKAGES_PENDING", "packages_undone", "TRYING", "boot", booted=1, packages_digest=NO_PACKAGES)


def test_undoing_packages_packages_undone() -> None:
    expect("UNDOING_PACKAGES", "packages_undone", "TRYING", "boot", booted=1, packages_digest=NO_PACKAGES)


def test_packages_pending_packages_damaged() -> None:
    suspected = {"entered": 113, "target": NONE, "packages_digest": NO_PACKAGES}
    expect("PACKAGES_PENDING", "packages_damaged", "SUSPECT", "verify", **suspected)


def test_undoing_packages_packages_damaged() -> None:
    suspected = {"entered": 113, "target": NONE, "packages_digest": NO_PACKAGES}
    expect("UNDOING_PACKAGES", "packages_damaged", "SUSPECT", "verify", **suspected)


def test_undoing_packages_journal_unwritable() -> None:
    expect("UNDOING_PACKAGES", "journal_unwritable", "WAITING", "rest")


def test_updating_recovery_resumed() -> None:
    expect("UPDATING_RECOVERY", "resumed", "SUSPECT", "verify")


def test_blank_journal_unwritable() -> None:
    expect("BLANK", "journal_unwritable", "WAITING", "rest")


def test_provisioning_journal_unwritable() -> None:
    expect("PROVISIONING", "journal_unwritable", "WAITING", "rest")


def test_confirmed_journal_unwritable() -> None:
    expect("CONFIRMED", "journal_unwritable", "WAITING", "rest")


def test_trying_journal_unwritable() -> None:
    expect("TRYING", "journal_unwritable", "WAITING", "rest")


def test_suspect_journal_unwritable() -> None:
    expect("SUSPECT", "journal_unwritable", "WAITING", "rest")


def test_repairing_journal_unwritable() -> None:
    expect("REPAIRING", "journal_unwritable", "WAITING", "rest")


def test_reinstalling_journal_unwritable() -> None:
    expect("REINSTALLING", "journal_unwritable", "WAITING", "rest")


def test_verifying_journal_unwritable() -> None:
    expect("VERIFYING", "journal_unwritable", "WAITING", "rest")


def test_activating_journal_unwritable() -> None:
    expect("ACTIVATING", "journal_unwritable", "WAITING", "rest")


def test_pristine_journal_unwritable() -> None:
    expect("PRISTINE", "journal_unwritable", "WAITING", "rest")


def test_packages_pending_journal_unwritable() -> None:
    expect("PACKAGES_PENDING", "journal_unwritable", "WAITING", "rest")


def test_updating_recovery_journal_unwritable() -> None:
    expect("UPDATING_RECOVERY", "journal_unwritable", "WAITING", "rest")


def test_journal_lost_journal_unwritable() -> None:
    expect("JOURNAL_LOST", "journal_unwritable", "WAITING", "rest")


def test_waiting_journal_unwritable() -> None:
    expect("WAITING", "journal_unwritable", "WAITING", "rest")


def test_staged_uncounted_boot_allowed() -> None:
    expect("STAGED", "uncounted_boot_allowed", "CONFIRMED", "boot")


def test_confirmed_update_started() -> None:
    expect("CONFIRMED", "update_started", "CONFIRMED", "none", slots=slots(NONE, "bad"))


def test_confirmed_update_installed() -> None:
    chosen = {"attempts_left": 3, "cycles": 0, "tried": (), "target": NONE, "packages_digest": NO_PACKAGES}
    expect(
        "CONFIRMED", "update_installed", "TRYING", "none", slots=slots(TARGET, "unknown"), primary=0, **chosen
    )  # fmt: skip


def test_confirmed_update_staged() -> None:
    expect("CONFIRMED", "update_staged", "STAGED", "none")


def test_trying_update_staged() -> None:
    expect("TRYING", "update_staged", "STAGED", "none")


def test_pristine_update_staged() -> None:
    expect("PRISTINE", "update_staged", "STAGED", "none")


def test_staged_update_staged() -> None:
    expect("STAGED", "update_staged", "STAGED", "none")


def test_staged_rolled_back() -> None:
    expect("STAGED", "rolled_back", "TRYING", "none", attempts_left=3, cycles=0, tried=(), target=NONE)


def test_confirmed_rolled_back() -> None:
    expect("CONFIRMED", "rolled_back", "TRYING", "none", **BACK)


def test_trying_rolled_back() -> None:
    expect("TRYING", "rolled_back", "TRYING", "none", **BACK)


def test_pristine_rolled_back() -> None:
    expect("PRISTINE", "rolled_back", "TRYING", "none", **BACK)


def test_staged_replacement_verified() -> None:
    doubted = slots(NONE, "bad")
    expect("STAGED", "replacement_verified", "REINSTALLING", "reinstall", slots=doubted, cycles=0)


def test_staged_source_missing() -> None:
    expect("STAGED", "source_missing", "SUSPECT", "verify", target=NONE)


def expect_giving_way(state: str) -> None:
    expect(
        state,
        "other_slot_good",
        "FALLING_BACK",
        "verify",
        entered=113,
        tried=(OLD, INSTALLED.digest),
        slots=slots(condition="bad"),
        primary=0,
        target=NONE,
        packages_digest=NO_PACKAGES,
    )


def test_suspect_other_slot_good() -> None:
    expect_giving_way("SUSPECT")


def test_pristine_other_slot_good() -> None:
    expect_giving_way("PRISTINE")


def test_repairing_other_slot_good() -> None:
    expect_giving_way("REPAIRING")


def test_reinstalling_other_slot_good() -> None:
    expect_giving_way("REINSTALLING")


def test_verifying_other_slot_good() -> None:
    expect_giving_way("VERIFYING")


def test_activating_other_slot_good() -> None:
    expect_giving_way("ACTIVATING")


def test_falling_back_slot_verified() -> None:
    expect("FALLING_BACK", "slot_verified", "ACTIVATING", "activate")


def test_falling_back_frames_damaged() -> None:
    expect("FALLING_BACK", "frames_damaged", "REPAIRING", "repair")


def test_falling_back_slot_unreadable() -> None:
    expect("FALLING_BACK", "slot_unreadable", "REINSTALLING", "reinstall", slots=slots(condition="bad"), tried=())


def test_falling_back_kernel_mismatched() -> None:
    expect("FALLING_BACK", "kernel_mismatched", "REINSTALLING", "reinstall", tried=())


def test_falling_back_repairs_exhausted() -> None:
    expect("FALLING_BACK", "repairs_exhausted", "WAITING", "rest", tried=(OLD, INSTALLED.digest))


def test_staged_resumed() -> None:
    expect("STAGED", "resumed", "STAGED", "prepare")


def test_falling_back_resumed() -> None:
    expect("FALLING_BACK", "resumed", "FALLING_BACK", "verify")


def test_staged_journal_unwritable() -> None:
    expect("STAGED", "journal_unwritable", "WAITING", "rest")


def test_falling_back_journal_unwritable() -> None:
    expect("FALLING_BACK", "journal_unwritable", "WAITING", "rest")


def test_packages_stay_on_trial_where_their_own_image_is_written_again() -> None:
    again = record_in("ACTIVATING").but(target=INSTALLED, target_slot=1)
    assert step(again, "activated", ATTEMPTS)[0].packages_digest == PACKAGES


def test_every_transition_has_its_test() -> None:
    here = vars(sys.modules[__name__])
    missing = [f"test_{state.lower()}_{event}" for state, event in TABLE if f"test_{state.lower()}_{event}" not in here]
    assert not missing


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)))
def test_an_illegal_event_raises_and_a_legal_one_agrees_with_the_engine(state: str, event: str) -> None:
    engine = Engine(ATTEMPTS)
    record = record_in(state)
    if (state, event) in TABLE:
        assert engine.step(record, event, reason=1) == step(record, event, ATTEMPTS, reason=1)
        return
    with pytest.raises(IllegalEventError, match=state):
        engine.step(record, event)
    with pytest.raises(IllegalEventError, match=state):
        step(record, event, ATTEMPTS)
    assert record == record_in(state)


def test_every_giving_up_is_a_row_and_gives_way() -> None:
    assert set(TABLE) >= GIVING_UP
    assert {(state, "other_slot_good") for state, _ in GIVING_UP} <= set(TABLE)


def test_every_word_of_the_table_is_defined_and_used() -> None:
    assert {state for state, _ in TABLE} == set(STATES)
    assert {event for _, event in TABLE} == set(EVENTS)
    assert {action for _, action, _ in TABLE.values()} == set(ACTIONS)
    assert {effect for _, _, effects in TABLE.values() for effect in effects} == set(EFFECTS)
    assert {following for following, _, _ in TABLE.values()} <= set(STATES)


def test_every_state_ends_without_a_person() -> None:
    """From each state some event that no person causes leads on, or rests where sources are looked for."""
    by_person = {"recovery_requested", "rolled_back", "update_started", "update_staged", "update_installed"}
    for state in STATES:
        ways = {event for (at, event), (following, _, _) in TABLE.items() if at == state and following != state}
        assert ways - by_person, f"{state} ends only by a person"
