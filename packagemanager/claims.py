"""Which package has which place, once the wanted set is there. Changes nothing.

Folders are shared. A file belongs to one package; another may take it if it says ``Replaces``, whatever the order they
are unpacked in. Packages of one name for several architectures share what is the same in each (``Multi-Arch: same``).
"""

from __future__ import annotations

from packagemanager.control import parse_relations
from packagemanager.entry import DIRECTORY, LINK
from packagemanager.errors import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packagemanager.changes import Changes
    from packagemanager.control import Paragraph
    from packagemanager.database import Database, Package
    from packagemanager.entry import Entry
    from packagemanager.ground import Ground
    from packagemanager.incoming import Incoming


class Claim:
    """An entry of a package that comes, and the place where it shall lie."""

    __slots__ = ("entry", "incoming", "place")

    def __init__(self, entry: Entry, incoming: Incoming, place: str) -> None:
        self.entry = entry
        self.incoming = incoming
        self.place = place

    @property
    def key(self) -> str:
        return self.incoming.change.key


class Claims:
    """``by_place`` is what comes; ``lost`` are paths that a package no longer has because another took them, by key.

    ``kept`` are the places that packages which stay list, with who they are, as far as the transaction touches them.
    """

    __slots__ = ("by_place", "kept", "lost")

    def __init__(self) -> None:
        self.by_place: dict[str, Claim] = {}
        self.lost: dict[str, set[str]] = {}
        self.kept: dict[str, list[tuple[str, Package]]] = {}

    def lose(self, key: str, path: str) -> None:
        self.lost.setdefault(key, set()).add(path)


def settle(changes: Changes, incoming: Sequence[Incoming], database: Database, ground: Ground) -> Claims:
    """Raises ``RefusedError``, with every path that two packages want and neither gives way."""
    claims = Claims()
    ground.expect(
        [(entry.path, one.name, entry.target) for one in incoming for entry in one.entries if entry.kind == LINK],
        [(entry.path, one.name) for one in incoming for entry in one.entries if entry.kind == DIRECTORY],
    )
    touched = {ground.place(entry.path, one.name) for one in incoming for entry in one.entries}
    for change in (*changes.removed, *changes.unpacked):
        if change.old is not None:
            touched.update(ground.place_now(path, change.old.name) for path in database.list(change.old))
    for package in changes.kept:
        for path in database.list(package):
            place = ground.place_now(path, package.name)
            if place in touched:
                claims.kept.setdefault(place, []).append((path, package))
    problems: list[str] = []
    for one in incoming:
        for entry in one.entries:
            problem = _claim(Claim(entry, one, ground.place(entry.path, one.name)), claims, ground)
            if problem:
                problems.append(problem)
    refuse(problems, "Ask the master.")
    olds = {one.change.old.key for one in incoming if one.change.old}
    for package in database.packages.values():
        if package.is_known and not package.present and package.key not in olds:
            _take(package, claims, database, ground)
    return claims


def _take(package: Package, claims: Claims, database: Database, ground: Ground) -> None:
    """Of a package that left its configuration, files are taken without a word."""
    for path in database.list(package):
        claim = claims.by_place.get(ground.place_now(path, package.name))
        if claim is not None and claim.incoming.name != package.name and not _leaves_folder(claim, ground):
            claims.lose(package.key, path)


def _claim(new: Claim, claims: Claims, ground: Ground) -> str:
    """Put it among the claims, or give it up; the problem, if it can do neither."""
    other = claims.by_place.get(new.place)
    shared = other is not None and _is_shared(new.entry, other.entry, new, other, ground)
    if other is not None and not shared:
        winner = _winner(new, other)
        if winner is None:
            return f"/{new.place} is in {other.key} and in {new.key}"
        loser = other if winner is new else new
        claims.lose(loser.key, loser.entry.path)
        if winner is other:
            return ""
    for path, package in claims.kept.get(new.place, ()):
        if _leaves_folder(new, ground) or _is_same_package(new, package, path, ground):
            continue
        if replaces(new.incoming.fields, package.fields) or _is_free(new, ground):
            claims.lose(package.key, path)
        elif replaces(package.fields, new.incoming.fields):
            claims.lose(new.key, new.entry.path)
            return ""
        else:
            return f"/{new.place} of {new.key} is also in {package.key} {package.version}"
    if not (shared and other and new.entry.kind == DIRECTORY != other.entry.kind):
        claims.by_place[new.place] = new
    return ""


def _is_shared(one: Entry, two: Entry, new: Claim, other: Claim, ground: Ground) -> bool:
    if _is_folder(new, ground) and _is_folder(other, ground):
        return True
    same = (one.kind, one.mode, one.uid, one.gid, one.digest, one.target) == (
        two.kind, two.mode, two.uid, two.gid, two.digest, two.target
    )  # fmt: skip
    return same and new.incoming.name == other.incoming.name


def _is_folder(claim: Claim, ground: Ground) -> bool:
    """A folder, a link where there is a folder, which stays, or a link that comes and leads to one."""
    if claim.entry.kind == DIRECTORY:
        return True
    is_link = claim.entry.kind == LINK
    return is_link and (ground.is_folder(claim.place) or ground.leads_to_folder(claim.place))


def _leaves_folder(claim: Claim, ground: Ground) -> bool:
    """Whether a folder that others have there, or something below, stays."""
    if claim.entry.kind == DIRECTORY:
        return ground.is_folder(claim.place)
    return claim.entry.kind == LINK and ground.stays_folder(claim.place)


def _is_free(claim: Claim, ground: Ground) -> bool:
    """Whether nothing is where a folder comes: whatever others had there, dpkg takes it for one, and for gone."""
    return claim.entry.kind == DIRECTORY and ground.look(claim.place) is None


def _is_same_package(new: Claim, package: Package, path: str, ground: Ground) -> bool:
    """The other architecture of the same package, whose file on the disk is the same."""
    if new.incoming.name != package.name or new.entry.path != path:
        return False
    found = ground.look(new.place)
    if found is None or found.kind != new.entry.kind:
        return _is_free(new, ground)
    return (
        ground.tree.read_link(new.place) == new.entry.target
        if found.kind == LINK
        else (ground.digest(new.place) == new.entry.digest)
    )


def _winner(new: Claim, other: Claim) -> Claim | None:
    """Who replaces the other; where both would, who is unpacked later. None: nobody gives way."""
    if replaces(new.incoming.fields, other.incoming.fields):
        return new
    return other if replaces(other.incoming.fields, new.incoming.fields) else None


def replaces(fields: Paragraph, other: Paragraph) -> bool:
    """Whether the package may take files of the other: deb-control(5). Names that are only provided do not count."""
    name, version = other.get("Package"), other.get("Version")
    groups = parse_relations(fields.get("Replaces"))
    return any(relation.name == name and relation.admits(version) for group in groups for relation in group)
