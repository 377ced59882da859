"""A package that comes: taken from its source, file by file put down beside the system.

A file that is on the disk already, with that content, mode and owner, is not put down: it is compared while it comes.

Attributes are decided here, before a file is staged: what `statoverride` says counts more than the package, and a file
that its owner may change keeps the mode and owner that he gave it.
"""

from __future__ import annotations

from packagemanager import conffiles
from packagemanager.control import paragraph
from packagemanager.entry import FILE, HARD_LINK, Entry
from packagemanager.errors import RefusedError, TransactionError
from packagemanager.ground import READ_BYTES, md5
from payload.digest import hasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from packagemanager.changes import Change
    from packagemanager.control import Paragraph
    from packagemanager.database import Database
    from packagemanager.entry import Content
    from packagemanager.ground import Ground
    from packagemanager.tree import Reader, Stat

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

        def attributes(self, number: int, entry: Entry) -> None: ...

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

    def attributes(self, number: int, _entry: Entry) -> None:
        pass

    def drop(self, number: int) -> None:
        pass

    def _taken(self) -> int:
        self.count += 1
        return self.count - 1


class Incoming:
    """``entries`` have the attributes that they get here; ``staged`` is path to number, of files.

    ``same`` is path to place, of files that were there already when ``ground`` was looked at, and are not staged.
    ``md5`` is path to MD5 in hex, of conffiles and what came before them, and of every file where the package has no
    list of them. ``guarded`` are the conffiles that it brings.
    """

    __slots__ = ("change", "conffiles", "entries", "fields", "files", "ground", "guarded", "md5", "same", "shipped",
                 "staged")  # fmt: skip

    def __init__(self, change: Change, text: bytes, files: dict[str, bytes]) -> None:
        self.change = change
        self.fields: Paragraph = paragraph(text)
        self.files = files
        self.conffiles = conffiles.declared(files.get("conffiles", b""))
        self.guarded = frozenset(path for path, goes in self.conffiles if not goes)
        self.shipped: tuple[Entry, ...] = ()
        self.entries: tuple[Entry, ...] = ()
        self.staged: dict[str, int] = {}
        self.same: dict[str, str] = {}
        self.ground: Ground | None = None
        self.md5: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.change.name


def unpack(
    change: Change, source: Source, stage: Stage, database: Database, ground: Ground, *, compare: bool = True
) -> Incoming:
    """Take everything from ``source``. Raises what the source and the stage raise.

    ``compare``: files that are there already are not staged. Not where scripts may change them before the plan is made.
    """
    text, files = source.control()
    incoming = Incoming(change, text, files)
    if change.new is None or incoming.fields.encode() != change.new.encode():
        raise TransactionError(f"{change.key} is not the package that it was announced as", "Ask the master.")
    guarded, is_listed = incoming.guarded, "md5sums" in files
    incoming.ground = ground
    if change.old is not None and change.old.present:
        for path in database.list(change.old):
            ground.tree.ahead(path)  # to be compared with what comes, without waiting for the disk file by file

    def sink(entry: Entry, pieces: Iterator[bytes]) -> None:
        # Which files have other names that are conffiles is known when all conffiles have come.
        state = md5() if not is_listed or not guarded <= incoming.md5.keys() else None
        if state is not None:
            pieces = _through(pieces, state.update)
        place = ground.place(entry.path, incoming.name)
        wanted = attributes(entry)
        lacking: Iterator[bytes] | None = pieces
        if compare and entry.path not in guarded and is_like(wanted, ground.look(place)):
            lacking = _compared(pieces, ground, place)
        if lacking is None:
            incoming.same[entry.path] = place
        else:
            incoming.staged[entry.path] = stage.file(wanted, lacking)
        if state is not None:
            incoming.md5[entry.path] = state.hexdigest()

    def attributes(entry: Entry) -> Entry:
        return _kept(database.given(entry), guarded, incoming.name, ground)

    incoming.shipped = source.unpack(sink).entries
    incoming.entries = tuple(attributes(entry) for entry in incoming.shipped)
    for entry in incoming.entries:
        if entry.kind == HARD_LINK and entry.path in guarded:
            incoming.md5[entry.path] = incoming.md5[entry.target]
    return incoming


def attribute_again(incoming: Incoming, stage: Stage, database: Database, ground: Ground) -> None:
    """Scripts ran: there may be users that were not there, and other overrides. What is staged gets what it has now."""
    entries = [_kept(database.given(entry), incoming.guarded, incoming.name, ground) for entry in incoming.shipped]
    for before, entry in zip(incoming.entries, entries, strict=True):
        changed = (entry.mode, entry.uid, entry.gid) != (before.mode, before.uid, before.gid)
        if changed and entry.path in incoming.staged:
            stage.attributes(incoming.staged[entry.path], entry)
    incoming.entries = tuple(entries)
    incoming.ground = None  # nothing was compared, and what was looked at need not be remembered


def is_like(entry: Entry, found: Stat | None) -> bool:
    """Whether it is a file like the one that comes, but for the content."""
    if found is None or found.kind != FILE:
        return False
    return (found.mode, found.uid, found.gid, found.size) == (entry.mode, entry.uid, entry.gid, entry.size)


def _compared(pieces: Iterator[bytes], ground: Ground, place: str) -> Iterator[bytes] | None:
    """None if the file at ``place`` has this content; else all of the content, what was compared of it, too.

    A file that the disk does not give is another one: it is replaced.
    """
    state, done = hasher(), 0
    try:
        reader = ground.tree.open(place)
    except OSError:
        return pieces
    try:
        for piece in pieces:
            if _exactly(reader, len(piece)) != piece:
                return _rejoined(ground, place, done, state.digest(), piece, pieces)
            state.update(piece)
            done += len(piece)
    finally:
        reader.close()
    return None


def _exactly(reader: Reader, length: int) -> bytes:
    """Fewer bytes at the end, and where the disk refuses."""
    found = b""
    try:
        while len(found) < length and (more := reader.read(length - len(found))):
            found += more
    except OSError:
        return found
    return found


def _rejoined(
    ground: Ground, place: str, done: int, digest: bytes, piece: bytes, pieces: Iterator[bytes]
) -> Iterator[bytes]:
    """The first ``done`` bytes come from the file, which had them a moment ago."""
    state = hasher()
    reader = ground.tree.open(place)
    try:
        while done and (part := reader.read(min(done, READ_BYTES))):
            done -= len(part)
            state.update(part)
            yield part
    finally:
        reader.close()
    if state.digest() != digest:
        raise changed_meanwhile(place)
    yield piece
    yield from pieces


def changed_meanwhile(place: str) -> RefusedError:
    return RefusedError(f"/{place} changed while the transaction was prepared; nothing changed", "Apply it again.")


def _kept(entry: Entry, guarded: frozenset[str], name: str, ground: Ground) -> Entry:
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
