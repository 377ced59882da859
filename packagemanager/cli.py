"""The verbs of ``unbrick packages``, for the command of the device and for that of the build host.

What a machine has that differs (whom to believe, a journal, scripts) it gives as a :class:`Place`. Exit codes: 0 done,
1 error, 2 nothing to do, 4 a restart is needed, 5 dpkg or apt is at work and nothing was done.
"""

from __future__ import annotations

import json
import sys

from packagemanager import adopt as adoption
from packagemanager import discarded, files, places
from packagemanager.changes import needs_restart
from packagemanager.database import Database
from packagemanager.dpkg_lock import WAIT_SECONDS_MAX, DpkgLock
from packagemanager.errors import BusyError, PackageError, RefusedError, TransactionError, left_lines
from packagemanager.opened import Opened
from packagemanager.phases import BACK, DONE, FORWARD, TRYING, UNDONE, WAITING
from packagemanager.transact import NOTHING_TO_DO, ON_TRIAL, WAITS_FOR_RESTART, Manager
from packagemanager.wanted import PATH as WANTED_PATH
from payload.errors import FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from packagemanager.engine import Resumed
    from packagemanager.ledger import Ledger
    from packagemanager.root import Root
    from packagemanager.scripts import Run
    from packagemanager.transact import Order, Proposal, Report
    from packagemanager.tree import Tree

    class Place(Protocol):
        """The machine that the command runs on. Methods raise ``PackageError``, ``PayloadError``, ``OSError``."""

        def root(self, folder: str) -> Root:
            """What is below ``folder``."""

        def order(
            self, chosen: Namespace, tree: Tree, last_serial: int, opened: Opened, *, take: bool = False
        ) -> Order:
            """The transaction that is named, believed; what it reads from is added to ``opened``. ``take``: it is to be
            applied, not looked at.
            """

        def ledger(self, folder: str) -> Ledger | None:
            """The journal, if the packages below ``folder`` are those of a device that has one."""

        def run(self, folder: str) -> Run:
            """What runs scripts of the packages below ``folder``."""

        def report(self) -> Report: ...

        def alive(self) -> None: ...


EXIT_DONE, EXIT_ERROR, EXIT_NOTHING, EXIT_RESTART, EXIT_BUSY = 0, 1, 2, 4, 5
_OUTCOMES = {
    NOTHING_TO_DO: (EXIT_NOTHING, "everything is as it is wanted"),
    WAITS_FOR_RESTART: (EXIT_RESTART, "everything is on the disk; restart to have it: unbrick reboot"),
    ON_TRIAL: (EXIT_DONE, "applied; `unbrick mark-good` confirms it, else it is undone after a few starts"),
    DONE: (EXIT_DONE, "applied"),
}
_OF_A_DISK = "`unbrick packages apply` finishes or undoes what was begun; then look after the disk."


class Option:
    """An option of a verb. ``flag`` takes no value, ``many`` any number of them."""

    __slots__ = ("flag", "help", "many", "metavar", "name")

    def __init__(self, name: str, help: str, *, metavar: str = "", flag: bool = False, many: bool = False) -> None:
        self.name = name
        self.help = help
        self.metavar = metavar
        self.flag = flag
        self.many = many

    @property
    def is_position(self) -> bool:
        return not self.name.startswith("-")


class Verb:
    __slots__ = ("description", "examples", "name", "options", "run", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        run: Callable[[Namespace, Place], int],
        options: Iterable[Option] = (),
        description: str = "",
        examples: Iterable[str] = (),
        *,
        has_root: bool = True,
    ) -> None:
        self.name = name
        self.summary = summary
        self.run = run
        self.options = (ROOT, *options) if has_root else tuple(options)
        self.description = description
        self.examples = tuple(examples)


def run(verb: Verb, chosen: Namespace, place: Place) -> int:
    """Run it; an error is one line what, one line what to do. ``chosen.json`` asks for JSON on standard output."""
    try:
        return verb.run(chosen, place)
    except PackageError as error:
        return _fail(chosen, str(error), error.advice, EXIT_BUSY if isinstance(error, BusyError) else EXIT_ERROR)
    except (BrokenPipeError, FetchError):
        raise  # it is not the disk that refused
    except OSError as error:
        return _fail(chosen, f"the disk refused: {error}", _OF_A_DISK)


