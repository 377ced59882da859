"""What is compared, each done by both sides: an update, the way back, a meta-package in the place of another, and the
package manager that replaces itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packagemanager.database import Database
from packagemanager.root import Root
from scripts.comparison import database_difference, explained, meta_package, own_package, sides, tree_difference
from scripts.comparison.real_root import RealRoot, real_root
from scripts.comparison.tree_difference import Difference
from scripts.virtual.frozen import freeze_program

CHECKOUT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("apply_folder.py")


@dataclass(frozen=True)
class Compared:
    """``packages`` changed, ``entries`` are in both roots together."""

    name: str
    packages: int
    entries: int
    explained: list[tuple[explained.Reason, list[Difference]]]
    unexplained: list[Difference]


class Copies:
    """A root for each side. ``before`` is what was in ours before the last change, as `tree_difference` has it."""

    def __init__(self, dpkg: Path, ours: Path) -> None:
        self.dpkg = dpkg
        self.ours = ours
        self.before: dict[str, dict[str, str]] = {}

    def apply(self, packages: Path, removed: Sequence[str] = ()) -> None:
        """Install a folder of packages on both sides, then remove some with their configuration. Raises: SetupError."""
        self.before = dict(tree_difference.entries(self.ours))
        sides.install_all(self.dpkg, packages)
        if removed:
            sides.dpkg(self.dpkg, packages, "--purge", *removed)
        ours(self.ours, packages, removed)

    def compare(self, name: str, packages: int) -> Compared:
        owned = database_difference.owned(self.ours)
        found = [
            explained.with_its_time(one, self.before.get(one.path, {}), owned)
            for one in tree_difference.differences(self.dpkg, self.ours)
            if not (one.aspect == "content" and database_difference.same_but_for_order(one.path, self.dpkg, self.ours))
        ]
        found += database_difference.differences(self.dpkg, self.ours)
        reasons, unexplained = explained.sort_out(found)
        return Compared(name, packages, sum(1 for _ in tree_difference.entries(self.dpkg)), reasons, unexplained)


class Workshop:
    """The real root, and copies of it for cases that build upon each other."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache

    @cached_property
    def real(self) -> RealRoot:
        return real_root(self.cache)

    def fresh(self, name: str) -> Copies:
        """Two copies of the root before the update. Raises: SetupError."""
        return Copies(*(sides.copy_root(self.real.archive, self.folder / name / side) for side in ("dpkg", "ours")))

    @cached_property
    def updated(self) -> tuple[Copies, Compared]:
        """Both sides after the update, and what differed then. Raises: SetupError."""
        copies = self.fresh("update")
        copies.apply(self.real.new)
        return copies, copies.compare("update", _count(self.real.new))


def ours(root: Path, packages: Path, removed: Sequence[str] = ()) -> str:
    """This package manager on ``root``. Raises: SetupError."""
    return sides.inside(root, packages, on_host(root, packages, removed))


def on_host(root: Path, packages: Path, removed: Sequence[str] = ()) -> list[str | Path]:
    """The command that runs this package manager by this machine's Python."""
    environment = ["env", f"PYTHONPATH={CHECKOUT}", "PYTHONDONTWRITEBYTECODE=1"]
    return [*environment, sys.executable, "-P", PROGRAM, root, packages, *removed]


def freeze(cache: Path, output: Path) -> None:
    """The device's executable that does the same. Raises: BuildError."""
    freeze_program(PROGRAM, CHECKOUT, cache, output)


def update(workshop: Workshop) -> Compared:
    return workshop.updated[1]


def downgrade(workshop: Workshop) -> Compared:
    """From where the update ended, each side's own; so a case says nothing of the one before."""
    copies, _ = workshop.updated
    copies.apply(workshop.real.old)
    return copies.compare("downgrade", _count(workshop.real.old))


def replace_meta_package(workshop: Workshop) -> Compared:
    copies = workshop.fresh("meta-package")
    old, new = meta_package.build(workshop.folder / "meta-packages")
    copies.apply(old)
    packages = {package.name: package.fields for package in Database(Root(str(copies.ours))).present()}
    removed = meta_package.leftovers(packages)
    copies.apply(new, [*removed, meta_package.OLD])
    return copies.compare("meta-package", len(removed) + 2)


def replace_itself(workshop: Workshop) -> Compared:
    """Ours is the installed program, run inside of the root that it is replaced in; dpkg becomes a newer one, too.

    Raises: SetupError, BuildError.
    """
    copies = workshop.fresh("itself")
    program = workshop.folder / "apply"
    freeze(workshop.cache, program)
    first, second = own_package.build(workshop.folder / "own", program)
    copies.apply(first)
    copies.before = dict(tree_difference.entries(copies.ours))
    sides.install_all(copies.dpkg, second)
    sides.inside(copies.ours, second, ["chroot", copies.ours, f"/{own_package.INSTALLED}", "/", "/mnt"])
    return copies.compare("itself", _count(second))


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


CASES: dict[str, Callable[[Workshop], Compared]] = {
    "update": update,
    "downgrade": downgrade,
    "meta-package": replace_meta_package,
    "itself": replace_itself,
}
