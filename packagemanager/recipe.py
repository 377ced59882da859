"""A delta part as bytes: a package's control files and entries, and how its files come from older versions of it.

Bytes: docs/SPEC.md, "Delta parts". The files that are not as in every old version, one after the other as the entries
stand, are cut into *groups*. For each old version every group is one zstd frame, made against pieces of that version's
files; so small files share what they have in common, and large ones never need more memory than a group. Frames lie
anywhere in the transaction: groups that come out the same for several versions, or packages, are there once.

Values and bytes only. Reading old files is `packagemanager.delta`, writing is `packagemanager.master.delta`.
"""

from __future__ import annotations

from struct import Struct

from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, NO_DIGEST, Entry
from packagemanager.errors import ArchiveError, TransactionError
from packagemanager.tar import Names, clean, has_control
from packagemanager.tar_header import ID_MAX, TIME_MAX
from payload.digest import DIGEST_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

RECIPE_BYTES_MAX = 32 << 20
STORED_BYTES_MAX = 16 << 20
GROUP_BYTES_MAX = 4 << 20
REFERENCE_BYTES_MAX = 8 << 20
FILE_BYTES_MAX = 1 << 40
PIECES_MAX = 2**16 - 1  # of a frame: see FRAME

PLAIN_LENGTH = Struct("<I")
# control files, entries, groups, old versions
COUNTS = Struct("<IIII")
CONTROL_FILE = Struct("<HI")
# kind, where its content comes from, mode, uid, gid, mtime, size, bytes of path and target
ENTRY = Struct("<BBHIIqQHH")
GROUP = Struct("<I")
OLD_FILES = Struct("<I")
OLD_FILE = Struct(f"<QH{DIGEST_BYTES}s")
# offset and bytes of the frame in the transaction, number of pieces
FRAME = Struct("<QIH")
# number of the old file, offset, bytes
PIECE = Struct("<IQI")

NOWHERE, IN_GROUPS, AS_BEFORE = 0, 1, 2
_KINDS = (FILE, DIRECTORY, LINK, HARD_LINK)
_DAMAGED = "The transaction was made wrongly: ask the master for another one."


class OldFile:
    """A file of an old version, which the device must have exactly so."""

    __slots__ = ("digest", "path", "size")

    def __init__(self, path: str, size: int, digest: bytes) -> None:
        self.path = path
        self.size = size
        self.digest = digest


class Frame:
    """One group for one old version. ``pieces`` are (number of the old file, offset, bytes): what it is compressed
    against, one after the other. ``size`` 0: the pieces are the group."""

    __slots__ = ("offset", "pieces", "size")

    def __init__(self, offset: int, size: int, pieces: tuple[tuple[int, int, int], ...]) -> None:
        self.offset = offset
        self.size = size
        self.pieces = pieces


class Base:
    """How the groups are made from one old version: a frame for each of them."""

    __slots__ = ("frames", "old_files")

    def __init__(self, old_files: tuple[OldFile, ...], frames: tuple[Frame, ...]) -> None:
        self.old_files = old_files
        self.frames = frames


class Recipe:
    """``control_files`` begin with ``control``. ``as_before`` are the paths of the files that every old version has
    with the same content; the others are in the groups, whose plain lengths are ``groups``."""

    __slots__ = ("as_before", "bases", "control_files", "entries", "groups")

    def __init__(
        self,
        control_files: dict[str, bytes],
        entries: tuple[Entry, ...],
        as_before: frozenset[str],
        groups: tuple[int, ...],
        bases: tuple[Base, ...],
    ) -> None:
        self.control_files = control_files
        self.entries = entries
        self.as_before = as_before
        self.groups = groups
        self.bases = bases


