"""A search that misses nothing: where it finds no wanted set there is none.

What must hold is written as clauses: of each at least one package has to be there, or not to be there. A clause of
which one is left settles that one. Where nothing follows any more, the best package for a need that nothing meets is
tried. Where a clause cannot hold, the tries that lead there are remembered as a clause of their own, and the last of
them is taken back: the same mistake is never made twice, so the search ends (Marques-Silva and Sakallah 1999, "GRASP").

A package's own clauses are written when it is tried for the first time: most of a repository is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from packagemanager.master.package import Package

FAILURES_MAX = 20_000

# A package, and whether it is there; one of a clause has to hold.
Literal = tuple[Package, bool]
Clause = tuple[Literal, ...]
Options = Sequence[Package]


class Needs(Protocol):
    """What packages ask of each other. Options are packages of which one is enough, the best first."""

    def roots(self) -> Sequence[Options]: ...

    def needs(self, package: Package) -> Sequence[Options]: ...

    def wishes(self, package: Package) -> Sequence[Options]:
        """What it needs only if that can be."""

    def excludes(self, package: Package) -> Sequence[Package]:
        """What must not be there beside it."""


class TooManyFailuresError(Exception):
    """Nothing was found or shown in the time that there is."""


def search(needs: Needs) -> list[Package] | None:
    """A wanted set; None: there is none.

    Raises:
        TooManyFailuresError: after ``FAILURES_MAX`` tries that had to be taken back.
    """
    attempt = _Attempt(needs)
    failures = 0
    while failures < FAILURES_MAX:
        broken = attempt.follow()
        if broken is not None:
            failures += 1
            if not attempt.take_back(broken):
                return None
        elif (package := attempt.best_try()) is not None:
            attempt.begin(package)
        else:
            return attempt.found()
    raise TooManyFailuresError


class _Attempt:
    """``there`` says of packages whether they are; of the others nothing is known yet.

    ``settled`` has them in their order. Each was settled in a turn: the 0th follows from the roots alone, every later
    one begins with a try. ``reasons`` has the clauses that settled what was not tried.
    """

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._there: dict[Package, bool] = {}
        self._settled: list[Package] = []
        self._followed = 0
        self._turns: dict[Package, int] = {}
        self._reasons: dict[Package, Clause] = {}
        self._tries: list[Package] = []
        self._clauses: dict[Literal, list[Clause]] = {}
        self._needed: dict[Package, Sequence[Options]] = {}
        self._broken_root = any(self._add(_one_of(options)) for options in needs.roots())

    def follow(self) -> Clause | None:
        """Settle what follows. A clause that cannot hold any more, if there is one."""
        if self._broken_root:
            return ()
        while self._followed < len(self._settled):
            package = self._settled[self._followed]
            self._followed += 1
            if self._there[package] and package not in self._needed:
                self._ask(package)
            for clause in self._clauses.get((package, not self._there[package]), ()):
                if self._is_broken(clause):
                    return clause
        return None

    def _ask(self, package: Package) -> None:
        """Write the clauses of a package. They are looked at where it is followed: all of them name it."""
        self._needed[package] = self._needs.needs(package)
        for options in self._needed[package]:
            self._keep(((package, False), *_one_of(options)))
        for other in self._needs.excludes(package):
            self._keep(((package, False), (other, False)))

    def _keep(self, clause: Clause) -> None:
        for literal in clause:
            self._clauses.setdefault(literal, []).append(clause)

    def _add(self, clause: Clause) -> bool:
        """Keep it, and look at it at once. Whether it cannot hold."""
        self._keep(clause)
        return self._is_broken(clause)

    def _is_broken(self, clause: Clause) -> bool:
        """Whether nothing of it can hold; where one thing is left, that is settled."""
        left: Literal | None = None
        for package, there in clause:
            known = self._there.get(package)
            if known == there or (known is None and left is not None):
                return False  # it holds, or says nothing yet
            if known is None:
                left = package, there
        if left is None:
            return True
        self._settle(*left)
        self._reasons[left[0]] = clause
        return False

    def _settle(self, package: Package, there: bool) -> None:
        self._there[package] = there
        self._turns[package] = len(self._tries)
        self._settled.append(package)

    def begin(self, package: Package) -> None:
        """Try ``package``."""
        self._tries.append(package)
        self._settle(package, True)

    def take_back(self, broken: Clause) -> bool:
        """Take back the last try that led to ``broken``, and what came after the one before. False: no try did."""
        behind = sorted(self._tries_behind(broken), key=self._turns.__getitem__)
        if not behind:
            return False
        turn = self._turns[behind[-2]] if len(behind) > 1 else 0
        while self._settled and self._turns[self._settled[-1]] > turn:
            package = self._settled.pop()
            del self._there[package], self._turns[package]
            self._reasons.pop(package, None)
        del self._tries[turn:]
        self._followed = min(self._followed, len(self._settled))
        return not self._add(tuple((package, False) for package in behind))

    def _tries_behind(self, broken: Clause) -> list[Package]:
        found: list[Package] = []
        seen: set[Package] = set()
        waiting = [package for package, _there in broken]
        while waiting:
            package = waiting.pop()
            if package in seen:
                continue
            seen.add(package)
            if package in self._reasons:
                waiting += [other for other, _there in self._reasons[package]]
            else:
                found.append(package)
        return found

    def best_try(self) -> Package | None:
        """The best package for a need that nothing meets yet: one with a single name first, what only may come last."""
        there = self.found()
        needs = [self._needs.roots(), *(self._needed[package] for package in there)]
        open_needs = [left for each in needs for options in each if (left := self._left(options))]
        if open_needs:
            return min(open_needs, key=lambda left: len({one.name for one in left}))[0]
        wishes = (options for package in there for options in self._needs.wishes(package))
        return next((left[0] for options in wishes if (left := self._left(options))), None)

    def _left(self, options: Options) -> list[Package]:
        """What could still meet a need; nothing, if it is met or cannot be."""
        if any(self._there.get(one) for one in options):
            return []
        return [one for one in options if one not in self._there]

    def found(self) -> list[Package]:
        """What is there: nothing is tried, and nothing follows, but for a need of the roots or of what is there."""
        return [package for package in self._settled if self._there[package]]


def _one_of(options: Options) -> Clause:
    return tuple((one, True) for one in options)
