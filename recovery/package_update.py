"""Packages while the OS runs: whom to believe, what to keep for later, whom to tell. The work is the package manager's.

Every function can be killed anywhere and called again; recovery goes on where it has to. Parses no command line.
"""

from __future__ import annotations

from packagemanager.database import Database
from packagemanager.errors import PackageError, RefusedError
from packagemanager.order import order_of
from packagemanager.phases import FORWARD, TRYING, WAITING
from packagemanager.places import FOLDER
from packagemanager.store import way_back
from packagemanager.transact import NOTHING_TO_DO, Manager
from packagemanager.transaction import Transaction
from packagemanager.whole_file import read_whole
from payload.bundle import is_far, read_header
from payload.errors import PayloadError
from payload.place import bundle_bytes
from payload.sources import FileSource
from recovery import update
from recovery.package_facts import SERIAL_MAX, name_of, serial_of
from recovery.package_ledger import PackageLedger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.order import Order
    from packagemanager.scripts import Run
    from packagemanager.store import Store
    from packagemanager.tree import Tree
    from payload.bundle import Header, Reader
    from payload.manifest import Manifest
    from recovery.update import Ledger
    from recovery.workshop import Workshop
    from statemachine.record import Record

NOTHING, RESTART, STAGED, STAGED_AGAIN = "nothing", "restart", "staged", "staged-again"
RESTORED = f"{FOLDER}/restored"
RESTORED_BYTES_MAX = 32
NO_SERIAL = -1


