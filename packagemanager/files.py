"""What dpkg does not remember of a package: every entry as it was shipped. Bytes: docs/SPEC.md, "What a package put".

One text per package in `var/lib/unbrick/packages/files/`, named as dpkg names it in `info`. It has the paragraph of
`status` as well: all of dpkg's database could be written again from these texts. Values only.
"""

from __future__ import annotations

from packagemanager.control import paragraph
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, KINDS, LINK, NO_DIGEST, Entry
from packagemanager.errors import ArchiveError, DatabaseError
from payload.digest import DIGEST_BYTES, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from packagemanager.control import Paragraph

FOLDER = "var/lib/unbrick/packages/files"
MAGIC = b"unbrick-files 1\n"
END = b"end "
TEXT_BYTES_MAX = 64 << 20
ENTRIES_MAX = 1 << 20
PATH_CHARACTERS_MAX = 4096
WORDS = {FILE: 8, DIRECTORY: 6, LINK: 7, HARD_LINK: 7}
MODE_MAX, ID_MAX, NUMBER_MAX = 0o7777, 2**32 - 2, 2**63 - 1
# Written as they are; every other byte is %XX.
PLAIN = frozenset(range(0x21, 0x7F)) - {ord("%")}
PLAIN_CHARACTERS = frozenset(map(chr, PLAIN))
_ESCAPES = {byte: chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in range(256)}


class Files:
    """The text of one package: its paragraph in `status`, and its entries in the archive's order."""

    __slots__ = ("entries", "fields")

    def __init__(self, fields: Paragraph, entries: tuple[Entry, ...]) -> None:
        self.fields = fields
        self.entries = entries


def path_of(stem: str) -> str:
    """Where the text lies; ``stem`` is `database.Database.stem`."""
    return f"{FOLDER}/{stem}"


def encode(fields: Paragraph, entries: Iterable[Entry]) -> bytes:
    lines = "".join(f"{_line(entry)}\n" for entry in entries).encode("ascii")
    text = MAGIC + fields.encode() + b"\n" + lines
    return text + END + digest(text).hex().encode() + b"\n"


def _line(entry: Entry) -> str:
    words = [entry.kind, f"{entry.mode:o}", str(entry.uid), str(entry.gid)]
    if entry.kind == FILE:
        words += [str(entry.size), entry.digest.hex() or "-"]
    words += [str(entry.mtime), _escaped(entry.path)]
    if entry.kind in (LINK, HARD_LINK):
        words.append(_escaped(entry.target))
    return " ".join(words)


def _escaped(path: str) -> str:
    if path and PLAIN_CHARACTERS.issuperset(path):
        return path  # as nearly all are
    return "".join(_ESCAPES[byte] for byte in path.encode("utf-8", "surrogateescape")) or "."


def decode(text: bytes, path: str) -> Files:
    """``path`` is where the text was, for the message. Raises ``DatabaseError`` for every text that is not whole."""
    try:
        return _decode(text)
    except (ValueError, ArchiveError) as error:
        raise DatabaseError(
            f"/{path} is damaged: {error}", "`unbrick packages adopt` writes it again, from what is on the disk."
        ) from error


def _decode(text: bytes) -> Files:
    body, mark, end = text.rpartition(END)
    if len(text) > TEXT_BYTES_MAX:
        raise ValueError(f"more than {TEXT_BYTES_MAX} bytes")
    if not (mark and text.startswith(MAGIC) and end == digest(body).hex().encode() + b"\n"):
        raise ValueError("it is not as it was written")
    fields, gap, lines = body[len(MAGIC) :].partition(b"\n\n")
    listed = lines.decode("ascii").split("\n")
    if not gap or listed.pop() or len(listed) > ENTRIES_MAX:
        raise ValueError("it has no list of entries, or one beyond the bound")
    return Files(paragraph(fields + b"\n"), tuple(_entry(line.split(" ")) for line in listed))


def _entry(words: list[str]) -> Entry:
    kind = words[0]
    if kind not in KINDS or len(words) != WORDS[kind]:
        raise ValueError(f"no entry: {' '.join(words)[:80]!r}")
    mode, uid, gid = int(words[1], 8), _number(words[2], ID_MAX), _number(words[3], ID_MAX)
    if not 0 <= mode <= MODE_MAX:
        raise ValueError(f"no mode: {words[1][:80]!r}")
    size, name = (_number(words[4], NUMBER_MAX), _digest(words[5])) if kind == FILE else (0, NO_DIGEST)
    rest = words[6:] if kind == FILE else words[4:]
    path = _path(rest[1])
    target = _unescaped(rest[2]) if len(rest) > 2 else ""
    if not target and kind == LINK:
        raise ValueError("a link to nothing")
    if kind == HARD_LINK:
        _path(rest[2])
    return Entry(path, kind, mode=mode, uid=uid, gid=gid, mtime=_time(rest[0]), size=size, digest=name, target=target)


def _number(word: str, maximum: int) -> int:
    if not (word.isascii() and word.isdigit() and int(word) <= maximum):
        raise ValueError(f"no number up to {maximum}: {word[:80]!r}")
    return int(word)


def _time(word: str) -> int:
    """May be before 1970."""
    return -_number(word[1:], NUMBER_MAX) if word.startswith("-") else _number(word, NUMBER_MAX)


def _digest(word: str) -> bytes:
    found = NO_DIGEST if word == "-" else bytes.fromhex(word)
    if found and len(found) != DIGEST_BYTES:
        raise ValueError(f"no digest: {word[:80]!r}")
    return found


def _path(word: str) -> str:
    path = "" if word == "." else _unescaped(word)
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"no path: {path[:80]!r}")
    return path


def _unescaped(word: str) -> str:
    if len(word) > 3 * PATH_CHARACTERS_MAX:
        raise ValueError("a path beyond the bound")
    pieces = word.split("%")
    found = bytearray(pieces[0].encode("ascii"))
    for piece in pieces[1:]:
        found += bytes.fromhex(piece[:2]) + piece[2:].encode("ascii")
    if 0 in found:
        raise ValueError("a zero in a path")
    return found.decode("utf-8", "surrogateescape")
