"""A package as a repository lists it: who it is, what it asks of others, and where its bytes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from packagemanager import version
from packagemanager.control import Paragraph, Relation, check_package, identity, parse_relations

Relations = tuple[tuple[Relation, ...], ...]
ANY_SYSTEM = ("", "any", "native")  # what a relation may say of architectures where all packages are for one


@dataclass(frozen=True, eq=False)
class Package:
    """``fields`` is its paragraph, ``origin`` its repository. ``fetch`` gives the path of the verified ``.deb``.

    ``native`` is the architecture of the systems that it is for, which it counts as if it is for all of them.
    """

    fields: Paragraph
    origin: str = ""
    size: int = 0
    sha256: str = ""
    fetch: Callable[[], Path] | None = field(default=None, repr=False)
    native: str = ""

    @cached_property
    def _identity(self) -> tuple[str, str, str]:
        return identity(self.fields)

    @property
    def name(self) -> str:
        return self._identity[0]

    @property
    def version(self) -> str:
        return self._identity[1]

    @property
    def architecture(self) -> str:
        return self._identity[2]

    @property
    def key(self) -> str:
        """``name:architecture``: what is installed once."""
        return f"{self.name}:{self.architecture}"

    @cached_property
    def order(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Sorts as the version does."""
        return version.key(self.version)

    @property
    def is_essential(self) -> bool:
        return self.fields.get("Essential") == "yes"

    @cached_property
    def pre_depends(self) -> Relations:
        return parse_relations(self.fields.get("Pre-Depends"))

    @cached_property
    def depends(self) -> Relations:
        return parse_relations(self.fields.get("Depends"))

    @cached_property
    def recommends(self) -> Relations:
        return parse_relations(self.fields.get("Recommends"))

    @cached_property
    def conflicts(self) -> Relations:
        return parse_relations(self.fields.get("Conflicts"))

    @cached_property
    def breaks(self) -> Relations:
        return parse_relations(self.fields.get("Breaks"))

    @cached_property
    def provides(self) -> dict[str, tuple[str, ...]]:
        """Virtual names, each with its versions; an empty one is none."""
        found: dict[str, tuple[str, ...]] = {}
        for group in parse_relations(self.fields.get("Provides")):
            for one in group:
                found[one.name] = (*found.get(one.name, ()), one.version)
        return found

    def meets(self, relation: Relation) -> bool:
        """Whether this is what ``relation`` means, by its own name or one that it provides.

        A versioned relation is met by a provided name only where that has a version, too (Debian policy 7.5); one
        for a named architecture by that one alone.
        """
        if relation.architecture not in (*ANY_SYSTEM, self.native or self.architecture):
            return False
        own = (self.version,) if relation.name == self.name else ()
        versions = (*own, *self.provides.get(relation.name, ()))
        return any(relation.admits(one) if one else not relation.operator for one in versions)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def __repr__(self) -> str:
        return f"Package({self.key} {self.version})"


def look_at_all(package: Package) -> None:
    """Everything that could be wrong with it is wrong now, not in the middle of resolving. Raises ``ArchiveError``."""
    check_package(package.fields)
    _ = package.key, package.order, package.pre_depends, package.depends, package.recommends
    _ = package.conflicts, package.breaks, package.provides
