"""From a wish to the full wanted set: every package that is asked for, with all that it needs, each in one version.

The search is `resolvelib`'s. It knows names, candidates and requirements; Debian's relations become these so: what has
one answer is a requirement of a package's name. What has several (alternatives, virtual packages, Recommends) is a
*choice*, a name of its own whose candidates are the answers. What must not be there (Conflicts, Breaks) is a
requirement that the package's *absence* meets as well, a candidate that every such name has.

It jumps over some sets when it goes back, and may take a candidate again whose needs it forgot. So its answer is
compared with what a device would say to it (`changes.unmet`); where it has none, or a wrong one, `exhaustive` searches,
which misses nothing.

Preferred are what is pinned, what devices have already (unless newer ones are asked for), then the newest. Of a choice,
what is there anyway, then the order of the alternatives. One architecture and ``all``; ``:any`` is taken as that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packagemanager.changes import unmet
from packagemanager.control import Relation
from packagemanager.master.errors import ImpossibleError
from packagemanager.master.exhaustive import Options, TooManyFailuresError, search
from packagemanager.master.package import Package
from packagemanager.master.repository import Repositories
from packagemanager.master.wish import Candidates, Group, Wish

ROUNDS_MAX = 200_000
CAUSES_TOLD_MAX = 6
CHAIN_TOLD_MAX = 8


@dataclass(frozen=True)
class Absence:
    """The package of this name is not there."""

    name: str


@dataclass(frozen=True)
class Answer:
    """A package whose name answers a choice; without a name: none is needed (of Recommends)."""

    choice: str
    name: str


@dataclass(frozen=True)
class Requirement:
    """``identifier`` is the name of a package or of a choice. ``relations``: one of them must hold, or, ``negative``,
    none may. ``chain`` says who wants it, from the root on."""

    identifier: str
    relations: tuple[Relation, ...]
    chain: tuple[str, ...]
    verb: str
    negative: bool = False

    def admits(self, package: Package) -> bool:
        return any(package.meets(relation) for relation in self.relations) != self.negative

    def __str__(self) -> str:
        wanted = " | ".join(map(str, self.relations))
        return f"{' → '.join(self.chain[-CHAIN_TOLD_MAX:])} {self.verb} {wanted}"


Candidate = Package | Absence | Answer
OPTIONAL = "recommends"
PIN_SOME = "Pin some of the packages to the versions that you want."


def resolve(wish: Wish, repositories: Repositories) -> list[Package]:
    """The full wanted set, sorted by name.

    Raises:
        ImpossibleError: there is no such set; the message has the chains of who wants what.
        RequestError: a root is no relation, or a pin names a version that is not to be had.
    """
    candidates = Candidates(wish, repositories)
    found: Iterable[Package]
    try:
        found = _found_by_jumping(candidates)
        problems = unmet({package.key: package.fields for package in found}, (wish.architecture,))
        if problems:
            raise ImpossibleError(_cannot_be(problems), "Want less, or pin others.")
    except ImpossibleError as error:
        found = _found_by_all_means(candidates, error)
    return sorted(found, key=lambda package: package.name)


def _found_by_jumping(candidates: Candidates) -> set[Package]:
    """What `resolvelib` finds. Raises ``ImpossibleError``: it finds nothing, which is no proof.

    Its ``Resolver`` would draw a graph as well, by a recursion that a cycle of rejected candidates keeps from ending.
    """
    from resolvelib import BaseReporter, ResolutionImpossible, ResolutionTooDeep
    from resolvelib.resolvers import Resolution

    provider = _Provider(candidates)
    resolution: Any = Resolution
    reporter: Any = BaseReporter()
    reporter.ending_round = lambda index, state: provider.note(state.mapping)
    try:
        state = resolution(provider, reporter).resolve(provider.roots(), max_rounds=ROUNDS_MAX)
    except ResolutionImpossible as error:
        raise _impossible([cause.requirement for cause in error.causes], candidates) from error
    except ResolutionTooDeep as error:
        raise ImpossibleError(f"no wanted set was found in {ROUNDS_MAX} steps", PIN_SOME) from error
    return _reached(provider, state.mapping)


def _found_by_all_means(candidates: Candidates, impossible: ImpossibleError) -> list[Package]:
    """What `exhaustive` finds. Raises ``impossible``, where there is nothing."""
    try:
        found = search(Needs(candidates))
    except TooManyFailuresError as error:
        told = f"no wanted set was found, and it is not shown that there is none. First, {impossible}"
        raise ImpossibleError(told, PIN_SOME) from error
    if found is None:
        raise impossible
    return found


def _reached(provider: _Provider, mapping: Mapping[str, Candidate]) -> set[Package]:
    """What the roots lead to; what only a rejected candidate wanted is left out."""
    found: set[Package] = set()
    seen: set[str] = set()
    waiting = [requirement.identifier for requirement in provider.roots()]
    while waiting:
        identifier = waiting.pop()
        candidate = mapping.get(identifier)
        if identifier in seen or candidate is None:
            continue
        seen.add(identifier)
        if isinstance(candidate, Package):
            found.add(candidate)
        waiting += [one.identifier for one in provider.get_dependencies(candidate) if not one.negative]
    return found


class _Late(Sequence[Candidate]):
    """Candidates in an order that is asked for each time anew: what is pinned meanwhile counts."""

    def __init__(self, make: Callable[[], list[Candidate]]) -> None:
        self._make = make

    def __len__(self) -> int:
        return len(self._make())

    def __getitem__(self, index: Any) -> Any:
        return self._make()[index]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._make())


class _Provider:
    """What `resolvelib` asks. Every answer depends on its arguments and what is pinned so far, nothing else."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._wish = candidates.wish
        self._chains: dict[str, tuple[str, ...]] = {}
        self._choices: dict[str, tuple[Group, bool]] = {}
        self._resolutions: Mapping[str, Candidate] = {}
        self._dependencies: dict[Candidate, list[Requirement]] = {}
        self._roots = list(self._make_roots())

    def roots(self) -> list[Requirement]:
        return self._roots

    def note(self, pinned: Mapping[str, Candidate]) -> None:
        """What is pinned after a round."""
        self._resolutions = pinned

    def _make_roots(self) -> Iterator[Requirement]:
        for group in self._candidates.roots:
            yield self._requirement(group, ("the master",), "wants")
        for name in self._candidates.essential:
            yield self._requirement((Relation(name),), ("every system",), "needs the essential")

    # --- the questions

    def identify(self, requirement_or_candidate: Requirement | Candidate) -> str:
        return _IDENTIFIERS[type(requirement_or_candidate)](requirement_or_candidate)

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Candidate],
        candidates: Mapping[str, Iterator[Candidate]],
        information: Mapping[str, Iterator[Any]],
        backtrack_causes: Sequence[Any],
    ) -> tuple[bool, bool, str]:
        """What has no alternatives first, so that choices can be answered by what is there."""
        is_cause = any(cause.requirement.identifier == identifier for cause in backtrack_causes)
        return identifier in self._choices, not is_cause, identifier

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[Requirement]],
        incompatibilities: Mapping[str, Iterator[Candidate]],
    ) -> Sequence[Candidate]:
        wanted = list(requirements[identifier])
        unfit = set(incompatibilities[identifier])
        positive = [requirement for requirement in wanted if not requirement.negative]
        if positive:
            self._chains[identifier] = min((one.chain for one in positive), key=lambda chain: (len(chain), chain))
        if identifier in self._choices:
            return _Late(lambda: [one for one in self._answers(identifier) if one not in unfit])
        if not positive:
            return [one for one in (Absence(identifier),) if one not in unfit]
        fitting = [one for one in self._candidates.named(identifier) if all(wish.admits(one) for wish in wanted)]
        return [one for one in fitting if one not in unfit]

    def is_satisfied_by(self, requirement: Requirement, candidate: Candidate) -> bool:
        if isinstance(candidate, Package):
            return requirement.admits(candidate)
        return isinstance(candidate, Answer) or requirement.negative

    def get_dependencies(self, candidate: Candidate) -> list[Requirement]:
        if candidate not in self._dependencies:
            self._dependencies[candidate] = list(_DEPENDENCIES[type(candidate)](self, candidate))
        return self._dependencies[candidate]

    def narrow_requirement_selection(self, identifiers: Iterable[str], **_rest: object) -> Iterable[str]:
        return identifiers

    # --- how they are answered

    def _answers(self, choice: str) -> Iterator[Answer]:
        """What is pinned anyway, then what devices have, then by the alternatives; nothing at last, if that will do."""
        relations, is_optional = self._choices[choice]
        names = self._candidates.names(relations)
        names.sort(key=lambda name: not self._is_there(name, relations))
        yield from (Answer(choice, name) for name in names)
        if is_optional:
            yield Answer(choice, "")

    def _is_there(self, name: str, relations: Iterable[Relation]) -> bool:
        pinned = self._resolutions.get(name)
        return isinstance(pinned, Package) and any(pinned.meets(relation) for relation in relations)

    def _requirement(
        self, group: Group, chain: tuple[str, ...], verb: str, *, is_optional: bool = False
    ) -> Requirement:
        names = set(self._candidates.names(group))
        if not is_optional and (len(names) == 1 or not names):
            return Requirement(names.pop() if names else group[0].name, group, chain, verb)
        choice = f"{verb if is_optional else 'one of'} {' | '.join(map(str, group))}"
        self._choices[choice] = (group, is_optional)
        return Requirement(choice, group, chain, verb)

    def _of_package(self, package: Package) -> Iterator[Requirement]:
        chain = (*self._chains.get(package.name, ()), str(package))
        for groups, verb in ((package.pre_depends, "pre-depends on"), (package.depends, "depends on")):
            for group in groups:
                yield self._requirement(group, chain, verb)
        if self._wish.recommends:
            for group in package.recommends:
                yield self._requirement(group, chain, OPTIONAL, is_optional=True)
        for groups, verb in ((package.conflicts, "conflicts with"), (package.breaks, "breaks")):
            for relation in (one for group in groups for one in group):
                names = {*self._candidates.names((relation,))} - {package.name}
                yield from (Requirement(name, (relation,), chain, verb, negative=True) for name in sorted(names))

    def _of_answer(self, answer: Answer) -> Iterator[Requirement]:
        if answer.name:
            relations, _is_optional = self._choices[answer.choice]
            yield Requirement(answer.name, relations, self._chains.get(answer.choice, ()), "wants")

    def _of_absence(self, absence: Absence) -> Iterator[Requirement]:
        return iter(())