def _fail(chosen: Namespace, text: str, advice: str, code: int = EXIT_ERROR) -> int:
    if chosen.json:
        print(json.dumps({"outcome": "failed", "detail": text, "advice": advice}))
    print(f"unbrick: {text}", file=sys.stderr)
    if advice:
        print(f"unbrick: what to do: {advice}", file=sys.stderr)
    return code


def _status(chosen: Namespace, place: Place) -> int:
    with place.root(chosen.root) as tree:
        database, manager = Database(tree), Manager(tree)
        wanted = manager.last()
        installed = database.installed()
        facts: dict[str, Any] = {
            "state": database.state().hex(),
            "serial": wanted.serial,
            "transaction": wanted.transaction.hex(),
            "architectures": list(database.architectures()),
            "under-way": manager.engine.phase() or "",
            "under-way-facts": manager.engine.facts(),
            "adopted": tree.look(WANTED_PATH) is not None,
            "not-whole": [package.key for package in database.present() if not package.complete],
            "is-as-wanted": installed == wanted.packages,
            "installed": installed,
        }
    told = {name: value for name, value in facts.items() if name not in ("installed", "under-way-facts")}
    told["packages"] = len(installed)
    lines = [f"{name + ':':<14} {_text(value)}" for name, value in told.items()]
    return _show(chosen, facts, lines)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) if isinstance(value, list) else str(value)) or "none"


def _plan(chosen: Namespace, place: Place) -> int:
    if not chosen.transaction:
        raise TransactionError("no transaction is named", "unbrick packages plan FILE")
    with place.root(chosen.root) as tree, Opened() as opened:
        manager = _manager(chosen, place, tree)
        order = place.order(chosen, tree, manager.last().serial - 1, opened)
        proposal = manager.plan(order)
    facts = {
        "changes": proposal.changes.lines(),
        "notes": list(proposal.plan.notes),
        "steps": [_step(step) for step in proposal.plan.steps],
        "unchanged": proposal.plan.unchanged,
        "restart-needed": needs_restart(proposal.changes),
    }
    return _show(chosen, facts, _plan_lines(proposal)) or (EXIT_DONE if len(proposal.changes) else EXIT_NOTHING)


def _step(step: Any) -> dict[str, str]:
    return {"act": step.operation.act, "path": f"/{step.operation.path}", "why": step.why}


def _plan_lines(proposal: Proposal) -> Iterable[str]:
    yield from proposal.changes.lines() or ["no package changes"]
    for note in proposal.plan.notes:
        yield f"note: {note}"
    for step in proposal.plan.steps:
        yield str(step)
    yield f"{len(proposal.plan.steps)} steps; {proposal.plan.unchanged} entries are as they shall be already"
    if needs_restart(proposal.changes):
        yield "packages that everything needs change: the files change at the next start"


def _apply(chosen: Namespace, place: Place) -> int:
    with place.root(chosen.root) as tree, Opened() as opened:
        manager = _manager(chosen, place, tree)
        settle = manager.ledger is None
        if not chosen.transaction:
            return _resumed(chosen, manager.resume(settle=settle, lock_seconds_max=WAIT_SECONDS_MAX))
        live = _is_live(chosen, settle)
        last = manager.wanted() if settle else manager.last()  # without a journal nobody else knows it
        order = place.order(chosen, tree, last.serial - 1, opened, take=True)
        outcome = manager.apply(order, live=live, settle=settle)
    return _report(chosen, outcome, *_OUTCOMES[outcome], serial=order.serial)


def _is_live(chosen: Namespace, settle: bool) -> bool | None:
    """Whether the files change now; None: it depends on the packages. Raises ``RefusedError``: not as it is asked."""
    if chosen.offline and chosen.live:
        raise RefusedError("--live and --offline: files change now, or at the next start", "Give one of them.")
    if chosen.offline and settle:
        raise RefusedError("--offline: no recovery looks after this folder", "Leave it out: the files change now.")
    if chosen.live or settle:
        return True
    return False if chosen.offline else None


