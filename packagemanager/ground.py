"""Where the paths of packages lie on this system, and what is there: read once, for one plan. Changes nothing.

A path as a package names it and the place where it lies are two things: folders may be links (merged `/usr`), and the
owner of the system may have diverted it. A place names one thing once.
"""

from __future__ import annotations

import errno

from packagemanager.entry import DIRECTORY, FILE, LINK
from packagemanager.tree import NAMES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _md5 import MD5Type
    from collections.abc import Iterable, Iterator

    from packagemanager.database import Database
    from packagemanager.tree import Stat, Tree

LINKS_MAX = 40
_NAMES_LED_MAX = NAMES_MAX // 2
READ_BYTES = 1 << 20
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_NO_WAY = (errno.ELOOP, errno.ENAMETOOLONG)


class Ground:
    """Looks are remembered: what changes on the disk later is not seen. Methods raise ``OSError`` as the tree does."""

    def __init__(self, tree: Tree, database: Database) -> None:
        self.tree = tree
        self._diversions = database.diversions
        self._folders: dict[str, str] = {"": ""}
        self._folders_now: dict[str, str] = {"": ""}
        self._looks: dict[str, Stat | None] = {}
        self._coming: dict[str, str] = {}
        self._coming_folders: set[str] = set()

    def place(self, path: str, package: str) -> str:
        """Where ``path`` of the package of this name lies."""
        return self.resolve(self._diversions.actual(path, package))

    def place_now(self, path: str, package: str) -> str:
        """Where it lies before any link came that :meth:`expect` was told of."""
        actual = self._diversions.actual(path, package)
        folder, _, name = actual.rpartition("/")
        found = self._folders_now.get(folder)
        if found is None:
            found = self._folders_now[folder] = self.tree.resolve(f"{folder}/.unbrick").rpartition("/")[0]
        return f"{found}/{name}" if found else name

    def expect(self, links: Iterable[tuple[str, str, str]], folders: Iterable[tuple[str, str]]) -> None:
        """Links (path, package, target) that come, and folders (path, package): others may lie below them.

        A link does not come where a folder is. To be called once, before places are asked for that depend on it.
        """
        for path, package, target in links:
            place = self.place(path, package)
            found = self.look(place)
            if found is None or found.kind != DIRECTORY:
                self._coming[place] = target
        self._folders = {"": ""}
        self._coming_folders = {self.place(path, package) for path, package in folders}

    def resolve(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        found = self._folder(folder, LINKS_MAX)
        return f"{found}/{name}" if found else name

    def _folder(self, path: str, links_left: int) -> str:
        """Where a folder lies, with the links on the way to it followed, those that come first."""
        here = place = ""
        for name in path.split("/") if path not in self._folders else ():
            here = f"{here}/{name}" if here else name
            if here not in self._folders:
                self._folders[here] = self._entered(place, name, links_left)
            place = self._folders[here]
        return self._folders[path]

    def _entered(self, parent: str, name: str, links_left: int) -> str:
        """Where the folder of this name in ``parent``, which is a place, lies: there, if it is a link that comes and
        leads where nobody can go.
        """
        place = f"{parent}/{name}" if parent else name
        target = self._coming.get(place)
        if target is None:
            return self.tree.resolve(f"{place}/.unbrick").rpartition("/")[0]
        try:
            return self._folder(_joined(parent, target), links_left - 1) if links_left else place
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            return place

    def stays_folder(self, place: str) -> bool:
        """Whether others that lie below ``place`` stay there when a link comes."""
        found = self.look(place)
        if found is None:
            return self.leads_to_folder(place)
        if found.kind == LINK:
            return self.is_folder(place) and self.follow(place) == self._folder(place, LINKS_MAX)
        return found.kind == DIRECTORY

    def leads_to_folder(self, place: str) -> bool:
        """Whether a link that comes there will lead to a folder."""
        if place not in self._coming:
            return False
        end = self._folder(place, LINKS_MAX)
        found = self.look(end)
        return end in self._coming_folders or (found is not None and found.kind == DIRECTORY)

    def look(self, place: str) -> Stat | None:
        if place not in self._looks:
            self._looks[place] = self.tree.look(place)
        return self._looks[place]

    def is_folder(self, place: str) -> bool:
        """A folder, or a link that leads to one."""
        found = self.look(place)
        if found is not None and found.kind == LINK:
            found = self.look(self.follow(place))
        return found is not None and found.kind == DIRECTORY

    def follow(self, place: str) -> str:
        """Where links lead in the end, inside the root; the place itself where it is no link, or where they lead nobody
        can go: in circles, or through so many folders that what may lie below has no path.
        """
        here = place
        for _link in range(LINKS_MAX):
            found = self.look(here)
            if found is None or found.kind != LINK:
                return here
            try:
                here = self.resolve(_joined(here.rpartition("/")[0], self.tree.read_link(here)))
                if here.count("/") >= _NAMES_LED_MAX:
                    return place
            except OSError as error:
                if error.errno not in _NO_WAY:
                    raise
                return place
        return place

    def names(self, place: str) -> list[str]:
        try:
            return self.tree.list(place)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise

    def content(self, place: str) -> Iterator[bytes]:
        reader = self.tree.open(place)
        try:
            while piece := reader.read(READ_BYTES):
                yield piece
        finally:
            reader.close()

    def digest(self, place: str) -> bytes:
        """Of a file's content: what `entry.Entry.digest` is."""
        from payload.digest import hasher

        state = hasher()
        for piece in self.content(place):
            state.update(piece)
        return state.digest()

    def md5(self, place: str) -> str:
        """Of a file's content, in hex; empty where there is no file."""
        found = self.look(place)
        if found is None or found.kind != FILE:
            return ""
        state = md5()
        for piece in self.content(place):
            state.update(piece)
        return state.hexdigest()


def md5() -> MD5Type:
    """What dpkg compares files by: nobody is protected by it. CPython's own C module, as ``payload.digest`` has it."""
    from _md5 import md5 as state

    return state()


def _joined(folder: str, target: str) -> str:
    """The path that a link in ``folder``, which is a place, leads to."""
    parts = [] if target.startswith("/") else folder.split("/") if folder else []
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