_IDENTIFIERS: dict[type, Callable[[Any], str]] = {
    Requirement: lambda one: str(one.identifier),
    Package: lambda one: str(one.name),
    Absence: lambda one: str(one.name),
    Answer: lambda one: str(one.choice),
}
_DEPENDENCIES: dict[type, Callable[[_Provider, Any], Iterator[Requirement]]] = {
    Package: _Provider._of_package,
    Absence: _Provider._of_absence,
    Answer: _Provider._of_answer,
}


class Needs:
    """What `exhaustive` asks."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._options: dict[Group, Options] = {}

    def roots(self) -> Sequence[Options]:
        essential = [(Relation(name),) for name in self._candidates.essential]
        return [self._meeting(group) for group in (*self._candidates.roots, *essential)]

    def needs(self, package: Package) -> Sequence[Options]:
        return [self._meeting(group) for group in (*package.pre_depends, *package.depends)]

    def wishes(self, package: Package) -> Sequence[Options]:
        return [self._meeting(group) for group in package.recommends if self._candidates.wish.recommends]

    def excludes(self, package: Package) -> Sequence[Package]:
        relations = [one for group in (*package.conflicts, *package.breaks) for one in group]
        others = [one for relation in relations for one in self._candidates.meeting(relation)]
        return [
            *(one for one in self._candidates.named(package.name) if one is not package),
            *(one for one in others if one.name != package.name),
        ]

    def _meeting(self, group: Group) -> Options:
        if group not in self._options:
            self._options[group] = self._candidates.options(group)
        return self._options[group]


def _impossible(causes: Iterable[Requirement], candidates: Candidates) -> ImpossibleError:
    told = list(dict.fromkeys(map(str, causes)))
    asked = {f"{one.name}:{one.architecture}": one for cause in causes for one in cause.relations}
    there = "; ".join(candidates.told(asked[name]) for name in sorted(asked)[:CAUSES_TOLD_MAX])
    return ImpossibleError(_cannot_be(told), f"{there}. Want less, pin others, or add them.")


def _cannot_be(lines: Sequence[str]) -> str:
    return "what is wanted cannot be together:" + "".join(f"\n  {line}" for line in lines[:CAUSES_TOLD_MAX])
