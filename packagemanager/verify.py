"""Whether what packages put is still there: every entry compared with the record that was made when it came.

Looks only. What the owner of the system may do is found as well, and marked as allowed: conffiles that he changed or
deleted, attributes of folders, a folder in the place of a link (dpkg leaves all of these alone).
"""

from __future__ import annotations

from packagemanager import database as known
from packagemanager import files
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, NO_DIGEST, Entry
from packagemanager.errors import DatabaseError
from packagemanager.ground import Ground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from packagemanager.database import Database, Package
    from packagemanager.tree import Stat

# Problems, in words for a person. Of contents:
MISSING, CHANGED, UNREADABLE, OTHER_KIND = "missing", "changed", "unreadable", "of another kind"
SEPARATED = "no longer the same file"
# Of attributes, where the content is right:
OTHER_MODE, OTHER_OWNER, OTHER_TARGET = "another mode", "another owner", "a link that leads elsewhere"
# Of what is remembered:
NO_RECORD, NO_LIST = "no record of its files", "dpkg's list of it is not right"
MD5_CHARACTERS = 32


class Finding:
    """``path`` is as the package ``key`` names it, ``place`` where it lies; ``entry`` is how it should be, if known.

    ``allowed``: the owner of the system may do that.
    """

    __slots__ = ("allowed", "entry", "key", "path", "place", "problem")

    def __init__(
        self, key: str, path: str, place: str, problem: str, *, allowed: bool = False, entry: Entry | None = None
    ) -> None:
        self.key = key
        self.path = path
        self.place = place
        self.problem = problem
        self.allowed = allowed
        self.entry = entry

    def __str__(self) -> str:
        return f"{self.key}: /{self.place} is {self.problem}" if self.path else f"{self.key}: {self.problem}"

    def __repr__(self) -> str:
        return f"Finding({self}, allowed={self.allowed})"


def verify(
    database: Database, keys: Iterable[str] | None = None, alive: Callable[[], None] = lambda: None
) -> list[Finding]:
    """Everything that differs, of the packages ``keys``; None: of all that have files.

    ``alive`` is called between entries. A disk that gives errors is a finding, not an exception.
    """
    ground = Ground(database.tree, database)
    chosen = database.present() if keys is None else [database.packages[key] for key in keys]
    found: list[Finding] = []
    for package in chosen:
        entries = record(database, package)
        if entries is None:
            found.append(Finding(package.key, "", "", NO_RECORD))
        elif not _is_listed(database, package, entries):
            found.append(Finding(package.key, "", "", NO_LIST))
        found += check(database, package, entries or (), ground, alive)
    return found


def record(database: Database, package: Package) -> tuple[Entry, ...] | None:
    """What the package put, with the attributes that the owner of the system wants; None where nothing says it."""
    path = files.path_of(database.stem(package.fields))
    try:
        text = known.read_text(database.tree, path)
        found = None if text is None else files.decode(text, path)
    except DatabaseError:
        return None
    if found is None or (found.fields.get("Package"), found.fields.get("Version")) != (package.name, package.version):
        return None
    return tuple(database.given(entry) for entry in found.entries)


def check(
    database: Database,
    package: Package,
    entries: Sequence[Entry],
    ground: Ground,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Finding]:
    """What differs from ``entries``, which are those of ``package``."""
    guarded = {conffile.path for conffile in package.conffiles}
    is_complete = all(entry.kind != FILE or entry.digest != NO_DIGEST for entry in entries)
    md5s = {} if is_complete else _md5s(database, package)
    names = {entry.path for entry in entries}
    for entry in entries:
        alive()
        try:
            place = ground.place(entry.path, package.name)
            if entry.kind == FILE:
                problem, allowed = _check_file(entry, place, md5s.get(entry.path, ""), ground), False
            elif entry.kind == HARD_LINK and entry.target not in names:  # another package has the first name now
                problem, allowed = ("" if ground.look(place) is not None else MISSING), False
            else:
                problem, allowed = _CHECKS[entry.kind](entry, place, package.name, ground)
        except OSError:
            place, problem, allowed = entry.path, UNREADABLE, False
        if problem:
            # Of a file that nobody can read, nothing of the owner's is left to be kept.
            allowed = allowed or (entry.path in guarded and problem != UNREADABLE)
            yield Finding(package.key, entry.path, place, problem, allowed=allowed, entry=entry)


def _is_listed(database: Database, package: Package, entries: Sequence[Entry]) -> bool:
    """Whether dpkg's list reads and has every entry."""
    try:
        return {entry.path for entry in entries} <= set(database.list(package))
    except DatabaseError:
        return False


def _md5s(database: Database, package: Package) -> dict[str, str]:
    """Path to MD5 in hex, as far as dpkg's list of them says it."""
    try:
        lines = database.info(package, "md5sums").decode("utf-8", "surrogateescape").split("\n")
    except DatabaseError:
        return {}
    return {line[MD5_CHARACTERS:].lstrip(" *").removeprefix("./"): line[:MD5_CHARACTERS] for line in lines}


def _check_directory(entry: Entry, place: str, _name: str, ground: Ground) -> tuple[str, bool]:
    found = ground.look(place)
    if found is None:
        return MISSING, False
    if not ground.is_folder(place):
        return OTHER_KIND, False
    return (_attributes(entry, found), True) if found.kind == DIRECTORY else ("", True)


def _check_link(entry: Entry, place: str, _name: str, ground: Ground) -> tuple[str, bool]:
    found = ground.look(place)
    if found is None:
        return MISSING, False
    if found.kind != LINK:
        return OTHER_KIND, found.kind == DIRECTORY
    if ground.tree.read_link(place) != entry.target:
        return OTHER_TARGET, False
    return ("" if (found.uid, found.gid) == (entry.uid, entry.gid) else OTHER_OWNER), False


def _check_file(entry: Entry, place: str, md5: str, ground: Ground) -> str:
    """``md5`` counts where the record has no digest, because the file was not as it should be when that was made."""
    found = ground.look(place)
    if found is None:
        return MISSING
    if found.kind != FILE:
        return OTHER_KIND
    if entry.digest == NO_DIGEST and md5:
        same = ground.md5(place) == md5
    else:
        same = found.size == entry.size and (entry.digest == NO_DIGEST or ground.digest(place) == entry.digest)
    return _attributes(entry, found) if same else CHANGED


def _check_hard_link(entry: Entry, place: str, name: str, ground: Ground) -> tuple[str, bool]:
    found, first = ground.look(place), ground.look(ground.place(entry.target, name))
    if found is None:
        return MISSING, False
    return ("" if first is not None and first.inode == found.inode else SEPARATED), False


def _attributes(entry: Entry, found: Stat) -> str:
    if found.mode != entry.mode:
        return OTHER_MODE
    return "" if (found.uid, found.gid) == (entry.uid, entry.gid) else OTHER_OWNER


_CHECKS = {
    DIRECTORY: _check_directory,
    LINK: _check_link,
    HARD_LINK: _check_hard_link,
}
