"""The flow of a transaction, as docs/packages.md has it: every part is somewhere else, the order of the steps is here.

Every step can be cut and made again; what is under way is finished or undone before anything else is begun.
"""

from __future__ import annotations

from packagemanager import plan as planner
from packagemanager import supported
from packagemanager.changes import decide, lacking, needs_restart
from packagemanager.control import paragraph
from packagemanager.database import Database, read_text
from packagemanager.dpkg_lock import DpkgLock
from packagemanager.engine import Engine
from packagemanager.errors import (
    UNCHANGED,
    DatabaseError,
    PackageError,
    RefusedError,
    TransactionError,
    disk_error,
    tell_left,
)
from packagemanager.ground import Ground
from packagemanager.incoming import Counting, attribute_again, unpack
from packagemanager.operation import REMOVE
from packagemanager.order import Order
from packagemanager.phases import APPLY, BACK, DAMAGED, DONE, FORWARD, TRYING, WAITING
from packagemanager.scripts import FINISHED, Scripts, call_good, waiting
from packagemanager.space import check_kept, check_room
from packagemanager.staging import Staging
from packagemanager.turns import Turns, runs, scripts_come_first
from packagemanager.wanted import NOTHING, Wanted, decode
from packagemanager.wanted import PATH as WANTED_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packagemanager.changes import Changes
    from packagemanager.engine import Resumed
    from packagemanager.incoming import Incoming, Source, Stage
    from packagemanager.ledger import Ledger
    from packagemanager.plan import Plan
    from packagemanager.scripts import Run
    from packagemanager.tree import Tree

    Report = Callable[[str, int, int], None]
    Left = tuple[tuple[str, str], ...]  # see `engine.Resumed`


NOTHING_TO_DO, WAITS_FOR_RESTART, ON_TRIAL = "nothing", "waits-for-restart", "on-trial"  # or DONE
LINES_IN_FACTS_MAX = 200
_BEGUN = (WAITING, FORWARD, BACK, TRYING)


class Proposal:
    """What an order would do, or does."""

    __slots__ = ("changes", "database", "incoming", "plan")

    def __init__(self, changes: Changes, incoming: Sequence[Incoming], plan: Plan, database: Database) -> None:
        self.changes = changes
        self.incoming = incoming
        self.plan = plan
        self.database = database


