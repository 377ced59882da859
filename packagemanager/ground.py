"""Where the paths of packages lie on this system, and what is there: read once, for one plan. Changes nothing.

A path as a package names it and the place where it lies are two things: folders may be links (merged `/usr`), and the
owner of the system may have diverted it. A place names one thing once.
"""

from __future__ import annotations

import errno

from packagemanager.entry import DIRECTORY, FILE, LINK
from packagemanager.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _md5 import MD5Type
    from collections.abc import Iterator

    from packagemanager.database import Database
    from packagemanager.tree import Stat, Tree

LINKS_MAX = 40
READ_BYTES = 1 << 20
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class Ground:
    """Looks are remembered: what changes on the disk later is not seen. Methods raise ``OSError`` as the tree does."""

    def __init__(self, tree: Tree, database: Database) -> None:
        self.tree = tree
        self._diversions = database.diversions
        self._folders: dict[str, str] = {"": ""}
        self._looks: dict[str, Stat | None] = {}

    def place(self, path: str, package: str) -> str:
        """Where ``path`` of the package of this name lies."""
        return self.resolve(self._diversions.actual(path, package))

    def resolve(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        found = self._folders.get(folder)
        if found is None:
            found = self._folders[folder] = self.tree.resolve(f"{folder}/.unbrick").rpartition("/")[0]
        return f"{found}/{name}" if found else name

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
        """Where links lead in the end, inside the root; the place itself where it is no link, or they go in circles."""
        here = place
        for _link in range(LINKS_MAX):
            found = self.look(here)
            if found is None or found.kind != LINK:
                return here
            here = self.resolve(_joined(here.rpartition("/")[0], self.tree.read_link(here)))
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


def refuse(problems: list[str], told_max: int = 8) -> None:
    """Raises ``RefusedError`` where there are any."""
    if problems:
        more = [f"and {len(problems) - told_max} more"] if len(problems) > told_max else []
        raise RefusedError("; ".join((*problems[:told_max], *more)), "Nothing was changed. Ask the master.")
