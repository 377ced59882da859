"""A running OS with packages: a folder is its root, the journal lies on a simulated disk, transactions are signed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from packagemanager.master.package import Package
from packagemanager.process import Ended
from packagemanager.root import Root
from packagemanager.store import Store
from recovery import packages, update
from recovery.package_commit import check_scripts, settle
from recovery.package_phase import ON_TRIAL, packages_phase
from recovery.package_update import Packages
from statemachine.record import Record
from statemachine.step import step
from tests.simulator.devices import ATTEMPTS, Device, Kind, Version, factory
from tests.unit.payload_samples import BytesReader
from tests.unit.transaction_samples import Master, state

if TYPE_CHECKING:
    from packagemanager.scripts import Run


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


def taken(world: World, *serials: int, full: bool = False) -> None:
    """Version N of the package by transaction N, each building on the one before alone, or ``full``."""
    before: Mapping[str, str] = {}
    for serial in serials:
        new = world.package(f"{serial}.0")
        apply(world, world.transaction(new, states=[before], serial=serial, full=full), live=True)
        world.mark_good()
        before = state(new)


class KilledError(BaseException):
    """The process is gone; the machine goes on."""


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
