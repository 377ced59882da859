"""The sweep can fail: each of these broken engines and file systems is caught by it, under its name.

A mutant is the production code with one thing wrong. The sweep that passes for the engine must end in a violation.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import pytest

from packagemanager import operation as acts
from packagemanager import places, steps
from packagemanager.engine import Engine
from packagemanager.errors import PackageError
from packagemanager.phases import BACK, DONE, UNDONE
from tests.simulator.filesystem import FileSystem
from tests.simulator.package_sweep import (
    Judge,
    Violation,
    apply,
    apply_and_undo,
    comes_back,
    crash_states,
    snapshot,
    watched,
)

if TYPE_CHECKING:
    from packagemanager.operation import Operation
    from packagemanager.plan_file import Plan
    from packagemanager.tree import Stat, Tree

    Left = tuple[tuple[str, str], ...]

pytestmark = [pytest.mark.requirement("M7"), pytest.mark.fault("S1", "S2", "S3", "S4")]

Patch = pytest.MonkeyPatch
Act = Callable[[FileSystem], None]
MINE = ("usr/bin/tool", "usr/bin/tool.mine", "usr/bin/gone")
ENDINGS: dict[Act, str] = {apply: "new", apply_and_undo: "old"}


def judged(judge: Judge, tree: FileSystem, act: Act, wanted: str) -> None:
    """Every cut, and the next start; then a person edits a file while the end is not durable yet.

    Raises: Violation.
    """
    try:
        moments = watched(tree, act)
        edits = watched(tree, edit)
        random.Random(1).shuffle(moments)
        moments.sort(key=lambda moment: len(moment.pending) > 100)  # what comes before the intent, last
        for where, state in crash_states(edits, seeds=30, singles_max=20):
            check_edited(getattr(judge, wanted), state, where)
        for where, state in crash_states(moments, seeds=3, singles_max=6):
            comes_back(judge, state, where)
    except (PackageError, OSError) as error:
        raise Violation(f"{error}") from error


def edit(tree: FileSystem) -> None:
    tree.write(MINE[1], (b"a person's tool\n",))
    tree.rename(MINE[1], MINE[0])
    if tree.look(MINE[2]) is not None:
        tree.unlink(MINE[2])


def check_edited(wanted: dict[str, tuple[object, ...]], state: FileSystem, where: str) -> None:
    resumed = Engine(state).resume()
    found = {path: what for path, what in snapshot(state).items() if path not in MINE}
    if resumed.now is not None or found != {path: what for path, what in wanted.items() if path not in MINE}:
        raise Violation(f"{where}: edited since, and {resumed}")


class SkipsOneFlush(FileSystem):
    """The flush number ``skipped`` says that it is done."""

    skipped = 0

    def _flush(self, kind: str, settle: Callable[[], None]) -> None:
        number = self.flushes
        super()._flush(kind, settle if number != self.skipped else lambda: None)


# All but the one of the name "trying" (5): where that is lost, the next start finds "forward" and does again what is
# done. The journal is told behind it, and would count that start as a cycle. And but the one before the phase of an
# undo goes (11): a plan without a phase, none of whose files is in place, is believed to be one that was never begun.
FLUSHES = {
    "sync before the intent": (0, apply),
    "phase forward: its bytes": (1, apply),
    "phase forward: its name": (2, apply),
    "sync after the renames": (3, apply),
    "phase trying: its bytes": (4, apply),
    "phase done: its bytes": (6, apply),
    "phase done: its name": (7, apply),
    "sync before the phase goes": (8, apply),
    "phase back: its bytes": (6, apply_and_undo),
    "phase back: its name": (7, apply_and_undo),
    "sync after the undoing": (8, apply_and_undo),
    "phase undone: its bytes": (9, apply_and_undo),
    "phase undone: its name": (10, apply_and_undo),
}


@pytest.mark.parametrize("name", FLUSHES)
def test_each_flush_that_is_dropped_is_caught(name: str) -> None:
    skipped, act = FLUSHES[name]
    judge = Judge()
    tree = SkipsOneFlush(judge.start.restarted().base)
    tree.skipped = skipped
    with pytest.raises(Violation):
        judged(judge, tree, act, ENDINGS[act])


class ForgetsThePhase(Engine):
    """Each phase in ``forgotten`` is never written."""

    forgotten = ""

    def _enter(self, phase: str, plan: Plan | None) -> None:
        if phase != self.forgotten:
            super()._enter(phase, plan)


class BeginsBeforeItIsDurable(Engine):
    def _prepare(self, operations: tuple[Operation, ...], facts: dict[str, str]) -> None:
        tree = self._tree
        self._tree = cast("Tree", _WithoutSync(tree))
        super()._prepare(operations, facts)
        self._tree = tree


class _WithoutSync:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def __getattr__(self, name: str) -> object:
        return (lambda: None) if name == "sync" else getattr(self._tree, name)


class SecondNamesAfterTheIntent(Engine):
    def _prepare(self, operations: tuple[Operation, ...], facts: dict[str, str]) -> None:
        tree = self._tree
        self._tree = cast("Tree", _WithoutLinks(tree))
        super()._prepare(operations, facts)
        self._tree = tree

    def _forward(self, plan: Plan) -> None:
        for number, one in enumerate(plan.operations):
            if (one.act == acts.REMOVE or one.kept) and self._tree.look(places.old(number)) is None:
                self._tree.hard_link(one.path, places.old(number))
        super()._forward(plan)


class _WithoutLinks(_WithoutSync):
    def __getattr__(self, name: str) -> object:
        return (lambda *_: None) if name == "hard_link" else getattr(self._tree, name)


class RenamesBeforeThePhase(Engine):
    def begin(self) -> None:
        plan = self._plan(b"")
        assert plan is not None
        for number, one in enumerate(plan.operations[:9]):
            steps.forward(self._tree, number, one)
        self._enter("forward", plan)


class UndoesFromTheFront(Engine):
    def _back(self, plan: Plan) -> Left:
        self._enter(BACK, plan)
        left = []
        for number, one in enumerate(plan.operations):
            left.append(steps.back(self._tree, number, one, (0, plan.inodes[number])))
        self._tree.sync()
        self._enter(UNDONE, plan)
        self._remove()
        return tuple(("", why) for why in left if why)


class RemovesThePhaseFirst(Engine):
    def _remove_folder(self) -> None:
        if self._tree.look(places.PHASE) is not None:
            self._tree.unlink(places.PHASE)
        super()._remove_folder()


class LeavesTheFolder(Engine):
    def _remove_folder(self) -> None:
        if self._tree.look(places.PHASE) is not None:
            self._tree.unlink(places.PHASE)


def forgets(phase: str) -> type[Engine]:
    return type("Mutant", (ForgetsThePhase,), {"forgotten": phase})


ENGINES: dict[str, tuple[type[Engine], Act]] = {
    "phase forward before the sync": (BeginsBeforeItIsDurable, apply),
    "second names after the intent": (SecondNamesAfterTheIntent, apply_and_undo),
    "renames before the phase": (RenamesBeforeThePhase, apply),
    "no phase back": (forgets(BACK), apply_and_undo),
    "no phase undone": (forgets(UNDONE), apply_and_undo),
    "no phase done": (forgets(DONE), apply),
    "undone from the front": (UndoesFromTheFront, apply_and_undo),
    "the phase goes first": (RemovesThePhaseFirst, apply),
    "the folder stays": (LeavesTheFolder, apply),
}


@pytest.mark.parametrize("name", ENGINES)
def test_each_wrong_order_is_caught(name: str, monkeypatch: Patch) -> None:
    wrong, act = ENGINES[name]
    monkeypatch.setattr("tests.simulator.package_sweep.Engine", wrong)
    judge = Judge()
    with pytest.raises(Violation):
        judged(judge, judge.start.restarted(), act, ENDINGS[act])


def reach_through(tree: Tree, path: str) -> Stat | None:
    return tree.look(path)


def unlink_first(tree: Tree, number: int, one: Operation) -> None:
    if tree.look(places.new(one.staged)) is not None:
        if tree.look(one.path) is not None:
            tree.unlink(one.path)
        tree.rename(places.new(one.staged), one.path)


def make_once(tree: Tree, number: int, one: Operation) -> None:
    if tree.look(one.path) is None:
        tree.make_directory(one.path)
        tree.set_attributes(one.path, one.mode, one.uid, one.gid, one.mtime)


def make_without_attributes(tree: Tree, number: int, one: Operation) -> None:
    if tree.look(one.path) is None:
        tree.make_directory(one.path)


def put_once(tree: Tree, number: int, one: Operation) -> None:
    tree.rename(places.new(one.staged), one.path)


def remove_once(tree: Tree, number: int, one: Operation) -> None:
    tree.unlink(one.path)


def make_back_wrongly(tree: Tree, number: int, one: Operation, inode: tuple[int, int]) -> str:
    if tree.look(one.path) is None:
        tree.make_directory(one.path)
    return ""


def keep_what_was_put(tree: Tree, number: int, one: Operation, inode: tuple[int, int]) -> str:
    if one.kept:
        tree.rename(places.old(number), one.path)
    return ""


STEPS: dict[str, tuple[Callable[[Patch], None], Act]] = {
    "a link that the plan made is reached through": (lambda p: p.setattr(steps, "look", reach_through), apply),
    "unlinked before it is renamed": (lambda p: p.setitem(steps._FORWARD, acts.PUT, unlink_first), apply_and_undo),
    "attributes of a folder once": (lambda p: p.setitem(steps._FORWARD, acts.MAKE_DIRECTORY, make_once), apply),
    "no attributes of a folder": (
        lambda p: p.setitem(steps._FORWARD, acts.MAKE_DIRECTORY, make_without_attributes), apply),
    "a file is put once": (lambda p: p.setitem(steps._FORWARD, acts.PUT, put_once), apply),
    "a file is removed once": (lambda p: p.setitem(steps._FORWARD, acts.REMOVE, remove_once), apply),
    "a folder comes back without attributes": (
        lambda p: p.setitem(steps._BACK, acts.REMOVE_DIRECTORY, make_back_wrongly), apply_and_undo),
    "what was new stays": (lambda p: p.setitem(steps._BACK, acts.PUT, keep_what_was_put), apply_and_undo),
    "attributes forgotten in staging": (
        lambda p: p.setattr(FileSystem, "set_attributes", forget_staged(FileSystem.set_attributes)), apply),
}  # fmt: skip


def forget_staged(real: Callable[..., None]) -> Callable[..., None]:
    def forgetful(tree: FileSystem, path: str, *attributes: int) -> None:
        if not path.startswith(places.NEW + "/"):
            real(tree, path, *attributes)

    return forgetful


@pytest.mark.parametrize("name", STEPS)
def test_each_wrong_step_is_caught(name: str, monkeypatch: Patch) -> None:
    patch, act = STEPS[name]
    judge = Judge()
    patch(monkeypatch)
    with pytest.raises(Violation):
        judged(judge, judge.start.restarted(), act, ENDINGS[act])
