"""A disk that refuses, fills up or rots in the middle of a transaction.

Before the intent an error leaves the old set and nothing else, in words. After it the error is told, and whoever calls
next, on a disk that works again or in the next start, ends at one of the sets.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from packagemanager import places
from packagemanager.engine import Engine
from packagemanager.errors import BlockedError, DiskError, PackageError, RefusedError
from packagemanager.phases import BACK, DAMAGED, DONE, FORWARD, TRYING, UNDONE
from packagemanager.staging import Staging
from tests.simulator.file_changes import Leave, Move
from tests.simulator.file_sets import NEW, OLD, plan
from tests.simulator.filesystem import BLOCK_BYTES, FileSystem
from tests.simulator.package_sweep import FACTS, Judge, apply, apply_and_undo, is_left, prepared

pytestmark = pytest.mark.requirement("M7", "M20")

ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
Act = Callable[[FileSystem], None]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def until_intent(tree: FileSystem) -> None:
    """As the caller does it: staging that fails is given up."""
    engine = Engine(tree)
    staging = Staging(tree)
    try:
        operations = plan(OLD, NEW, staging)
    except PackageError:
        staging.abandon()
        raise
    engine.prepare(operations, FACTS)


def operations_of(judge: Judge, act: Act) -> int:
    tree = judge.start.restarted()
    act(tree)
    return tree.operations


@pytest.mark.fault("S7", "S8", "S10")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_error_before_the_intent_leaves_nothing(judge: Judge, error: str) -> None:
    count = operations_of(judge, until_intent)
    for number in range(count):
        tree = judge.start.restarted()
        tree.errors[number] = ERRORS[error]
        with pytest.raises(PackageError) as told:
            until_intent(tree)
        assert judge.clean(tree, f"{error} at {number}") == "old"
        assert "the system is as it was" in f"{told.value} {told.value.advice}"


@pytest.mark.fault("S11")
def test_a_disk_that_becomes_read_only_leaves_the_old_set_and_the_next_start_cleans(judge: Judge) -> None:
    for number in range(0, operations_of(judge, until_intent), 3):
        tree = judge.start.restarted()
        tree.error_from = (number, errno.EROFS)
        with pytest.raises(DiskError):
            until_intent(tree)
        assert judge.whole(tree, f"read-only from {number}") == "old"
        again = tree.restarted()
        assert Engine(again).resume().now is None
        assert judge.clean(again, f"read-only from {number}") == "old"


@pytest.mark.fault("S7", "S8", "S11")
@pytest.mark.parametrize("act", [apply, apply_and_undo])
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_an_error_after_the_intent_is_told_and_gone_on_from(judge: Judge, act: Act, every: int) -> None:
    """Once, with the same process going on; or for ever, until the next start. Of a transaction that is over, what was
    kept goes then.
    """
    told = 0
    for number in range(operations_of(judge, until_intent), operations_of(judge, act), every):
        for for_ever in (False, True):
            tree = judge.start.restarted()
            if for_ever:
                tree.error_from = (number, errno.EROFS)
            else:
                tree.errors[number] = errno.EIO
            try:
                act(tree)
            except DiskError:
                told += 1
            else:
                assert Engine(tree).phase() in (None, DONE, UNDONE)
            ends(judge, tree if not for_ever else tree.restarted(), f"{act.__name__}: {number}, {for_ever}")
    assert told > 150 / every


def ends(judge: Judge, tree: FileSystem, where: str) -> None:
    tree.errors.clear()
    engine = Engine(tree)
    if engine.resume().now == TRYING:
        engine.done()
    judge.clean(tree, where)


class LosesRenames(FileSystem):
    """Its sync after the renames is no sync (S5)."""

    def sync(self) -> None:
        if self.flushes != 3:
            super().sync()
        else:
            self.flushes += 1


@pytest.mark.fault("S5")
def test_renames_that_were_lost_though_acknowledged_are_made_again(judge: Judge) -> None:
    tree = LosesRenames(judge.start.restarted().base)
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    engine.forward()
    assert len(tree.pending) > 40
    chance = random.Random(5)
    for number in range(40):
        left = [one for one in tree.pending if not isinstance(one, Move | Leave) or chance.random() > number / 40]
        again = tree.restarted(left)
        resumed = Engine(again).resume()
        assert (resumed.found, resumed.now) == (TRYING, TRYING)
        assert judge.whole(again, f"lost {number}") == "new"
        assert not Engine(again).back()
        assert judge.clean(again, f"lost {number}") == "old"


@pytest.mark.fault("S9")
def test_an_error_of_a_look_is_told_and_gone_on_from(judge: Judge) -> None:
    tree = judge.start.restarted()
    apply(tree)
    told = 0
    for number in range(1, tree.looks + 1, 7):
        tree = judge.start.restarted()
        tree.read_errors[number] = errno.EIO
        try:
            apply(tree)
        except PackageError:
            told += 1
        ends(judge, tree, f"look {number}")
    assert told > 20


# Room.


def used(tree: FileSystem) -> tuple[int, int]:
    tree.blocks_max = tree.inodes_max = 1 << 40
    size, inodes = tree.free()
    return (1 << 40) - size // BLOCK_BYTES, (1 << 40) - inodes


@pytest.mark.fault("S10")
@pytest.mark.parametrize("kind", ["blocks", "inodes"])
@pytest.mark.parametrize("act", [apply, apply_and_undo])
@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.long)])
def test_a_disk_of_any_size_is_enough_or_refused_before(judge: Judge, act: Act, kind: str, every: int) -> None:
    """There is no size at which it fails after the intent."""
    blocks, inodes = used(judge.start.restarted())
    refused = 0
    for more in range(0, 400, every):
        tree = judge.start.restarted()
        tree.blocks_max, tree.inodes_max = (blocks + more, 1 << 40) if kind == "blocks" else (1 << 40, inodes + more)
        try:
            act(tree)
        except RefusedError:
            Engine(tree).resume()
            assert judge.clean(tree, f"{more} {kind}") == "old"
            refused += 1
    assert 0 < refused < 400 // every


@pytest.mark.fault("S10")
@pytest.mark.parametrize("ending", [Engine.done, Engine.back])
def test_others_may_take_all_the_room_after_the_intent(judge: Judge, ending: Callable[[Engine], object]) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    tree.blocks_max, tree.inodes_max = used(tree)
    engine.forward()
    assert judge.whole(tree, "full") == "new"
    tree.blocks_max, tree.inodes_max = used(tree)
    ending(engine)
    judge.clean(tree, "full")


# Rot.


@pytest.mark.fault("R4")
@pytest.mark.parametrize("rot", [b"", b"unbrick-phase 1 forward", bytes(200), b"x" * 100_000])
def test_a_phase_that_does_not_read_is_told_by_what_is_there(judge: Judge, rot: bytes) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    number = tree.operations
    while True:
        broken = judge.start.restarted()
        prepared(broken, Engine(broken))
        Engine(broken).begin()
        broken.error_from = (number, errno.EIO)
        is_whole = False
        try:
            Engine(broken).forward()
            is_whole = True
        except DiskError:
            pass
        after = broken.restarted()
        spoil(after, places.PHASE, rot)
        ends(judge, after, f"the phase is {rot[:30]!r} after {number}")
        if is_whole:
            return
        number += 3


def spoil(tree: FileSystem, path: str, content: bytes) -> None:
    tree.unlink(path)
    tree.write(path, (content,))


@pytest.mark.fault("R4")
def test_a_phase_that_is_lost_is_told_by_what_is_there(judge: Judge) -> None:
    for act, number in ((Engine.forward, 20), (Engine.forward, 50), (Engine.back, 20), (Engine.back, 40)):
        tree = judge.start.restarted()
        engine = Engine(tree)
        prepared(tree, engine)
        engine.begin()
        if act is Engine.back:
            engine.forward()
        tree.error_from = (tree.operations + number, errno.EIO)
        with pytest.raises(DiskError):
            act(engine)
        after = tree.restarted()
        after.unlink(places.PHASE)
        resumed = Engine(after).resume()
        assert resumed.found == BACK
        assert judge.clean(after, f"{act.__name__} {number}") == "old"


@pytest.mark.fault("R4")
@pytest.mark.parametrize("number", [0, 1])
def test_one_copy_of_the_plan_is_enough(judge: Judge, number: int) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    spoil(tree, places.PLANS[number], b"rot")
    assert engine.resume().now == TRYING
    engine.back()
    assert judge.clean(tree, "one copy") == "old"


@pytest.mark.fault("R4")
def test_without_a_plan_it_is_damaged_and_stays_so_until_somebody_settles_it(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    for place in places.PLANS:
        spoil(tree, place, b"rot")
    for _again in range(2):
        resumed = engine.resume()
        assert (resumed.found, resumed.now, resumed.facts) == (DAMAGED, DAMAGED, {})
    for act in (engine.forward, engine.back, engine.done):
        with pytest.raises(RefusedError):
            act()
    engine.drop()
    assert judge.clean(tree, "dropped") == "old"


# Misuse.


def test_nothing_is_done_in_the_wrong_phase(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    for act in (engine.begin, engine.forward, engine.back, engine.done):
        with pytest.raises(RefusedError):
            act()
    prepared(tree, engine)
    with pytest.raises(RefusedError, match="under way"):
        Staging(tree)
    with pytest.raises(RefusedError, match="under way"):
        engine.prepare((), {})
    engine.begin()
    with pytest.raises(RefusedError, match="nothing is prepared"):
        engine.begin()
    with pytest.raises(RefusedError, match="under way: forward"):
        engine.drop()
    assert (engine.phase(), engine.resume().now) == (FORWARD, TRYING)
    assert is_left(tree)


def test_a_lost_staged_file_turns_the_transaction_back(judge: Judge) -> None:
    tree = judge.start.restarted()
    engine = Engine(tree)
    prepared(tree, engine)
    engine.begin()
    tree.unlink(places.new(5))
    with pytest.raises(BlockedError, match="is gone"):
        engine.forward()
    resumed = engine.resume()
    assert resumed.now is None
    assert judge.clean(tree, "turned back") == "old"
