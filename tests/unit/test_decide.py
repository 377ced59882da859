"""Why are we here, what does a look mean, and that nothing goes round for ever."""

import re
from pathlib import Path

import pytest

from statemachine.bound import EndlessRebootError, boots_max, every_record
from statemachine.decide import Evidence, decide, judge
from statemachine.drawing import reasons_document, states_document
from statemachine.limits import CYCLES_MAX
from statemachine.reasons import CODES, REASONS, label
from statemachine.record import Image, Record
from statemachine.table import STATES, TABLE

DOCUMENTS = Path(__file__).parents[2] / "docs"
IMAGE = Image(b"i" * 32, 5, 4096, "immutable")
CONFIRMED = Record("CONFIRMED", attempts_left=2, installed=IMAGE, confirmed=IMAGE.digest)


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


@pytest.mark.fault("H7")
def test_a_stuck_button_does_not_stop_work_in_progress() -> None:
    assert decide(Record("REPAIRING"), Evidence(requested_by=CODES["button-held"]))[0] == "resumed"


@pytest.mark.fault("S11")
def test_without_a_journal_only_a_confirmed_os_after_a_clean_reset_starts() -> None:
    for state in STATES:
        for cause in ("clean", "watchdog", "panic", "unknown"):
            event, reason = decide(CONFIRMED.but(state=state), Evidence(journal_writable=False, reset_cause=cause))
            allowed = state == "CONFIRMED" and cause == "clean"
            assert event == ("uncounted_boot_allowed" if allowed else "journal_unwritable")
            assert reason == CODES["journal-unwritable"]
            assert (state, event) in TABLE


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
        "VERIFYING": ("intact", "damaged", "unreadable"),
        "JOURNAL_LOST": ("intact", "damaged", "unreadable", "kernel-mismatch"),
    }
    for record in every_record():
        for outcome in outcomes.get(record.state, ()):
            assert (record.state, judge(record, outcome)[0]) in TABLE


@pytest.mark.requirement("M20")
@pytest.mark.fault("H4")
def test_an_os_that_never_runs_well_comes_to_rest_within_k_boots() -> None:
    assert boots_max(attempts=3) == 19


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