class Packages:
    """The packages of the root that runs, ``tree``.

    ``base`` is the image below it, and ``store`` keeps the transactions that lead on from there; None: there is no such
    place, or the root is no image with a state above it. ``is_scratch``: the root is a temporary one.
    """

    def __init__(
        self,
        workshop: Workshop,
        ledger: Ledger,
        tree: Tree,
        *,
        run: Run | None = None,
        base: Tree | None = None,
        store: Store | None = None,
        is_scratch: bool = False,
    ) -> None:
        self._workshop = workshop
        self._ledger = ledger
        self._tree = tree
        self._run = run
        self._base = base
        self._store = store
        self._is_scratch = is_scratch

    def manager(self) -> Manager:
        return Manager(self._tree, run=self._run, ledger=PackageLedger(self._ledger), alive=self._workshop.alive)

    def look(self, source: Reader, last_serial: int) -> Order:
        """The transaction in ``source``, believed and newer. Raises ``PackageError``, ``PayloadError``."""
        record = self._recall()
        header = read_header(source)
        manifest = self._believed(source, header, last_serial)
        update.keep_trust(self._workshop, self._ledger, record)
        return order_of(Transaction(source, header, manifest), self._tree)

    def take(self, source: Reader) -> Order:
        """The same for one that this device takes now; it is kept where it may be needed again.

        The one that is in the root may be named again. One that was undone is not taken a second time.

        Raises:
            PackageError, PayloadError, UpdateError: it is refused; nothing that runs was changed.
        """
        if self._is_scratch:
            raise RefusedError("this start has a temporary system state, which is gone with it", "Restart the device.")
        last = PackageLedger(self._ledger).check()
        record = self._recall()
        header = read_header(source)
        manifest = self._believed(source, header, NO_SERIAL)
        if not manifest.version == self.manager().last().serial == last:
            manifest = self._believed(source, header, last)
        update.keep_trust(self._workshop, self._ledger, record)
        return order_of(Transaction(self._keep(record, manifest, header, source), header, manifest), self._tree)

    def _believed(self, source: Reader, header: Header, last_serial: int) -> Manifest:
        return self._workshop.keyring.packages(header, last_serial, network=is_far(source))

    def undo(self) -> tuple[tuple[str, str], ...]:
        """Bring the set before the transaction back, while that one was not called good.

        Returns: paths that could not be brought back, with reasons.

        Raises:
            PackageError, UpdateError: nothing is under way, or it was called good; nothing was changed.
        """
        manager = self.manager()
        phase, facts = manager.engine.phase(), manager.engine.facts()
        if phase in (WAITING, FORWARD, TRYING):
            PackageLedger(self._ledger).undoing(serial_of(facts), name_of(facts), phase.encode())
        return manager.undo()

    def restore(self) -> str:
        """Have the next start bring back the set that ran well, where this root does not have it.

        `RESTART`: this root is a temporary one; `STAGED`: recovery does it at the next start; `STAGED_AGAIN`: the same,
        and it was staged in this root before, in vain: nobody has to restart for it; `NOTHING`: all is there, or there
        is no such set.

        Raises:
            PackageError: it cannot be brought back with what is kept here.
        """
        record = self._recall()
        if record.state != "CONFIRMED" or record.packages_good == 0:
            return NOTHING
        if self._is_scratch:
            return RESTART
        goal = self._goal(record.packages_good)
        if self.manager().last().serial in (goal, record.packages_good):
            return NOTHING
        kept = self._kept()
        way = way_back(list(kept), goal, lambda serial: _can_start(kept[serial], self._tree))
        if not way:
            raise _leads_nowhere(goal)
        self._forget_all_but([serial for serial in kept if serial <= goal])
        order = order_of(kept[way[0]], self._tree, again=True)
        if self.manager().apply(order, live=False) == NOTHING_TO_DO:
            raise _leads_nowhere(goal)  # its set is here, and the next transaction cannot be applied to it
        return STAGED if self._is_first(way[0]) else STAGED_AGAIN

    def _is_first(self, serial: int) -> bool:
        """Whether this root never waited for the transaction to come back; it is remembered in the root."""
        text = b"%d\n" % serial
        try:
            if read_whole(self._tree, RESTORED, RESTORED_BYTES_MAX) == text:
                return False
            self._tree.replace(RESTORED, text)
        except (OSError, ValueError):
            return False
        return True

    def _goal(self, good: int) -> int:
        """The transaction whose set ran well: the newest that is not newer than the journal's ``good``. That is too
        high where one was undone and a set was then brought back; what is newer is forgotten before that.
        """
        return (self._store.newest(good) if self._store is not None else 0) or good

    def _forget_all_but(self, needed: list[int]) -> None:
        """Raises ``RefusedError`` where the disk refuses."""
        assert self._store is not None
        try:
            self._store.forget_all_but(needed)
        except OSError as error:
            detail = f"what is not needed cannot be removed from the data partition: {error.strerror or error}"
            raise RefusedError(detail, "Look after the disk; nothing changed.") from error

    def _keep(self, record: Record, manifest: Manifest, header: Header, source: Reader) -> Reader:
        """Keep a transaction, beside those that lead to the set before it, or the one of that set where nothing leads
        to it; the others make room. Where no such set is known, that of the newest one that is kept may be it.

        Returns: what to read it from: nothing of it is fetched twice, but where a server gave other bytes.
        """
        if self._store is None or self._base is None:
            return source
        if self._has(header, manifest):
            return self._opened(manifest.version)
        kept, base = self._kept(), self._base
        known = record.packages_good or self.manager().last().serial or record.packages_serial
        goal = self._goal(known or SERIAL_MAX)
        way = way_back(list(kept), goal, lambda one: _can_start(kept[one], base))
        self._forget_all_but(way or [goal])
        try:
            self._store.keep(manifest.version, source, bundle_bytes(header, manifest))
        except OSError as error:
            detail = f"the transaction cannot be kept on the data partition: {error.strerror or error}; nothing changed"
            raise RefusedError(detail, "Free some space there.") from error
        return self._opened(manifest.version) if self._has(header, manifest) else source

    def _has(self, header: Header, manifest: Manifest) -> bool:
        """Whether a transaction is kept, every byte of it."""
        try:
            opened = self._opened(manifest.version)
            return read_header(opened).raw == header.raw and Transaction(opened, header, manifest).is_whole()
        except (OSError, PayloadError, PackageError):
            return False

    def _opened(self, serial: int) -> FileSource:
        assert self._store is not None
        return FileSource(self._store.path(serial), f"transaction {serial}")

    def _kept(self) -> dict[int, Transaction]:
        """The transactions in the store that are believed and read."""
        found: dict[int, Transaction] = {}
        if self._store is None:
            return found
        for serial in self._store.serials():
            try:
                source = self._opened(serial)
                header = read_header(source)
                manifest = self._workshop.keyring.believe(header)
                if manifest.is_transaction and manifest.version == serial:
                    found[serial] = Transaction(source, header, manifest)
            except (OSError, PayloadError, PackageError):
                continue
        return found

    def _recall(self) -> Record:
        record = self._ledger.look()
        self._workshop.recall(record)
        return record


def _leads_nowhere(goal: int) -> RefusedError:
    return RefusedError(
        f"the set of transaction {goal} is not here, and what is kept does not lead to it",
        "Ask the master for a full transaction: `unbrick packages status --json` has what it needs to know.",
    )


def _can_start(transaction: Transaction, tree: Tree) -> bool:
    """Whether it can be applied to the packages of ``tree``."""
    installed = {package.key: package.version for package in Database(tree).present()}
    try:
        transaction.sources(installed, tree)
    except PackageError:
        return False
    return True
