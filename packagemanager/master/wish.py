"""What a master wishes for, and which packages may answer it.

Of a repository a pinned package may come in that version alone. Any other may come only if no device has to go back for
it: going back is asked for, by a pin, by a root that says a version (``lib (<< 2)``), or by ``downgrade``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packagemanager import version
from packagemanager.control import Relation, parse_relations
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import RequestError
from packagemanager.master.package import Package
from packagemanager.master.repository import Repositories

VERSIONS_TOLD_MAX = 6
BACK = frozenset(("<<", "<=", "=", "<"))  # operators that older versions may be meant by

Group = tuple[Relation, ...]
Place = tuple[int, tuple[int, ...], tuple[int, ...]]  # sorts as the version does


@dataclass(frozen=True)
class Wish:
    """``roots`` are what is wanted for itself: ``name``, ``name (>= 1)``, ``a | b``. Nothing else stays.

    ``pins`` are name to version; a pin wants nothing by itself. ``installed`` is what devices have, name to version:
    kept where it fits, unless ``upgrade``; nothing older comes, unless ``downgrade``. ``essential``: packages marked so
    are roots, too.
    """

    roots: Sequence[str]
    pins: Mapping[str, str]
    installed: Mapping[str, str]
    upgrade: bool = False
    recommends: bool = False
    essential: bool = True
    downgrade: bool = False
    architecture: str = "amd64"


class Candidates:
    """The packages that may come for ``wish``. ``roots`` are groups of alternatives, ``essential`` names.

    Raises:
        RequestError: a root is no relation, or a pin names a version that is not to be had.
    """

    def __init__(self, wish: Wish, repositories: Repositories) -> None:
        self.wish = wish
        self._repositories = repositories
        self.roots: list[Group] = [group for text in wish.roots for group in _groups(text)]
        essential = repositories.essential() if wish.essential else []
        self.essential = sorted({package.name for package in essential})
        self._oldest = self._make_oldest()
        for name, pinned in wish.pins.items():
            if not any(package.version == pinned for package in repositories.named(name)):
                raise RequestError(f"{name} is pinned to {pinned}, which no repository has", self.told(Relation(name)))

    def _make_oldest(self) -> dict[str, Place]:
        """What may not be gone back behind, by name."""
        asked = {one.name for group in self.roots for one in group if one.operator in BACK}
        free = {*self.wish.pins, *asked}
        installed = {} if self.wish.downgrade else self.wish.installed
        return {name: version.key(number) for name, number in installed.items() if name not in free}

    def _may_come(self, package: Package) -> bool:
        is_pinned = self.wish.pins.get(package.name, package.version) == package.version
        return is_pinned and not self._goes_back(package)

    def _goes_back(self, package: Package) -> bool:
        oldest = self._oldest.get(package.name)
        return oldest is not None and package.order < oldest

    def named(self, name: str) -> list[Package]:
        """The versions of a package, the best first."""
        kept = None if self.wish.upgrade else self.wish.installed.get(name)
        found = [one for one in self._repositories.named(name) if self._may_come(one)]
        return sorted(found, key=lambda one: one.version != kept)  # stable: newest first otherwise

    def meeting(self, relation: Relation) -> list[Package]:
        """Every package that ``relation`` could mean: those of its name first, then the providers by name."""
        providing = sorted(self._repositories.providing(relation.name), key=lambda one: one.name)
        found = [*self._repositories.named(relation.name), *providing]
        return [one for one in found if one.meets(relation) and self._may_come(one)]

    def names(self, group: Iterable[Relation]) -> list[str]:
        """Whose packages could meet one of ``group``: what devices have first, then by the alternatives."""
        found = dict.fromkeys(one.name for relation in group for one in self.meeting(relation))
        return sorted(found, key=lambda name: name not in self.wish.installed)

    def options(self, group: Group) -> list[Package]:
        """The packages that meet one of ``group``, the best first."""
        versions = (one for name in self.names(group) for one in self.named(name))
        return [one for one in versions if any(one.meets(relation) for relation in group)]

    def told(self, relation: Relation) -> str:
        """What there is of a name, in words."""
        asked = Relation(relation.name, relation.architecture)
        name = str(asked)
        named = self._repositories.named(relation.name)
        found = [one.version for one in named if one.meets(asked)][:VERSIONS_TOLD_MAX]
        providers = sorted({one.name for one in self._repositories.providing(relation.name) if one.meets(asked)})
        if providers and not found:
            return f"{name} is provided by: {', '.join(providers[:VERSIONS_TOLD_MAX])}"
        told = f"Of {name} there is: {', '.join(found) or 'nothing'}"
        if any(self._goes_back(one) for one in named):
            installed = self.wish.installed[relation.name]
            told += f" (devices have {installed}; --pin {relation.name}=VERSION or --downgrade goes back)"
        return told


def _groups(text: str) -> tuple[Group, ...]:
    try:
        return parse_relations(text)
    except ArchiveError as error:
        raise RequestError(f"{text!r} is no package to want: {error}", "Write: name, or name (>= 1.2)") from error