class Manager:
    """The packages below ``tree``. ``run`` runs scripts; without it none are run, as for a root of another machine.

    Raises (every method):
        PackageError: by its kind, with what to do; whether something changed is said.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        run: Run | None = None,
        ledger: Ledger | None = None,
        report: Report = lambda stage, done, total: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.tree = tree
        self.engine = Engine(tree, self._step)
        self.ledger = ledger
        self._run = run
        self._alive = alive
        self._report = report
        self._stage_name, self._done, self._total = "", 0, 0

    # Looking.

    def wanted(self) -> Wanted:
        """What this device was told last."""
        text = read_text(self.tree, WANTED_PATH)
        return NOTHING if text is None else decode(text)

    def last(self) -> Wanted:
        """The same; where it does not read, nothing: the next transaction writes it again."""
        try:
            return self.wanted()
        except DatabaseError:
            return NOTHING

    def plan(self, order: Order) -> Proposal:
        """What :meth:`apply` would do. Nothing is changed; everything is read."""
        database = Database(self.tree)
        changes, sources = self._decide(order, database)
        ground = Ground(self.tree, database)
        stage = Counting()
        incoming = self._unpack(changes, sources, stage, database, ground)
        plan = planner.make(changes, incoming, order.wanted, database, ground, stage)
        self._check_scripts(Turns(changes, incoming, database), plan, ground)
        return Proposal(changes, incoming, plan, database)

    # Changing.

    def apply(self, order: Order, *, live: bool | None = True, settle: bool = False) -> str:
        """Bring the device to what is ordered.

        ``live``: the files change now; otherwise recovery changes them at the next start, before the system runs.
        None: at the next start if packages change that everything needs.
        ``settle``: it is good as soon as its scripts ran; otherwise :meth:`settle` has to be called once the system
        is known to run well.

        Returns: `NOTHING_TO_DO`, `WAITS_FOR_RESTART`, `ON_TRIAL` or `DONE`.
        """
        with DpkgLock(self.tree, self.engine.lock()):
            self._clear_the_way()
            self._check_serial(order)
            database = Database(self.tree)
            if self._is_done(order, database):
                return NOTHING_TO_DO
            waits = self._prepare(order, database, live)
            self._begin(order, waits)
            if waits:
                return WAITS_FOR_RESTART
            self._go_forward()
            self._configure(self._take_back, settle)
            return self._settle() if settle else ON_TRIAL

    def resume(self, *, settle: bool = False, lock_seconds_max: float = 0.0) -> Resumed:
        """Finish or undo what a cut left. What waits for its scripts gets them. dpkg or apt are waited for so long."""
        with DpkgLock(self.tree, self.engine.lock(), lock_seconds_max, self._wait):
            resumed = self._resume()
            if resumed.now == TRYING:
                self._configure(self._leave_to_recovery, settle)
                if settle:
                    resumed.now = self._settle()
            return resumed

    def settle(self) -> str:
        """The system runs well: what was replaced is not kept any longer."""
        with DpkgLock(self.tree, self.engine.lock()):
            return self._settle() if self.engine.phase() == TRYING else NOTHING_TO_DO

    def undo(self) -> Left:
        """Bring the old set back. Returns: paths that could not be brought back, with reasons."""
        with DpkgLock(self.tree, self.engine.lock()):
            return self._take_back()

    # Deciding.

    def _decide(self, order: Order, database: Database) -> tuple[Changes, Mapping[str, Source]]:
        needed = lacking(database.packages, order.wish)
        sources = order.bring(needed) if needed else {}
        offered = {key: paragraph(sources[key].control()[0]) for key in needed if key in sources}
        changes = decide(database.packages, order.wish, offered, database.architectures())
        return changes, sources

    def _check_serial(self, order: Order) -> None:
        """The one that was taken last may come again: the device goes back to it from what became of it since."""
        last = self.last()
        if order.serial > last.serial or (order.serial, order.transaction) == (last.serial, last.transaction):
            return
        raise TransactionError(
            f"transaction {order.serial} is not newer than {last.serial}, the last one that was taken",
            "To go back to older packages, ask the master for a new transaction that wants them.",
        )

    def _is_done(self, order: Order, database: Database) -> bool:
        is_there = not lacking(database.packages, order.wish)
        surplus = [package.key for package in database.present() if package.key not in order.wish.wanted]
        return is_there and not surplus and not database.updates and self.last().encode() == order.wanted.encode()

    def _unpack(
        self, changes: Changes, sources: Mapping[str, Source], stage: Stage, database: Database, ground: Ground
    ) -> list[Incoming]:
        compare = self._run is None or not scripts_come_first(changes, sources, database)
        found = []
        for number, change in enumerate(changes.unpacked):
            self._report("unpack", number, len(changes.unpacked))
            found.append(unpack(change, sources[change.key], stage, database, ground, compare=compare))
        self._report("unpack", len(changes.unpacked), len(changes.unpacked))
        return found

    def _check_scripts(self, turns: Turns, plan: Plan, ground: Ground) -> None:
        """Refuse what scripts want and cannot have, by name."""
        if self._run is None:
            return
        database = turns.database
        gone = [operation.path for operation in plan.operations if operation.act == REMOVE]
        come = [operation.path for operation in plan.operations if operation.act != REMOVE]
        facts = supported.Facts(runs(ground), runs(ground, gone, come), database.diversions.owned(), turns.unmet_before)
        supported.refuse(turns.all(), turns.controls, facts)

    # The steps.

    def _clear_the_way(self) -> None:
        resumed = self._resume()
        resumed.check_not_waiting()
        if resumed.now == TRYING:
            raise RefusedError(
                "the packages of the last transaction are on trial",
                "Once the system runs well, `unbrick mark-good` confirms them; then apply this one.",
            )

    def _resume(self) -> Resumed:
        resumed = self.engine.resume(at_start=self.ledger is None)
        if resumed.now == WAITING:
            return resumed
        if resumed.now == DAMAGED:
            raise DatabaseError(
                "a transaction is under way and its plan does not read",
                "`unbrick packages repair` compares every file with what its package shipped.",
            )
        if resumed.now == TRYING and resumed.facts.get("kind", APPLY) != APPLY:
            # A repair or an adoption: there is nothing that had to be tried.
            self.engine.done()
            resumed.now = DONE
        if self.ledger is not None and resumed.found in _BEGUN:
            serial, digest = resumed.facts.get("serial", "0"), resumed.facts.get("transaction", "")
            self.ledger.resumed(int(serial), bytes.fromhex(digest), resumed.now == TRYING)
        if resumed.now in (None, DONE):
            resumed.left = (*resumed.left, *self._end_scripts(is_good=resumed.found == DONE))
        return resumed

    def _end_scripts(self, is_good: bool = False) -> Left:
        """No transaction is under way: scripts that began for one that was not called good are told so."""
        if self._run is None:
            return ()
        scripts = Scripts(self.tree, self._run)
        return (*(() if is_good else scripts.back()), *scripts.forget())

    def _prepare(self, order: Order, database: Database, live: bool | None) -> bool:
        """Steps 1 to 4: everything that is new is durable beside the old. Whether it waits for the next start."""
        changes, sources = self._decide(order, database)
        check_room(self.tree, changes)
        staging = Staging(self.tree)
        try:
            plan = self._stage(order, changes, sources, database, staging)
            check_kept(self.tree, plan.operations)
        except BaseException as error:
            staging.abandon()
            told = disk_error("preparing a transaction", error, UNCHANGED) if isinstance(error, OSError) else error
            tell_left(told, self._end_scripts())
            if told is error:
                raise
            raise told from error
        facts = {
            "serial": str(order.serial),
            "transaction": order.transaction.hex(),
            "changes": "\n".join(changes.lines()[:LINES_IN_FACTS_MAX]),
            "kind": APPLY,
            **({"again": "1"} if order.again else {}),
        }
        self._count("prepare", len(plan.steps))
        try:
            self.engine.prepare(plan.operations, facts)
        except PackageError as error:
            tell_left(error, self._end_scripts())
            raise
        return live is False or (live is None and needs_restart(changes))

    def _stage(
        self,
        order: Order,
        changes: Changes,
        sources: Mapping[str, Source],
        database: Database,
        staging: Staging,
    ) -> Plan:
        ground = Ground(self.tree, database)
        incoming = self._unpack(changes, sources, staging, database, ground)
        turns = Turns(changes, incoming, database)
        scripts_before = self._run is not None and turns.has_scripts_before()
        if scripts_before:
            # Refused is before anything ran; and what ran may have changed what the plan is about.
            rough = planner.make(changes, incoming, order.wanted, database, ground, Counting(), rough=True)
            self._check_scripts(turns, rough, ground)
            self._run_before(turns, rough, ground)
            del rough
            database = Database(self.tree)
            ground = Ground(self.tree, database)
            turns.database = database  # what was looked up before is in nobody's memory any more
            for one in incoming:
                attribute_again(one, staging, database, ground)
        self._report("plan", 0, 1)
        plan = planner.make(changes, incoming, order.wanted, database, ground, staging)
        self._report("plan", 1, 1)
        if self._run is not None and not scripts_before:
            self._check_scripts(turns, plan, ground)
            self._run_before(turns, plan, ground)
        return plan

    def _run_before(self, turns: Turns, plan: Plan, ground: Ground) -> None:
        """prerm and preinst, if there are any. What will be run afterwards is written down, what is in danger kept."""
        from packagemanager import script_plan, taken_away

        assert self._run is not None
        calls = script_plan.make(turns.script_changes(plan.paths))
        scripts = Scripts(self.tree, self._run)
        scripts.keep(calls, turns.controls)
        taken_away.keep(self.tree, turns, ground)
        self._report("scripts before", 0, 1)
        scripts.before()
        self._report("scripts before", 1, 1)

    def _count(self, stage: str, total: int) -> None:
        """From here on the engine works through so many operations."""
        self._stage_name, self._done, self._total = stage, 0, total
        self._report(stage, 0, total)

    def _step(self) -> None:
        self._alive()
        if self._done < self._total:
            self._done += 1
            self._report(self._stage_name, self._done, self._total)

    def _wait(self) -> None:
        self._alive()
        self._report("wait for dpkg or apt", 0, 1)

    def _begin(self, order: Order, waits: bool) -> None:
        (self.engine.wait if waits else self.engine.begin)()
        if self.ledger is None:
            return
        try:
            self.ledger.staged(order.serial, order.transaction)
        except BaseException as error:
            tell_left(error, (*self.engine.back(), *self._end_scripts()))
            raise

    def _go_forward(self) -> None:
        self._count("files", len(self.engine.operations()))
        try:
            self.engine.forward()
        except PackageError as error:
            tell_left(error, self._take_back())
            raise
        if self.ledger is not None:
            self.ledger.applied()

    def _configure(self, give_up: Callable[[], Left], settle: bool) -> None:
        """postrm, postinst and triggers. What they did is durable before anybody may call it good; ``settle`` sees to
        that itself."""
        scripts = waiting(self.tree, self._run) if self._run is not None else None
        if scripts is None:
            return
        self._report("scripts after", 0, 1)
        try:
            scripts.after()
        except PackageError as error:
            tell_left(error, give_up())
            raise
        if not settle:
            self.tree.sync()
        scripts.mark(FINISHED)
        self._report("scripts after", 1, 1)

    def _leave_to_recovery(self) -> Left:
        """The files changed before the system ran, and so they do again. Without recovery it is done here."""
        if self.ledger is None:
            return self._take_back()
        self.ledger.failing()
        return ()

    def _take_back(self) -> Left:
        left = (*self.engine.back(), *self._end_scripts())
        if self.ledger is not None:
            self.ledger.taken_back()
        return left

    def _settle(self) -> str:
        call_good(self.tree)  # durable with the phase
        self.engine.done()
        self._end_scripts(is_good=True)
        return DONE


__all__ = ["DONE", "NOTHING_TO_DO", "ON_TRIAL", "WAITS_FOR_RESTART", "Manager", "Order", "Proposal"]
