"""A transaction of packages, finished or undone in the primary slot's root before the OS runs.

What is done is what the phase in the root says (docs/packages.md, "resume"); only the wish to undo comes from the
journal. Runs no scripts: they are the OS's. Off the ordinary boot's path: imports the package manager.
"""

from __future__ import annotations

import time

from packagemanager import places
from packagemanager.engine import Engine
from packagemanager.errors import PackageError, left_lines
from packagemanager.phases import APPLY, DAMAGED, DONE, TRYING, UNDONE, WAITING
from recovery.console import note
from recovery.package_facts import is_again, name_of, serial_of
from statemachine.reasons import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from packagemanager.tree import Tree
    from recovery.actions import Result
    from recovery.workshop import Workshop
    from statemachine.record import Record

    class OpenRoot(Protocol):
        """A root that is mounted until it is closed. ``OSError`` where it cannot be, and then nothing is mounted."""

        @property
        def tree(self) -> Tree: ...

        def close(self) -> None: ...


OPEN_PAUSE_SECONDS = 2.0


def finish(workshop: Workshop, record: Record) -> Result:
    """Carry the transaction out, or bring the old set back, as its phase says."""
    return _in_root(workshop, record, _finish)


def undo(workshop: Workshop, record: Record) -> Result:
    """Bring the old set back. What the OS has called good already stays."""
    return _in_root(workshop, record, _undo)


def _in_root(workshop: Workshop, record: Record, work: Callable[[Engine, Record], Result]) -> Result:
    """Do it. What the disk refuses twice is undone: the old set is whole beside the new one.

    Whatever goes wrong in the package manager is an answer: nothing counts how often recovery comes here, and the OS
    has to start.
    """
    root = _opened(workshop, record)
    if root is None:
        return _DAMAGED
    try:
        result = _first_done((work, work, _undo), Engine(root.tree, workshop.alive), record)
        if result[0] == "packages_undone":
            _bring_back(root.tree, workshop.alive)
        return result
    finally:
        root.close()


def _opened(workshop: Workshop, record: Record) -> OpenRoot | None:
    """The root. A disk that refuses once is asked again: without it, the OS loses its state."""
    for pause_seconds in (OPEN_PAUSE_SECONDS, 0.0):
        try:
            return workshop.open_root(record)
        except OSError as error:
            note(f"packages: the root cannot be mounted: {error}")
            time.sleep(pause_seconds)
    return None


def _first_done(works: tuple[Callable[[Engine, Record], Result], ...], engine: Engine, record: Record) -> Result:
    for work in works:
        try:
            return work(engine, record)
        except Exception as error:
            _failed(error)
    return _DAMAGED


def _failed(error: Exception) -> None:
    is_known = isinstance(error, PackageError | OSError)
    note(f"packages: {error}" if is_known else f"packages: a fault of this program: {error!r}")


def _bring_back(tree: Tree, alive: Callable[[], None]) -> None:
    """What scripts took away, and can put back themselves no more: the rest is done in the OS, by them."""
    try:
        if tree.look(places.SCRIPTS_BEGUN) is not None:
            from packagemanager import taken_away

            _tell(tuple(taken_away.bring_back(tree, scripts_follow=True, alive=alive)))
    except Exception as error:
        _failed(error)


def _finish(engine: Engine, record: Record) -> Result:
    resumed = engine.resume(at_start=True)
    _tell(resumed.left)
    if resumed.now == DAMAGED:
        return _DAMAGED
    if resumed.now == TRYING and resumed.facts.get("kind", APPLY) != APPLY:
        engine.done()  # a repair or an adoption: there is nothing to be tried
        return "packages_undone", CODES["packages-absent"], {}
    if resumed.now == TRYING:
        note(f"packages: transaction {serial_of(resumed.facts)} is in the root")
        return "packages_finished", CODES["packages-finished"], _learned(record, resumed.facts)
    return _undone(resumed.found, resumed.facts)


def _undo(engine: Engine, _record: Record) -> Result:
    phase, facts = engine.phase(), engine.facts()
    if phase == DAMAGED:
        return _DAMAGED
    if phase in (None, DONE, UNDONE):
        engine.resume()
    else:
        _tell(engine.back())
    return _undone(phase, facts)


_DAMAGED: Result = ("packages_damaged", CODES["packages-damaged"], {})


def _undone(phase: str | None, facts: dict[str, str]) -> Result:
    """``phase`` is the one that was found."""
    if phase in (None, DONE):
        return "packages_undone", CODES["packages-absent"], {}
    if phase == WAITING:
        return "packages_undone", CODES["packages-changed-meanwhile"], {}
    return "packages_undone", CODES["packages-undone"], {} if phase == UNDONE else _forgotten(facts)


def _forgotten(facts: dict[str, str]) -> dict[str, Any]:
    """A set that is brought back is not called good before it has run well there: one that fails does not come again
    and again. One that waited and was dropped did not fail.
    """
    return {"packages_good": 0} if is_again(facts) else {}


def _learned(record: Record, facts: dict[str, str]) -> dict[str, Any]:
    """What the root says of the transaction that is on trial in it; the journal may be a new one."""
    serial = max(record.packages_serial, serial_of(facts))
    return {"packages_serial": serial, "packages_digest": name_of(facts), **_forgotten(facts)}


def _tell(left: tuple[tuple[str, str], ...]) -> None:
    for line in left_lines(left):
        note(f"packages: {line}")
