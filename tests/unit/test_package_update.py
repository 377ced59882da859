"""Packages of a running OS are taken, finished by recovery, called good or undone."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from packagemanager import cli, places
from packagemanager.engine import Engine
from packagemanager.errors import RefusedError, TransactionError
from packagemanager.phases import WAITING
from packagemanager.repair import repair
from packagemanager.root import Root
from packagemanager.wanted import PATH as WANTED
from payload.bundle import read_header
from payload.errors import PayloadError
from recovery import package_update, packages, update
from recovery.package_commit import commit_confirmed, settle
from recovery.package_ledger import PackageLedger
from recovery.package_phase import ON_TRIAL, packages_phase
from recovery.update import UpdateError
from recovery.workshop import Workshop
from statemachine.reasons import CODES
from statemachine.record import Record
from tests.simulator.delta_samples import CountingReader
from tests.unit.payload_samples import OTHER_KEY
from tests.unit.running_os import KilledError, OpenRoot, World, apply, taken
from tests.unit.transaction_samples import state

pytestmark = pytest.mark.requirement("M4", "M7")


def test_a_transaction_is_staged_finished_by_recovery_and_kept(world: World) -> None:
    new = world.package("1.0")
    assert apply(world, world.transaction(new), live=False) == "waits-for-restart"
    assert (world.record.state, world.content()) == ("PACKAGES_PENDING", "")
    assert world.recover() == "packages_finished"
    assert (world.record.state, world.content()) == ("TRYING", "1.0")
    world.mark_good()
    assert (world.record.state, world.record.packages_good) == ("CONFIRMED", 7)
    assert not (world.root / "var/lib/unbrick/packages/transaction").exists()
    assert world.store.serials() == [7]


@pytest.mark.requirement("M3")
def test_nothing_of_a_transaction_is_fetched_twice(world: World) -> None:
    content = world.master.transaction([world.package("1.0")], [{}], serial=7)
    looked, first, second, third = (CountingReader(content) for _time in range(4))
    read_header(looked)
    header_bytes = looked.fetched()
    apply(world, first, live=True)
    assert len(content) <= first.fetched() <= len(content) + header_bytes
    world.mark_good()
    assert apply(world, second, live=True) == "nothing"
    assert second.fetched() == header_bytes
    damaged = bytearray(content)
    damaged[-1] ^= 1
    Path(world.store.path(7)).write_bytes(damaged)
    assert apply(world, third, live=True) == "nothing"
    assert third.fetched() >= len(content)
    assert Path(world.store.path(7)).read_bytes() == content


class Lying(CountingReader):
    """The first time, its last byte is another one."""

    def read(self, offset: int, length: int) -> bytes:
        content = super().read(offset, length)
        is_first = not any(start + size >= self.size for start, size in self.reads[:-1])
        return content[:-1] + bytes([content[-1] ^ 1]) if is_first and offset + length >= self.size else content


def test_what_was_kept_of_other_bytes_is_not_used(world: World) -> None:
    lying = Lying(world.master.transaction([world.package("1.0")], [{}], serial=7))
    assert apply(world, lying, live=True) == "on-trial"
    assert (world.content(), world.record.packages_serial) == ("1.0", 7)


def test_what_waits_for_the_next_start_is_left_to_it_by_the_running_os(world: World) -> None:
    apply(world, world.transaction(world.package("1.0")), live=False)
    manager = world.packages().manager()
    place = Mock(**{"ledger.return_value": manager.ledger, "root.return_value": Root(str(world.root))})
    assert manager.resume().now == WAITING
    assert cli._resumed(Namespace(json=True), manager.resume()) == cli.EXIT_RESTART
    for work in (
        lambda: repair(manager.tree, lambda _keys: {}, lambda: None),
        lambda: cli._gc(Namespace(root=str(world.root), json=True), place),
        manager._clear_the_way,
    ):
        with pytest.raises(RefusedError, match="waits for the next start"):
            work()
    assert world.content() == ""
    assert world.recover() == "packages_finished"
    assert world.content() == "1.0"


@pytest.mark.requirement("M20")
def test_an_edit_of_the_owner_while_it_waits_is_his_and_the_transaction_is_dropped(world: World) -> None:
    """In place and of the same size: both names of the file change, and of its time only what is below seconds."""
    apply(world, world.transaction(world.package("1.0")), live=True)
    world.mark_good()
    apply(world, world.transaction(world.package("2.0"), states=[state(world.package("1.0"))], serial=8), live=False)
    file = world.root / "etc/sample"
    before = file.stat()
    with file.open("r+") as opened:
        opened.write("9.9")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns // 10**9 * 10**9 + 12345))
    assert world.recover() == "packages_undone"
    assert (world.content(), packages_phase(str(world.root))) == ("9.9", b"")
    assert (world.record.state, world.record.reason) == ("TRYING", CODES["packages-changed-meanwhile"])


@pytest.mark.requirement("M20")
def test_what_dpkg_did_while_it_waits_stays(world: World) -> None:
    apply(world, world.transaction(world.package("1.0")), live=False)
    status = world.root / "var/lib/dpkg/status"
    status.write_text("Package: other\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n")
    before = status.read_bytes()
    assert world.packages().undo() == ()
    assert (world.content(), status.read_bytes()) == ("", before)
    assert (world.record.state, world.record.reason) == ("TRYING", CODES["packages-taken-back"])


@pytest.mark.parametrize(("refused", "event"), [(1, "packages_finished"), (2, "packages_damaged")])
def test_a_root_that_cannot_be_mounted_is_tried_once_more(
    world: World, monkeypatch: pytest.MonkeyPatch, refused: int, event: str
) -> None:
    monkeypatch.setattr(packages, "OPEN_PAUSE_SECONDS", 0.0)
    apply(world, world.transaction(world.package("1.0")), live=False)
    answers: Iterator[OSError | OpenRoot] = iter([*[OSError("not yet")] * refused, OpenRoot(world.root)])

    def open_root(_workshop: object, _record: Record) -> OpenRoot:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(Workshop, "open_root", open_root)
    assert world.recover() == event


@pytest.mark.requirement("M20")
def test_one_that_is_carried_out_live_is_undone_by_recovery(world: World) -> None:
    assert apply(world, world.transaction(world.package("1.0")), live=True) == "on-trial"
    assert (world.record.state, world.content()) == ("TRYING", "1.0")
    world.device.journal().persist(world.record.but(state="UNDOING_PACKAGES"))
    assert world.recover("undo") == "packages_undone"
    assert (world.record.state, world.record.reason, world.content()) == ("TRYING", CODES["packages-undone"], "")


def test_an_old_one_is_not_taken_again(world: World) -> None:
    new = world.transaction(world.package("2.0"), serial=7)
    apply(world, new, live=True)
    world.mark_good()
    assert apply(world, new, live=True) == "nothing"
    with pytest.raises(TransactionError, match="not newer than 7"):
        apply(world, world.transaction(world.package("1.0"), serial=6), live=True)
    assert (world.record.state, world.content()) == ("CONFIRMED", "2.0")


def test_one_that_was_undone_is_not_taken_again(world: World) -> None:
    new = world.transaction(world.package("1.0"), serial=7)
    apply(world, new, live=True)
    world.packages().undo()
    assert (world.record.state, world.record.reason) == ("TRYING", CODES["packages-taken-back"])
    world.mark_good()
    with pytest.raises(TransactionError, match="not newer than 7"):
        apply(world, new, live=True)
    assert world.content() == ""


@pytest.mark.requirement("M20")
def test_what_was_called_good_is_not_undone(world: World) -> None:
    apply(world, world.transaction(world.package("1.0")), live=True)
    update.commit(world.device.workshop(), world.device.ledger(), packages_on_trial=True)  # and a cut
    assert packages_phase(str(world.root)) == ON_TRIAL
    with pytest.raises(UpdateError) as error:
        world.packages().undo()
    assert (error.value.reason, world.content()) == (CODES["packages-absent"], "1.0")
    assert (world.record.state, world.record.packages_good) == ("CONFIRMED", 7)


def test_what_was_called_good_is_settled_before_anything_else(world: World) -> None:
    apply(world, world.transaction(world.package("1.0")), live=True)
    commit_confirmed(world.device.ledger(), str(world.root))
    assert packages_phase(str(world.root)) == ON_TRIAL
    update.commit(world.device.workshop(), world.device.ledger(), packages_on_trial=True)  # and a cut
    commit_confirmed(world.device.ledger(), str(world.root))
    assert (packages_phase(str(world.root)), world.content()) == (b"", "1.0")
    assert world.packages().manager().resume().now is None, "no script runs again"


@pytest.mark.fault("S5")
def test_a_rename_that_was_lost_is_made_again_before_what_is_kept_goes(world: World) -> None:
    apply(world, world.transaction(world.package("1.0")), live=True)
    update.commit(world.device.workshop(), world.device.ledger(), packages_on_trial=True)
    put = next(one for one in Engine(Root(str(world.root))).operations() if one.path == "etc/sample")
    (world.root / put.path).rename(world.root / places.new(put.staged))
    settle(Root(str(world.root)))
    assert (packages_phase(str(world.root)), world.content()) == (b"", "1.0")


def test_where_nothing_is_under_way_nothing_is_undone(world: World) -> None:
    taken(world, 7)
    with pytest.raises(RefusedError, match="none is under way"):
        world.packages().undo()
    assert (world.record.state, world.content()) == ("CONFIRMED", "7.0")


def test_a_wanted_set_that_has_rotted_is_written_again_by_the_next_transaction(world: World) -> None:
    taken(world, 7)
    (world.root / WANTED).write_bytes(b"rot")
    assert apply(world, world.transaction(world.package("8.0"), serial=8, full=True), live=True) == "on-trial"
    assert world.content() == "8.0"


def test_a_downgrade_is_a_transaction_like_any_other(world: World) -> None:
    old, new = world.package("1.0"), world.package("2.0")
    for serial, package in ((7, new), (8, old)):
        before = state(new) if serial == 8 else {}
        apply(world, world.transaction(package, states=[before], serial=serial), live=True)
        world.mark_good()
    assert (world.content(), world.record.packages_good) == ("1.0", 8)


def test_a_strangers_transaction_changes_nothing(world: World) -> None:
    with pytest.raises(PayloadError):
        apply(world, world.transaction(world.package("1.0"), key=OTHER_KEY), live=True)
    assert (world.record.state, world.record.packages_serial, world.content()) == ("CONFIRMED", 0, "")
    assert world.store.serials() == []


def test_nothing_is_read_of_a_transaction_before_it_is_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even its serial: a manifest that does not read is refused for its signature."""
    transaction = world.transaction(world.package("1.0"))
    header = read_header(transaction)
    header.manifest_bytes = b"{"
    monkeypatch.setattr(package_update, "read_header", lambda _source: header)
    with pytest.raises(PayloadError) as error:
        world.packages().take(transaction)
    assert error.value.reason == "payload-forged"


