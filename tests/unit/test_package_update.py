"""Packages of a running OS: a folder is its root, the journal lies on a simulated disk, the transactions are signed."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from packagemanager import cli, dpkg_lock, places, unchanged
from packagemanager.engine import Engine
from packagemanager.errors import BlockedError, PackageError, RefusedError, TransactionError
from packagemanager.master.package import Package
from packagemanager.phases import WAITING
from packagemanager.process import Ended
from packagemanager.repair import repair
from packagemanager.root import Root
from packagemanager.scripts import FOLDER as SCRIPTS
from packagemanager.scripts import SCRIPT_SECONDS_MAX, Scripts
from packagemanager.store import Store
from packagemanager.wanted import PATH as WANTED
from payload.bundle import read_header
from payload.errors import PayloadError
from recovery import package_update, packages, update
from recovery.package_commit import check_scripts, commit_confirmed, settle
from recovery.package_ledger import PackageLedger
from recovery.package_phase import ON_TRIAL, packages_phase
from recovery.package_update import NOTHING, RESTART, STAGED, STAGED_AGAIN, Packages
from recovery.update import UpdateError
from recovery.workshop import Workshop
from statemachine.reasons import CODES
from statemachine.record import Record
from statemachine.step import step
from tests.simulator.delta_samples import CountingReader
from tests.simulator.devices import ATTEMPTS, Device, Kind, Version, factory
from tests.unit.payload_samples import OTHER_KEY, BytesReader
from tests.unit.transaction_samples import Master, state

if TYPE_CHECKING:
    from packagemanager.scripts import Run

pytestmark = pytest.mark.requirement("M4", "M7")
VERSION = "etc/version"


class OpenRoot:
    def __init__(self, folder: Path) -> None:
        self.tree = Root(str(folder))

    def close(self) -> None:
        self.tree.close()


class World:
    """``image`` is what an immutable slot holds, ``root`` the system state over it, played by a copy."""

    def __init__(self, folder: Path) -> None:
        self.image, self.root = folder / "image", folder / "root"
        (self.image / "var/lib/dpkg").mkdir(parents=True)
        (self.image / "var/lib/dpkg/status").touch()
        (self.image / "etc").mkdir()
        shutil.copytree(self.image, self.root)
        self.device: Device = factory(Kind((Version(folder, 1, 1),), slots=1, places=1), installed=1)
        self.master = Master(folder / "master")
        self.store = Store(str(folder / "data"))

    @property
    def record(self) -> Record:
        return self.device.journal(look_only=True).record

    def packages(self, is_scratch: bool = False, run: Run | None = None) -> Packages:
        return Packages(
            self.device.workshop(),
            self.device.ledger(),
            Root(str(self.root)),
            run=run,
            base=Root(str(self.image)),
            store=self.store,
            is_scratch=is_scratch,
        )

    def package(self, version: str, name: str = "sample") -> Package:
        return self.master.add(name, version, {f"etc/{name}": version.encode()})

    def transaction(
        self, *wanted: Package, states: Sequence[Mapping[str, str]] = ({},), serial: int = 7, **more: Any
    ) -> BytesReader:
        return BytesReader(self.master.transaction(wanted, states, serial=serial, **more))

    def recover(self, work: str = "finish") -> str:
        """What recovery does before the OS runs; the event."""
        journal = self.device.journal()
        workshop = self.device.workshop()
        workshop._root = lambda _record: OpenRoot(self.root)
        event, reason, fields = getattr(packages, work)(workshop, journal.record)
        journal.persist(step(journal.record, event, ATTEMPTS, reason=reason, **fields)[0])
        return str(event)

    def mark_good(self) -> None:
        check_scripts(self.device.ledger(), str(self.root))
        on_trial = packages_phase(str(self.root)) == ON_TRIAL
        update.commit(self.device.workshop(), self.device.ledger(), packages_on_trial=on_trial)
        settle(Root(str(self.root)))

    def content(self, name: str = "sample") -> str:
        path = self.root / "etc" / name
        return path.read_text() if path.exists() else ""

    def lose_state(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.image, self.root)


def apply(world: World, transaction: BytesReader, live: bool) -> str:
    packages = world.packages()
    return packages.manager().apply(packages.take(transaction), live=live)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


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


def taken(world: World, *serials: int, full: bool = False) -> None:
    """Version N of the package by transaction N, each building on the one before alone, or ``full``."""
    before: Mapping[str, str] = {}
    for serial in serials:
        new = world.package(f"{serial}.0")
        apply(world, world.transaction(new, states=[before], serial=serial, full=full), live=True)
        world.mark_good()
        before = state(new)


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
def test_what_fails_when_it_comes_back_does_not_come_back_again(world: World) -> None:
    taken(world, 7)
    world.lose_state()
    assert world.packages().restore() == STAGED
    world.recover()
    world.device.journal().persist(world.record.but(state="UNDOING_PACKAGES"))
    world.recover("undo")
    world.mark_good()
    assert world.packages().restore() == NOTHING


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
def test_a_set_that_nothing_here_leads_to_is_said(world: World) -> None:
    taken(world, 7)
    world.lose_state()
    Path(world.store.path(7)).write_bytes(b"rotten")
    with pytest.raises(PackageError, match="transaction 7 is not here"):
        world.packages().restore()
    assert world.record.state == "CONFIRMED"


class KilledError(BaseException):
    """The process is gone; the machine goes on."""


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


def with_script(world: World) -> BytesReader:
    """Of a package with a postinst, for a root with the interpreter that it asks for."""
    (world.root / "bin").mkdir()
    (world.root / "bin/sh").touch()
    script = {"postinst": b"#!/bin/sh\n"}
    return world.transaction(world.master.add("sample", "1.0", {"etc/sample": b"1.0"}, control_files=script))


def killed_in_its_scripts(world: World) -> None:
    def run(*_arguments: object) -> Ended:
        raise KilledError

    packages = world.packages(run=run)
    with pytest.raises(KilledError):
        packages.manager().apply(packages.take(with_script(world)), live=True)


@pytest.mark.requirement("M20")
def test_packages_are_not_called_good_before_their_scripts_ran(world: World) -> None:
    calls: list[Sequence[str]] = []

    def run(_program: str, words: Sequence[str], _environment: Mapping[str, str]) -> Ended:
        calls.append(words)
        return Ended(0, b"")

    killed_in_its_scripts(world)
    with pytest.raises(UpdateError) as error:
        world.mark_good()
    assert error.value.reason == CODES["packages-scripts-left"]
    assert (world.record.state, world.record.packages_good) == ("TRYING", 0)
    world.packages(run=run).manager().resume()
    world.mark_good()
    assert (world.record.packages_good, calls) == (7, [("configure", "")])


@pytest.mark.requirement("M20")
def test_scripts_that_ran_before_a_restart_run_again_before_packages_are_called_good(world: World) -> None:
    packages = world.packages(run=lambda *_arguments: Ended(0, b""))
    packages.manager().apply(packages.take(with_script(world)), live=True)
    finished = world.root / SCRIPTS / "finished"
    finished.write_bytes(b"the boot before\n")
    with pytest.raises(UpdateError):
        world.mark_good()
    packages.manager().resume()
    world.mark_good()
    assert world.record.packages_good == 7


def test_what_is_called_good_already_is_not_asked_for_its_scripts(world: World) -> None:
    killed_in_its_scripts(world)
    update.commit(world.device.workshop(), world.device.ledger(), packages_on_trial=True)
    check_scripts(world.device.ledger(), str(world.root))


def test_packages_without_scripts_are_called_good_whoever_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object) -> Ended:
        raise KilledError

    packages = world.packages(run=killed)
    monkeypatch.setattr(Scripts, "after", killed)
    with pytest.raises(KilledError):
        packages.manager().apply(packages.take(world.transaction(world.package("1.0"))), live=True)
    world.mark_good()
    assert world.record.packages_good == 7


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


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
def test_transactions_that_are_refused_do_not_pile_up(world: World) -> None:
    for serial in range(1, 5):
        refused = world.master.add("refused", f"{serial}.0", {"etc/refused": b""}, Depends="nobody-has-it")
        with pytest.raises(PackageError):
            apply(world, world.transaction(refused, serial=serial), live=True)
        assert world.store.serials() == [one for one in (serial - 1, serial) if one], "and the newest before it"
    assert world.record.packages_serial == 0


@pytest.mark.requirement("D8")
def test_where_nothing_leads_to_it_the_set_that_ran_well_is_kept_alone(world: World) -> None:
    taken(world, 7, 8, 9)
    Path(world.store.path(7)).unlink()
    new = world.transaction(world.package("10.0"), states=[state(world.package("9.0"))], serial=10)
    apply(world, new, live=True)
    assert world.store.serials() == [9, 10]


@pytest.mark.requirement("D8")
def test_a_journal_that_was_lost_takes_no_way_back_with_it(world: World) -> None:
    taken(world, 7, 8)
    before = state(world.package("8.0"))
    way = world.store.serials()
    world.device.journal().persist(world.record.but(packages_serial=0, packages_good=0))
    apply(world, world.transaction(world.package("9.0"), states=[before], serial=9), live=True)
    assert world.store.serials() == [*way, 9]


@pytest.mark.requirement("D8")
def test_what_a_newer_transaction_can_do_alone_is_not_done_in_steps(world: World) -> None:
    taken(world, 7, 8, 9, full=True)
    assert world.store.serials() == [8, 9], "the one before, until the newest ran well"
    world.lose_state()
    assert world.packages().restore() == STAGED
    world.recover()
    world.mark_good()
    assert (world.content(), world.record.packages_good) == ("9.0", 9)


@pytest.mark.requirement("D8")
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


@pytest.mark.requirement("D8")
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


@contextmanager
def apt_at_work(world: World, seconds: float) -> Iterator[None]:
    """Another process holds dpkg's lock for so long."""
    ready, said = os.pipe()
    process = os.fork()
    if process == 0:
        descriptor = os.open(world.root / dpkg_lock.NAMES[0], os.O_RDWR | os.O_CREAT, 0o640)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(said, b"x")
        time.sleep(seconds)
        os._exit(0)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(ready)
        os.close(said)


