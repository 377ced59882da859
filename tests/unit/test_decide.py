"""Why are we here, what does a look mean, and that nothing goes round for ever."""

import re
from pathlib import Path

import pytest

from statemachine.bound import EndlessRebootError, boots_max, every_record
from statemachine.decide import Evidence, decide, give_way, judge, packages_unfinished, slot_to_rewrite
from statemachine.drawing import reasons_document, states_document
from statemachine.limits import CYCLES_MAX
from statemachine.reasons import CODES, REASONS, label
from statemachine.record import Image, Record, Slot
from statemachine.table import GIVING_UP, STATES, TABLE

DOCUMENTS = Path(__file__).parents[2] / "docs"
IMAGE = Image(b"i" * 32, 5, 4096, "immutable")
PACKAGES = b"p" * 32
OLDER = Image(b"o" * 32, 4, 4096, "immutable")
CONFIRMED = Record("CONFIRMED", attempts_left=2, slots=(Slot(IMAGE, "good"),), confirmed=IMAGE.digest)
TWO = Record("SUSPECT", slots=(Slot(IMAGE), Slot(OLDER, "good")), confirmed=OLDER.digest, floor=4)


def test_an_ordinary_boot_starts() -> None:
    assert decide(CONFIRMED, Evidence()) == ("started", CODES["started"])


@pytest.mark.requirement("D4")
@pytest.mark.requirement("D9")
@pytest.mark.requirement("M11")
def test_a_boot_without_attempts_is_a_failed_one_whatever_its_cause() -> None:
    for cause in ("clean", "watchdog", "panic", "unknown"):
        for requested_by in (0, CODES["button-held"]):
            evidence = Evidence(requested_by=requested_by, reset_cause=cause)
            assert decide(CONFIRMED.but(attempts_left=0), evidence)[0] == "attempts_exhausted"


@pytest.mark.requirement("D10")
def test_a_held_button_asks_for_recovery() -> None:
    evidence = Evidence(requested_by=CODES["button-held"])
    assert decide(CONFIRMED, evidence) == ("recovery_requested", CODES["button-held"])


def test_a_request_of_the_os_asks_for_recovery() -> None:
    assert decide(CONFIRMED.but(requested=True), Evidence()) == ("recovery_requested", CODES["recovery-requested"])


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("CONFIRMED", "TRYING", "PRISTINE")])
def test_work_that_was_cut_short_is_resumed(state: str) -> None:
    assert decide(Record(state), Evidence())[0] == "resumed"


def test_a_resting_device_that_is_switched_on_again_still_says_why() -> None:
    resting = Record("WAITING", reason=CODES["no-source"])
    assert decide(resting, Evidence()) == ("resumed", CODES["no-source"])


@pytest.mark.fault("S11")
@pytest.mark.parametrize("record", [CONFIRMED, CONFIRMED.but(state="TRYING", confirmed=bytes(32))])
def test_a_journal_that_took_no_writes_is_not_the_images_fault(record: Record) -> None:
    suspect = record.but(state="SUSPECT", entered=CODES["journal-unwritable"])
    assert judge(suspect, "intact")[0] in ("verified_on_request", "verified_unconfirmed")
    assert judge(suspect.but(attempts_left=0), "intact")[0] not in ("verified_on_request", "verified_unconfirmed")


@pytest.mark.requirement("D9")
def test_what_is_whole_is_tried_again_after_a_rest_and_not_before() -> None:
    """Power cuts alone may have used its attempts up."""
    failed = Record("SUSPECT", slots=(Slot(IMAGE),), confirmed=OLDER.digest, tried=(IMAGE.digest,), cycles=CYCLES_MAX)
    suspect = failed.but(attempts_left=0, entered=CODES["tried-again"])
    assert judge(suspect, "intact") == ("verified_after_rest", CODES["slot-verified"])
    assert judge(suspect, "damaged")[0] != "verified_after_rest"
    assert judge(suspect.but(entered=CODES["attempts-exhausted"]), "intact")[0] == "repairs_exhausted"


@pytest.mark.fault("H7")
def test_a_stuck_button_does_not_stop_work_in_progress() -> None:
    assert decide(Record("REPAIRING"), Evidence(requested_by=CODES["button-held"]))[0] == "resumed"


