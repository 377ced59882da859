"""In which order packages are unpacked, configured and removed (Debian policy 7.2).

What a package depends on comes before it; where packages depend on each other, one without a postinst goes first, and
a Pre-Depends is the last thing to be broken. Removals go the other way round. The same packages give the same order,
however they were listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from packagemanager.control import Relation
from packagemanager.master.package import Package

Edges = Mapping[Package, frozenset[Package]]


class Graph:
    """Who needs whom among ``packages``. Of alternatives the first that is there counts; what is not there does not."""

    def __init__(self, packages: Iterable[Package]) -> None:
        self.packages = sorted(packages, key=lambda package: package.key)
        self._named: dict[str, list[Package]] = {}
        for package in self.packages:
            for name in (package.name, *package.provides):
                self._named.setdefault(name, []).append(package)
        self.pre_depends: Edges = {one: self._met(one, one.pre_depends) for one in self.packages}
        self.needs: Edges = {one: self._met(one, one.depends) | self.pre_depends[one] for one in self.packages}

    def _met(self, package: Package, groups: Iterable[Iterable[Relation]]) -> frozenset[Package]:
        found = (self._first(group) for group in groups)
        return frozenset(one for one in found if one is not None and one is not package)

    def _first(self, group: Iterable[Relation]) -> Package | None:
        for relation in group:
            for package in self._named.get(relation.name, ()):
                if package.meets(relation):
                    return package
        return None


def configure_order(packages: Iterable[Package], has_postinst: Callable[[Package], bool]) -> list[Package]:
    """``packages``, each after what it depends on. ``has_postinst`` is asked for those in cycles alone.

    Unpacking in the same order is right, too: what a package pre-depends on is before it.
    """
    graph = Graph(packages)
    return list(_ordered(graph.packages, graph, has_postinst))


def removal_order(packages: Iterable[Package]) -> list[Package]:
    """``packages``, each before what it depends on. Cycles are broken by name: prerm scripts have no such rule."""
    graph = Graph(packages)
    return list(_ordered(graph.packages, graph, lambda package: False))[::-1]


def _ordered(packages: Sequence[Package], graph: Graph, has_postinst: Callable[[Package], bool]) -> Iterator[Package]:
    for component in components(packages, graph.needs):
        if len(component) == 1:
            yield component[0]
        else:
            first = _first_of_cycle(component, graph, has_postinst)
            yield first
            yield from _ordered([one for one in component if one is not first], graph, has_postinst)


def _first_of_cycle(cycle: Sequence[Package], graph: Graph, has_postinst: Callable[[Package], bool]) -> Package:
    members = frozenset(cycle)

    def price(package: Package) -> tuple[int, bool, int, str]:
        return (
            len(graph.pre_depends[package] & members),
            has_postinst(package),
            len(graph.needs[package] & members),
            package.key,
        )

    allowed: list[Package] = []
    for component in components(cycle, graph.pre_depends):
        outside = members.difference(component)
        if not any(graph.pre_depends[package] & outside for package in component):
            allowed += component
    return min(allowed, key=price)


def components(packages: Sequence[Package], needs: Edges) -> list[list[Package]]:
    """The strongly connected components, each after those that it needs (Tarjan 1972, without recursion)."""
    search = _Search(frozenset(packages), needs)
    for package in packages:
        if package not in search.numbers:
            search.visit(package)
    return search.found


class _Search:
    """``numbers`` are those of the first visit; ``lowest``: the lowest one that can be reached within the stack."""

    def __init__(self, members: frozenset[Package], needs: Edges) -> None:
        self._members = members
        self._needs = needs
        self.numbers: dict[Package, int] = {}
        self._lowest: dict[Package, int] = {}
        self._stack: dict[Package, None] = {}
        self._path: list[tuple[Package, Iterator[Package]]] = []
        self.found: list[list[Package]] = []

    def visit(self, start: Package) -> None:
        self._enter(start)
        while self._path:
            package, rest = self._path[-1]
            for needed in rest:
                if needed not in self.numbers:
                    self._enter(needed)
                    break
                if needed in self._stack:
                    self._lowest[package] = min(self._lowest[package], self.numbers[needed])
            else:
                self._leave(package)

    def _enter(self, package: Package) -> None:
        self.numbers[package] = self._lowest[package] = len(self.numbers)
        self._stack[package] = None
        needed = sorted(self._needs[package] & self._members, key=lambda one: one.key)
        self._path.append((package, iter(needed)))

    def _leave(self, package: Package) -> None:
        self._path.pop()
        if self._path:
            above = self._path[-1][0]
            self._lowest[above] = min(self._lowest[above], self._lowest[package])
        if self._lowest[package] == self.numbers[package]:
            component = []
            while package in self._stack:
                component.append(self._stack.popitem()[0])
            self.found.append(component)
