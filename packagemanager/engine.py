"""Carries a plan out, so that after any cut the files are the old set or can be brought to the new one, or back.

The algorithm, with the state of the disk after every step, is docs/packages.md; the bytes are in docs/SPEC.md. This
module knows nothing of packages: it has a tree, a plan of operations and a few facts about what is under way.
"""

from __future__ import annotations

from packagemanager import damage, discarded, keeping, places, plan_check, plan_file, room, steps, unchanged
from packagemanager.entry import NO_DIGEST
from packagemanager.errors import NO_ROOM, UNCHANGED, BlockedError, PackageError, RefusedError, disk_error
from packagemanager.operation import PUT, Operation
from packagemanager.phases import BACK, DAMAGED, DONE, FORWARD, TRYING, UNDONE, WAITING
from packagemanager.plan_file import Plan
from packagemanager.whole_file import read_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    from packagemanager.tree import Lock, Tree

    Arguments = ParamSpec("Arguments")
    Answer = TypeVar("Answer")
    Left = tuple[tuple[str, str], ...]  # see `Resumed`

GOES_ON = "restart, or call it again: it goes on where it is"


class Resumed:
    """What `Engine.resume` found and did.

    ``found`` is the phase that was there (None: nothing, or a staging that was dropped; `FORWARD`: also one that waited
    and was begun in vain), ``now`` the one after it: None (nothing under way any more), `TRYING`, `WAITING` (it is
    recovery's, at the next start), or `DAMAGED`; `DONE` if its owner confirmed it at once.
    ``facts`` are those of the plan, if there was one that reads. ``left`` are paths that could not be brought back as
    they were, each with the reason, or where something was put aside that others had made there since.
    An empty path: why all of it was turned back.
    """

    __slots__ = ("facts", "found", "left", "now")

    def __init__(self, found: str | None, now: str | None, facts: dict[str, str], left: Left = ()) -> None:
        self.found = found
        self.now = now
        self.facts = facts
        self.left = left

    def check_not_waiting(self) -> None:
        """Raises: RefusedError: what is under way is recovery's, at the next start."""
        if self.now == WAITING:
            raise RefusedError(
                "a transaction waits for the next start", "restart to have it, or drop it: unbrick packages undo"
            )

    def __repr__(self) -> str:
        return f"Resumed({self.found} -> {self.now}, left={self.left})"


