"""The power goes at every operation of a transaction, of its undo, and of what finishes them; any subset is lost.

The sets differ in everything a plan can say: files, links, hard links, folders that become links or files and back,
files that a person changed, new trees, trees that go, and attributes alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from packagemanager import places
from packagemanager.engine import Engine, Resumed
from packagemanager.entry import DIRECTORY, FILE
from packagemanager.errors import RefusedError
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY, Operation
from packagemanager.phases import BACK, DONE, FORWARD, TRYING, UNDONE, WAITING
from tests.simulator.file_sets import NEW, OLD
from tests.simulator.filesystem import FileSystem, Moment
from tests.simulator.package_sweep import (
    FACTS,
    Judge,
    apply,
    apply_and_undo,
    apply_at_start,
    comes_back,
    crash_states,
    is_left,
    prepared,
    snapshot,
    watched,
)

pytestmark = [pytest.mark.requirement("M7", "M8", "M13", "M20"), pytest.mark.fault("S1", "S2", "S3", "S4")]

APPLY_FLUSHES, UNDO_FLUSHES, WAITING_FLUSHES = 9, 3, 2  # docs/packages.md
INTENT = "flush file"  # the first phase is being written


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def recorded(judge: Judge, act: Callable[[FileSystem], object], end: str, flushes: int) -> list[Moment]:
    """What ``act`` does when nothing cuts it: how it ends, and with how many flushes, is checked."""
    tree = judge.start.restarted()
    moments = watched(tree, act)
    assert judge.clean(tree, "no cut") == end
    assert tree.flushes == flushes
    return moments


@pytest.fixture(scope="module")
def applied(judge: Judge) -> list[Moment]:
    return recorded(judge, apply, "new", APPLY_FLUSHES)


@pytest.fixture(scope="module")
def waited(judge: Judge) -> list[Moment]:
    """Until recovery has begun."""
    return until_trying(recorded(judge, apply_at_start, "new", APPLY_FLUSHES + WAITING_FLUSHES))


@pytest.fixture(scope="module")
def undone(judge: Judge) -> list[Moment]:
    """From where it differs from what is applied for good."""
    moments = recorded(judge, apply_and_undo, "old", APPLY_FLUSHES + UNDO_FLUSHES)
    return moments[len(until_trying(moments)) :]


def until_trying(moments: list[Moment]) -> list[Moment]:
    flushes = [number for number, moment in enumerate(moments) if moment.kind == "flush folder"]
    return moments[: flushes[1] + 1]


def intent(moments: list[Moment]) -> int:
    return next(number for number, moment in enumerate(moments) if moment.kind == INTENT)


def test_the_sets_differ_in_everything(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    acts = Counter(operation.act for operation in engine.operations())
    assert sum(acts.values()) - acts["keep-directory"] <= 60
    assert set(acts) == {"put", "remove", "make-directory", "remove-directory", "keep-directory"}
    kinds = {(OLD[path].kind, NEW[path].kind) for path in OLD.keys() & NEW.keys() if OLD[path].kind != NEW[path].kind}
    assert len(kinds) == 6, "file, link and folder, each to each"


def test_what_is_under_way_can_be_read_in_every_phase(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    assert (engine.phase(), engine.facts(), engine.operations()) == (None, {}, ())
    prepared(tree, engine)
    assert (engine.phase(), engine.facts()) == (None, FACTS)
    engine.begin()
    assert (Engine(tree).phase(), Engine(tree).facts()) == (FORWARD, FACTS)
    engine.forward()
    assert (engine.phase(), engine.facts()) == (TRYING, FACTS)
    engine.done()
    assert (engine.phase(), engine.facts()) == (None, {})


def sweep(judge: Judge, moments: list[Moment], seeds: int, singles_max: int) -> Counter[str | None]:
    return Counter(
        comes_back(judge, tree, where).found for where, tree in crash_states(moments, seeds, singles_max)
    )  # fmt: skip


def test_a_cut_before_the_intent_leaves_the_old_set(judge: Judge, applied: list[Moment]) -> None:
    before = applied[: intent(applied)]
    assert set(sweep(judge, before, seeds=1, singles_max=0)) == {None}


def test_a_cut_after_the_intent_leads_to_the_new_set_or_back(judge: Judge, applied: list[Moment]) -> None:
    found = sweep(judge, applied[intent(applied) :], seeds=1, singles_max=2)
    assert set(found) == {None, FORWARD, TRYING, DONE}


def test_a_cut_inside_of_an_undo_leads_to_the_old_set(judge: Judge, undone: list[Moment]) -> None:
    found = sweep(judge, undone, seeds=1, singles_max=2)
    assert set(found) == {None, TRYING, BACK, UNDONE}


def test_a_cut_around_one_that_waits_for_the_start_leads_to_the_new_set_or_back(
    judge: Judge, waited: list[Moment]
) -> None:
    found = sweep(judge, waited[intent(waited) :], seeds=1, singles_max=2)
    assert set(found) == {None, WAITING, FORWARD}


def second_cuts(judge: Judge, moments: list[Moment], every: int, seeds: int, singles_max: int) -> Counter[str | None]:
    """Cuts inside of what a resume does after each ``every``-th state that a first cut leaves."""
    found: Counter[str | None] = Counter()
    for number, (where, tree) in enumerate(crash_states(moments, seeds, singles_max)):
        if number % every == every - 1:
            again = watched(tree, lambda one: Engine(one).resume())
            for second, state in crash_states(again, seeds, singles_max):
                found[comes_back(judge, state, f"{where}, then {second}").found] += 1
    return found


def test_a_second_cut_inside_of_the_resume(judge: Judge, applied: list[Moment], undone: list[Moment]) -> None:
    found = second_cuts(judge, applied[intent(applied) :] + undone, every=160, seeds=1, singles_max=0)
    assert set(found) == {None, FORWARD, TRYING, BACK, DONE, UNDONE}


@pytest.mark.long
def test_every_single_change_lost_at_every_operation(judge: Judge, applied: list[Moment], undone: list[Moment]) -> None:
    found = sweep(judge, applied, seeds=8, singles_max=40) + sweep(judge, undone, seeds=8, singles_max=1000)
    print(found)
    assert found.total() > 10_000


@pytest.mark.long
def test_a_second_cut_inside_of_many_resumes(judge: Judge, applied: list[Moment], undone: list[Moment]) -> None:
    found = second_cuts(judge, applied[intent(applied) :] + undone, every=7, seeds=2, singles_max=2)
    print(found)
    assert found.total() > 10_000


def test_no_cut_takes_back_what_was_done_and_edited_since(judge: Judge, applied: list[Moment]) -> None:
    """The system goes on working while the end of a transaction is not durable yet."""

    def edit(tree: FileSystem) -> None:
        tree.write("usr/bin/tool.mine", (b"a person's tool\n",))
        tree.rename("usr/bin/tool.mine", "usr/bin/tool")
        tree.unlink("usr/bin/mode-only")

    tree = judge.start.restarted()
    apply(tree)
    theirs = ("usr/bin/tool", "usr/bin/tool.mine", "usr/bin/mode-only")
    wanted = {path: found for path, found in judge.new.items() if path not in theirs}
    for where, state in crash_states(watched(tree, edit), seeds=40, singles_max=40):
        resumed = Engine(state).resume()
        assert resumed.now is None, where
        left = {path: found for path, found in snapshot(state).items() if path not in theirs}
        assert left == wanted, where


def test_what_somebody_made_in_the_meantime_is_theirs(judge: Judge) -> None:
    """Undo leaves a folder that is not empty any more, says so, and brings the rest back."""
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    engine.forward()
    tree.write("usr/share/new/mine", (b"mine\n",))
    left = engine.back()
    assert [path for path, _why in left] == ["usr/share/new"]
    assert "not empty" in left[0][1]
    found = snapshot(tree)
    assert found.pop("usr/share/new/mine") and found.pop("usr/share/new")
    assert found == judge.old


def test_a_folder_that_cannot_make_way_turns_the_transaction_back(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    tree.write("usr/share/was-folder/mine", (b"mine\n",))
    resumed = Engine(tree).resume()
    assert (resumed.found, resumed.now) == (FORWARD, None)
    assert "usr/share/was-folder" in resumed.left[0][1]
    tree.unlink("usr/share/was-folder/mine")
    assert judge.clean(tree, "turned back") == "old"


def test_what_the_system_does_to_new_files_while_they_are_tried_is_not_undone_by_a_start(judge: Judge) -> None:
    """Scripts and people remove what was put, and give it to users. What they made is not lost when all goes back."""
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    engine.forward()
    tree.set_attributes("usr/share/new", 0o700, 99, 99, 0)
    tree.unlink("usr/bin/tool")
    tree.unlink("etc/conf.d/empty")
    tree.remove_directory("etc/conf.d")
    tree.write("usr/bin/gone", (b"made again\n",))
    before, operations = snapshot(tree), tree.operations
    assert Engine(tree).resume().now == TRYING
    assert (snapshot(tree), tree.operations) == (before, operations)
    aside = "usr/bin/gone.unbrick-undone"
    assert Engine(tree).back() == (("usr/bin/gone", f"what was there since is now /{aside}"),)
    assert tree.open(aside).read() == b"made again\n"
    tree.unlink(aside)
    assert judge.clean(tree, "undone") == "old"


@pytest.mark.parametrize("path", ["etc/conf", "etc/conf.kept.new", "usr/bin/tool"])
def test_what_changed_since_it_was_prepared_turns_the_transaction_back(judge: Judge, path: str) -> None:
    """Between the intent and a start of recovery the system goes on: what it wrote meanwhile is not lost."""
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    tree.write("etc/mine.tmp", (b"edited\n",))
    tree.rename("etc/mine.tmp", path)
    resumed = Engine(tree).resume()
    assert (resumed.found, resumed.now) == (FORWARD, None)
    assert [path in why for _path, why in resumed.left] == [True]
    assert tree.open(path).read() == b"edited\n"
    found, wanted = snapshot(tree), dict(judge.old)
    found.pop(path)
    wanted.pop(path, None)
    assert found == wanted


def meanwhile(tree: FileSystem, operation: Operation) -> Iterator[FileSystem]:
    """The system after each thing that somebody may have done to the path while the transaction waited."""
    found = tree.look(operation.path)
    if operation.act == REMOVE_DIRECTORY and found is not None:
        for folder in (
            (found.mode ^ 0o070, found.uid, found.gid),
            (found.mode, 7, found.gid),
            (found.mode, found.uid, 7),
        ):
            edited = tree.restarted()
            edited.set_attributes(operation.path, *folder, found.mtime)
            yield edited
    if tree.resolve(operation.path) != operation.path or (found is not None and found.kind == DIRECTORY):
        return
    if found is not None:
        for attributes in ((found.mode, found.uid, found.gid, 7), (0o100, found.uid, found.gid, found.mtime)):
            edited = tree.restarted()
            edited.set_attributes(operation.path, *attributes)  # in place: of both names
            if found.kind == FILE or attributes[3] == 7:
                yield edited
    again = tree.restarted()
    if found is not None:
        again.unlink(operation.path)
        yield again
    parent = tree.look(operation.path.rpartition("/")[0])
    if found is None and parent is not None and parent.kind == DIRECTORY:
        again.write(operation.path, (b"mine\n",))
        yield again


def test_what_changed_while_it_waited_is_not_touched_and_the_transaction_is_dropped(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.wait()
    tree.sync()
    seen: Counter[str] = Counter()
    for operation in engine.operations():
        for changed in meanwhile(tree, operation):
            before = snapshot(changed)
            assert Engine(changed).resume().now == WAITING
            resumed = Engine(changed).resume(at_start=True)
            assert (resumed.found, resumed.now) == (WAITING, None)
            assert resumed.left[0][1].endswith("the transaction that waited is dropped")
            assert snapshot(changed) == before and not is_left(changed)
            seen[operation.act] += 1
    assert set(seen) == {PUT, REMOVE, MAKE_DIRECTORY, REMOVE_DIRECTORY} and seen.total() > 40


def test_one_that_waits_is_called_off_without_touching_a_path(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.wait()
    with pytest.raises(RefusedError, match="under way: waiting"):
        engine.drop()
    tree.write("etc/mine.tmp", (b"edited\n",))
    tree.rename("etc/mine.tmp", "usr/bin/tool")
    before = snapshot(tree)
    assert engine.back() == ()
    assert snapshot(tree) == before and not is_left(tree)


def test_what_was_prepared_and_never_begun_changes_nothing_that_others_did_since(judge: Judge) -> None:
    """They removed what the plan removes and made what it makes: without a phase that says nothing."""
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    for operation in engine.operations():
        parent = tree.look(operation.path.rpartition("/")[0])
        if operation.act == REMOVE:
            tree.unlink(operation.path)
        elif operation.act == MAKE_DIRECTORY and parent is not None:
            tree.make_directory(operation.path)
    before = snapshot(tree)
    assert engine.phase() is None
    assert Engine(tree).resume().now is None
    assert snapshot(tree) == before and not is_left(tree)


def test_a_held_lock_keeps_others_out_and_dies_with_the_power(judge: Judge) -> None:
    tree = judge.start.restarted()
    held = Engine(tree).lock()
    with pytest.raises(Exception, match="another process"):
        Engine(tree).lock()
    Engine(tree.restarted()).lock().close()
    held.close()
    Engine(tree).lock().close()


def test_a_resume_of_nothing_changes_nothing(judge: Judge) -> None:
    tree = judge.start.restarted()
    resumed: Resumed = Engine(tree).resume()
    assert (resumed.found, resumed.now, tree.operations) == (None, None, 0)
    assert tree.look(places.TRANSACTION) is None
