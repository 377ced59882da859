"""The inner archives of a package: a tar of files, folders and links, read as a stream (tar(5), POSIX pax).

Understood are ustar, the long names of GNU tar and the headers of pax. Whatever a package has no use for is refused by
name: devices, pipes, sparse files, unknown types and keywords, names that are absolute or go upwards, one name twice,
and anything that would be reached through a link of the same archive. Memory does not depend on the sizes of files.
"""

from __future__ import annotations

from sys import intern

from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Entry
from packagemanager.entry import KINDS as ENTRY_KINDS
from packagemanager.errors import ArchiveError
from packagemanager.tar_header import BLOCK_BYTES, EXTENSIONS, KINDS, Header, read_extension

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packagemanager.tar_header import Extras

PATH_BYTES_MAX = 4095
NAME_BYTES_MAX = 255
DEPTH_MAX = 128  # folders are walked one below the other
EXTENSION_BYTES_MAX = 64 << 10  # of a long name or a pax header
CONTROLS = bytes((*range(0x20), 0x7F))
EXTENSIONS_MAX = 4  # in front of one entry
ADVICE = "the package is damaged, or made for something else: fetch or build it again"


class Bounds:
    """How much one archive may hold: ``entries``, and ``bytes`` of tar after decompression."""

    __slots__ = ("bytes", "entries")

    def __init__(self, bytes_max: int = 16 << 30, entries_max: int = 200_000) -> None:
        self.bytes = bytes_max
        self.entries = entries_max


