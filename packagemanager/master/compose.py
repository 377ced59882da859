"""From a request to what has to be written: the wanted set, its order, what goes, and where old packages are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packagemanager.master.acceptance import refuse_as_devices
from packagemanager.master.ahead import Ahead
from packagemanager.master.deb_path import opened_deb
from packagemanager.master.emit import Order
from packagemanager.master.order import configure_order, removal_order
from packagemanager.master.package import Package
from packagemanager.master.repository import Repositories, Repository, open_repository
from packagemanager.master.request import Request
from packagemanager.master.resolve import resolve
from packagemanager.master.state_file import packages_of_state, read_state
from packagemanager.master.wish import Wish
from packagemanager.version import key as version_key


@dataclass(frozen=True)
class Composed:
    """``order`` is what to write; ``changes`` says for every package of a state what becomes of it."""

    order: Order
    changes: tuple[tuple[str, str, str], ...]


def compose(request: Request, cache: Path) -> Composed:
    """Decide. Packages are fetched only where a cycle of them has to be broken.

    Raises:
        MasterError: by its kind.
    """
    request.checked()
    states = [read_state(Path(path)) for path in request.states]
    had = _newest_of(states)
    current = [open_repository(place, request.architecture, cache) for place in request.repositories]
    old = [open_repository(place, request.architecture, cache) for place in request.old]
    databases = Repositories([packages_of_state(Path(path), request.architecture) for path in request.states])
    known = Repositories([*current, *old])
    stays = [] if request.upgrade and request.downgrade else [_Had(each, had) for each in old]
    there = Repositories([*current, *stays])
    ahead = Ahead({} if request.downgrade else had, there, databases)
    wish = Wish(
        request.want, request.pin, _by_name(had, request.architecture),
        upgrade=request.upgrade, recommends=request.recommends, essential=request.essential,
        downgrade=request.downgrade, architecture=request.architecture,
    )  # fmt: skip
    wanted = resolve(wish, Repositories([there, ahead]))
    ahead.refuse_unknown(wanted)
    brought = {package for package in wanted if any(one.get(package.key) != package.version for one in states)}
    ordered = configure_order(wanted, lambda package: package in brought and has_postinst(package))
    keys = {package.key for package in wanted}
    gone = [known.exactly(key, version) or key for key, version in sorted(had.items()) if key not in keys]
    removals = [one for one in gone if isinstance(one, str)]
    removals += [package.key for package in removal_order(one for one in gone if isinstance(one, Package))]
    order = Order(
        request.architecture, ordered, ordered, removals, states, known.exactly, request.full, request.deltas,
        request.expendable, request.purge,
    )  # fmt: skip
    refuse_as_devices(order, Repositories([known, databases]), request.states)
    return Composed(order, tuple(_changes(had, ordered, removals)))


class _Had:
    """Of a repository what devices have: it may stay, and nothing else of it comes."""

    def __init__(self, repository: Repository, had: Mapping[str, str]) -> None:
        self._repository = repository
        self._had = had

    def named(self, name: str) -> list[Package]:
        return [one for one in self._repository.named(name) if self._had.get(one.key) == one.version]

    def providing(self, name: str) -> list[Package]:
        return [one for one in self._repository.providing(name) if self._had.get(one.key) == one.version]

    def essential(self) -> list[Package]:
        return []


def _newest_of(states: list[dict[str, str]]) -> dict[str, str]:
    """What devices have, each in the newest version that one of them has: going back is asked for by a pin."""
    had: dict[str, str] = {}
    for state in states:
        for key, version in state.items():
            if key not in had or version_key(had[key]) < version_key(version):
                had[key] = version
    return had


def _by_name(had: Mapping[str, str], architecture: str) -> dict[str, str]:
    """Without what is for other architectures: nothing of the wanted set takes its place."""
    pairs = [(*key.split(":"), version) for key, version in had.items()]
    return {name: version for name, own, version in pairs if own in (architecture, "all")}


def _changes(had: Mapping[str, str], wanted: list[Package], removals: list[str]) -> list[tuple[str, str, str]]:
    """(package, version that devices have, version that is wanted); what stays is left out."""
    changed = [(one.key, had.get(one.key, ""), one.version) for one in wanted if had.get(one.key) != one.version]
    return [*changed, *((key, had[key], "") for key in removals)]


@lru_cache(maxsize=4096)
def has_postinst(package: Package) -> bool:
    """Whether it has a script that configures it. Fetches the package. Raises ``RepositoryError``."""
    assert package.fetch is not None
    with opened_deb(package.fetch()) as deb:
        return "postinst" in deb.control()[1]
