"""The page with the algorithm is right: its phases and syncs come in the order in which the disk sees them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from packagemanager import places
from packagemanager.phases import PHASES
from packagemanager.plan_file import decode_phase
from packagemanager.transact import Manager
from tests.simulator.package_world import NEW, before_the_update
from tests.simulator.test_package_flow import order_of

pytestmark = pytest.mark.requirement("M23")

PAGE = Path(__file__).parents[2] / "docs" / "packages.md"
MARK = re.compile(r'phase := "(\w+)"|\b(sync)\b')


class Watched:
    """A tree that notes its syncs and the phases that are written."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)

    def sync(self) -> None:
        self.seen.append("sync")
        self._tree.sync()

    def replace(self, path: str, content: bytes, *, after_all: bool = False) -> None:
        if path == places.PHASE:
            self.seen.append(decode_phase(content)[0])
        self._tree.replace(path, content, after_all=after_all)


def part(name: str) -> str:
    """The lines of the pseudo-code that belong to ``name``."""
    found = re.search(rf"^{name}[(:].*?(?=^\S|\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"the page has no {name}"
    return found[0]


def marks(text: str) -> list[str]:
    return [phase or sync for phase, sync in MARK.findall(text)]


def test_applying_is_as_the_page_says() -> None:
    tree, world = before_the_update()
    watched: Any = Watched(tree)
    Manager(watched).apply(order_of(world, NEW), settle=True)
    assert watched.seen == marks(part("apply"))


def test_undoing_is_as_the_page_says() -> None:
    """Its last step is the tenth of applying: remove, sync, remove."""
    tree, world = before_the_update()
    Manager(tree).apply(order_of(world, NEW))
    watched: Any = Watched(tree)
    Manager(watched).undo()
    assert watched.seen == [*marks(part("undo")), *marks(part("apply"))[-1:]]


def test_every_phase_has_a_line_of_its_own_where_the_page_resumes() -> None:
    named = [line.split()[0] for line in part("resume").splitlines()[1:] if line.strip()]
    assert sorted(word for word in named if word in PHASES) == sorted(PHASES)
