"""Every cut of whole lives with packages: at every write of the journal and every operation of the file system.

A life: a device whose OS is confirmed is asked for a transaction and switched on again and again, until its packages
are confirmed, or failed and were undone. In every state that a cut leaves the life goes on from there to its end:

* *no mixture*: whenever the OS gets the machine, it sees the old set or the new one, whole;
* *the end is the wished one*: the new set where it is good, else the old one, confirmed, and nothing is left over;
* *the slot is not suspected*: what packages did is undone, no image is looked at for it, and no state set aside.

Evidence only because of the mutants.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from packagemanager import places
from packagemanager.errors import PackageError
from packagemanager.phases import FORWARD, WAITING
from packagemanager.plan_file import encode_phase
from recovery import packages
from recovery.package_ledger import PackageLedger
from recovery.update import UpdateError
from statemachine import decide
from statemachine.record import Record
from statemachine.store import JournalError
from tests.simulator import package_devices
from tests.simulator.devices import Kind, RestingError, Version, ViolationError
from tests.simulator.disk import Fault, PowerCut
from tests.simulator.package_devices import (
    AFTER,
    BEFORE,
    SERIAL,
    TRANSACTION,
    WISHES,
    PackageDevice,
    Wish,
    apply,
    live,
    package_factory,
    system,
)

Cut = tuple[str, int]


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    return Kind((Version(tmp_path_factory.mktemp("versions"), 1, 1),), slots=1, places=1)


def end_of(device: PackageDevice, wish: Wish, lost: bool = False, many: bool = False) -> Iterator[str]:
    """The life from here, without a further fault.

    ``lost``: the journal was, and what it said with it. ``many``: the power went in many starts. Each of them was
    counted as one that failed, so good packages may be undone and the slot be looked at.
    """
    try:
        live(device, wish)
    except (RestingError, ViolationError, PackageError, UpdateError, JournalError) as error:
        yield f"{type(error).__name__}: {error} in {device.record.state}, E{device.record.reason}"
        return
    record, running = device.record, system(device.files)
    ends = [AFTER] * wish.stays + [BEFORE] * (many or not wish.stays)
    if record.state != "CONFIRMED" or running not in ends:
        yield f"ends in {record.state} with {'the new' if running == AFTER else 'the old'} set"
    if device.files.look(places.TRANSACTION) is not None:
        yield "something of the transaction is left"
    suspected = record.upper_generation or record.cycles
    if record.frames_written or (suspected and not many):
        yield "the slot was suspected"
    # A system state that was set aside had them, and what brings them back goes by this.
    may_be_good = {SERIAL} if running == AFTER else {0, SERIAL} if record.upper_generation else {0}
    if not lost and record.packages_good not in may_be_good:
        yield f"transaction {record.packages_good} is called good"


def run_until(device: PackageDevice, wish: Wish, cut: Cut) -> bool:
    """Whether the power was cut there."""
    where, number = cut
    if where == "files":
        device.files.cut_at = device.files.operations + number
    try:
        live(device, wish)
    except PowerCut:
        return True
    return False


def cut_device(kind: Kind, where: str, number: int) -> PackageDevice:
    return package_factory(kind).restarted([Fault("cut", number)] if where == "journal" else ())


def cuts(kind: Kind, wish: Wish, share: int) -> Iterator[tuple[Cut, PackageDevice]]:
    """Each ``share``-th state that a cut at each operation of the life can leave."""
    count = 0
    for where in ("journal", "files"):
        number = 0
        while True:
            device = cut_device(kind, where, number)
            if not run_until(device, wish, (where, number)):
                break
            for state in device.crashed(seed=number):
                count += 1
                if count % share == 0:
                    yield (where, number), state
            number += 1
    assert count >= share, "no state was looked at"


def sweep(kind: Kind, wish: Wish, share: int = 1) -> Iterator[str]:
    for cut, device in cuts(kind, wish, share):
        for problem in end_of(device, wish):
            yield f"cut at {cut}: {problem}"


def sweep_many_cuts(kind: Kind, wish: Wish, lives: int) -> Iterator[str]:
    """Lives with one cut after the other, of the journal or of the file system, each leaving any state that it can."""
    for seed in range(lives):
        chance = Random(seed)
        device = package_factory(kind)
        for _cut in range(chance.randrange(2, 10)):
            where, number = chance.choice(("journal", "files")), chance.randrange(60)
            device = device.restarted([Fault("cut", number)] if where == "journal" else ())
            if not run_until(device, wish, (where, number)):
                break
            device = chance.choice(list(device.crashed(seed)))
        for problem in end_of(device.restarted(), wish, many=True):
            yield f"life {seed}: {problem}"


def sweep_lost_journals(kind: Kind, wish: Wish, share: int) -> Iterator[str]:
    """The cut takes all of the journal with it: the root says what is under way."""
    for cut, device in cuts(kind, wish, share):
        for place in device.config["journal"]["regions"]:
            device.storage.disks[0].rot(place["offset"], place["size"], "random")
        for problem in end_of(device, wish, lost=True):
            yield f"cut at {cut}, and no journal: {problem}"


def sweep_errors(kind: Kind, wish: Wish, share: int = 1) -> Iterator[str]:
    """The file system refuses one operation, anywhere in the life."""
    for number in range(0, 200, share):
        device = package_factory(kind)
        device.files.errors[number] = errno.EIO
        for problem in end_of(device, wish):
            yield f"an error at {number}: {problem}"


pytestmark = [pytest.mark.sweep, pytest.mark.requirement("M7", "M20")]


@pytest.mark.fault("S1", "S2", "S3", "S4")
@pytest.mark.parametrize("name", WISHES)
def test_a_cut_anywhere(kind: Kind, name: str) -> None:
    assert list(sweep(kind, WISHES[name], share=400)) == []


@pytest.mark.fault("S1")
@pytest.mark.parametrize("name", WISHES)
def test_cut_after_cut(kind: Kind, name: str) -> None:
    assert list(sweep_many_cuts(kind, WISHES[name], 4)) == []


@pytest.mark.fault("S1", "R4")
@pytest.mark.parametrize("name", ["offline, undone"])
def test_a_cut_that_takes_the_journal_with_it(kind: Kind, name: str) -> None:
    assert list(sweep_lost_journals(kind, WISHES[name], 1000)) == []


@pytest.mark.fault("S8")
@pytest.mark.parametrize("name", WISHES)
def test_an_error_anywhere(kind: Kind, name: str) -> None:
    assert list(sweep_errors(kind, WISHES[name], share=20)) == []


@pytest.mark.long
@pytest.mark.fault("S1", "S8", "R4")
@pytest.mark.parametrize("name", WISHES)
def test_every_cut_every_error_and_a_thousand_lives(kind: Kind, name: str) -> None:
    assert list(sweep(kind, WISHES[name])) == []
    assert list(sweep_errors(kind, WISHES[name])) == []
    assert list(sweep_lost_journals(kind, WISHES[name], 10)) == []
    assert list(sweep_many_cuts(kind, WISHES[name], 1000)) == []


@pytest.mark.fault("R4")
@pytest.mark.requirement("D8")
def test_a_transaction_that_cannot_be_read_costs_the_system_state_and_nothing_else(kind: Kind) -> None:
    assert ends_without_a_plan(kind, FORWARD) == ("CONFIRMED", 1, 0)


@pytest.mark.fault("R4")
@pytest.mark.requirement("D8")
def test_one_that_waits_and_cannot_be_read_costs_nothing(kind: Kind) -> None:
    assert ends_without_a_plan(kind, WAITING) == ("CONFIRMED", 0, 0)


def ends_without_a_plan(kind: Kind, phase: str) -> tuple[str, int, int]:
    device = package_factory(kind)
    device.boot()
    apply(device, Wish())
    device.files.replace(places.PHASE, encode_phase(phase, b"\x51" * 32))
    for place in places.PLANS:
        device.files.replace(place, b"rotten")
    live(device, Wish())
    record = device.record
    assert system(device.files) == BEFORE
    return record.state, record.upper_generation, record.frames_written


# The mutants: each drops one thing that packages need of the journal and of recovery.


def never_found(_record: Record, _phase: bytes) -> bool:
    return False


def nothing_learned(_record: Record, _facts: dict[str, str]) -> dict[str, Any]:
    return {}


def not_undone(_engine: object, _record: Record) -> tuple[str, int, dict[str, Any]]:
    return "packages_undone", 0, {}


def not_settled(_tree: object) -> None:
    return


real_staged = PackageLedger.staged


def no_serial(self: PackageLedger, _serial: int, _digest: bytes) -> None:
    real_staged(self, 0, TRANSACTION)


def not_told(self: PackageLedger, _serial: int, _digest: bytes) -> None:
    return


MUTANTS: dict[str, tuple[object, str, object]] = {
    "the root is not asked": (package_devices, "packages_unfinished", never_found),
    "the slot is suspected first": (decide, "DOUBTING_PACKAGES", ()),
    "what is found in the root is not counted": (packages, "_learned", nothing_learned),
    "undone in name only": (packages, "_undo", not_undone),
    "what was replaced is kept for ever": (package_devices, "settle", not_settled),
    "the serial is not taken": (PackageLedger, "staged", no_serial),
    "the journal is not told": (PackageLedger, "staged", not_told),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(where, attribute, mutant)
    assert next(_problems(kind), None) is not None


def _problems(kind: Kind) -> Iterator[str]:
    """The cheap lives first."""
    for wish in WISHES.values():
        yield from end_of(package_factory(kind), wish)
    for wish in WISHES.values():
        yield from sweep_lost_journals(kind, wish, share=150)
