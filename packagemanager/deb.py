"""Debian's binary packages, format 2.0 (deb(5)), read as a stream: memory does not grow with the package.

A package source as a transaction wants it: :meth:`Deb.control`, :meth:`Deb.unpack`. Nothing is written here, and
nothing is believed but what the checksums of the compression hold; who made the package is for the transaction's
signature to say.
"""

from __future__ import annotations

from packagemanager import ar, control, tar
from packagemanager.entry import FILE, Content, Entry
from packagemanager.errors import ArchiveError
from payload.digest import hasher
from payload.streams import decompress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from payload.bundle import Reader

    Sink = Callable[[Entry, Iterator[bytes]], None]

READ_BYTES = 256 << 10
VERSION_BYTES_MAX = 64
CONTROL_BYTES_MAX = 32 << 20  # of the control archive, unpacked
CONTROL_FILES_MAX = 128
KINDS = {"": "plain", ".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
ADVICE = ar.ADVICE


class Deb:
    """One package in ``reader``."""

    def __init__(self, reader: Reader, bounds: tar.Bounds | None = None) -> None:
        """Raises ``ArchiveError`` for what is no such package, ``OSError`` where it cannot be read."""
        self._reader = reader
        self._bounds = bounds or tar.Bounds()
        self._control, self._data = _parts(reader)
        self._read: tuple[bytes, dict[str, bytes]] | None = None

    def control(self) -> tuple[bytes, dict[str, bytes]]:
        """The text of the file ``control``, and the other control files by name. Raises as :class:`Deb`."""
        if self._read is None:
            files: dict[str, bytes] = {}
            bounds = tar.Bounds(CONTROL_BYTES_MAX, CONTROL_FILES_MAX)
            for entry, pieces in tar.entries(self._pieces(self._control), bounds):
                if entry.kind != FILE or "/" in entry.path:
                    raise ArchiveError(f"a control file that is a {entry.kind}: {entry.path!r}", ADVICE)
                files[entry.path] = b"".join(pieces)
            if "control" not in files:
                raise ArchiveError("the package has no control file", ADVICE)
            fields = control.paragraph(files["control"])
            control.identity(fields)
            control.check_package(fields)
            self._read = files.pop("control"), files
        return self._read

    def unpack(self, sink: Sink) -> Content:
        """Gives every file to ``sink(entry, pieces)``, in the archive's order; ``pieces`` are its bytes, to be used up.

        The answer has all entries, files with their digests (which ``sink`` cannot know yet).
        What ``sink`` raises comes through. Raises as :class:`Deb`.
        """
        text, files = self.control()
        found: list[Entry] = []
        for entry, pieces in tar.entries(self._pieces(self._data), self._bounds):
            if entry.kind == FILE:
                digest = hasher()
                hashed = _hashed(pieces, digest.update)
                sink(entry, hashed)
                for _rest in hashed:
                    pass
                entry.digest = digest.digest()
            found.append(entry)
        return Content(text, dict(files), tuple(found))

    def _pieces(self, member: ar.Member) -> Iterator[bytes]:
        """The member's content, decompressed."""
        kind = KINDS[member.name.partition(".tar")[2]]
        try:
            yield from decompress(kind, self._stored(member))
        except ValueError as error:
            raise ArchiveError(f"{member.name} is damaged: {error}", ADVICE) from error

    def _stored(self, member: ar.Member) -> Iterator[bytes]:
        for done in range(0, member.size, READ_BYTES):
            length = min(READ_BYTES, member.size - done)
            piece = self._reader.read(member.offset + done, length)
            if len(piece) != length:
                raise ArchiveError(f"{member.name} ends too early", ADVICE)
            yield piece


def _hashed(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def _parts(reader: Reader) -> tuple[ar.Member, ar.Member]:
    """The two archives. Members whose name begins with an underscore are for others."""
    first, *others = ar.members(reader) or (ar.Member("nothing", 0, 0),)
    if first.name != "debian-binary" or first.size > VERSION_BYTES_MAX:
        raise ArchiveError(f"this is no Debian package: it begins with {first.name}", ADVICE)
    number = reader.read(first.offset, first.size).partition(b"\n")[0]
    major, point, minor = number.partition(b".")
    if not (point and minor.isdigit() and major == b"2"):
        raise ArchiveError(f"a package of format {number!r}; 2.0 is supported", "build it with a current dpkg-deb")
    parts = [member for member in others if not member.name.startswith("_")]
    names = [member.name.partition(".tar") for member in parts]
    known = all(dot == ".tar" and end in KINDS for _, dot, end in names)
    if [name for name, _, _ in names] != ["control", "data"] or not known:
        found = ", ".join(member.name for member in parts) or "nothing"
        raise ArchiveError(f"a package holds control.tar and data.tar (.gz, .xz or .zst), not {found}", ADVICE)
    return parts[0], parts[1]