def _manager(chosen: Namespace, place: Place, tree: Tree) -> Manager:
    runner = None if getattr(chosen, "no_scripts", False) else place.run(chosen.root)
    return Manager(tree, run=runner, ledger=place.ledger(chosen.root), report=place.report(), alive=place.alive)


def _resumed(chosen: Namespace, resumed: Resumed) -> int:
    """What a cut had left, and what became of it."""
    serial = int(resumed.facts.get("serial", "0") or 0)
    for line in left_lines(resumed.left):
        print(f"unbrick: {line}", file=sys.stderr)
    if resumed.found is None:
        return _report(chosen, NOTHING_TO_DO, EXIT_NOTHING, "no transaction was interrupted", serial=serial)
    if resumed.now == WAITING:
        return _report(chosen, WAITS_FOR_RESTART, *_OUTCOMES[WAITS_FOR_RESTART], serial=serial)
    if resumed.now == TRYING:
        return _report(chosen, ON_TRIAL, *_OUTCOMES[ON_TRIAL], serial=serial)
    outcome = DONE if DONE in (resumed.found, resumed.now) else UNDONE
    return _report(chosen, outcome, EXIT_DONE, f"what was interrupted is {outcome}", serial=serial)


def _verify(chosen: Namespace, place: Place) -> int:
    from packagemanager import verify

    with place.root(chosen.root) as tree:
        database = Database(tree)
        keys = [package.key for package in database.present() if _is_meant(package.key, chosen.package)]
        _check_names(chosen.package, keys)
        findings = verify.verify(database, keys, place.alive)
    damaged = [finding for finding in findings if not finding.allowed]
    facts = {
        "packages": len(keys),
        "damaged": [_finding(finding) for finding in damaged],
        "allowed": [_finding(finding) for finding in findings if finding.allowed],
    }
    lines = [str(finding) for finding in damaged]
    lines += [f"{finding} (the owner may do that)" for finding in findings if finding.allowed]
    _show(chosen, facts, [*lines, f"{len(keys)} packages, {len(damaged)} things are not as they were put"])
    if damaged:
        print("unbrick: what to do: unbrick packages repair TRANSACTION", file=sys.stderr)
    return EXIT_ERROR if damaged else EXIT_DONE


def _is_meant(key: str, names: list[str]) -> bool:
    return not names or key in names or key.partition(":")[0] in names


def _check_names(names: list[str], keys: list[str]) -> None:
    """Raises ``RefusedError``: of a package that is not there, nothing could be found wrong."""
    unknown = [name for name in names if not any(_is_meant(key, [name]) for key in keys)]
    if unknown:
        raise RefusedError(f"not installed: {', '.join(unknown)}", "`unbrick packages status --json` lists what is.")


def _finding(finding: Any) -> dict[str, str]:
    return {"package": finding.key, "path": f"/{finding.place}", "problem": finding.problem}


def _repair(chosen: Namespace, place: Place) -> int:
    from packagemanager.repair import repair

    with place.root(chosen.root) as tree, Opened() as opened:
        order = place.order(chosen, tree, -1, opened) if chosen.transaction else None
        outcome = repair(tree, order.bring if order else lambda keys: {}, place.alive)
    left = [f"{finding}: {reason}" for finding, reason in outcome.left]
    facts = {"repaired": list(outcome.repaired), "left": left}
    _show(chosen, facts, [*outcome.repaired, *left, f"{len(outcome.repaired)} repaired, {len(left)} left"])
    if left:
        return EXIT_ERROR
    return EXIT_DONE if outcome.repaired else EXIT_NOTHING


