"""What a package consists of, whatever it travelled in: entries of the file system and control files.

Values only; nothing here reads or writes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_DIGEST = b""
FILE, DIRECTORY, LINK, HARD_LINK = "file", "directory", "link", "hard-link"
KINDS = (FILE, DIRECTORY, LINK, HARD_LINK)


class Entry:
    """One member of a package.

    ``path`` is relative to the root, without ``./``, a trailing slash or ``..``; bytes that are no UTF-8 are kept
    as Python's file names keep them (surrogateescape). ``mode`` holds the permission bits (12 bits), ``mtime`` is in
    seconds since 1970. ``size`` (bytes) and ``digest`` (BLAKE2b-256 of the content) are those of a file; ``target``
    is a link's text, or the path of the earlier file that a hard link is another name of. ``user`` and ``group`` are
    names, where an archive has them: they count before the numbers on a system that knows them
    (`database.Database.given`). Entries are not compared by them.
    """

    __slots__ = ("digest", "gid", "group", "kind", "mode", "mtime", "path", "size", "target", "uid", "user")

    def __init__(
        self,
        path: str,
        kind: str,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        size: int = 0,
        digest: bytes = NO_DIGEST,
        target: str = "",
        user: str = "",
        group: str = "",
    ) -> None:
        self.path = path
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = size
        self.digest = digest
        self.target = target
        self.user = user
        self.group = group

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__ if name not in ("user", "group"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Entry({self.path!r}, {self.kind}, {self.mode:o})"


class Content:
    """A package, unpacked: its control file's text, its other control files by name, and its entries in order.

    ``control`` is the one paragraph of the file ``control`` as it was shipped; ``files`` are ``conffiles``,
    ``md5sums``, ``triggers``, ``postinst`` and so on, by name.
    """

    __slots__ = ("control", "entries", "files")

    def __init__(self, control: bytes, files: dict[str, bytes], entries: tuple[Entry, ...]) -> None:
        self.control = control
        self.files = files
        self.entries = entries
