"""What goes: of packages that are removed, and what a package had and no longer has. Decides only.

A configuration file that its owner could have changed stays when its package goes, with the folders above it, and when
the package comes without it; dpkg calls the latter obsolete. A folder goes when nothing is left in it.
"""

from __future__ import annotations

from packagemanager import conffiles
from packagemanager.conffiles import NEW_NAME, OBSOLETE
from packagemanager.entry import DIRECTORY, LINK
from packagemanager.places import above
from packagemanager.status import Conffile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packagemanager.changes import Changes
    from packagemanager.claims import Claims
    from packagemanager.database import Database, Package
    from packagemanager.ground import Ground
    from packagemanager.incoming import Incoming


class Leaving:
    """``files`` and ``folders`` are places that go, with the reason in words; folders only if :meth:`goes` says so.

    ``listed`` are the paths that stay listed of a removed package, ``obsolete`` the conffiles that an upgraded package
    no longer brings and that stay, both by the key of the package that goes, or comes. ``moved`` are files that get the
    name ``.dpkg-old``.
    """

    def __init__(self, claims: Claims, ground: Ground) -> None:
        self.files: dict[str, str] = {}
        self.folders: dict[str, str] = {}
        self.moved: dict[str, str] = {}
        self.listed: dict[str, list[str]] = {}
        self.obsolete: dict[str, list[Conffile]] = {}
        self.notes: list[str] = []
        self._claims = claims
        self._ground = ground
        self._filled = above(claims.by_place)
        self._known: dict[str, bool] = {}

    def is_used(self, place: str) -> bool:
        """Whether a package of the wanted set has it."""
        return place in self._claims.by_place or place in self._claims.kept

    def add(self, place: str, why: str, *, is_above: bool = False) -> None:
        """``is_above``: the package has something below it. A link in the place of such a folder is not its own."""
        found = self._ground.look(place)
        if found is None or not place or self.is_used(place) or (is_above and found.kind == LINK):
            return
        (self.folders if found.kind == DIRECTORY else self.files)[place] = why

    def goes(self, folder: str) -> bool:
        """Whether a folder is empty once everything went that goes, and nothing comes into it.

        To be asked when all of :meth:`add` is done: answers are remembered.
        """
        if folder not in self._known:
            below = [f"{folder}/{name}" for name in self._ground.names(folder)]
            empties = all(one in self.files or (one in self.folders and self.goes(one)) for one in below)
            self._known[folder] = empties and folder not in self._filled
        return self._known[folder]


def leave(
    changes: Changes, incoming: Sequence[Incoming], claims: Claims, database: Database, ground: Ground
) -> Leaving:
    """Raises ``DatabaseError`` for a list that does not read, ``OSError`` as the tree does."""
    leaving = Leaving(claims, ground)
    for change in changes.removed:
        assert change.old is not None
        _remove(change.old, changes.purge, leaving, database, ground)
    for one in incoming:
        old = one.change.old
        if old is not None:
            _replace(old, one, leaving, database, ground)
    for change in changes.removed:
        assert change.old is not None
        if not is_forgotten(change.old, changes, database):
            leaving.listed[change.key] = _still_listed(change.old, leaving, database, ground)
    return leaving


def is_forgotten(package: Package, changes: Changes, database: Database) -> bool:
    """Whether dpkg keeps nothing of a package that is removed."""
    leaves = package.conffiles or "postrm" in database.info_names(package)
    return changes.purge or changes.supplants(package) or not leaves


def _remove(package: Package, purge: bool, leaving: Leaving, database: Database, ground: Ground) -> None:
    guarded = _guarded(package, database)
    kept = set() if purge else above(guarded)
    folders = above(database.list(package))
    for path in database.list(package):
        place = ground.place_now(path, package.name)
        if path in kept:
            continue
        if path not in guarded:
            leaving.add(place, f"{package.key} is removed", is_above=path in folders)
        elif purge:
            leaving.add(place, f"{package.key} is purged")
            folder, _, name = place.rpartition("/")
            for other in conffiles.backup_names(name, ground.names(folder)):
                leaving.add(f"{folder}/{other}" if folder else other, f"{package.key} is purged")


def _guarded(package: Package, database: Database) -> set[str]:
    """Its conffiles, without those that another package took."""
    return {conffile.path for conffile in package.conffiles}.intersection(database.list(package))


def _replace(old: Package, new: Incoming, leaving: Leaving, database: Database, ground: Ground) -> None:
    """``old`` may be one that was removed and left its configuration, or one that dpkg did not configure."""
    recorded = {conffile.path: conffile for conffile in old.conffiles}
    goes_now = {path for path, goes in new.conffiles if goes}
    folders = above(database.list(old))
    obsolete: list[Conffile] = []
    for path in reversed(database.list(old)):
        place = ground.place_now(path, old.name)
        if path in goes_now or leaving.is_used(place):
            continue
        if path not in recorded:
            why = f"{new.change.key} {new.change.new_version} does not have it"
            leaving.add(place, why, is_above=path in folders)
        elif ground.look(place) is not None:
            obsolete.append(Conffile(path, recorded[path].md5, (OBSOLETE,)))
    if not old.complete:
        for path in recorded:
            place = ground.follow(ground.place_now(path, old.name))
            leaving.add(f"{place}{NEW_NAME}", f"{new.change.key} {new.change.new_version} is configured")
    for path in goes_now:
        _remove_on_upgrade(ground.place(path, new.name), recorded.get(path), leaving, ground)
    leaving.obsolete[new.change.key] = obsolete


def _remove_on_upgrade(place: str, recorded: Conffile | None, leaving: Leaving, ground: Ground) -> None:
    current = ground.md5(place)
    if not current:
        return
    why = "its package says that it goes on upgrade"
    if recorded is not None and recorded.md5 == current:
        leaving.add(place, why)
    else:
        leaving.moved[place] = why


def _still_listed(package: Package, leaving: Leaving, database: Database, ground: Ground) -> list[str]:
    """What dpkg goes on to list of a removed package: its conffiles, what is above them, and folders that stay."""
    guarded = _guarded(package, database)
    needed = above(guarded)
    listed: list[str] = []
    for path in reversed(database.list(package)):
        place = ground.place_now(path, package.name)
        if path in guarded or path in needed:
            listed.append(path)
        elif not leaving.is_used(place) and (not path or (place in leaving.folders and not leaving.goes(place))):
            listed.append(path)
            needed |= above([path])
            if path:
                leaving.notes.append(f"/{place} of {package.key} is not empty and stays")
    return listed[::-1]