def on_trial_after_a_start(world: World) -> None:
    packages = world.packages(run=lambda *_arguments: Ended(0, b""))
    packages.manager().apply(packages.take(with_script(world)), live=False)
    world.recover()
    assert world.record.state == "TRYING"


def apply_at_a_start(world: World, calls: list[str]) -> int:
    """What `unbrick-packages.service` does; the exit code."""

    def run(program: str, _words: Sequence[str], _environment: Mapping[str, str]) -> Ended:
        calls.append(program)
        return Ended(0, b"")

    ledger = world.packages().manager().ledger
    place = Mock(
        **{"root.side_effect": lambda _: Root(str(world.root)), "ledger.return_value": ledger, "run.return_value": run}
    )
    verb = next(verb for verb in cli.VERBS if verb.name == "apply")
    chosen = Namespace(root="/", json=False, transaction=None, offline=False, live=False)
    return cli.run(verb, chosen, place)


@pytest.mark.requirement("M20")
def test_at_a_start_apt_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpkg_lock, "POLL_SECONDS", 0.02)
    on_trial_after_a_start(world)
    calls: list[str] = []
    with apt_at_work(world, 0.3):
        assert apply_at_a_start(world, calls) == cli.EXIT_DONE
    assert len(calls) == 1
    world.mark_good()
    assert world.record.packages_good == 7


@pytest.mark.requirement("M20")
def test_apt_that_does_not_end_costs_a_good_set_no_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dpkg_lock, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(cli, "WAIT_SECONDS_MAX", 0.1)
    on_trial_after_a_start(world)
    before = world.record
    calls: list[str] = []
    with apt_at_work(world, 60):
        assert apply_at_a_start(world, calls) == cli.EXIT_BUSY
        assert "dpkg or apt works" in capsys.readouterr().err
        with pytest.raises(UpdateError) as error:
            world.mark_good()
        assert error.value.reason == CODES["packages-scripts-left"]
    assert (calls, world.record) == ([], before)
    assert apply_at_a_start(world, calls) == cli.EXIT_DONE
    world.mark_good()
    assert world.record.packages_good == 7


def test_the_unit_gives_apt_and_scripts_their_time_and_restarts_for_neither() -> None:
    text = (Path(packages.__file__).parent / "os/system/unbrick-packages.service").read_text()
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert str(cli.EXIT_BUSY) in said["SuccessExitStatus"].split()
    assert int(said["TimeoutStartSec"].removesuffix("min")) * 60 > dpkg_lock.WAIT_SECONDS_MAX + SCRIPT_SECONDS_MAX