def test_nothing_new_begins_while_packages_are_on_trial(world: World) -> None:
    apply(world, world.transaction(world.package("1.0")), live=True)
    with pytest.raises(UpdateError):
        apply(world, world.transaction(world.package("2.0"), serial=8), live=True)
    assert world.content() == "1.0"


def test_a_temporary_state_takes_no_packages(world: World) -> None:
    with pytest.raises(RefusedError, match="temporary"):
        world.packages(is_scratch=True).take(world.transaction(world.package("1.0")))


@pytest.mark.parametrize("told", ["staged", "applied"])
def test_a_command_that_was_killed_is_gone_on_with_by_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    def killed(*_arguments: object) -> None:
        raise KilledError

    new = world.transaction(world.package("1.0"))
    with monkeypatch.context() as patched:
        patched.setattr(PackageLedger, told, killed)
        patched.setattr(Engine, "back", killed)
        with pytest.raises(KilledError):
            apply(world, new, live=True)
    assert packages_phase(str(world.root)) in (b"forward", b"trying")
    world.packages().manager().resume()
    assert (world.record.state, world.content()) == ("TRYING", "1.0")
    world.mark_good()
    assert (world.record.state, world.record.packages_good) == ("CONFIRMED", 7)


@pytest.mark.requirement("M20")
def test_what_the_journal_was_not_told_of_can_be_undone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_arguments: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(PackageLedger, "staged", killed)
        patched.setattr(Engine, "back", killed)
        with pytest.raises(KilledError):
            apply(world, world.transaction(world.package("1.0")), live=True)
    world.packages().undo()
    assert (packages_phase(str(world.root)), world.content()) == (b"", "")
    assert (world.record.state, world.record.reason) == ("TRYING", CODES["packages-taken-back"])
