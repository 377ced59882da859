"""From a wish to the full wanted set: every package that is asked for, with all that it needs, each in one version.

The search is `resolvelib`'s. It knows names, candidates and requirements; Debian's relations become these so: what has
one answer is a requirement of a package's name. What has several (alternatives, virtual packages, Recommends) is a
*choice*, a name of its own whose candidates are the answers. What must not be there (Conflicts, Breaks) is a
requirement that the package's *absence* meets as well, a candidate that every such name has.

Preferred are what is pinned, what devices have already (unless newer ones are asked for), then the newest. Of a choice,
what is there anyway, then the order of the alternatives. One architecture and ``all``; ``:any`` is taken as that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packagemanager.control import Relation, parse_relations
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import ImpossibleError, RequestError
from packagemanager.master.package import Package
from packagemanager.master.repository import Repositories

ROUNDS_MAX = 200_000
CAUSES_TOLD_MAX = 6
CHAIN_TOLD_MAX = 8
VERSIONS_TOLD_MAX = 6


@dataclass(frozen=True)
class Wish:
    """``roots`` are what is wanted for itself: ``name``, ``name (>= 1)``, ``a | b``. Nothing else stays.

    ``pins`` are name to version; a pin wants nothing by itself. ``installed`` is what devices have, name to version:
    kept where it fits, unless ``upgrade``. ``essential``: packages marked so are roots, too.
    """

    roots: Sequence[str]
    pins: Mapping[str, str]
    installed: Mapping[str, str]
    upgrade: bool = False
    recommends: bool = False
    essential: bool = True


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


def resolve(wish: Wish, repositories: Repositories) -> list[Package]:
    """The full wanted set, sorted by name.

    Raises:
        ImpossibleError: there is no such set; the message has the chains of who wants what.
        RequestError: a root is no relation, or a pin names a version that is not to be had.
    """
    from resolvelib import BaseReporter, ResolutionImpossible, ResolutionTooDeep, Resolver

    provider = _Provider(wish, repositories)
    resolver: Any = Resolver
    reporter: Any = BaseReporter()
    reporter.ending_round = lambda index, state: provider.note(state.mapping)
    try:
        result = resolver(provider, reporter).resolve(provider.roots(), max_rounds=ROUNDS_MAX)
    except ResolutionImpossible as error:
        raise _impossible([cause.requirement for cause in error.causes], repositories) from error
    except ResolutionTooDeep as error:
        hint = "Pin some of the packages to the versions that you want."
        raise ImpossibleError(f"no wanted set was found in {ROUNDS_MAX} steps", hint) from error
    return sorted(_reached(provider, result.mapping), key=lambda package: package.name)


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

    def __init__(self, wish: Wish, repositories: Repositories) -> None:
        self._wish = wish
        self._repositories = repositories
        self._chains: dict[str, tuple[str, ...]] = {}
        self._choices: dict[str, tuple[tuple[Relation, ...], bool]] = {}
        self._resolutions: Mapping[str, Candidate] = {}
        self._dependencies: dict[Candidate, list[Requirement]] = {}
        self._roots = list(self._make_roots())

    def roots(self) -> list[Requirement]:
        return self._roots

    def note(self, pinned: Mapping[str, Candidate]) -> None:
        """What is pinned after a round."""
        self._resolutions = pinned

    def _make_roots(self) -> Iterator[Requirement]:
        for name, version in self._wish.pins.items():
            if not any(package.version == version for package in self._repositories.named(name)):
                raise RequestError(f"{name} is pinned to {version}, which no repository has", _versions(
                    self._repositories, name))  # fmt: skip
        for text in self._wish.roots:
            try:
                groups = parse_relations(text)
            except ArchiveError as error:
                raise RequestError(
                    f"{text!r} is no package to want: {error}", "Write: name, or name (>= 1.2)"
                ) from error
            for group in groups:
                yield self._requirement(group, ("the master",), "wants")
        if self._wish.essential:
            for name in sorted({package.name for package in self._repositories.essential()}):
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
        fitting = [one for one in self._versions(identifier) if all(wish.admits(one) for wish in wanted)]
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

    def _versions(self, name: str) -> list[Package]:
        """The versions of a package, the best first."""
        pin = self._wish.pins.get(name)
        kept = None if self._wish.upgrade else self._wish.installed.get(name)
        found = [one for one in self._repositories.named(name) if pin in (None, one.version)]
        return sorted(found, key=lambda one: one.version != kept)  # stable: newest first otherwise

    def _answers(self, choice: str) -> Iterator[Answer]:
        """What is pinned anyway, then what devices have, then by the alternatives; nothing at last, if that will do."""
        relations, is_optional = self._choices[choice]
        names = list(dict.fromkeys(one.name for relation in relations for one in self._meeting(relation)))
        names.sort(key=lambda name: (not self._is_there(name, relations), name not in self._wish.installed))
        yield from (Answer(choice, name) for name in names)
        if is_optional:
            yield Answer(choice, "")

    def _is_there(self, name: str, relations: Iterable[Relation]) -> bool:
        pinned = self._resolutions.get(name)
        return isinstance(pinned, Package) and any(pinned.meets(relation) for relation in relations)

    def _meeting(self, relation: Relation) -> list[Package]:
        """Every package that ``relation`` could mean: those of its name first, then the providers by name."""
        named = [one for one in self._repositories.named(relation.name) if one.meets(relation)]
        providing = [one for one in self._repositories.providing(relation.name) if one.meets(relation)]
        return [*named, *sorted(providing, key=lambda one: one.name)]

    def _requirement(
        self, group: tuple[Relation, ...], chain: tuple[str, ...], verb: str, *, is_optional: bool = False
    ) -> Requirement:
        names = {one.name for relation in group for one in self._meeting(relation)}
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
                names = {one.name for one in self._meeting(relation)} - {package.name}
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


def _impossible(causes: Iterable[Requirement], repositories: Repositories) -> ImpossibleError:
    told = list(dict.fromkeys(map(str, causes)))
    names = sorted({relation.name for cause in causes for relation in cause.relations})
    there = "; ".join(_versions(repositories, name) for name in names[:CAUSES_TOLD_MAX])
    lines = "".join(f"\n  {line}" for line in told[:CAUSES_TOLD_MAX])
    return ImpossibleError(
        f"what is wanted cannot be together:{lines}", f"{there}. Want less, pin others, or add them."
    )


def _versions(repositories: Repositories, name: str) -> str:
    found = [one.version for one in repositories.named(name)][:VERSIONS_TOLD_MAX]
    providers = sorted({one.name for one in repositories.providing(name)})[:VERSIONS_TOLD_MAX]
    if found or not providers:
        return f"Of {name} there is: {', '.join(found) or 'nothing'}"
    return f"{name} is provided by: {', '.join(providers)}"
