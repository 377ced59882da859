"""Package by package: what a wanted set means for what is installed, and whether the wanted set can be. Pure.

The device obeys, but it does not break itself: a set whose packages do not fit together, or that takes away what the
system needs, is refused by name before anything changes.
"""

from __future__ import annotations

from packagemanager import version
from packagemanager.control import Relation, check_package, identity, parse_relations
from packagemanager.errors import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from packagemanager.control import Paragraph
    from packagemanager.database import Package

INSTALL, UPGRADE, DOWNGRADE, REINSTALL, REMOVE = "install", "upgrade", "downgrade", "reinstall", "remove"
NOT_HERE = "The master has to send a wanted set that fits together for this device."
ALL = "all"


class Change:
    """One package. ``old`` is what is there, ``new`` the control paragraph of what comes; one of them may be None."""

    __slots__ = ("key", "kind", "new", "old")

    def __init__(self, kind: str, key: str, old: Package | None, new: Paragraph | None) -> None:
        self.kind = kind
        self.key = key  # of what comes, or of what goes
        self.old = old
        self.new = new

    @property
    def name(self) -> str:
        return self.key.partition(":")[0]

    @property
    def old_version(self) -> str:
        return self.old.version if self.old and self.old.present else ""

    @property
    def new_version(self) -> str:
        return self.new.get("Version") if self.new else ""

    def __str__(self) -> str:
        versions = " to ".join(filter(None, (self.old_version, self.new_version)))
        return f"{self.kind} {self.key} {versions}"

    def __repr__(self) -> str:
        return f"Change({self})"


class Changes:
    """``removed`` and ``unpacked`` are in their orders; ``kept`` are the packages that stay as they are.

    ``configured`` are the keys of those unpacked, in the order to configure. ``purge`` says that what is removed
    leaves no configuration either.
    """

    __slots__ = ("configured", "kept", "purge", "removed", "unpacked")

    def __init__(
        self,
        removed: Sequence[Change],
        unpacked: Sequence[Change],
        kept: Sequence[Package],
        configured: Sequence[str],
        purge: bool = False,
    ) -> None:
        self.removed = tuple(removed)
        self.unpacked = tuple(unpacked)
        self.kept = tuple(kept)
        self.configured = tuple(configured)
        self.purge = purge

    def __len__(self) -> int:
        return len(self.removed) + len(self.unpacked)

    def supplants(self, package: Package) -> bool:
        """Whether something of its name comes beside which dpkg can remember nothing of it."""
        coming = (change.new for change in self.unpacked if change.new and change.name == package.name)
        return any(not _can_share(package.fields, fields) for fields in coming)

    def lines(self) -> list[str]:
        """One line per change, for a person and for what remembers it."""
        return [str(change) for change in (*self.removed, *self.unpacked)]


class Wish:
    """What the master says. ``wanted`` is key to version, in the order to configure; ``unpack`` the keys in that order.

    ``removals`` are keys in the order to remove. ``expendable`` are names of essential or protected packages that may
    go. ``purge``: see :class:`Changes`.
    """

    __slots__ = ("expendable", "purge", "removals", "unpack", "wanted")

    def __init__(
        self,
        wanted: Mapping[str, str],
        *,
        unpack: Sequence[str] = (),
        removals: Sequence[str] = (),
        expendable: Collection[str] = (),
        purge: bool = False,
    ) -> None:
        self.wanted = dict(wanted)
        self.unpack = tuple(unpack) or tuple(wanted)
        self.removals = tuple(removals)
        self.expendable = frozenset(expendable)
        self.purge = purge


def needs_restart(changes: Changes) -> bool:
    """Whether what everything runs with changes: then no running system should see a mixture.

    That are the packages that are marked so, and what they depend on: libc6 has no mark.
    """
    there = [package.fields for package in changes.kept]
    there += [change.old.fields for change in (*changes.removed, *changes.unpacked) if change.old]
    there += [change.new for change in changes.unpacked if change.new]
    needed = _names_needed_by_all(there)
    return any(change.name in needed for change in (*changes.removed, *changes.unpacked))


def _names_needed_by_all(there: Sequence[Paragraph]) -> set[str]:
    depends: dict[str, list[Paragraph]] = {}
    for fields in there:
        depends.setdefault(fields.get("Package"), []).append(fields)
    waiting = [fields.get("Package") for fields in there if _is_needed_by_all(fields)]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in needed or name not in depends:
            continue
        needed.add(name)
        for fields in depends[name]:
            for field in ("Pre-Depends", "Depends"):
                groups = parse_relations(fields.get(field))
                waiting += [relation.name for group in groups for relation in group]
    return needed


