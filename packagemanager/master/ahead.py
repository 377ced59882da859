"""What devices have in a newer version than any repository, because its lists are old: it stays.

What it needs is known where a state is dpkg's own database. Else nobody says it: the newest version that is known
stands in for it, so that it is seen whether the wish comes to it at all; nothing is signed then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packagemanager import version
from packagemanager.master.errors import RequestError
from packagemanager.master.package import Package
from packagemanager.master.repository import Repositories


class Ahead:
    """A repository. ``had`` maps ``name:architecture`` to the version that devices have, ``there`` are the packages
    that can be had, ``databases`` say what devices have."""

    def __init__(self, had: Mapping[str, str], there: Repositories, databases: Repositories) -> None:
        self._packages: dict[str, list[Package]] = {}
        self._instead_of: dict[Package, Package] = {}
        for key, number in had.items():
            name = key.partition(":")[0]
            others = [one for one in there.named(name) if one.key == key]
            if any(one.order >= version.key(number) for one in there.named(name)):
                continue
            package = databases.exactly(key, number)
            if package is None and others:
                package = Package(others[0].fields.changed(Version=number), native=others[0].native)
                self._instead_of[package] = others[0]
            if package is not None:
                self._packages.setdefault(name, []).append(package)

    def named(self, name: str) -> list[Package]:
        return self._packages.get(name, [])

    def providing(self, name: str) -> list[Package]:
        packages = (one for each in self._packages.values() for one in each)
        return [one for one in packages if name in one.provides and one.name != name]

    def essential(self) -> list[Package]:
        return []

    def refuse_unknown(self, wanted: Iterable[Package]) -> None:
        """Raises ``RequestError``: of ``wanted`` is one of which nobody says what it needs."""
        for package in wanted:
            if package in self._instead_of:
                older = self._instead_of[package]
                raise RequestError(
                    f"devices have {package.key} {package.version}, the newest that is to be had is {older.version}, "
                    f"and nobody says what {package.version} needs",
                    f"Fetch the lists again (apt-get update), name a place that has it with --old, or go back: "
                    f"--pin {package.name}={older.version}, or --downgrade for all.",
                )
