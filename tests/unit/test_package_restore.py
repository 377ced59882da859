"""Packages come back where the system state that held them was set aside or lost."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from packagemanager import unchanged
from packagemanager.engine import Engine
from packagemanager.errors import BlockedError, PackageError, RefusedError
from recovery import package_update
from recovery.package_phase import packages_phase
from recovery.package_update import NOTHING, RESTART, STAGED, STAGED_AGAIN
from statemachine.reasons import CODES
from tests.unit.running_os import World, apply, taken
from tests.unit.transaction_samples import state

pytestmark = [pytest.mark.requirement("M4", "M7"), pytest.mark.requirement("D8")]


@pytest.mark.fault("R4")
def test_a_state_that_was_set_aside_gets_its_packages_back(world: World) -> None:
    taken(world, 7)
    assert world.packages().restore() == NOTHING
    world.lose_state()
    assert world.packages(is_scratch=True).restore() == RESTART
    assert world.packages().restore() == STAGED
    assert world.recover() == "packages_finished"
    assert world.record.packages_good == 0, "it has to run well in this state"
    world.mark_good()
    assert (world.content(), world.record.packages_good) == ("7.0", 7)
    assert world.packages().restore() == NOTHING


def test_what_fails_when_it_comes_back_does_not_come_back_again(world: World) -> None:
    taken(world, 7)
    world.lose_state()
    assert world.packages().restore() == STAGED
    world.recover()
    world.device.journal().persist(world.record.but(state="UNDOING_PACKAGES"))
    world.recover("undo")
    world.mark_good()
    assert world.packages().restore() == NOTHING


def test_what_is_dropped_when_it_comes_back_may_come_back_later(world: World) -> None:
    """The time of a kept file is enough. Nobody has to restart for it once more: else the device could go round."""
    taken(world, 7)
    world.lose_state()
    for outcome in (STAGED, STAGED_AGAIN):
        assert world.packages().restore() == outcome
        os.utime(world.root / "var/lib/dpkg/status", ns=(0, 1))
        assert world.recover() == "packages_undone"
        os.utime(world.root / "var/lib/dpkg/status", ns=(0, 2))
        world.mark_good()
        assert (world.content(), world.record.packages_good, world.store.serials()) == ("", 7, [7])
    assert world.packages().restore() == STAGED_AGAIN
    world.packages().undo()
    world.mark_good()
    assert world.packages().restore() == STAGED_AGAIN, "as one that the owner called off"
    assert world.recover() == "packages_finished"
    world.mark_good()
    assert (world.content(), world.packages().restore()) == ("7.0", NOTHING)


@pytest.mark.fault("S7")
@pytest.mark.parametrize("work", ["finish", "undo"])
def test_what_cannot_be_compared_when_it_comes_back_may_come_back_later(
    world: World, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it was tried: a disk that refuses a look is no fault of the set."""

    def refused(*_arguments: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    taken(world, 7)
    world.lose_state()
    assert world.packages().restore() == STAGED
    with monkeypatch.context() as patched:
        patched.setattr(unchanged, "difference", refused)
        if work == "undo":
            world.device.journal().persist(world.record.but(state="UNDOING_PACKAGES"))
        assert world.recover(work) == "packages_undone"
    assert (world.record.reason, world.record.packages_good) == (CODES["packages-changed-meanwhile"], 7)
    world.mark_good()
    assert world.packages().restore() == STAGED_AGAIN
    assert world.recover() == "packages_finished"
    assert world.content() == "7.0"


def test_what_is_in_the_way_when_it_comes_back_does_not_come_back_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocked(*_arguments: object) -> None:
        raise BlockedError("/etc/sample: immutable", "look what is there")

    taken(world, 7)
    world.lose_state()
    assert world.packages().restore() == STAGED
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_forward", blocked)
        assert world.recover() == "packages_undone"
    assert (world.record.reason, world.record.packages_good) == (CODES["packages-undone"], 0)


@pytest.mark.parametrize("forgotten", [{}, {"packages_serial": 0}])
def test_where_no_good_set_is_known_what_is_kept_is_not_wiped_by_a_refused_transaction(
    world: World, forgotten: dict[str, int]
) -> None:
    taken(world, 7)
    world.lose_state()
    world.packages().restore()
    world.recover()
    world.device.journal().persist(world.record.but(state="UNDOING_PACKAGES"))
    world.recover("undo")
    world.mark_good()
    world.device.journal().persist(world.record.but(**forgotten))
    refused = world.master.add("refused", "8.0", {"etc/refused": b""}, Depends="nobody-has-it")
    with pytest.raises(PackageError):
        apply(world, world.transaction(refused, serial=8), live=True)
    assert (world.store.serials(), world.record.packages_good) == ([7, 8], 0)


def test_a_set_that_nothing_here_leads_to_is_said(world: World) -> None:
    taken(world, 7)
    world.lose_state()
    Path(world.store.path(7)).write_bytes(b"rotten")
    with pytest.raises(PackageError, match="transaction 7 is not here"):
        world.packages().restore()
    assert world.record.state == "CONFIRMED"


@pytest.mark.parametrize("full", [True, False])
def test_what_was_undone_does_not_come_back_with_what_ran_well(world: World, full: bool) -> None:
    taken(world, 7)
    failing = world.transaction(world.package("8.0"), states=[state(world.package("7.0"))], serial=8, full=full)
    apply(world, failing, live=True)
    world.packages().undo()
    world.mark_good()
    assert (world.record.packages_serial, world.record.packages_good) == (8, 7)
    world.lose_state()
    assert world.packages().restore() == STAGED
    world.recover()
    world.mark_good()
    assert (world.content(), world.record.packages_serial) == ("7.0", 8)
    assert world.packages().restore() == NOTHING
    world.lose_state()
    assert world.packages().restore() == STAGED, "as often as the state is lost"
    world.recover()
    world.mark_good()
    assert (world.content(), world.packages().restore()) == ("7.0", NOTHING)
    newer = world.transaction(world.package("9.0"), states=[state(world.package("7.0"))], serial=9)
    apply(world, newer, live=True)
    world.mark_good()
    assert (world.store.serials(), world.record.packages_good) == ([7, 9], 9)


def test_transactions_that_are_refused_do_not_pile_up(world: World) -> None:
    for serial in range(1, 5):
        refused = world.master.add("refused", f"{serial}.0", {"etc/refused": b""}, Depends="nobody-has-it")
        with pytest.raises(PackageError):
            apply(world, world.transaction(refused, serial=serial), live=True)
        assert world.store.serials() == [one for one in (serial - 1, serial) if one], "and the newest before it"
    assert world.record.packages_serial == 0


def test_where_nothing_leads_to_it_the_set_that_ran_well_is_kept_alone(world: World) -> None:
    taken(world, 7, 8, 9)
    Path(world.store.path(7)).unlink()
    new = world.transaction(world.package("10.0"), states=[state(world.package("9.0"))], serial=10)
    apply(world, new, live=True)
    assert world.store.serials() == [9, 10]


def test_a_journal_that_was_lost_takes_no_way_back_with_it(world: World) -> None:
    taken(world, 7, 8)
    before = state(world.package("8.0"))
    way = world.store.serials()
    world.device.journal().persist(world.record.but(packages_serial=0, packages_good=0))
    apply(world, world.transaction(world.package("9.0"), states=[before], serial=9), live=True)
    assert world.store.serials() == [*way, 9]


def test_what_a_newer_transaction_can_do_alone_is_not_done_in_steps(world: World) -> None:
    taken(world, 7, 8, 9, full=True)
    assert world.store.serials() == [8, 9], "the one before, until the newest ran well"
    world.lose_state()
    assert world.packages().restore() == STAGED
    world.recover()
    world.mark_good()
    assert (world.content(), world.record.packages_good) == ("9.0", 9)


def test_a_way_of_several_steps_is_gone_step_by_step(world: World) -> None:
    first, second = world.package("1.0", "one"), world.package("2.0", "two")
    for serial, wanted, before in ((7, [first], {}), (8, [first, second], state(first))):
        apply(world, world.transaction(*wanted, states=[before], serial=serial), live=True)
        world.mark_good()
    assert world.store.serials() == [7, 8], "the second one does not bring what the first one brought"
    world.lose_state()
    for content in ("", "2.0"):
        assert world.packages().restore() == STAGED
        assert world.recover() == "packages_finished"
        world.mark_good()
        assert (world.content("one"), world.content("two")) == ("1.0", content)
    assert world.packages().restore() == NOTHING
    assert world.store.serials() == [7, 8], "for the next time"


@pytest.mark.parametrize("staged_before", [True, False])
def test_where_the_second_step_of_a_way_cannot_be_made_it_is_said(world: World, staged_before: bool) -> None:
    """The file is not what its delta is made for, and all of the first step is there."""
    content = random.Random(1).randbytes(60000)
    steps = (content, content[:30000] + b"!" + content[30001:])
    first, second = (
        world.master.add("sample", f"{number}.0", {"etc/sample": bytes_}) for number, bytes_ in enumerate(steps, 7)
    )
    for serial, new, before in ((7, first, {}), (8, second, state(first))):
        apply(world, world.transaction(new, states=[before], serial=serial), live=True)
        world.mark_good()
    assert world.store.serials() == [7, 8]
    world.lose_state()
    assert world.packages().restore() == STAGED
    world.recover()
    world.mark_good()
    (world.root / "etc/sample").write_bytes(content + b"the owner's")
    if not staged_before:
        (world.root / package_update.RESTORED).unlink()
    with pytest.raises(RefusedError, match="what is kept does not lead to it") as error:
        world.packages().restore()
    assert "full transaction" in error.value.advice
    assert (packages_phase(str(world.root)), world.record.state, world.store.serials()) == (b"", "CONFIRMED", [7, 8])
    assert (world.root / package_update.RESTORED).exists() == staged_before
