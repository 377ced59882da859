"""The whole flow, from a wanted set to files and database, on a simulated file system: cut, failing, full."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from packagemanager.errors import RefusedError
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY
from packagemanager.transact import DONE, NOTHING_TO_DO, Manager, Order
from tests.programs.package_constructs import CONSTRUCTS, Package, Step, p, q
from tests.simulator.filesystem import FileSystem, after_cut, survivors
from tests.simulator.package_world import (
    World,
    apply,
    differences,
    is_clean,
    snapshot,
    system,
)

if TYPE_CHECKING:
    from packagemanager.entry import Content
    from packagemanager.incoming import Sink, Source

PLAYED = {name: steps for name, steps in CONSTRUCTS.items() if not any(callable(step) for step in steps)}


def order_of(world: World, step: Step) -> Order:
    if isinstance(step, str):
        return world.install(remove=[step])
    assert not callable(step)
    return world.install(*([step] if isinstance(step, Package) else step))


def walk(name: str) -> Iterator[tuple[FileSystem, Order, FileSystem]]:
    """Each step of a construct: the system before, the order, and the system after."""
    tree, world = system(), World()
    for step in PLAYED[name]:
        before = tree.restarted()
        order = order_of(world, step)
        assert apply(tree, order) == DONE
        tree.sync()
        yield before, order, tree.restarted()


@pytest.mark.parametrize("name", PLAYED)
def test_what_is_there_is_what_was_wanted(name: str) -> None:
    for _before, order, after in walk(name):
        assert is_clean(after)
        manager = Manager(after)
        assert manager.wanted().packages == order.wish.wanted
        assert apply(after, order) == NOTHING_TO_DO
        assert manager.plan(order).changes.lines() == []


@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.requirement("M7")
@pytest.mark.parametrize("cuts_max", [6, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", PLAYED)
def test_a_cut_leaves_a_whole_set(name: str, cuts_max: int) -> None:
    """Resuming gives the old set or the new one, and the order, given again, the new one."""
    chance = random.Random(name)
    for before, order, after in walk(name):
        old, new = snapshot(before), snapshot(after)
        run = before.restarted()
        run.watch = []
        apply(run, order)
        moments = run.watch
        for number in sorted(chance.sample(range(len(moments)), min(cuts_max, len(moments)))):
            moment = moments[number]
            for left in survivors(moment.pending, 2, 2):
                tree = after_cut(moment.base, left)
                Manager(tree).resume(settle=True)
                found = snapshot(tree)
                assert found in (old, new), f"{name}: cut after {moment.kind} {number}: {differences(found, old, new)}"
                assert is_clean(tree)
                apply(tree, order)
                assert snapshot(tree) == new


def test_the_database_changes_behind_the_files_and_before_folders_go() -> None:
    tree, world = system(), World()
    apply(tree, world.install(p("1", {"/a/b/c": "1", "/d": "d", "/f/g": "g"})))
    steps = Manager(tree).plan(world.install(p("2", {"/x/y": "1", "/d": "e", "/f": "a file"}))).plan.steps
    kinds = [_kind(step.operation.act, step.operation.path) for step in steps]
    assert kinds == sorted(kinds)
    assert set(kinds) == {0, 1, 2, 3, 4, 5}
    assert [step.operation.path for step in steps if step.why == "the database"][-1].endswith("/wanted")


def _kind(act: str, path: str) -> int:
    """A folder that makes place, a new folder, a file, what goes, the database, a folder that is empty then."""
    if path in ("f", "f/g") and act != PUT:
        return 0
    if path.startswith("var/lib/"):
        return 4
    return {MAKE_DIRECTORY: 1, PUT: 2, REMOVE: 3, REMOVE_DIRECTORY: 5}[act]


def test_a_link_that_others_lie_below_does_not_turn_elsewhere() -> None:
    tree, world = system(), World()
    link = p("1", {"/a/real/x": "1", "/a/link": ("real",)})
    apply(tree, world.install(link, q("1", {"/a/link/y": "2"})))
    assert tree.open("a/real/y").read() == b"2"
    turned = {"/a/other/x": "1", "/a/link": ("other",)}
    with pytest.raises(RefusedError, match="/a/link of p:all is also in q:all 1"):
        apply(tree, world.install(p("2", turned)))
    apply(tree, world.install(p("2", turned), q("2", {"/a/link/y": "3"})))
    assert (tree.open("a/other/y").read(), tree.look("a/real")) == (b"3", None)


def test_what_is_there_already_is_compared_and_not_written() -> None:
    tree, world = system(), World()
    big = b"a" * 700_000
    files = {"/big": big, "/end": big, "/same": "s", "/mode": "m", "/one": "1"}
    links = {"/two": "/one"}
    apply(tree, world.install(p("1", files, hard_links=links)))
    tree.unlink("two")
    tree.write("two", [b"1"])
    tree.set_attributes("two", 0o644, 0, 0, 1)
    inodes = {path: tree.look(path).inode for path in ("big", "same", "one")}  # type: ignore[union-attr]
    new = files | {"/end": big[:-1] + b"b"}
    order = world.install(p("2", new, hard_links=links, modes={"/mode": 0o600}))
    used = tree.restarted()
    Manager(used).apply(order)
    staged = sum(len(node.content) for node in used.now.nodes.values()) - sum(
        len(node.content) for node in tree.now.nodes.values()
    )
    assert 700_000 < staged < 1_000_000  # the one that differs at its end; not the other
    assert apply(tree, order) == DONE
    assert tree.open("end").read() == big[:-1] + b"b"
    assert tree.look("mode").mode == 0o600  # type: ignore[union-attr]
    assert [tree.look(path).inode == inodes[path] for path in ("big", "same")] == [True, True]  # type: ignore[union-attr]
    assert tree.look("one").inode == tree.look("two").inode != inodes["one"]  # type: ignore[union-attr]
    assert tree.open("two").read() == b"1"


def test_a_file_that_changes_while_it_is_prepared_stops_it() -> None:
    """Only one that is needed under another name is read a second time."""
    tree, world = system(), World()
    files = {"/one": "1", "/x": "x"}
    apply(tree, world.install(p("1", files, hard_links={"/two": "/one"})))
    tree.unlink("two")
    old = snapshot(tree)
    order = world.install(p("2", files, hard_links={"/two": "/one"}))
    bring = order.bring

    class Meddling:
        def __init__(self, source: Source) -> None:
            self.source = source

        def control(self) -> tuple[bytes, dict[str, bytes]]:
            return self.source.control()

        def unpack(self, sink: Sink) -> Content:
            content = self.source.unpack(sink)
            tree.unlink("one")
            tree.write("one", [b"2"])
            tree.set_attributes("one", 0o644, 0, 0, 1_700_000_000)
            return content

    order.bring = lambda keys: {key: Meddling(source) for key, source in bring(keys).items()}
    with pytest.raises(RefusedError, match="/one changed while the transaction was prepared"):
        apply(tree, order)
    assert snapshot(tree).keys() == old.keys()
    order.bring = bring
    assert apply(tree, order) == DONE
    assert tree.open("two").read() == b"1"