class Engine:
    """The transaction of one tree. ``alive`` is called between operations: a watchdog may want to know.

    The way of a transaction::

        with closing(engine.lock()):
            engine.resume()
            staging = Staging(tree)                  # ... and decide the operations
            engine.prepare(operations, facts)        # all of it durable, the system unchanged
            engine.begin()                           # the point of no return by itself
            engine.forward()
            # or, in their place, engine.wait(); restart; and recovery calls resume(at_start=True)
            ...                                      # scripts
            engine.done()                            # the OS runs well; or engine.back()

    Nothing of it is kept in memory between two calls: another process may make the next one.

    Raises (every method):
        DiskError: the disk refused: whether the system changed is said.
        RefusedError: not in this phase.
    """

    def __init__(self, tree: Tree, alive: Callable[[], None] = lambda: None) -> None:
        self._tree = tree
        self._alive = alive

    # Looking.

    def lock(self) -> Lock:
        """Keep others out, until it is closed or this process ends. Raises: RefusedError: somebody else is at it."""
        try:
            places.make_folders(self._tree, places.FOLDER)
            return self._tree.lock(places.LOCK)
        except BlockingIOError:
            raise RefusedError("another process works on the packages", "wait for it to end") from None
        except OSError as error:
            raise disk_error("the packages' lock", error, UNCHANGED) from error

    def phase(self) -> str | None:
        """The phase as it is on the disk, or `DAMAGED`. Changes nothing."""
        return _told(self._situation)[0]

    def facts(self) -> dict[str, str]:
        """What `prepare` was told about the transaction that is under way; empty if none is."""
        plan = _told(self._situation)[1]
        return plan.facts if plan is not None else {}

    def operations(self) -> tuple[Operation, ...]:
        """The plan under way; empty if none is."""
        plan = _told(self._situation)[1]
        return plan.operations if plan is not None else ()

    # The way there.

    def prepare(self, operations: tuple[Operation, ...], facts: dict[str, str]) -> None:
        """Give what will go a second name, write the plan, keep room for what comes; all is durable then.

        A `Staging` went before. The attributes of folders to be removed are read here. The system is unchanged.

        Raises:
            RefusedError: the plan does not fit what is there, by path; or the disk has no room. Then, and on a
                DiskError, what was staged is gone again.
        """
        if self._written()[0] is not None or any(_told(self._tree.look, place) for place in places.PLANS):
            raise RefusedError("a transaction is under way", "resume first")
        try:
            self._prepare(operations, facts)
        except OSError as error:
            self._give_up(operations)
            raise disk_error("preparing a transaction", error, UNCHANGED) from error
        except PackageError:
            self._give_up(operations)
            raise

    def begin(self) -> None:
        """Phase "forward", durable: from now on recovery finishes it if nobody else does."""
        _told(self._enter, FORWARD, self._prepared())

    def wait(self) -> None:
        """In the place of `begin`: phase "waiting", durable. At the next start it is carried out if nothing changed."""
        _told(self._enter, WAITING, self._prepared())

    def forward(self) -> None:
        """Do every operation (those that are done stay so), then phase "trying", durable.

        Raises: BlockedError: something that is not ours is in the way. `back` is possible, and `resume` does it.
        """
        plan = self._plan_in((FORWARD,))
        _told(self._forward, plan)

    def back(self) -> Left:
        """Undo every operation and remove the transaction; in phase "forward", "trying" or "back". In "waiting" there
        is nothing to undo.

        Returns: see `Resumed.left`.
        """
        phase, waiting = _told(self._situation)
        if phase == WAITING:
            return _told(self._call_off, waiting)
        plan = self._plan_in((FORWARD, TRYING, BACK))
        return _told(self._back, plan)

    def done(self) -> None:
        """The new set stays: phase "done", durable; the transaction is removed. Only in phase "trying"."""
        phase, plan = _told(self._situation)
        if phase != TRYING:
            raise RefusedError(f"no transaction is being tried: {phase or 'none is under way'}", "apply one first")
        _told(self._enter, DONE, plan)
        _told(self._remove)

    def resume(self, *, at_start: bool = False) -> Resumed:
        """Finish what a cut began: see docs/packages.md. What is in "trying" stays so: its owner decides. So does what
        waits for the next start, unless this is ``at_start``: nothing of the root runs.
        """
        return _told(self._resume, at_start)

    def drop(self) -> None:
        """Remove the transaction's folder, whatever is in it; the system's files stay as they are.

        For what was staged and is not wanted, and after a repair that settled a `DAMAGED` transaction.
        """
        phase = self.phase()
        if phase in (WAITING, FORWARD, TRYING, BACK):
            raise RefusedError(f"a transaction is under way: {phase}", "finish or undo it first")
        _told(self._remove)

    # What they do.

    def _prepare(self, operations: tuple[Operation, ...], facts: dict[str, str]) -> None:
        found = plan_check.check(self._tree, operations)
        planned = keeping.keep(self._tree, operations, found, self._alive)
        room.keep(self._tree, operations)
        try:
            raw = plan_file.encode_plan(Plan(planned, [self._inode(one) for one in planned], facts))
        except ValueError as error:
            raise RefusedError(f"the plan cannot be written: {error}", "make the transaction smaller") from None
        for place in places.PLANS:
            self._tree.write(place, (raw,))
        self._tree.sync()

    def _inode(self, operation: Operation) -> int:
        staged = self._tree.look(places.new(operation.staged)) if operation.act == PUT else None
        return staged.inode[1] if staged is not None else 0

    def _forward(self, plan: Plan) -> None:
        for number, operation in enumerate(plan.operations):
            self._alive()
            self._with_room(steps.forward, self._tree, number, operation)
        self._tree.sync()
        self._enter(TRYING, plan)

    def _back(self, plan: Plan) -> Left:
        self._enter(BACK, plan)
        device = places.device(self._tree)
        left = []
        for number in reversed(range(len(plan.operations))):
            self._alive()
            operation, inode = plan.operations[number], (device, plan.inodes[number])
            reason = self._with_room(steps.back, self._tree, number, operation, inode)
            if reason:
                left.append((operation.path, reason))
        self._tree.sync()
        self._enter(UNDONE, plan)
        return (*left, *self._remove())

    def _resume(self, at_start: bool) -> Resumed:
        if self._tree.look(places.TRANSACTION) is None:
            return Resumed(None, None, {})
        phase, plan = self._situation()
        if phase == WAITING and plan is not None and not at_start:
            return Resumed(WAITING, WAITING, plan.facts)
        if plan is not None and phase in _RESUME:
            return _RESUME[phase](self, plan)
        facts = plan.facts if plan is not None else {}
        if phase == DAMAGED:
            return Resumed(phase, DAMAGED, facts)
        return Resumed(phase, None, facts, self._remove() if phase == DONE else self._drop(plan))

    def _resume_waiting(self, plan: Plan) -> Resumed:
        """The system ran on since: what somebody else has changed is theirs, and not one path is touched."""
        changed = unchanged.difference(self._tree, plan)
        if changed:
            said = ("", f"{changed}: the transaction that waited is dropped")
            return Resumed(WAITING, None, plan.facts, (said, *self._call_off(plan)))
        self._enter(FORWARD, plan)
        resumed = self._resume_forward(plan)
        return Resumed(WAITING if resumed.now else FORWARD, resumed.now, plan.facts, resumed.left)

    def _call_off(self, plan: Plan | None) -> Left:
        self._enter(UNDONE, plan)
        return self._drop(plan)

    def _drop(self, plan: Plan | None) -> Left:
        left: Left = ()
        try:
            keeping.let_go(self._tree, plan.operations if plan is not None else ())
        except OSError as error:
            left = (("", f"names of one file may be two files now: {error.strerror}"),)
        return (*left, *self._remove())

    def _resume_forward(self, plan: Plan) -> Resumed:
        try:
            self._forward(plan)
        except BlockedError as error:
            return Resumed(FORWARD, None, plan.facts, (("", str(error)), *self._back(plan)))
        return Resumed(FORWARD, TRYING, plan.facts)

    def _resume_trying(self, plan: Plan) -> Resumed:
        """A medium that lost what it said was durable is seen here, and that is done again."""
        operations = enumerate(plan.operations)
        if any(steps.was_lost(self._tree, *one) for one in operations):
            resumed = self._resume_forward(plan)
            return Resumed(TRYING, resumed.now, plan.facts, resumed.left)
        if self._written()[0] != TRYING:
            self._enter(TRYING, plan)
        return Resumed(TRYING, TRYING, plan.facts)

    def _resume_back(self, plan: Plan) -> Resumed:
        return Resumed(BACK, None, plan.facts, self._back(plan))

    # The phase.

    def _enter(self, phase: str, plan: Plan | None) -> None:
        raw = plan_file.encode_phase(phase, plan.digest if plan is not None else NO_DIGEST)
        # What scripts did is nobody's operation: it is durable before the transaction may be called over.
        self._with_room(self._tree.replace, places.PHASE, raw, after_all=phase == DONE)

    def _situation(self) -> tuple[str | None, Plan | None]:
        """The phase, and the plan if one reads. "trying" without a plan cannot be undone: it is damaged."""
        written, plan_digest = self._written()
        plan = self._plan(plan_digest)
        if written in (DONE, UNDONE) or (written is None and plan is None):
            return written, plan
        if plan is None:
            # Of one that waited, nothing was touched: there is nothing to be told by it.
            return (WAITING if written == WAITING else DAMAGED), None
        if written in (None, DAMAGED):
            return damage.judge(damage.Evidence(self._tree, plan), has_phase=written is not None), plan
        return written, plan

    def _prepared(self) -> Plan:
        phase, plan = _told(self._situation)
        if phase is not None or plan is None:
            raise RefusedError(f"nothing is prepared, or more than that: {phase}", "prepare a transaction first")
        return plan

    def _written(self) -> tuple[str | None, bytes]:
        """What the phase's file says, `DAMAGED` if it does not read, and the digest of its plan."""
        try:
            raw = read_again(self._tree, places.PHASE, plan_file.PHASE_BYTES_MAX)
            return plan_file.decode_phase(raw) if raw is not None else (None, NO_DIGEST)
        except (ValueError, OSError):
            return DAMAGED, NO_DIGEST

    def _plan(self, plan_digest: bytes) -> Plan | None:
        """The first copy that reads; the one with this digest, if there is one."""
        for place in places.PLANS:
            try:
                raw = read_again(self._tree, place, plan_file.PLAN_BYTES_MAX)
                plan = plan_file.decode_plan(raw) if raw is not None else None
            except (ValueError, OSError):
                continue
            if plan is not None and plan_digest in (NO_DIGEST, plan.digest):
                return plan
        return None

    def _plan_in(self, phases: tuple[str, ...]) -> Plan:
        phase, plan = _told(self._situation)
        if phase not in phases or plan is None:
            raise RefusedError(f"no transaction is there for this: {phase or 'none is under way'}", "resume first")
        return plan

    # The end.

    def _remove(self) -> Left:
        """The transaction is over: what cannot be removed is no failure of it."""
        discarded.try_again(self._tree)
        return discarded.remove(self._tree, places.TRANSACTION, lambda _tree, _path: self._remove_folder())

    def _remove_folder(self) -> None:
        """The phase goes last, and what it tells of is durably gone before: else nobody could say what remains."""
        if self._tree.look(places.TRANSACTION) is None:
            return
        if self._tree.look(places.PHASE) is not None:
            places.remove_transaction(self._tree, keep=(places.PHASE,))
            self._tree.sync()
        places.remove_transaction(self._tree)

    def _give_up(self, operations: tuple[Operation, ...]) -> None:
        """As far as the disk lets us: what remains is dropped by the next resume."""
        try:
            try:
                keeping.let_go(self._tree, operations)
            finally:
                places.remove_transaction(self._tree)
        except OSError:
            return

    def _with_room(
        self, act: Callable[Arguments, Answer], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Answer:
        """What `room` is for. Whatever is called here can be called again."""
        while True:
            try:
                return act(*arguments, **named)
            except OSError as error:
                if error.errno not in NO_ROOM or not room.give_up(self._tree):
                    raise


def _told(act: Callable[Arguments, Answer], *arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
    try:
        return act(*arguments, **named)
    except OSError as error:
        raise disk_error("the transaction", error, GOES_ON) from error


_RESUME = {
    WAITING: Engine._resume_waiting,
    FORWARD: Engine._resume_forward,
    TRYING: Engine._resume_trying,
    BACK: Engine._resume_back,
}