def encode_recipe(recipe: Recipe) -> bytes:
    """The plain bytes, before they are compressed."""
    counts = (len(recipe.control_files), len(recipe.entries), len(recipe.groups), len(recipe.bases))
    pieces = [COUNTS.pack(*counts)]
    for name, content in recipe.control_files.items():
        pieces += (CONTROL_FILE.pack(len(name), len(content)), name.encode("ascii"), content)
    for entry in recipe.entries:
        pieces.append(_encode_entry(entry, entry.path in recipe.as_before))
    pieces += [GROUP.pack(length) for length in recipe.groups]
    for base in recipe.bases:
        pieces.append(OLD_FILES.pack(len(base.old_files)))
        for old in base.old_files:
            path = _encoded(old.path)
            pieces += (OLD_FILE.pack(old.size, len(path), old.digest), path)
        for frame in base.frames:
            pieces.append(FRAME.pack(frame.offset, frame.size, len(frame.pieces)))
            pieces += [PIECE.pack(*piece) for piece in frame.pieces]
    return b"".join(pieces)


def _encode_entry(entry: Entry, as_before: bool) -> bytes:
    path, target = _encoded(entry.path), _encoded(entry.target)
    is_file = entry.kind == FILE
    source = (AS_BEFORE if as_before else IN_GROUPS) if is_file else NOWHERE
    size = entry.size if is_file else 0
    fixed = (_KINDS.index(entry.kind), source, entry.mode, entry.uid, entry.gid, entry.mtime, size)
    return ENTRY.pack(*fixed, len(path), len(target)) + path + target + (entry.digest if is_file else b"")


def decode_recipe(raw: bytes, bases: int, content_bytes: int) -> Recipe:
    """The recipe that ``raw`` is, for so many old versions, in a transaction of so many bytes.

    Raises:
        TransactionError: it is not of this format, or says what cannot be.
    """
    cursor = _Cursor(raw)
    control_count, entry_count, group_count, base_count = cursor.take(COUNTS)
    if base_count != bases:
        raise _wrong("it is for another number of old versions")
    control_files = dict(_control_file(cursor) for _number in range(cursor.count(control_count, CONTROL_FILE)))
    entries = []
    as_before = set()
    for _number in range(cursor.count(entry_count, ENTRY)):
        entry, source = _decode_entry(cursor)
        entries.append(entry)
        if source == AS_BEFORE:
            as_before.add(entry.path)
    _check_together(entries)
    groups = tuple([cursor.take(GROUP)[0] for _number in range(cursor.count(group_count, GROUP))])
    in_groups = sum(entry.size for entry in entries if entry.kind == FILE and entry.path not in as_before)
    if max(groups, default=0) > GROUP_BYTES_MAX or 0 in groups or sum(groups) != in_groups:
        raise _wrong("its groups are not its files")
    found = tuple([_decode_base(cursor, groups, content_bytes) for _number in range(base_count)])
    if cursor.at != len(raw) or "control" not in control_files or len(control_files) != control_count:
        raise _wrong("it has no control file, one twice, or bytes that say nothing")
    return Recipe(control_files, tuple(entries), frozenset(as_before), groups, found)


def _check_together(entries: list[Entry]) -> None:
    """By the rules for the entries of a package: `tar.Names`."""
    names = Names(len(entries))
    try:
        for entry in entries:
            names.add(entry)
        names.check()
    except ArchiveError as error:
        raise _wrong(str(error)) from error


def _control_file(cursor: _Cursor) -> tuple[str, bytes]:
    name_bytes, length = cursor.take(CONTROL_FILE)
    name = cursor.text(name_bytes)
    if not name or not name.isascii() or "/" in name or "\0" in name or name in (".", ".."):
        raise _wrong("a control file with a bad name")
    return name, cursor.bytes(length)


