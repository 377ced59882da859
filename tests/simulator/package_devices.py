"""A device with packages: the production journal, recovery and engine over a simulated disk and file system.

What is played here: the OS (a set of packages is good or it is not, its scripts fail or not), and the master, whose one
transaction it is to take. A boot that would show the OS a mixture of two sets raises :class:`ViolationError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from packagemanager import places
from packagemanager.engine import Engine
from packagemanager.entry import DIRECTORY, FILE, LINK, Entry
from packagemanager.errors import PackageError
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY, Operation
from packagemanager.staging import Staging
from recovery import actions, update
from recovery.package_commit import settle
from recovery.package_ledger import PackageLedger
from recovery.package_phase import ON_TRIAL, phase_in
from statemachine.decide import packages_unfinished
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Record
from statemachine.store import JournalError
from tests.simulator.devices import BOOTS_MAX, BootedError, Device, Kind, ViolationError, factory
from tests.simulator.disk import PowerCut, Storage
from tests.simulator.filesystem import FileSystem, survivors

SERIAL, TRANSACTION = 7, b"\x51" * 32
FACTS = {"serial": str(SERIAL), "transaction": TRANSACTION.hex()}
FOLDERS = ("etc", "usr", "usr/lib", "usr/share", "usr/share/old", "var", "var/lib")
OLD = {"etc/libc": b"1", "etc/removed": b"1", "usr/lib/kept": b"1", "usr/share/old/file": b"1"}
STATES_MAX = 24  # of one cut
Content = dict[str, tuple[str, int, bytes]]


@dataclass(frozen=True)
class Wish:
    """The transaction: carried out ``live`` or at the next start. ``bad``: no OS runs well with it."""

    live: bool = False
    bad: bool = False
    script_fails: bool = False

    @property
    def stays(self) -> bool:
        return not self.bad and not self.script_fails


WISHES = {
    "offline": Wish(),
    "live": Wish(live=True),
    "offline, undone": Wish(bad=True),
    "live, undone": Wish(live=True, bad=True),
    "offline, a script fails": Wish(script_fails=True),
    "live, a script fails": Wish(live=True, script_fails=True),
}


def old_root() -> FileSystem:
    files = FileSystem()
    for path in FOLDERS:
        files.make_directory(path)
        files.set_attributes(path, 0o755, 0, 0, 1)
    for path, content in OLD.items():
        files.write(path, (content,))
        files.set_attributes(path, 0o644, 0, 0, 1)
    files.sync()
    return files.restarted()


def plan(staging: Staging) -> tuple[Operation, ...]:
    """Every kind of operation, once or twice."""
    library = staging.file(Entry("etc/libc", FILE, mode=0o755), (b"2",))
    added = staging.file(Entry("usr/added/file", FILE), (b"2",))
    link = staging.link(Entry("usr/lib/link", LINK, target="../added/file"))
    database = staging.text("var/lib/status", b"2")
    return (
        Operation(MAKE_DIRECTORY, "usr/added", mode=0o755, mtime=2),
        Operation(PUT, "usr/added/file", staged=added),
        Operation(PUT, "etc/libc", staged=library, kept=True),
        Operation(PUT, "usr/lib/link", staged=link),
        Operation(REMOVE, "etc/removed", kept=True),
        Operation(REMOVE, "usr/share/old/file", kept=True),
        Operation(REMOVE_DIRECTORY, "usr/share/old"),
        Operation(PUT, "var/lib/status", staged=database),
    )


def system(files: FileSystem) -> Content:
    """What the OS sees; the package manager's own folder is none of its business."""
    found = {}
    for path, inode in files.now.reachable():
        node = files.now.nodes[inode]
        if not path.startswith(("var/lib/unbrick",)):
            found[path] = (node.kind, 0 if node.kind == DIRECTORY else node.mode, node.content)
    return found


def _after() -> Content:
    files = old_root()
    engine = Engine(files)
    engine.prepare(plan(Staging(files)), FACTS)
    engine.begin()
    engine.forward()
    return system(files)


BEFORE, AFTER = system(old_root()), _after()


class _OpenRoot:
    def __init__(self, tree: FileSystem) -> None:
        self.tree = tree

    def close(self) -> None:
        """Unmounted. That this would flush everything is not relied on."""


