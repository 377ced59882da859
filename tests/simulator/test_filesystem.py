"""The simulated file system: it does what a real one does, and loses what a real one may lose."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packagemanager.entry import DIRECTORY
from packagemanager.root import Root
from tests.programs.native_files import native_snapshot
from tests.simulator.disk import PowerCut
from tests.simulator.file_changes import survivors
from tests.simulator.filesystem import BLOCK_BYTES, FileSystem
from tests.simulator.package_sweep import snapshot

if TYPE_CHECKING:
    from packagemanager.tree import Tree

NAMES = ("a", "b", "c")
PATHS = [*NAMES, *(f"{one}/{two}" for one in NAMES for two in NAMES), *(f"a/b/{one}" for one in NAMES)]
TARGETS = ("a", "b", "../a", "/b", "c/a", "nowhere", "..", "/")
ME = (os.getuid(), os.getgid())


def an_act(chance: random.Random) -> Callable[[Tree], object]:
    one, two, target = chance.choice(PATHS), chance.choice(PATHS), chance.choice(TARGETS)
    number = chance.randrange(0o7777)
    acts: tuple[Callable[[Tree], object], ...] = (
        lambda tree: tree.write(one, [b"x", str(number).encode()]),
        lambda tree: tree.make_directory(one),
        lambda tree: tree.make_link(one, target),
        lambda tree: tree.hard_link(one, two),
        lambda tree: rename(tree, one, two),
        lambda tree: tree.unlink(one),
        lambda tree: tree.remove_directory(one),
        lambda tree: tree.set_attributes(one, number, *ME, number),
        lambda tree: tree.replace(one, str(number).encode()),
        lambda tree: tree.list(one),
        lambda tree: (tree.resolve(one), tree.read_link(one)),
    )
    return chance.choice(acts)


def rename(tree: Tree, old: str, new: str) -> None:
    """Never of a folder: so it is said in the protocol."""
    found = tree.look(old)
    if found is not None and found.kind != DIRECTORY:
        tree.rename(old, new)


def outcome(act: Callable[[Tree], object], tree: Tree) -> object:
    try:
        return act(tree)
    except OSError:
        return "refused"  # which of several reasons is named first is the kernel's matter


@pytest.mark.skipif(os.geteuid() != 0, reason="modes keep others out")
@pytest.mark.parametrize("seed", range(12))
def test_it_does_what_the_kernel_does(tmp_path: Path, seed: int) -> None:
    simulated = FileSystem()
    chance = random.Random(seed)
    with closing(Root(str(tmp_path))) as real:
        for number in range(250):
            act = an_act(chance)
            found = (outcome(act, real), outcome(act, simulated))
            assert found[0] == found[1], number
        assert contents(native_snapshot(real)) == contents(snapshot(simulated))


def contents(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Kind, content and which names are one file; modes and times where nobody set them depend on the process."""
    return {path: (what[0], what[5], what[6]) for path, what in found.items()}


def durable() -> FileSystem:
    tree = FileSystem()
    tree.make_directory("folder")
    tree.write("old", [b"old content"])
    tree.sync()
    return tree


def left_after(tree: FileSystem, singles: int = 100) -> list[dict[str, tuple[object, ...]]]:
    states = [snapshot(tree.restarted(left)) for left in survivors(tree.pending, seeds=60, singles_max=singles)]
    return [contents(state) for state in states]


def test_what_was_not_synced_is_there_or_not_by_itself() -> None:
    tree = durable()
    tree.write("one", [b"first"])
    tree.write("two", [b"second"])
    found = left_after(tree)
    assert {frozenset(state) & {"one", "two"} for state in found} == {
        frozenset(), frozenset({"one"}), frozenset({"two"}), frozenset({"one", "two"})}  # fmt: skip
    bytes_left = {state["one"][1] for state in found if "one" in state}
    assert {b"first", b"", bytes(5)} <= bytes_left
    assert any(text not in (b"first", b"", bytes(5)) for text in bytes_left), "no torn one"
    assert all(state["old"][1] == b"old content" for state in found)


def test_what_was_synced_is_there() -> None:
    tree = durable()
    tree.write("one", [b"first"])
    tree.sync()
    assert tree.pending == []
    assert all(state["one"][1] == b"first" for state in left_after(tree))


def test_a_rename_is_both_names_or_torn_and_never_none() -> None:
    tree = durable()
    tree.write("new", [b"new content"])
    tree.sync()
    tree.rename("new", "old")
    found = {(state.get("new", ("", b""))[1], state["old"][1]) for state in left_after(tree)}
    assert found == {(b"new content", b"old content"), (b"", b"new content"), (b"new content", b"new content")}


def test_what_rests_on_a_lost_folder_is_lost_with_it() -> None:
    tree = durable()
    tree.make_directory("folder/new")
    tree.rename("old", "folder/new/old")
    for state in left_after(tree):
        assert ("old" in state) or ("folder/new" in state)
        assert "folder/new/old" not in state or "folder/new" in state


def test_a_replaced_file_is_durable_and_what_it_rests_on() -> None:
    tree = durable()
    tree.make_directory("folder/new")
    tree.write("folder/new/other", [b"x"])
    tree.replace("folder/new/state", b"one")
    assert all(state["folder/new/state"][1] == b"one" for state in left_after(tree))
    tree.replace("folder/new/state", b"two")
    assert all(state["folder/new/state"][1] == b"two" for state in left_after(tree))


def test_a_cut_comes_at_its_operation_and_any_subset_is_left() -> None:
    for number in range(6):
        tree = durable()
        tree.cut_at = tree.operations + number
        with pytest.raises(PowerCut):
            tree.replace("folder/state", b"content")
            tree.unlink("old")
        found = {state.get("folder/state", (None, None))[1] for state in left_after(tree)}
        assert found <= {None, b"content"}, number
        assert (found == {b"content"}) == (number > 4)


def test_a_failed_operation_did_nothing() -> None:
    tree = durable()
    acts: tuple[Callable[[], None], ...] = (lambda: tree.write("new", [b""]), lambda: tree.unlink("old"), tree.sync)
    for act in acts:
        before = snapshot(tree)
        tree.errors[tree.operations] = errno.EIO
        with pytest.raises(OSError, match="Input/output"):
            act()
        assert snapshot(tree) == before


def test_a_full_disk_is_full_until_something_is_freed_and_synced() -> None:
    tree = durable()
    tree.blocks_max = 1 << 40
    tree.blocks_max -= tree.free()[0] // BLOCK_BYTES
    with pytest.raises(OSError, match="No space"):
        tree.write("more", [b"x" * BLOCK_BYTES])
    tree.unlink("old")
    with pytest.raises(OSError, match="No space"):
        tree.make_directory("another")
    tree.sync()
    tree.make_directory("another")