def _decode_entry(cursor: _Cursor) -> tuple[Entry, int]:
    kind, source, mode, uid, gid, mtime, size, path_bytes, target_bytes = cursor.take(ENTRY)
    path, target = cursor.text(path_bytes), cursor.text(target_bytes)
    is_file = kind == _KINDS.index(FILE)
    if kind >= len(_KINDS) or is_file != (source in (IN_GROUPS, AS_BEFORE)) or source > AS_BEFORE:
        raise _wrong("an entry of unknown kind")
    name = _KINDS[kind]
    if mode > 0o7777 or size > (FILE_BYTES_MAX if is_file else 0) or not is_path(path):
        raise _wrong("an entry that cannot be")
    if uid > ID_MAX or gid > ID_MAX or not -TIME_MAX <= mtime <= TIME_MAX:
        raise _wrong("an entry with an owner or a time that cannot be")
    if (
        has_control(_encoded(target))
        or bool(target) != (name in (LINK, HARD_LINK))
        or (name == HARD_LINK and not is_path(target))
    ):
        raise _wrong("an entry with a bad target")
    digest = cursor.bytes(DIGEST_BYTES) if is_file else NO_DIGEST
    attributes = {"mode": mode, "uid": uid, "gid": gid, "mtime": mtime}
    return Entry(path, name, size=size, digest=digest, target=target, **attributes), source


def _decode_base(cursor: _Cursor, groups: tuple[int, ...], content_bytes: int) -> Base:
    old_files = []
    for _number in range(cursor.count(cursor.take(OLD_FILES)[0], OLD_FILE)):
        size, path_bytes, digest = cursor.take(OLD_FILE)
        path = cursor.text(path_bytes)
        if not is_path(path) or size > FILE_BYTES_MAX:
            raise _wrong("an old file that cannot be")
        old_files.append(OldFile(path, size, digest))
    frames = tuple([_decode_frame(cursor, old_files, length, content_bytes) for length in groups])
    return Base(tuple(old_files), frames)


def _decode_frame(cursor: _Cursor, old_files: list[OldFile], length: int, content_bytes: int) -> Frame:
    offset, size, count = cursor.take(FRAME)
    pieces = tuple([cursor.take(PIECE) for _number in range(cursor.count(count, PIECE))])
    for number, start, piece_bytes in pieces:
        if number >= len(old_files) or start + piece_bytes > old_files[number].size:
            raise _wrong("a piece that its old file does not have")
    total = sum(piece_bytes for _number, _start, piece_bytes in pieces)
    if total > REFERENCE_BYTES_MAX or offset + size > content_bytes or size > 2 * GROUP_BYTES_MAX:
        raise _wrong("a frame beyond its bounds")
    if size == 0 and total != length:
        raise _wrong("a frame that is not its pieces")
    return Frame(offset, size, pieces)


def is_path(path: str) -> bool:
    """As `Entry.path` is, and as a package may have it."""
    try:
        return path != "" and clean(_encoded(path)) == path
    except ArchiveError:
        return False


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _wrong(problem: str) -> TransactionError:
    return TransactionError(f"a delta of the transaction: {problem}", _DAMAGED)


class _Cursor:
    """Reads from the front; what is not there is an error."""

    __slots__ = ("at", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, layout: Struct) -> tuple[Any, ...]:
        return layout.unpack(self.bytes(layout.size))

    def bytes(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.raw):
            raise _wrong("it ends too early")
        found = self.raw[self.at : end]
        self.at = end
        return found

    def text(self, length: int) -> str:
        return self.bytes(length).decode("utf-8", "surrogateescape")

    def count(self, claimed: int, layout: Struct) -> int:
        """``claimed``, if so many things of at least this size can follow."""
        if claimed * layout.size > len(self.raw) - self.at:
            raise _wrong("it ends too early")
        return claimed


def paths_of(base: Base, recipe: Recipe) -> Iterable[tuple[str, int, bytes]]:
    """Every file that the device must have for this old version: path, bytes, digest."""
    for entry in recipe.entries:
        if entry.path in recipe.as_before:
            yield entry.path, entry.size, entry.digest
    for old in base.old_files:
        yield old.path, old.size, old.digest
