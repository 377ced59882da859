"""The whole of a device with packages, cut at any operation: the production flow, journal, recovery and engine.

As ``test_packages_on_a_device.py``, with real packages instead of a plan, and scripts that are played: a device whose
OS is confirmed takes a transaction that changes one package and removes another, and is switched on again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from random import Random

import pytest

from packagemanager.errors import PackageError, ScriptError
from packagemanager.order import Order
from packagemanager.scripts import UNPACKED
from packagemanager.transact import Manager
from recovery import update
from recovery.package_commit import settle
from recovery.package_ledger import PackageLedger
from recovery.package_phase import ON_TRIAL
from recovery.update import UpdateError
from statemachine.record import NO_DIGEST
from statemachine.store import JournalError
from tests.simulator.devices import BOOTS_MAX, Kind, RestingError, Version, ViolationError, factory
from tests.simulator.disk import Fault, PowerCut
from tests.simulator.filesystem import FileSystem
from tests.simulator.package_devices import WISHES, PackageDevice, Wish
from tests.simulator.package_sweep import Snapshot
from tests.simulator.package_world import NEW, Scripts, before_the_update, is_clean, snapshot

FAILS = "p.postinst configure 1"
SERIAL = 2

pytestmark = [pytest.mark.sweep, pytest.mark.requirement("M7", "M20"), pytest.mark.fault("S1", "S2", "S3", "S4")]


class Life:
    """What one device goes through. ``before`` and ``after`` are the two sets that its OS may see."""

    def __init__(self, kind: Kind, wish: Wish) -> None:
        self.wish = wish
        tree, world = before_the_update()
        self._start = tree
        self.order: Order = world.install(NEW, remove=["q"])
        self.before = snapshot(tree)
        self.after = self._after()
        device = factory(kind, installed=1)
        journal = device.journal()
        journal.persist(journal.record.but(packages_serial=1, packages_good=1))
        self._storage = device.storage
        self._kind = kind

    def _after(self) -> Snapshot:
        tree = self._start.restarted()
        Manager(tree, run=Scripts()).apply(self.order, settle=True)
        return snapshot(tree)

    @property
    def ends(self) -> Snapshot:
        return self.after if self.wish.stays else self.before

    def device(self, where: str = "", number: int = 0) -> PackageDevice:
        faults = [Fault("cut", number)] if where == "journal" else ()
        device = PackageDevice(self._kind, self._storage, self._start).restarted(faults)
        if where == "files":
            device.files.cut_at = number
        return device

    def live(self, device: PackageDevice) -> None:
        for _boot in range(BOOTS_MAX):
            record = device.boot()
            running = _seen(device.files)
            if running not in (self.before, self.after):
                raise ViolationError(f"the OS sees a mixture in {record.state}")
            if self._runs(device, running) and self._is_over(device, _seen(device.files)):
                return
            device.power_cycle()
        raise ViolationError(f"no end after {BOOTS_MAX} boots: {device.record.state}")

    def _runs(self, device: PackageDevice, running: Snapshot) -> bool:
        """A start of the OS, up to the word that it runs well. Whether it came there."""
        if running == self.after and self.wish.bad:
            return False
        try:
            if device.phase() == ON_TRIAL:
                self._manager(device).resume()
        except ScriptError:
            return False  # the unit fails, and the OS starts again
        update.commit(device.workshop(), device.ledger(), packages_on_trial=device.phase() == ON_TRIAL)
        settle(device.files, Scripts())
        return True

    def _is_over(self, device: PackageDevice, running: Snapshot) -> bool:
        record = device.record
        if running == self.after or (record.packages_serial == SERIAL and record.packages_digest == NO_DIGEST):
            return True
        with suppress(ScriptError):
            self._manager(device).apply(self.order, live=self.wish.live)
        return False

    def _manager(self, device: PackageDevice) -> Manager:
        scripts = Scripts(*([FAILS] if self.wish.script_fails else []))
        return Manager(device.files, run=scripts, ledger=PackageLedger(device.ledger()))

    def problems(self, device: PackageDevice) -> Iterator[str]:
        """The life from here, without a further fault."""
        try:
            self.live(device)
        except (RestingError, ViolationError, PackageError, UpdateError, JournalError) as error:
            yield f"{type(error).__name__}: {error} in {device.record.state}, E{device.record.reason}"
            return
        record = device.record
        if record.state != "CONFIRMED" or snapshot(device.files) != self.ends:
            yield f"ends in {record.state} with another set than it should"
        if not is_clean(device.files):
            yield "something of the transaction is left"
        if (record.upper_generation, record.frames_written, record.cycles) != (0, 0, 0):
            yield "the slot was suspected"
        if record.packages_good != (SERIAL if self.wish.stays else 1):
            yield f"transaction {record.packages_good} is called good"

    def sweep(self, share: int) -> Iterator[str]:
        """Each ``share``-th state that a cut at any operation can leave."""
        count = 0
        for where in ("journal", "files"):
            number = Random(share).randrange(share)
            while True:
                device = self.device(where, number)
                try:
                    self.live(device)
                    break
                except PowerCut:
                    pass
                for state in device.crashed(seed=number):
                    count += 1
                    if count % share == 0:
                        for problem in self.problems(state):
                            yield f"cut at {where} {number}: {problem}"
                number += 1 + share // 10
        assert count >= share, "no state was looked at"


def _seen(tree: FileSystem) -> Snapshot:
    """What the OS sees of its packages; what a script that was cut ran from is gone with the next command."""
    return {path: what for path, what in snapshot(tree).items() if not path.startswith(UNPACKED)}


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    return Kind((Version(tmp_path_factory.mktemp("versions"), 1, 1),), slots=1, places=1)


@pytest.mark.parametrize("name", WISHES)
@pytest.mark.parametrize("share", [60, pytest.param(1, marks=pytest.mark.long)])
def test_a_cut_anywhere(kind: Kind, name: str, share: int) -> None:
    life = Life(kind, WISHES[name])
    assert list(life.problems(life.device())) == []
    assert list(life.sweep(share)) == []