def _is_needed_by_all(fields: Paragraph) -> bool:
    marks = ("Essential", "Protected", "Important")
    return fields.get("Priority") == "required" or any(fields.get(mark).lower() == "yes" for mark in marks)


def lacking(packages: Mapping[str, Package], wish: Wish) -> list[str]:
    """The wanted keys that are not there whole in that version, in the order to unpack: somebody must bring them."""
    return [key for key in wish.unpack if not _is_there(packages.get(key), wish.wanted[key])]


def _is_there(package: Package | None, wanted: str) -> bool:
    return package is not None and package.complete and version.compare(package.version, wanted) == 0


def decide(
    packages: Mapping[str, Package], wish: Wish, offered: Mapping[str, Paragraph], architectures: Collection[str]
) -> Changes:
    """``packages`` are what the device has, ``offered`` the control paragraphs of what is lacking, by key.

    ``architectures`` are those that packages may have here; empty: not known, so any.

    Raises:
        RefusedError: the wanted set cannot be had here. Every reason is named, up to a bound.
    """
    missing = [key for key in lacking(packages, wish) if key not in offered]
    refuse((f"{key} {wish.wanted[key]} is wanted and nobody brings it" for key in missing), NOT_HERE)
    refuse(_others(offered, wish.wanted), NOT_HERE)
    after = {key: offered[key] if key in offered else packages[key].fields for key in wish.wanted}
    pairs = _replaced(packages, wish, offered)
    gone = [
        package
        for key, package in packages.items()
        if package.present and key not in wish.wanted and key not in pairs.values()
    ]
    refuse(_wrong_architectures(offered, architectures), NOT_HERE)
    refuse(_essential_gone(gone, after, wish.expendable), NOT_HERE)
    refuse(unmet(after, architectures), NOT_HERE)
    changes = [_change(key, packages.get(pairs.get(key, key)), offered[key]) for key in wish.unpack if key in offered]
    order = {key: place for place, key in enumerate(wish.removals)}
    gone.sort(key=lambda package: (order.get(package.key, -1), package.key))
    kept = [packages[key] for key in wish.wanted if key not in offered]
    return Changes(
        [Change(REMOVE, package.key, package, None) for package in gone],
        changes,
        kept,
        [key for key in wish.wanted if key in offered],
        wish.purge,
    )


def _others(offered: Mapping[str, Paragraph], wanted: Mapping[str, str]) -> Iterable[str]:
    """What comes under the name of another package, or in another version than the master said."""
    for key, fields in offered.items():
        check_package(fields)
        name, number, architecture = identity(fields)
        if f"{name}:{architecture}" != key or version.compare(number, wanted[key]):
            yield f"{key} {wanted[key]} is wanted and {name}:{architecture} {number} comes in its place"


def _replaced(packages: Mapping[str, Package], wish: Wish, offered: Mapping[str, Paragraph]) -> dict[str, str]:
    """New key to old one, where a package comes in another architecture and cannot be there in both.

    What is there is replaced before what left its configuration; what has the architecture already, by itself.
    """
    by_name: dict[str, list[Package]] = {}
    for key, package in packages.items():
        if key not in wish.wanted:
            by_name.setdefault(package.name, []).append(package)
    pairs: dict[str, str] = {}
    for key in (key for key in wish.unpack if key in offered):
        own, others = packages.get(key), by_name.get(key.partition(":")[0], [])
        if own is not None and own.present:
            continue
        found = [one for one in others if one.is_known and not _can_share(one.fields, offered[key])]
        old = next((one for one in found if one.present), found[0] if found and own is None else None)
        if old is not None:
            pairs[key] = old.key
            others.remove(old)
    return pairs


def _can_share(*several: Paragraph) -> bool:
    """Whether packages of one name can be there together, for several architectures: deb-control(5)."""
    return all(fields.get("Multi-Arch").lower() == "same" for fields in several)


def _change(key: str, old: Package | None, new: Paragraph) -> Change:
    if old is None or not old.present:
        return Change(INSTALL, key, old, new)
    if not old.complete:
        return Change(REINSTALL, key, old, new)
    order = version.compare(new.get("Version"), old.version)
    return Change({-1: DOWNGRADE, 0: REINSTALL, 1: UPGRADE}[order], key, old, new)


def _wrong_architectures(offered: Mapping[str, Paragraph], architectures: Collection[str]) -> list[str]:
    known = {*architectures, ALL}
    return [
        f"{key} is for {fields.get('Architecture')}, this device takes {', '.join(sorted(known))}"
        for key, fields in offered.items()
        if architectures and fields.get("Architecture") not in known
    ]