@pytest.mark.fault("S11")
def test_without_a_journal_only_a_confirmed_os_after_a_clean_reset_starts() -> None:
    for state in STATES:
        for cause in ("clean", "watchdog", "panic", "unknown"):
            event, reason = decide(CONFIRMED.but(state=state), Evidence(journal_writable=False, reset_cause=cause))
            allowed = state in ("CONFIRMED", "STAGED") and cause == "clean"
            assert event == ("uncounted_boot_allowed" if allowed else "journal_unwritable")
            assert reason == CODES["journal-unwritable"]
            assert (state, event) in TABLE


@pytest.mark.fault("S11")
def test_without_a_journal_an_os_on_trial_is_not_started_from_staged_either() -> None:
    record = CONFIRMED.but(state="STAGED", confirmed=bytes(32))
    assert decide(record, Evidence(journal_writable=False))[0] == "journal_unwritable"


@pytest.mark.requirement("D4", "M7")
@pytest.mark.parametrize(("state", "event"), sorted(GIVING_UP))
def test_a_slot_gives_way_to_one_that_ran_well(state: str, event: str) -> None:
    record = TWO.but(state=state)
    assert give_way(record, event) == "other_slot_good"
    assert give_way(record.but(floor=5), event) == event, "below the floor"
    assert give_way(record.but(tried=(OLDER.digest,)), event) == event, "it failed as well"
    for condition in ("unknown", "bad"):
        assert give_way(record.with_condition(1, condition), event) == event
    assert give_way(record.but(slots=record.slots[:1]), event) == event, "there is one slot"
    assert give_way(record.with_slot(1, Slot(Image(version=5), "good")), event) == event, "it holds nothing"


def test_nothing_else_gives_way() -> None:
    for state, event in set(TABLE) - GIVING_UP:
        assert give_way(TWO.but(state=state), event) == event


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("event", ["attempts_exhausted", "boot_failed"])
def test_packages_on_trial_are_given_up_before_the_slot_is_suspected(event: str) -> None:
    trying = TWO.but(state="TRYING", packages_digest=PACKAGES)
    assert give_way(trying, event) == "packages_failing"
    assert give_way(trying.but(packages_digest=bytes(32)), event) == event, "no packages are being tried"
    assert give_way(trying.but(state="CONFIRMED"), event) == event, "they ran well"


def test_a_transaction_that_is_found_again_and_again_is_a_failed_boot() -> None:
    for state in ("CONFIRMED", "TRYING", "PRISTINE"):
        assert give_way(CONFIRMED.but(state=state), "packages_found") == "packages_found"
    assert give_way(CONFIRMED.but(cycles=CYCLES_MAX), "packages_found") == "boot_failed"
    trying = CONFIRMED.but(state="TRYING", cycles=CYCLES_MAX, packages_digest=PACKAGES)
    assert give_way(trying, "packages_found") == "packages_failing"


@pytest.mark.requirement("M7")
@pytest.mark.fault("S1")
def test_a_root_with_a_mixture_is_never_handed_over_to() -> None:
    for state in STATES:
        for digest in (bytes(32), PACKAGES):
            record = CONFIRMED.but(state=state, packages_digest=digest)
            assert packages_unfinished(record, b"forward")
            assert packages_unfinished(record, b"back")
            assert packages_unfinished(record, b"?"), "what does not read may be anything"
            assert not packages_unfinished(record, b"")
            assert not packages_unfinished(record, b"done")
            unknown = state == "TRYING" and digest == bytes(32)
            assert packages_unfinished(record, b"trying") == unknown, "a set on trial that nobody counts"
            nowhere = record.but(packages_serial=2, packages_good=1)
            assert packages_unfinished(nowhere, b"trying") == (digest == bytes(32)), "it never ran well"


def test_packages_on_trial_are_not_confirmed_by_a_look_at_the_slot() -> None:
    suspect = CONFIRMED.but(state="SUSPECT", entered=CODES["button-held"], packages_digest=PACKAGES)
    assert judge(suspect, "intact")[0] == "verified_unconfirmed"


@pytest.mark.fault("S11")
def test_without_a_journal_packages_on_trial_are_not_started() -> None:
    for state in ("CONFIRMED", "STAGED"):
        record = CONFIRMED.but(state=state, packages_digest=PACKAGES)
        assert decide(record, Evidence(journal_writable=False))[0] == "journal_unwritable"