class PackageDevice(Device):
    """``files`` is the primary slot's root."""

    def __init__(self, kind: Kind, storage: Storage, files: FileSystem) -> None:
        super().__init__(kind, storage)
        self.files = _on_one_supply(files, storage)
        self.told: list[str] = []

    def restarted(self, faults: Sequence[Any] = ()) -> PackageDevice:
        return PackageDevice(self.kind, self.storage.restarted(faults), self.files.restarted())

    def crashed(self, seed: int) -> Iterator[PackageDevice]:
        """What a cut now can leave, a bounded choice of it."""
        disks = list(self.storage.crash_states(seed))
        chance = Random(seed)
        for count, left in enumerate(survivors(self.files.pending, seeds=6, singles_max=12)):
            if count < STATES_MAX:
                yield PackageDevice(self.kind, chance.choice(disks).restarted(), self.files.restarted(left))

    def world(self) -> dict[str, Any]:
        return {**super().world(), "root": lambda _record: _OpenRoot(self.files)}

    def hand_over(self, record: Record, pristine: bool) -> actions.Result:
        """As `recovery.hand_over.mount_root` does."""
        if not pristine and packages_unfinished(record, self.phase()):
            return "packages_found", CODES["packages-found"], {}
        raise BootedError(record)

    def phase(self) -> bytes:
        found = self.files.look(places.PHASE)
        return b"" if found is None else phase_in(self.files.open(places.PHASE).read())

    @property
    def record(self) -> Record:
        return self.journal(look_only=True).record

    def power_cycle(self) -> None:
        """Somebody pulls the plug of an OS that does not run well."""
        files = self.files.restarted()
        done = self.files.operations
        files.cut_at = self.files.cut_at - done
        files.errors = {number - done: error for number, error in self.files.errors.items()}
        self.files = _on_one_supply(files, self.storage)


def _on_one_supply(files: FileSystem, storage: Storage) -> FileSystem:
    """The power goes for both at once: what code still tries then, in a handler of its own, does not happen."""
    begin, end = files._begin, files._end

    def begin_powered(kind: str) -> None:
        if storage.off or files.operations > files.cut_at:
            raise PowerCut
        begin(kind)

    def end_powered(kind: str) -> None:
        try:
            end(kind)
        except PowerCut:
            storage.off = True
            raise

    files._begin = begin_powered  # type: ignore[method-assign]
    files._end = end_powered  # type: ignore[method-assign]
    return files


def package_factory(kind: Kind) -> PackageDevice:
    return PackageDevice(kind, factory(kind, installed=1).storage, old_root()).restarted()


def live(device: PackageDevice, wish: Wish) -> None:
    """Switch it on again and again until the transaction is taken for good, or was refused for good."""
    for _boot in range(BOOTS_MAX):
        record = device.boot()
        if record.state == "PRISTINE":
            update.commit(device.workshop(), device.ledger())
            device.files = old_root()  # the image's own, in a new system state
            continue
        running = system(device.files)
        if running not in (BEFORE, AFTER):
            raise ViolationError(f"the OS sees a mixture in {record.state}")
        if running == AFTER and not wish.stays:
            _fail(device, wish)
            continue
        try:
            update.commit(device.workshop(), device.ledger(), packages_on_trial=device.phase() == ON_TRIAL)
            settle(device.files)
            if running == AFTER or _was_undone(device.record):
                return
            apply(device, wish)
        except (OSError, PackageError, JournalError) as error:
            device.told.append(str(error))  # a person restarts the device and tries again
        device.power_cycle()
    raise ViolationError(f"no end after {BOOTS_MAX} boots: {device.record.state}")


def _fail(device: PackageDevice, wish: Wish) -> None:
    if wish.script_fails and device.phase() == ON_TRIAL:
        PackageLedger(device.ledger()).failing()
    device.power_cycle()


def _was_undone(record: Record) -> bool:
    return record.packages_serial == SERIAL and record.packages_digest == NO_DIGEST


def apply(device: PackageDevice, wish: Wish) -> None:
    """What the OS does with a transaction, in the order of docs/packages.md."""
    ledger, engine = PackageLedger(device.ledger()), Engine(device.files)
    ledger.check()
    engine.resume()
    engine.prepare(plan(Staging(device.files)), FACTS)
    (engine.begin if wish.live else engine.wait)()
    ledger.staged(SERIAL, TRANSACTION)
    if not wish.live:
        return
    engine.forward()
    ledger.applied()
    if wish.script_fails:
        engine.back()
        ledger.taken_back()