def _essential_gone(
    removed: Iterable[Package], after: Mapping[str, Paragraph], expendable: Collection[str]
) -> list[str]:
    """What the system cannot do without and nobody takes the place of."""
    there = {fields.get("Package") for fields in after.values()}
    there |= {relation.name for fields in after.values() for relation in _provided(fields)}
    problems = []
    for package in removed:
        marks = [mark for mark in ("Essential", "Protected") if package.fields.get(mark).lower() == "yes"]
        if marks and package.name not in there and package.name not in expendable:
            problems.append(f"{package.key} is {marks[0].lower()} and would be removed without a replacement")
    return problems


def _provided(fields: Paragraph) -> Iterable[Relation]:
    return (relation for group in parse_relations(fields.get("Provides")) for relation in group)


class _Offer:
    """One name under which a package of the wanted set is there: its own, or one that it provides."""

    __slots__ = ("architecture", "key", "multi_arch", "version")

    def __init__(self, fields: Paragraph, key: str, number: str, architecture: str) -> None:
        self.key = key
        self.version = number  # empty: provided without one
        self.architecture = architecture
        self.multi_arch = fields.get("Multi-Arch").lower()

    def answers(self, relation: Relation, asking: str, native: str) -> bool:
        """Whether this is what ``relation``, of a package of the architecture ``asking``, means: deb-control(5)."""
        if relation.operator and not (self.version and relation.admits(self.version)):
            return False
        if relation.architecture == "any":
            return self.multi_arch in ("allowed", "foreign") or self.architecture == asking
        if relation.architecture == "native":
            return self.architecture == native
        if relation.architecture:
            return self.architecture == relation.architecture
        return self.architecture == asking or self.multi_arch == "foreign" or not (asking and self.architecture)


class _Offers:
    def __init__(self, wanted: Mapping[str, Paragraph], architectures: Collection[str]) -> None:
        self.native = next(iter(architectures), "")
        self._by_name: dict[str, list[_Offer]] = {}
        for key, fields in wanted.items():
            architecture = self.architecture(fields)
            own = _Offer(fields, key, fields.get("Version"), architecture)
            self._by_name.setdefault(fields.get("Package"), []).append(own)
            for relation in _provided(fields):
                provided = _Offer(fields, key, relation.version, architecture)
                self._by_name.setdefault(relation.name, []).append(provided)

    def architecture(self, fields: Paragraph) -> str:
        """A package for all architectures counts as one for the native one."""
        own = fields.get("Architecture")
        return self.native if own == ALL else own

    def named(self, relation: Relation) -> list[_Offer]:
        return self._by_name.get(relation.name, [])


def unmet(wanted: Mapping[str, Paragraph], architectures: Collection[str]) -> list[str]:
    """Why the packages ``wanted``, by key, cannot be together on a device. Empty: they can."""
    offers = _Offers(wanted, architectures)
    problems: list[str] = []
    for key, fields in wanted.items():
        problems += _unmet_dependencies(key, fields, offers)
        problems += _conflicts(key, fields, offers)
    return problems + _same_versions(wanted)


def _unmet_dependencies(key: str, fields: Paragraph, offers: _Offers) -> Iterable[str]:
    asking = offers.architecture(fields)
    for field in ("Pre-Depends", "Depends"):
        for group in parse_relations(fields.get(field)):
            answered = any(
                offer.answers(relation, asking, offers.native) for relation in group for offer in offers.named(relation)
            )
            if not answered:
                yield f"{key} depends on {' | '.join(map(str, group))}"


def _conflicts(key: str, fields: Paragraph, offers: _Offers) -> Iterable[str]:
    """Of any architecture, unless it is named; a package may forbid a name that it provides itself."""
    name = fields.get("Package")
    for field, word in (("Conflicts", "conflicts with"), ("Breaks", "breaks")):
        for group in parse_relations(fields.get(field)):
            for relation in group:
                for offer in offers.named(relation):
                    is_other = offer.key.partition(":")[0] != name
                    if is_other and offer.answers(relation, "", offers.native):
                        yield f"{key} {word} {relation}, which is {offer.key}"


def _same_versions(wanted: Mapping[str, Paragraph]) -> list[str]:
    """Packages of one name for several architectures: only what is made for it, and only in one version."""
    problems: list[str] = []
    first: dict[str, tuple[str, Paragraph]] = {}
    for key, fields in wanted.items():
        other, found = first.setdefault(fields.get("Package"), (key, fields))
        if other == key:
            continue
        if not _can_share(fields, found):
            problems.append(f"{key} and {other} cannot be there together")
        elif version.compare(fields.get("Version"), found.get("Version")):
            problems.append(f"{key} and {other} have different versions")
    return problems
