"""The master's answers beside all that there could be: every set of small random repositories is tried."""

from __future__ import annotations

import pytest

from packagemanager.changes import unmet
from packagemanager.master.errors import ImpossibleError
from packagemanager.master.exhaustive import search
from packagemanager.master.package import Package
from packagemanager.master.resolve import Needs, resolve
from packagemanager.master.wish import Candidates, Wish
from tests.unit.master_samples import repository
from tests.unit.master_universe import Universe

pytestmark = pytest.mark.requirement("M1")
QUICK, STEP, LONG = 500, 2500, 25_000
RANGES = [
    range(QUICK),
    *(pytest.param(range(at, at + STEP), marks=pytest.mark.long) for at in range(QUICK, LONG, STEP)),
]


def wish_of(universe: Universe) -> Wish:
    pins, installed = (
        {name: str(version) for name, version in each.items()} for each in (universe.pins, universe.installed)
    )
    return Wish(
        universe.wanted(), pins, installed, upgrade=universe.upgrade, downgrade=universe.downgrade, essential=False
    )


def found_by_resolve(universe: Universe) -> list[Package] | None:
    try:
        return resolve(wish_of(universe), repository(universe.text))
    except ImpossibleError:
        return None


def found_by_search(universe: Universe) -> list[Package] | None:
    return search(Needs(Candidates(wish_of(universe), repository(universe.text))))


@pytest.mark.parametrize("seeds", RANGES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_every_answer_is_whole_and_impossible_is_what_no_set_does(seeds: range) -> None:
    answers = 0
    for seed in seeds:
        universe = Universe(seed)
        can_be = next(universe.sets(), None) is not None
        for find in (found_by_resolve, found_by_search):
            found = find(universe)
            assert (found is not None) == can_be, f"{find.__name__}, seed {seed}"
            versions = {package.name: int(package.version) for package in found or ()}
            there = [one for one in universe.packages if versions.get(one.name) == one.version]
            assert found is None or universe.holds(there), f"{find.__name__}, seed {seed}"
            assert universe.leads_to(there) == there, f"{find.__name__}, seed {seed}"
            assert all(map(universe.may_come, there)), f"{find.__name__}, seed {seed}"
            assert not unmet({package.key: package.fields for package in found or ()}, ("amd64",))
        answers += can_be
    assert len(seeds) // 5 < answers < len(seeds) // 2
