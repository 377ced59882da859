"""Brings back what packages put and what is no longer as it was, until nothing is left to do. Scriptless.

Each round is a transaction of its own, carried out by the same engine as any other: a cut leaves the state before it or
the one after it, and the next call goes on. First what a system cannot be read without, then folders and links, then
files. What verifies is not touched; what the owner changed stays.
"""

from __future__ import annotations

from packagemanager import rebuild, repair_plan, verify
from packagemanager.arriving import Step
from packagemanager.database import Database, read_text
from packagemanager.dpkg_lock import DpkgLock
from packagemanager.engine import Engine
from packagemanager.entry import LINK, Entry
from packagemanager.errors import BlockedError, DatabaseError, DiskError, RefusedError
from packagemanager.ground import Ground
from packagemanager.operation import PUT, Operation
from packagemanager.phases import APPLY, DAMAGED, TRYING
from packagemanager.staging import Staging
from packagemanager.wanted import NOTHING, decode
from packagemanager.wanted import PATH as WANTED_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packagemanager.incoming import Source
    from packagemanager.repair_plan import Repair
    from packagemanager.tree import Tree
    from packagemanager.verify import Finding

    Bring = Callable[[Sequence[str]], Mapping[str, Source]]

ROUNDS_MAX = 8
KIND = "repair"
CHANGES_TOLD_MAX = 200


class Outcome:
    """``repaired`` are the operations that were done, in words; ``left`` is what cannot be repaired, and why not."""

    __slots__ = ("left", "repaired")

    def __init__(self, repaired: Sequence[str], left: Sequence[tuple[Finding, str]]) -> None:
        self.repaired = tuple(repaired)
        self.left = tuple(left)

    def __repr__(self) -> str:
        return f"Outcome({len(self.repaired)} repaired, {len(self.left)} left)"


def repair(tree: Tree, bring: Bring, alive: Callable[[], None] = lambda: None, *, partial: bool = False) -> Outcome:
    """Repair everything below ``tree``. ``bring`` gives packages by key, for the keys that are needed.

    ``partial``: what needs packages that ``bring`` does not give is left, and the rest is repaired.

    Raises:
        RefusedError: packages are needed that ``bring`` does not give, by name; another process works on the packages,
            or dpkg does; the packages of the last transaction are on trial.
        DatabaseError: what is installed cannot be told.
        TransactionError, ArchiveError: what ``bring`` gave is not what was installed.
        DiskError: the disk refused.
    """
    engine = Engine(tree, alive)
    with DpkgLock(tree, engine.lock()):
        _clear_the_way(engine)
        return _Repairs(tree, engine, bring, alive, partial).run()


def _clear_the_way(engine: Engine) -> None:
    resumed = engine.resume()
    resumed.check_not_waiting()
    if resumed.now == DAMAGED:
        engine.drop()  # nobody can tell any more what it wanted: what the records say counts
    elif resumed.now == TRYING:
        if resumed.facts.get("kind", APPLY) == APPLY:
            raise RefusedError(
                "the packages of the last transaction are on trial",
                "Undo them, or confirm them with `unbrick mark-good`; then repair.",
            )
        engine.done()


class _Repairs:
    def __init__(self, tree: Tree, engine: Engine, bring: Bring, alive: Callable[[], None], partial: bool) -> None:
        self._tree = tree
        self._engine = engine
        self._bring = bring
        self._alive = alive
        self._partial = partial
        self._repaired: list[str] = []
        self._left: list[tuple[Finding, str]] = []

    def run(self) -> Outcome:
        try:
            self._carry_out(self._basics)
            for _round in range(ROUNDS_MAX):
                if not self._carry_out(self._packages):
                    return Outcome(self._repaired, self._left)
        except OSError as error:
            raise DiskError(f"the repair stopped: {error}", "Call it again: what was repaired stays so.") from error
        raise DiskError(
            f"what was repaired {ROUNDS_MAX} times is damaged again",
            "`unbrick packages verify` says what; look after the disk.",
        )

    def _carry_out(self, plan: Callable[[Staging], Repair]) -> bool:
        """One transaction; whether there was anything to do."""
        staging = Staging(self._tree)
        try:
            repair = plan(staging)
        except BaseException:
            staging.abandon()
            raise
        self._left = list(repair.left)
        if not repair.steps:
            staging.abandon()
            return False
        told = [str(step) for step in repair.steps]
        self._engine.prepare(repair.operations, self._facts(told))
        self._engine.begin()
        try:
            self._engine.forward()
        except BlockedError:
            self._engine.back()
            raise
        self._engine.done()
        self._repaired += told
        return True

    def _facts(self, told: Sequence[str]) -> dict[str, str]:
        """The set of packages is the one that was wanted before."""
        try:
            wanted = decode(read_text(self._tree, WANTED_PATH) or NOTHING.encode())
        except DatabaseError:
            wanted = NOTHING
        changes = "\n".join(told[:CHANGES_TOLD_MAX])
        return {"serial": str(wanted.serial), "transaction": wanted.transaction.hex(), "changes": changes, "kind": KIND}

    def _basics(self, staging: Staging) -> Repair:
        """What a system cannot be read without."""
        steps = []
        for path, content in rebuild.texts(self._tree).items():
            place = self._tree.resolve(path)
            kept = self._tree.look(place) is not None
            number = staging.text(path, content)
            steps.append(Step(Operation(PUT, place, staged=number, kept=kept), "the database does not read"))
        return repair_plan.Repair(steps, ())

    def _packages(self, staging: Staging) -> Repair:
        database = Database(self._tree)
        findings = verify.verify(database, None, self._alive)
        links = rebuild.links(self._tree, findings)
        if links:
            return repair_plan.Repair([_merged(staging, *one) for one in links.items()], ())
        wanted = repair_plan.needed(findings)
        sources = self._bring(wanted) if wanted else {}
        ground = Ground(self._tree, database)
        return repair_plan.make(findings, sources, database, ground, staging, self._partial)


def _merged(staging: Staging, place: str, target: str) -> Step:
    number = staging.link(Entry(place, LINK, target=target))
    return Step(Operation(PUT, place, staged=number), "the link of a merged /usr")