def entries(pieces: Iterable[bytes], bounds: Bounds | None = None) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each entry and its content, in the archive's order, without the root folder itself.

    The content must be read before the next entry is asked for; what was not is passed over. The archive is read to
    its very end, so that the checksum of its compression is looked at.

    Raises:
        ArchiveError: the archive is damaged or has what a package must not have.
    """
    limits = bounds or Bounds()
    source = _Source(pieces, limits.bytes)
    names = Names(limits.entries)
    while (header := _header(source)) is not None:
        entry = _entry(header)
        content = source.content(entry.size)
        if entry.path:
            names.add(entry)
            yield entry, content
        for _piece in content:
            pass
    source.expect_zeroes()
    names.check()


class _Source:
    """A stream of bytes, counted."""

    def __init__(self, pieces: Iterable[bytes], bytes_max: int) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0
        self._left = bytes_max

    def some(self, length: int) -> bytes:
        """What is at hand, at most ``length`` bytes; nothing at the end."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left -= len(piece)
            if self._left < 0:
                raise _refused("it holds more bytes than it may")
            self._piece, self._at = piece, 0
        taken = self._piece[self._at : self._at + length]
        self._at += len(taken)
        return taken

    def exactly(self, length: int) -> bytes:
        return b"".join(self._run(length))

    def content(self, size: int) -> Iterator[bytes]:
        """A file's bytes; what fills its last block is passed over. A size beyond the bound is refused at once."""
        if size > self._left + len(self._piece):
            raise _refused(f"a file of {size} bytes, which is more than the archive may hold")
        return self._padded(size)

    def _padded(self, size: int) -> Iterator[bytes]:
        yield from self._run(size)
        self.exactly(-size % BLOCK_BYTES)

    def _run(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self.some(length)
            if not piece:
                raise _refused("it ends too early")
            length -= len(piece)
            yield piece

    def expect_zeroes(self) -> None:
        while piece := self.some(1 << 20):
            if piece.count(0) != len(piece):
                raise _refused("something stands behind its end")


def _header(source: _Source) -> Header | None:
    """The next header with what extends it, or None at the end of the archive."""
    extras: Extras = {}
    for _number in range(EXTENSIONS_MAX + 1):
        block = source.exactly(BLOCK_BYTES)
        if block.count(0) == BLOCK_BYTES:
            if extras:
                raise _refused("it ends after a header that belongs to an entry")
            return None
        header = Header(block)
        if header.flag not in EXTENSIONS:
            header.apply(extras)
            return header
        if header.size > EXTENSION_BYTES_MAX:
            raise _refused(f"a name or header of {header.size} bytes")
        read_extension(header, b"".join(source.content(header.size)), extras)
    raise _refused(f"more than {EXTENSIONS_MAX} headers in front of one entry")


def _entry(header: Header) -> Entry:
    path = clean(header.path)
    kind = KINDS.get(header.flag, "of an unknown type")
    if kind not in ENTRY_KINDS:
        raise _refused(f"{path!r} is {kind}, which no package may have")
    if kind == FILE and header.path.endswith(b"/"):  # how archives before POSIX spell a folder; dpkg reads it so too
        kind = DIRECTORY
    if header.size and kind != FILE:
        raise _refused(f"{path!r} is a {kind} with content")
    if not path and kind != DIRECTORY:
        raise _refused("the root is no folder")
    return Entry(
        path,
        kind,
        mode=header.mode,
        uid=header.uid,
        gid=header.gid,
        mtime=header.mtime,
        size=header.size,
        target=_target(path, kind, header.target),
        user=intern(_text(header.user)),
        group=intern(_text(header.group)),
    )


def _target(path: str, kind: str, target: bytes) -> str:
    if kind == HARD_LINK:
        return clean(target)
    if kind != LINK:
        return ""
    if not 0 < len(target) <= PATH_BYTES_MAX or has_control(target):
        raise _refused(f"the link {path!r} leads nowhere")
    return _text(target)


def clean(path: bytes) -> str:
    """The one form of a path: without ``.`` and double slashes; the root is empty. Raises ``ArchiveError``."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if not path or path[0] == 0x2F or b".." in parts or has_control(path) or len(path) > PATH_BYTES_MAX:
        raise _refused(f"{path[:PATH_BYTES_MAX]!r} is no path in a package")
    if any(len(part) > NAME_BYTES_MAX for part in parts):
        raise _refused(f"{path!r} has a name of more than {NAME_BYTES_MAX} bytes")
    if len(parts) > DEPTH_MAX:
        raise _refused(f"{path!r} has more than {DEPTH_MAX} folders, one in the other")
    return _text(b"/".join(parts))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def has_control(text: bytes) -> bool:
    """dpkg's lists have a path in a line; nothing that ends a line or a text may be in one."""
    return text.translate(None, CONTROLS) != text


class Names:
    """What an archive has had so far, by path. Methods raise ``ArchiveError`` for what does not belong together."""

    def __init__(self, entries_max: int) -> None:
        self._kinds: dict[str, str] = {}
        self._entries_max = entries_max

    def add(self, entry: Entry) -> None:
        if len(self._kinds) == self._entries_max:
            raise _refused(f"more than {self._entries_max} entries")
        if entry.path in self._kinds:
            raise _refused(f"{entry.path!r} is there twice")
        if entry.kind == HARD_LINK and self._kinds.get(entry.target) != FILE:
            raise _refused(f"the hard link {entry.path!r} is of no earlier file: {entry.target!r}")
        self._check_folders(entry.path)
        self._kinds[entry.path] = entry.kind

    def check(self) -> None:
        """Once more at the end: what is above an entry may have come after it."""
        for path in self._kinds:
            self._check_folders(path)

    def _check_folders(self, path: str) -> None:
        """Nothing may be reached through a link or a file of the archive. Folders that it does not list are allowed."""
        above = path.rpartition("/")[0]
        while above:
            kind = self._kinds.get(above)
            if kind == DIRECTORY:
                return  # which was checked itself
            if kind is not None:
                raise _refused(f"{path!r} is below {above!r}, which is a {kind}")
            above = above.rpartition("/")[0]


def _refused(problem: str) -> ArchiveError:
    return ArchiveError(f"the archive is refused: {problem}", ADVICE)
