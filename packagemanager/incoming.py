"""A package that comes: taken from its source, file by file put down beside the system.

Attributes are decided here, before a file is staged: what `statoverride` says counts more than the package, and a file
that its owner may change keeps the mode and owner that he gave it.
"""

from __future__ import annotations

from packagemanager import conffiles
from packagemanager.control import paragraph
from packagemanager.entry import FILE, Entry
from packagemanager.errors import TransactionError
from packagemanager.ground import md5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from packagemanager.changes import Change
    from packagemanager.control import Paragraph
    from packagemanager.database import Database
    from packagemanager.entry import Content
    from packagemanager.ground import Ground

    Sink = Callable[[Entry, Iterator[bytes]], None]

    class Source(Protocol):
        """A package, whatever it travelled in: `deb.Deb`, or a delta of a transaction."""

        def control(self) -> tuple[bytes, dict[str, bytes]]: ...

        def unpack(self, sink: Sink) -> Content: ...

    class Stage(Protocol):
        """`staging.Staging`, or :class:`Counting`."""

        def file(self, entry: Entry, chunks: Iterable[bytes]) -> int: ...

        def link(self, entry: Entry) -> int: ...

        def hard_link(self, entry: Entry, of: int) -> int: ...

        def text(self, path: str, content: bytes, mode: int = 0o644) -> int: ...

        def drop(self, number: int) -> None: ...


class Counting:
    """Stages nothing: for a plan that is only looked at. ``bytes`` is what would have been written."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0

    def file(self, _entry: Entry, chunks: Iterable[bytes]) -> int:
        self.bytes += sum(len(piece) for piece in chunks)
        return self._taken()

    def link(self, _entry: Entry) -> int:
        return self._taken()

    def hard_link(self, _entry: Entry, of: int) -> int:
        return self._taken()

    def text(self, _path: str, content: bytes, mode: int = 0o644) -> int:
        self.bytes += len(content)
        return self._taken()

    def drop(self, number: int) -> None:
        pass

    def _taken(self) -> int:
        self.count += 1
        return self.count - 1


class Incoming:
    """``entries`` have the attributes that they get here; ``staged`` is path to number, of files.

    ``md5`` is path to MD5 in hex, of conffiles, and of every file where the package has no list of them.
    """

    __slots__ = ("change", "conffiles", "entries", "fields", "files", "md5", "shipped", "staged")

    def __init__(self, change: Change, text: bytes, files: dict[str, bytes]) -> None:
        self.change = change
        self.fields: Paragraph = paragraph(text)
        self.files = files
        self.conffiles = conffiles.declared(files.get("conffiles", b""))
        self.shipped: tuple[Entry, ...] = ()
        self.entries: tuple[Entry, ...] = ()
        self.staged: dict[str, int] = {}
        self.md5: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.change.name


def unpack(change: Change, source: Source, stage: Stage, database: Database, ground: Ground) -> Incoming:
    """Take everything from ``source``. Raises what the source and the stage raise."""
    text, files = source.control()
    incoming = Incoming(change, text, files)
    if change.new is None or incoming.fields.encode() != change.new.encode():
        raise TransactionError(f"{change.key} is not the package that it was announced as", "Ask the master.")
    guarded = {path for path, goes in incoming.conffiles if not goes}
    is_listed = "md5sums" in files

    def sink(entry: Entry, pieces: Iterator[bytes]) -> None:
        if entry.path in guarded or not is_listed:
            state = md5()
            pieces = _through(pieces, state.update)
            incoming.staged[entry.path] = stage.file(attributes(entry), pieces)
            incoming.md5[entry.path] = state.hexdigest()
        else:
            incoming.staged[entry.path] = stage.file(attributes(entry), pieces)

    def attributes(entry: Entry) -> Entry:
        return _kept(database.overridden(entry), guarded, incoming.name, ground)

    incoming.shipped = source.unpack(sink).entries
    incoming.entries = tuple(attributes(entry) for entry in incoming.shipped)
    return incoming


def _kept(entry: Entry, guarded: set[str], name: str, ground: Ground) -> Entry:
    """A conffile that is there keeps mode and owner."""
    if entry.path not in guarded or entry.kind != FILE:
        return entry
    found = ground.look(ground.follow(ground.place(entry.path, name)))
    if found is None or found.kind != FILE:
        return entry
    return Entry(entry.path, FILE, mode=found.mode, uid=found.uid, gid=found.gid, mtime=entry.mtime, size=entry.size,
                 digest=entry.digest)  # fmt: skip


def _through(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece
