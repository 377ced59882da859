"""Small random repositories, and every wanted set that they allow, counted out: the master's answers must agree.

Nothing of the master is used here: relations are compared as numbers, sets are tried one by one.
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

VIRTUAL = ("v", "w")
COMPARED: dict[str, Callable[[int, int], bool]] = {
    "<<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">>": operator.gt,
}  # fmt: skip

# A name, and an operator with a version or nothing.
Asked = tuple[str, str, int]


@dataclass
class Listed:
    """A package: what it needs (groups of alternatives), what must not be there, and what else it is, each by name."""

    name: str
    version: int
    needs: list[list[Asked]] = field(default_factory=list)
    forbids: list[Asked] = field(default_factory=list)
    provides: list[tuple[str, int]] = field(default_factory=list)

    def is_meant(self, asked: Asked) -> bool:
        """Whether ``asked`` means this package; 0 stands for a name that is provided without a version."""
        name, compared, version = asked
        offers = [(self.name, self.version), *self.provides]
        there = [number for offer, number in offers if offer == name]
        return any(not compared or (number and COMPARED[compared](number, version)) for number in there)

    def __str__(self) -> str:
        needs = ", ".join(" | ".join(map(said, group)) for group in self.needs)
        provides = ", ".join(said((name, "=" if number else "", number)) for name, number in self.provides)
        fields = {"D": needs, "C": ", ".join(map(said, self.forbids)), "V": provides}
        return f"{self.name} {self.version} " + "; ".join(f"{key}: {text}" for key, text in fields.items() if text)


def said(asked: Asked) -> str:
    name, compared, version = asked
    return f"{name} ({compared} {version})" if compared else name


class Universe:
    """The repository of the number ``seed``, with a wish: ``roots``, ``pins``, what is ``installed``, and flags."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.names = [chr(ord("a") + place) for place in range(chance.randint(3, 6))]
        self.packages = [
            Listed(name, version) for name in self.names for version in range(1, chance.randint(1, 3) + 1)
        ]  # fmt: skip
        dense = chance.choice((0.3, 0.6, 1.0))
        for one in self.packages:
            one.needs = [self._group(chance) for _ in range(3) if chance.random() < dense]
            one.forbids = [self._asked(chance) for _ in range(2) if chance.random() < dense / 2]
            one.provides = [(chance.choice(VIRTUAL), chance.randint(0, 3)) for _ in range(2) if chance.random() < 0.25]
        self.roots = [self._group(chance) for _ in range(chance.randint(1, 2))]
        self.pins = {one.name: one.version for one in self.packages if chance.random() < 0.04}
        self.installed = {one.name: one.version for one in self.packages if chance.random() < 0.25}
        self.upgrade = chance.random() < 0.5
        self.downgrade = chance.random() < 0.5

    def _asked(self, chance: random.Random) -> Asked:
        if chance.random() < 0.5:
            return chance.choice((*self.names, *VIRTUAL)), "", 0
        return chance.choice((*self.names, *VIRTUAL)), chance.choice(list(COMPARED)), chance.randint(1, 3)

    def _group(self, chance: random.Random) -> list[Asked]:
        return [self._asked(chance) for _ in range(chance.choice((1, 1, 2)))]

    @property
    def text(self) -> str:
        return "\n".join(map(str, self.packages))

    def wanted(self) -> list[str]:
        return [" | ".join(map(said, group)) for group in self.roots]

    def may_come(self, one: Listed) -> bool:
        """What is pinned comes in that version; nothing else goes back, unless a root or the wish asks for it."""
        if one.name in self.pins:
            return self.pins[one.name] == one.version
        bounds = [compared for group in self.roots for name, compared, _ in group if name == one.name]
        asked = any(compared in ("<<", "<=", "=") for compared in bounds)
        return self.downgrade or asked or one.version >= self.installed.get(one.name, 0)

    def sets(self) -> Iterator[list[Listed]]:
        """Every set that has the roots, all that it needs and nothing that it forbids."""
        places = {
            name: [one for one in self.packages if one.name == name and self.may_come(one)] for name in self.names
        }
        for found in itertools.product(*([None, *some] for some in places.values())):
            there = [one for one in found if one is not None]
            if self.holds(there):
                yield there

    def leads_to(self, there: list[Listed]) -> list[Listed]:
        """What of ``there`` could meet a root, or a need of what could."""
        reached: list[Listed] = []
        waiting = [one for one in there for group in self.roots if any(map(one.is_meant, group))]
        while waiting:
            one = waiting.pop()
            if one not in reached:
                reached.append(one)
                waiting += [other for other in there for group in one.needs if any(map(other.is_meant, group))]
        return [one for one in there if one in reached]

    def holds(self, there: list[Listed]) -> bool:
        needed = [*self.roots, *(group for one in there for group in one.needs)]
        return all(any(one.is_meant(asked) for one in there for asked in group) for group in needed) and not any(
            other.name != one.name and other.is_meant(asked)
            for one in there
            for asked in one.forbids
            for other in there
        )
