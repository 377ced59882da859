"""Drives the engine on a simulated file system through power cuts, and judges what is there afterwards.

A system counts as whole if every path has what the old set says, or every path what the new one says: content, mode,
owner, links, and the times of all but folders; nothing else is there, nothing of the transaction, and no lock is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from packagemanager import places
from packagemanager.engine import Engine, Resumed
from packagemanager.entry import DIRECTORY
from packagemanager.phases import TRYING
from packagemanager.plan_file import decode_phase
from packagemanager.staging import Staging
from tests.simulator.file_changes import survivors
from tests.simulator.file_sets import NEW, OLD, Files, lay_down, plan
from tests.simulator.filesystem import FileSystem, Moment, after_cut

if TYPE_CHECKING:
    from packagemanager.tree import Tree

FACTS = {"serial": "7", "changes": "tool 1 -> 2\nother \\ 3"}
ASIDE = (f"{places.LOCK}/", f"{places.TRANSACTION}/")
Snapshot = dict[str, tuple[object, ...]]


class Violation(AssertionError):  # noqa: N818 - named for what happened
    """The files are neither set, or something remained. Says where."""


def system(files: Files) -> FileSystem:
    fresh = FileSystem()
    lay_down(fresh, files)
    places.make_folders(fresh, places.FOLDER)
    fresh.lock(places.LOCK).close()
    fresh.sync()
    return fresh.restarted()


def snapshot(tree: FileSystem, aside: tuple[str, ...] = ASIDE, of_the_moment: tuple[str, ...] = ()) -> Snapshot:
    """What is at every path; names of one file have its first name. Without the times of folders.

    What begins with ``aside`` is left out; what begins with ``of_the_moment`` has no time that anybody chose.
    """
    first: dict[int, str] = {}
    found: Snapshot = {}
    for path, inode in sorted(tree.now.reachable()):
        if not f"{path}/".startswith(aside):
            node = tree.now.nodes[inode]
            is_folder = node.kind == DIRECTORY
            time = 0 if is_folder or path.startswith(of_the_moment) else node.mtime
            found[path] = (*node[:4], time, node.content, path if is_folder else first.setdefault(inode, path))
    return found


def is_left(tree: FileSystem) -> bool:
    return any(f"{path}/".startswith(f"{places.TRANSACTION}/") for path, _inode in tree.now.reachable())


class Judge:
    """Knows both sets as they look when nothing was ever cut."""

    def __init__(self, old: Files = OLD, new: Files = NEW) -> None:
        self.start = system(old)
        self.old = snapshot(self.start)
        self.new = snapshot(system(new))
        always = self.old.keys() & self.new.keys()
        self.always = [path for path in always if DIRECTORY not in (self.old[path][0], self.new[path][0])]

    def never_torn(self, tree: FileSystem, where: str) -> None:
        """Before anybody put anything in order: what both sets have is there, as one of them has it."""
        found = snapshot(tree)
        for path in self.always:
            there = found.get(path, ())[:6]
            if there not in (self.old[path][:6], self.new[path][:6]):
                raise Violation(f"{where}: {path!r} is torn: {there}")

    def whole(self, tree: FileSystem, where: str) -> str:
        """Which set it is. Raises: Violation."""
        found = snapshot(tree)
        for name, wanted in (("old", self.old), ("new", self.new)):
            if found == wanted:
                return name
        raise Violation(f"{where}: neither set; old: {_first_difference(found, self.old)}; "
                        f"new: {_first_difference(found, self.new)}")  # fmt: skip

    def clean(self, tree: FileSystem, where: str) -> str:
        name = self.whole(tree, where)
        if is_left(tree):
            raise Violation(f"{where}: something of the transaction is left")
        tree.lock(places.LOCK).close()
        return name


def _first_difference(found: Snapshot, wanted: Snapshot) -> str:
    paths = sorted(path for path in {*found, *wanted} if found.get(path) != wanted.get(path))
    return ", ".join(f"{path!r} is {found.get(path)}, not {wanted.get(path)}" for path in paths[:2])


def prepared(tree: Tree, engine: Engine, old: Files = OLD, new: Files = NEW) -> None:
    staging = Staging(tree)
    engine.prepare(plan(old, new, staging), FACTS)


def apply(tree: Tree) -> None:
    engine = Engine(tree)
    with closing(engine.lock()):
        engine.resume()
        prepared(tree, engine)
        engine.begin()
        engine.forward()
        engine.done()


def apply_and_undo(tree: Tree) -> None:
    engine = Engine(tree)
    with closing(engine.lock()):
        prepared(tree, engine)
        engine.begin()
        engine.forward()
        engine.back()


def apply_at_start(tree: Tree) -> None:
    """Staged by a running system; the rest is recovery's."""
    engine = Engine(tree)
    with closing(engine.lock()):
        prepared(tree, engine)
        engine.wait()
    engine = Engine(tree)
    engine.resume(at_start=True)
    engine.done()


def comes_back(judge: Judge, tree: FileSystem, where: str) -> Resumed:
    """The next start: it is the old set or the new one, and both ways lead on from a new one that is being tried."""
    judge.never_torn(tree, where)
    written = written_phase(tree, where)
    resumed = Engine(tree).resume(at_start=True)
    if resumed.found != written:
        raise Violation(f"{where}: the phase is {written}, and {resumed} was only judged by what is there")
    if resumed.left:
        raise Violation(f"{where}: {resumed.left}")
    if resumed.now is None:
        judge.clean(tree, where)
        return resumed
    if resumed.now != TRYING or judge.whole(tree, where) != "new":
        raise Violation(f"{where}: {resumed}, and the set is {judge.whole(tree, where)}")
    for ending, wanted in ((Engine.done, "new"), (Engine.back, "old")):
        again = tree.restarted()
        if ending(Engine(again)) or judge.clean(again, where) != wanted:
            raise Violation(f"{where}: {ending.__name__} did not lead to the {wanted} set")
    return resumed


def written_phase(tree: FileSystem, where: str) -> str | None:
    """As its file says. Raises: Violation: a cut left a file that does not read."""
    if tree.look(places.PHASE) is None:
        return None
    try:
        return decode_phase(tree.open(places.PHASE).read())[0]
    except ValueError as error:
        raise Violation(f"{where}: the phase does not read: {error}") from error


def watched(tree: FileSystem, act: Callable[[FileSystem], object]) -> list[Moment]:
    tree.watch = []
    act(tree)
    return tree.watch


def crash_states(moments: list[Moment], seeds: int, singles_max: int) -> Iterator[tuple[str, FileSystem]]:
    """Every state that a cut at any of these moments may leave, as sampled; and a word on which it is."""
    for number, moment in enumerate(moments):
        for state, left in enumerate(survivors(moment.pending, seeds, singles_max)):
            yield f"cut at {number} ({moment.kind}), state {state}", after_cut(moment.base, left)
