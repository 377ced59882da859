"""The order of unpacking, configuring and removing, for any packages at all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packagemanager.master.order import Graph, components, configure_order, removal_order
from packagemanager.master.package import Package
from tests.unit.master_samples import repository

pytestmark = pytest.mark.requirement("M10")

NAMES = [f"p{number}" for number in range(8)]
# for each package the places of what it depends on, and of what it pre-depends on
GRAPHS = st.lists(st.tuples(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7), max_size=1)), min_size=8, max_size=8)


def packages(text: str) -> list[Package]:
    repositories = repository(text)
    names = [line.split()[0] for line in text.strip().splitlines()]
    return [repositories.named(name)[0] for name in names]


def of_graph(graph: list[tuple[set[int], set[int]]]) -> list[Package]:
    lines = []
    for name, (depends, pre_depends) in zip(NAMES, graph, strict=True):
        fields = {"D": depends, "P": pre_depends}
        parts = [
            f"{key}: {', '.join(NAMES[one] for one in sorted(places))}" for key, places in fields.items() if places
        ]
        lines.append(f"{name} 1 {'; '.join(parts)}")
    return packages("\n".join(lines))


def names(ordered: Iterable[Package]) -> list[str]:
    return [package.name for package in ordered]


def always(package: Package) -> bool:
    return True


@given(GRAPHS)
@settings(max_examples=100, deadline=None)
def test_everything_comes_once_and_after_what_it_needs_but_for_cycles(graph: list[tuple[set[int], set[int]]]) -> None:
    given_packages = of_graph(graph)
    ordered = configure_order(given_packages, always)
    assert sorted(names(ordered)) == NAMES
    place = {package: number for number, package in enumerate(ordered)}
    needs = Graph(given_packages).needs
    cycle = {one: number for number, group in enumerate(components(given_packages, needs)) for one in group}
    for package, needed in needs.items():
        assert all(place[one] < place[package] for one in needed if cycle[one] != cycle[package])
    for package in removal_order(given_packages):
        assert package in place


@given(GRAPHS)
@settings(max_examples=100, deadline=None)
def test_a_pre_dependency_holds_unless_it_is_in_a_cycle_of_them(graph: list[tuple[set[int], set[int]]]) -> None:
    given_packages = of_graph(graph)
    ordered = configure_order(given_packages, always)
    place = {package: number for number, package in enumerate(ordered)}
    pre = Graph(given_packages).pre_depends
    cycle = {one: number for number, group in enumerate(components(given_packages, pre)) for one in group}
    for package, needed in pre.items():
        assert all(place[one] < place[package] for one in needed if cycle[one] != cycle[package])


@given(GRAPHS, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_is_the_same_however_they_are_listed(graph: list[tuple[set[int], set[int]]], chance: object) -> None:
    given_packages = of_graph(graph)
    shuffled = list(given_packages)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert configure_order(shuffled, always) == configure_order(given_packages, always)


def test_a_cycle_is_broken_where_there_is_no_postinst() -> None:
    cycle = packages("a 1 D: b\nb 1 D: c\nc 1 D: a")
    assert names(configure_order(cycle, lambda package: package.name != "b")) == ["b", "a", "c"]
    assert names(configure_order(cycle, always))[0] == "a"


def test_in_a_cycle_the_pre_dependency_is_kept() -> None:
    cycle = packages("a 1 P: b\nb 1 D: a")
    assert names(configure_order(cycle, lambda package: package.name == "b")) == ["b", "a"]


def test_the_alternative_that_is_there_counts() -> None:
    given_packages = packages("app 1 D: gone | other\nother 1 D: virtual\nreal 1 V: virtual")
    assert names(configure_order(given_packages, always)) == ["real", "other", "app"]
    assert names(removal_order(given_packages)) == ["app", "other", "real"]


def test_thousands_in_a_row_are_no_trouble() -> None:
    chain = packages("\n".join(f"p{number} 1 D: p{(number + 1) % 1000}" for number in range(1000)))
    assert len(configure_order(chain[:-1], always)) == 999