def _gc(chosen: Namespace, place: Place) -> int:
    with place.root(chosen.root) as tree:
        manager = _manager(chosen, place, tree)
        resumed = manager.resume(settle=manager.ledger is None)
        resumed.check_not_waiting()
        with DpkgLock(tree, manager.engine.lock()):
            if manager.engine.phase() in (WAITING, FORWARD, BACK):
                raise RefusedError("another process began a transaction", "Wait for it to end.")
            database = Database(tree)
            stems = {database.stem(package.fields) for package in database.present()}
            gone = [f"{files.FOLDER}/{name}" for name in places.names(tree, files.FOLDER) if name not in stems]
            for path in gone:
                tree.unlink(path)
            discarded.try_again(tree)
            tree.sync()
    removed = [f"/{path}" for path in gone]
    if resumed.found is None and not removed:
        return _report(chosen, NOTHING_TO_DO, EXIT_NOTHING, "there is nothing that nobody needs")
    return _show(chosen, {"removed": removed, "resumed": resumed.found}, [*removed, "done"])


def _adopt(chosen: Namespace, place: Place) -> int:
    with place.root(chosen.root) as tree:
        adopted = adoption.adopt(tree, place.report())
    facts = {
        "packages": adopted.packages,
        "differences": [{"path": f"/{path}", "problem": problem} for path, problem in adopted.differences],
    }
    lines = [f"/{path} {problem}" for path, problem in adopted.differences]
    _show(chosen, facts, [*lines, f"{len(adopted.packages)} packages adopted"])
    return EXIT_DONE if adopted.packages else EXIT_NOTHING


def _show(chosen: Namespace, facts: dict[str, Any], lines: Iterable[str]) -> int:
    if chosen.json:
        print(json.dumps(facts, indent=1))
    else:
        for line in lines:
            print(line)
    return EXIT_DONE


def _report(chosen: Namespace, outcome: str, code: int, text: str, **facts: Any) -> int:
    if chosen.json:
        print(json.dumps({"outcome": outcome, "detail": text, "restart-needed": code == EXIT_RESTART, **facts}))
    else:
        print(f"unbrick: {text}")
    return code


ROOT = Option("--root", "the folder that the packages are in; the running system's without", metavar="DIR")
TRANSACTION = Option(
    "transaction", "the master's transaction: a file, a disk or partition, or a URL", metavar="FILE|URL"
)
NO_SCRIPTS = Option("--no-scripts", "run no maintainer scripts: for a root of another machine", flag=True)
VERBS = (
    Verb(
        "status",
        "what is installed, and what is under way",
        _status,
        description="With --json it says all that a master has to know of a device.",
        examples=("unbrick packages status", "unbrick packages status --json"),
    ),
    Verb(
        "plan",
        "say what a transaction would do, step by step, and do nothing",
        _plan,
        (TRANSACTION, NO_SCRIPTS),
        examples=("unbrick packages plan update.ubk",),
    ),
    Verb(
        "apply",
        "bring the packages to what the master wants",
        _apply,
        (
            TRANSACTION,
            Option("--live", "change the files now; without it, those that everything needs wait", flag=True),
            Option("--offline", "let recovery change the files at the next start, before the system runs", flag=True),
            NO_SCRIPTS,
        ),
        "Without a transaction: finish or undo what a power cut or a kill interrupted, and run the scripts that are\n"
        "left. dpkg and apt are waited for then, ten minutes at most.",
        ("unbrick packages apply update.ubk", "unbrick packages apply --offline update.ubk", "unbrick packages apply"),
    ),
    Verb(
        "verify",
        "compare what is on the disk with what packages put there",
        _verify,
        (Option("package", "only these", metavar="PACKAGE", many=True),),
        "What the owner of the system may do (configuration, attributes of folders) is told, and is no damage.",
        examples=("unbrick packages verify", "unbrick packages verify libc6 dpkg --json"),
    ),
    Verb(
        "repair",
        "bring back what is damaged or missing",
        _repair,
        (TRANSACTION,),
        "Damaged files come from the transaction; what is remembered twice needs none.",
        ("unbrick packages repair", "unbrick packages repair last.ubk"),
    ),
    Verb(
        "gc",
        "remove what nobody needs: what transactions left, and records of packages that are gone",
        _gc,
        examples=("unbrick packages gc",),
    ),
    Verb(
        "adopt",
        "take over a system that dpkg made",
        _adopt,
        description="Nothing changes but what is remembered. What is not as its package shipped it is told.",
        examples=("unbrick packages adopt", "unbrick packages adopt --root /mnt --json"),
    ),
)
