"""What the OS tells the journal of packages, on a simulated device; and what recovery reads in a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packagemanager import places
from packagemanager.phases import PHASES
from packagemanager.plan_file import encode_phase
from packagemanager.root import Root
from recovery import update
from recovery.package_ledger import PackageLedger
from recovery.package_phase import PHASE, UNREADABLE, packages_phase
from recovery.update import UpdateError
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Record
from tests.simulator.devices import Device, Kind, Version, factory

PACKAGES = b"p" * 32


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return factory(Kind((Version(tmp_path, 1, 1), Version(tmp_path, 2, 2))), installed=1)


def record_of(device: Device) -> Record:
    return device.journal(look_only=True).record


def refusal(error: pytest.ExceptionInfo[UpdateError]) -> int:
    return error.value.reason


def test_a_staged_transaction_waits_for_the_next_start(device: Device) -> None:
    ledger = PackageLedger(device.ledger())
    assert ledger.check() == 0
    ledger.staged(7, PACKAGES)
    record = record_of(device)
    assert (record.state, record.packages_serial, record.packages_digest) == ("PACKAGES_PENDING", 7, PACKAGES)
    assert record.reason == CODES["packages-pending"]
    with pytest.raises(UpdateError) as error:
        ledger.check()
    assert refusal(error) == CODES["packages-pending"]


def test_applied_packages_are_on_trial_until_the_os_says_that_it_runs_well(device: Device) -> None:
    ledger = PackageLedger(device.ledger())
    ledger.staged(7, PACKAGES)
    ledger.applied()
    assert (record_of(device).state, record_of(device).packages_good) == ("TRYING", 0)
    with pytest.raises(UpdateError):
        ledger.staged(8, PACKAGES)
    update.commit(device.workshop(), device.ledger(), packages_on_trial=True)
    record = record_of(device)
    assert (record.state, record.packages_good, record.packages_digest) == ("CONFIRMED", 7, NO_DIGEST)
    assert ledger.check() == 7


def test_packages_that_are_not_in_the_root_that_runs_are_not_called_good(device: Device) -> None:
    ledger = PackageLedger(device.ledger())
    ledger.staged(7, PACKAGES)
    ledger.applied()
    update.commit(device.workshop(), device.ledger(), packages_on_trial=False)
    record = record_of(device)
    assert (record.state, record.packages_good, record.packages_digest) == ("CONFIRMED", 0, NO_DIGEST)


def test_what_was_taken_back_is_not_good_and_not_newer_again(device: Device) -> None:
    ledger = PackageLedger(device.ledger())
    ledger.staged(7, PACKAGES)
    ledger.taken_back()
    record = record_of(device)
    assert (record.state, record.packages_digest, record.packages_good) == ("TRYING", NO_DIGEST, 0)
    update.commit(device.workshop(), device.ledger())
    assert ledger.check() == 7, "the same transaction is not taken a second time"
    assert record_of(device).packages_good == 0


def test_a_failing_script_leaves_the_undoing_to_recovery(device: Device) -> None:
    ledger = PackageLedger(device.ledger())
    ledger.staged(7, PACKAGES)
    ledger.applied()
    ledger.failing()
    record = record_of(device)
    assert (record.state, record.entered) == ("UNDOING_PACKAGES", CODES["packages-script-failed"])


@pytest.mark.parametrize("told", ["taken_back", "failing"])
def test_an_image_on_trial_is_no_package_on_trial(device: Device, told: str) -> None:
    journal = device.journal()
    journal.persist(journal.record.but(state="TRYING"))
    with pytest.raises(UpdateError) as error:
        getattr(PackageLedger(device.ledger()), told)()
    assert refusal(error) == CODES["packages-absent"]
    assert record_of(device).state == "TRYING"


def test_an_image_is_not_updated_while_packages_are_on_trial(device: Device) -> None:
    ledger = PackageLedger(device.ledger())
    ledger.staged(7, PACKAGES)
    for reason in ("packages-pending", "not-confirmed"):
        with pytest.raises(UpdateError) as error:
            update.update(device.workshop(), device.ledger(), device.stick(2))
        assert refusal(error) == CODES[reason]
        if record_of(device).state == "PACKAGES_PENDING":
            ledger.applied()


def test_the_phase_in_a_root(tmp_path: Path) -> None:
    root, place = str(tmp_path), tmp_path / PHASE
    assert packages_phase(root) == b""
    place.parent.mkdir(parents=True)
    assert packages_phase(root) == b""
    for phase in PHASES:
        place.write_bytes(encode_phase(phase, bytes(32)))
        assert packages_phase(root) == phase.encode()
    for rotten in (b"", b"forward\n", b"\0" * 400, b"unbrick-phase 1 forward"):
        place.write_bytes(rotten)
        assert packages_phase(root) == UNREADABLE
    place.unlink()
    place.symlink_to("elsewhere")
    assert packages_phase(root) == UNREADABLE


def test_no_boot_waits_for_the_other_end_of_a_pipe_in_the_place_of_the_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / PHASE
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    flags: list[int] = []
    opened = os.open

    def noting(path: str, wanted: int) -> int:
        flags.append(wanted)
        return opened(path, wanted | os.O_NONBLOCK)  # a test must end

    monkeypatch.setattr(os, "open", noting)
    assert packages_phase(str(tmp_path)) == UNREADABLE
    assert flags and all(wanted & os.O_NONBLOCK for wanted in flags)
    writer = opened(place, os.O_RDWR)
    assert packages_phase(str(tmp_path)) == UNREADABLE
    os.close(writer)


@pytest.mark.parametrize(
    ("link", "target"),
    [("var", "/usr/state"), ("var", "usr/state"), ("var/lib", "../../../usr/state/lib"), ("var/lib", "/./one")],
)
def test_a_phase_behind_a_link_is_the_one_that_the_os_would_see(tmp_path: Path, link: str, target: str) -> None:
    root = tmp_path / "root"
    (root / "usr/state/lib").mkdir(parents=True)
    (root / "one").symlink_to("/usr//state/lib")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(target)
    tree = Root(str(root))
    assert packages_phase(str(root)) == b""
    places.make_folders(tree, places.TRANSACTION)
    assert packages_phase(str(root)) == b""
    tree.write(places.PHASE, [encode_phase("forward", bytes(32))])
    tree.close()
    assert packages_phase(str(root)) == b"forward"


def test_a_link_that_leads_round_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "var").symlink_to("/var")
    assert packages_phase(str(tmp_path)) == UNREADABLE
