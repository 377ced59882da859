"""Taking over a system that dpkg made: our texts are written for every package, from what is on the disk.

Nothing else changes. What a file was when its package shipped it is known as far as dpkg's MD5s say so: where a file
is not that any more, its digest is left out instead of taken for right, and it is reported.
"""

from __future__ import annotations

from packagemanager import files, verify
from packagemanager.arriving import Arriving
from packagemanager.claims import Claims
from packagemanager.database import Database, damaged
from packagemanager.dpkg_lock import DpkgLock
from packagemanager.engine import Engine
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, NO_DIGEST, Entry
from packagemanager.errors import BlockedError, RefusedError, some_of
from packagemanager.ground import Ground, md5
from packagemanager.leaving import Leaving
from packagemanager.phases import TRYING
from packagemanager.places import above
from packagemanager.staging import Staging
from packagemanager.wanted import NOTHING, Wanted
from packagemanager.wanted import PATH as WANTED_PATH
from payload.digest import hasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packagemanager.database import Package
    from packagemanager.tree import Stat, Tree

    Report = Callable[[str, int, int], None]

MD5_CHARACTERS = 32
KIND, ADOPTION = "kind", "adoption"
TEXT_MODE = 0o644
MISSING, CHANGED, STRANGE = "is not there", "is not as it was shipped", "is a device or pipe"


class Adoption:
    """``packages`` are the keys of those that got a text now; ``differences`` are (path, what is wrong with it)."""

    __slots__ = ("differences", "packages")

    def __init__(self) -> None:
        self.packages: list[str] = []
        self.differences: list[tuple[str, str]] = []


def adopt(tree: Tree, report: Report = lambda stage, done, total: None) -> Adoption:
    """One transaction of our own. Does what is missing: packages that have a text already keep it.

    Raises:
        RefusedError: packages that are half installed, or a transaction is under way.
        DatabaseError: dpkg's database does not read.
    """
    engine = Engine(tree)
    with DpkgLock(tree, engine.lock()):
        resumed = engine.resume()
        if resumed.now == TRYING and resumed.facts.get(KIND) == ADOPTION:
            engine.done()
        elif resumed.now is not None:
            raise RefusedError("a transaction is under way", "finish it first: unbrick packages apply")
        return _adopt(tree, engine, report)


def _adopt(tree: Tree, engine: Engine, report: Report) -> Adoption:
    database = Database(tree)
    _check_complete(database)
    ground, adoption = Ground(tree, database), Adoption()
    lacking = [one for one in database.present() if verify.record(database, one) is None]
    if not lacking and tree.look(WANTED_PATH) is not None:
        return adoption
    staging = Staging(tree)
    try:
        arriving = Arriving(Claims(), Leaving(Claims(), ground), ground, staging)
        texts: dict[str, bytes] = {}
        for number, package in enumerate(lacking):
            report("adopt", number, len(lacking))
            entries = entries_of(package, database, ground, adoption.differences)
            texts[files.path_of(database.stem(package.fields))] = files.encode(package.fields, entries)
            adoption.packages.append(package.key)
        if tree.look(WANTED_PATH) is None:
            texts[WANTED_PATH] = Wanted(NOTHING.serial, NOTHING.transaction, database.installed()).encode()
        steps = [arriving.text(path, content, TEXT_MODE, "adopted") for path, content in texts.items()]
        operations = [step.operation for step in (*arriving.folders, *steps) if step is not None]
    except BaseException:
        staging.abandon()
        raise
    engine.prepare(tuple(operations), {KIND: ADOPTION})
    engine.begin()
    try:
        engine.forward()
    except BlockedError:
        engine.back()
        raise
    engine.done()
    return adoption


def _check_complete(database: Database) -> None:
    broken = [package.key for package in database.present() if not package.complete]
    if broken:
        raise RefusedError(
            f"not installed whole: {', '.join(some_of(broken))}",
            "Finish that with `dpkg --configure -a` and `apt-get -f install`.",
        )


def entries_of(package: Package, database: Database, ground: Ground, differences: list[tuple[str, str]]) -> list[Entry]:
    """What a package has on the disk, as far as that is what it shipped. ``differences`` gets what is not."""
    known = _md5s(package, database)
    folders = above(database.list(package))
    entries: list[Entry] = []
    first: dict[tuple[int, int], str] = {}
    for path in database.list(package):
        if not path:
            continue
        place = ground.place(path, package.name)
        # A link where the package has a folder is not the package's.
        found = ground.look(ground.follow(place) if path in folders else place)
        if found is None or found.kind == "other":
            differences.append((place, MISSING if found is None else STRANGE))
            continue
        kind = found.kind
        if kind == FILE and first.setdefault(found.inode, path) != path:
            entries.append(_entry(path, HARD_LINK, found, target=first[found.inode]))
        elif kind == FILE:
            entries.append(_file(path, place, found, known.get(path, ""), ground, differences))
        else:
            target = ground.tree.read_link(place) if kind == LINK else ""
            entries.append(_entry(path, kind, found, target=target))
    return entries


def _entry(path: str, kind: str, found: Stat, *, target: str = "", digest: bytes = NO_DIGEST) -> Entry:
    size = found.size if kind == FILE else 0
    mode = found.mode if kind in (FILE, DIRECTORY) else 0o777
    return Entry(path, kind, mode=mode, uid=found.uid, gid=found.gid, mtime=found.mtime, size=size, digest=digest,
                 target=target)  # fmt: skip


def _file(path: str, place: str, found: Stat, known: str, ground: Ground, differences: list[tuple[str, str]]) -> Entry:
    ours, theirs = hasher(), md5()
    for piece in ground.content(place):
        ours.update(piece)
        theirs.update(piece)
    right = not known or theirs.hexdigest() == known
    if not right:
        differences.append((place, CHANGED))
    return _entry(path, FILE, found, digest=ours.digest() if right else NO_DIGEST)


def _md5s(package: Package, database: Database) -> dict[str, str]:
    """Path to MD5, of what the package shipped. Raises ``DatabaseError``."""
    found = {}
    source = database.info_path(package.fields, "md5sums")
    for line in database.info(package, "md5sums").decode("utf-8", "surrogateescape").split("\n"):
        if not line:
            continue
        name, path = line[:MD5_CHARACTERS], line[MD5_CHARACTERS:].lstrip(" *")
        if len(name) != MD5_CHARACTERS or not path:
            raise damaged(source, f"no checksum: {line[:80]!r}")
        found[path.removeprefix("./").removeprefix("/")] = name
    found.update({conffile.path: conffile.md5 for conffile in package.conffiles if not conffile.obsolete})
    return found