@pytest.mark.requirement("M6")
def test_the_slot_whose_loss_costs_least_is_rewritten() -> None:
    chosen = {
        ("good", "unknown"): 1,
        ("good", "bad"): 1,
        ("unknown", "unknown"): 0,
        ("unknown", "bad"): 1,
        ("bad", "bad"): 0,
        ("bad", "unknown"): 0,
        ("good", "good"): 0,
        ("good",): 0,
    }
    for conditions, number in chosen.items():
        slots = tuple(Slot(IMAGE, condition) for condition in conditions)
        assert slot_to_rewrite(Record(slots=slots)) == number
        if len(slots) == 2:
            assert slot_to_rewrite(Record(slots=slots[::-1], primary=1)) == 1 - number


def test_an_intact_slot_boots_on_request_and_goes_pristine_when_it_fails() -> None:
    suspect = CONFIRMED.but(state="SUSPECT", entered=CODES["button-held"])
    assert judge(suspect, "intact")[0] == "verified_on_request"
    assert judge(suspect.but(confirmed=bytes(32)), "intact")[0] == "verified_unconfirmed"
    assert judge(suspect.but(attempts_left=0), "intact")[0] == "verified_but_failing"
    failing = suspect.but(entered=CODES["attempts-exhausted"])
    assert judge(failing, "intact")[0] == "verified_but_failing"
    assert judge(failing.but(confirmed=bytes(32)), "intact")[0] == "verified_never_good"
    assert judge(failing.but(tried=(IMAGE.digest,)), "intact")[0] == "verified_never_good"


def test_cycles_end_but_a_finished_repair_is_not_thrown_away() -> None:
    suspect = CONFIRMED.but(state="SUSPECT", cycles=CYCLES_MAX, entered=CODES["attempts-exhausted"])
    assert judge(suspect, "damaged")[0] == "repairs_exhausted"
    assert judge(suspect.but(state="VERIFYING"), "intact")[0] == "slot_verified"
    assert judge(suspect.but(state="JOURNAL_LOST"), "damaged")[0] == "frames_damaged"


def test_every_judgement_has_a_row_wherever_it_can_be_reached() -> None:
    outcomes = {
        "SUSPECT": ("intact", "damaged", "unreadable", "kernel-mismatch", "checked"),
        "FALLING_BACK": ("intact", "damaged", "unreadable", "kernel-mismatch", "checked"),
        "VERIFYING": ("intact", "damaged", "unreadable"),
        "JOURNAL_LOST": ("intact", "damaged", "unreadable", "kernel-mismatch"),
    }
    for record in every_record():
        for outcome in outcomes.get(record.state, ()):
            assert (record.state, judge(record, outcome)[0]) in TABLE


@pytest.mark.requirement("M20")
@pytest.mark.fault("H4")
def test_an_os_that_never_runs_well_comes_to_rest_within_k_boots() -> None:
    assert boots_max(attempts=3, slots=1) == 28
    assert boots_max(attempts=3, slots=2) == 30


@pytest.mark.fault("H4")
def test_a_table_that_goes_round_for_ever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAUC's sample script: all counters at zero start again with full counters."""
    row = ("CONFIRMED", "boot", ("restore-attempts", "count-attempt"))
    monkeypatch.setitem(TABLE, ("CONFIRMED", "attempts_exhausted"), row)
    with pytest.raises(EndlessRebootError, match="CONFIRMED"):
        boots_max(attempts=3)


@pytest.mark.parametrize(("name", "drawn"), [("states.md", states_document), ("reasons.md", reasons_document)])
def test_the_drawn_documents_are_current(name: str, drawn: object) -> None:
    assert callable(drawn)
    assert (DOCUMENTS / name).read_text() == drawn(), f"run `unbrick states` to draw docs/{name} again"


def test_reasons_have_unique_words_and_a_label() -> None:
    assert len(CODES) == len(REASONS)
    assert label(104) == "E104 attempts-exhausted"
    assert label(777) == "E777 unknown"


def test_pid_1_speaks_in_the_same_reasons() -> None:
    sources = (DOCUMENTS.parent / "recovery" / "native").glob("*.c")
    said = {pair for source in sources for pair in re.findall(r'"E(\d{3}) ([a-z0-9-]+)', source.read_text())}
    assert said
    assert {code: REASONS[int(code)][0] for code, _ in said} == dict(said)
