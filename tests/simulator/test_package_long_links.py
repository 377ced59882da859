"""A link through more folders than a path may have leads nowhere: damage where a folder was, and refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packagemanager.database import Database
from packagemanager.errors import RefusedError
from packagemanager.repair import repair
from packagemanager.root import Root
from packagemanager.transact import DONE, Manager
from packagemanager.tree import NAMES_MAX
from packagemanager.verify import verify
from tests.programs.package_constructs import p, q
from tests.simulator.package_world import FOLDERS, TEXTS, World, system

if TYPE_CHECKING:
    from packagemanager.tree import Tree

pytestmark = [pytest.mark.requirement("M20"), pytest.mark.fault("R4")]
FOLDER, FILE = "usr/share/p", "usr/share/p/f"
LONG = pytest.mark.parametrize("names", [NAMES_MAX // 2 - 2, NAMES_MAX // 2 - 1, NAMES_MAX - 2, NAMES_MAX, 2000])


@pytest.fixture(params=["real", "simulated"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    if request.param == "simulated":
        yield system()
        return
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    for path, content in TEXTS.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    with Root(str(tmp_path)) as root:
        yield root


def deep(names: int) -> str:
    return "/".join("a" * names)


def with_a_link(tree: Tree, names: int) -> World:
    """A package's folder is a link to so many folders, none of which is there."""
    world = World()
    assert Manager(tree).apply(world.install(p("1", {f"/{FILE}": "1"})), settle=True) == DONE
    tree.unlink(FILE)
    tree.remove_directory(FOLDER)
    tree.make_link(FOLDER, deep(names))
    return world


@LONG
def test_in_the_place_of_a_folder_it_is_found_and_repaired(tree: Tree, names: int) -> None:
    with_a_link(tree, names)
    again = World().install(p("1", {f"/{FILE}": "1"}))
    assert {finding.path for finding in verify(Database(tree))} == {FOLDER, FILE}
    assert repair(tree, lambda _keys: {}, partial=True).left
    outcome = repair(tree, again.bring)
    assert (outcome.left, verify(Database(tree))) == ((), [])
    assert tree.open(FILE).read(9) == b"1"


@LONG
def test_the_next_transaction_finds_its_way(tree: Tree, names: int) -> None:
    world = with_a_link(tree, names)
    assert Manager(tree).apply(world.install(p("2", {f"/{FILE}": "2"})), settle=True) == DONE
    assert tree.open(FILE).read(9) == b"2"


@pytest.mark.parametrize(
    "links",
    [
        {"/x": deep(1500)},
        {"/x": deep(NAMES_MAX)},
        {"/x": "l0", **{f"/l{number}": f"l{number + 1}/{deep(240)}" for number in range(39)}},
    ],
    ids=["long", "just too long", "by way of others"],
)
def test_packages_of_which_one_lies_below_it_are_refused_by_name(tree: Tree, links: dict[str, str]) -> None:
    one = p("1", {path: (target,) for path, target in links.items()})
    with pytest.raises(RefusedError, match="/x"):
        Manager(tree).apply(World().install(one, q("1", {"/x/f": "1"})), settle=True)
    assert Manager(tree).apply(World().install(one), settle=True) == DONE
    assert tree.read_link("x") == links["/x"]
