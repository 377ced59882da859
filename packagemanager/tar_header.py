"""One header of a tar archive: 512 bytes, and the extensions that stand in front of it (tar(5), POSIX pax).

Numbers are octal, or binary as GNU tar writes large ones; never negative.
"""

from __future__ import annotations

from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK
from packagemanager.errors import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Extras = dict[str, bytes]

BLOCK_BYTES = 512
CHECKSUM_AT, CHECKSUM_END = 148, 156
SIZE_MAX = 1 << 40
ID_MAX = 2**32 - 2  # the last one means "no owner" to the kernel
TIME_MAX = 2**34 - 1  # seconds since 1970: the end of what ext4 keeps
MODE_BITS = 0o7777
PAX_DIGITS_MAX = 20
POSIX, GNU = b"ustar\x0000", b"ustar  \x00"

KINDS = {
    b"0": FILE, b"\0": FILE, b"1": HARD_LINK, b"2": LINK, b"5": DIRECTORY, b"3": "a character device",
    b"4": "a block device", b"6": "a pipe", b"7": "a contiguous file", b"S": "a sparse file",
    b"g": "a header for all entries", b"M": "a part of another archive", b"D": "a list of a folder", b"V": "a label",
}  # fmt: skip
EXTENSIONS = {b"L": "path", b"K": "linkpath", b"x": ""}  # GNU's long name, its long target; pax
# Of pax. Numbers with their bounds; what only describes is passed over.
NUMBERS = {"size": SIZE_MAX, "uid": ID_MAX, "gid": ID_MAX, "mtime": TIME_MAX}
TEXTS = ("path", "linkpath", "uname", "gname")
PASSED_OVER = ("atime", "ctime", "comment")


class Header:
    """``path`` and ``target`` are as written; ``user`` and ``group`` are names, or nothing."""

    __slots__ = ("flag", "gid", "group", "mode", "mtime", "path", "size", "target", "uid", "user")

    def __init__(self, block: bytes) -> None:
        """Raises ``ArchiveError`` for a block that is damaged or of another format."""
        total = sum(block) - sum(block[CHECKSUM_AT:CHECKSUM_END]) + 0x20 * (CHECKSUM_END - CHECKSUM_AT)
        if _number(block[CHECKSUM_AT:CHECKSUM_END], 1 << 24, "checksum") != total:
            raise _damaged("a header has another checksum than it says")
        magic = block[257:265]
        if magic not in (POSIX, GNU):
            raise _damaged("a header is neither of POSIX nor of GNU tar")
        self.flag = block[156:157]
        self.path = _text(block[:100])
        prefix = _text(block[345:500]) if magic == POSIX else b""
        if prefix:
            self.path = prefix + b"/" + self.path
        self.target = _text(block[157:257])
        self.mode = _number(block[100:108], 1 << 24, "mode") & MODE_BITS
        self.uid = _number(block[108:116], ID_MAX, "owner")
        self.gid = _number(block[116:124], ID_MAX, "group")
        self.size = _number(block[124:136], SIZE_MAX, "size")
        self.mtime = _number(block[136:148], TIME_MAX, "time")
        self.user = _text(block[265:297])
        self.group = _text(block[297:329])

    def apply(self, extras: Extras) -> None:
        """Put what the extensions say in the place of what the header says."""
        self.path = extras.get("path", self.path)
        self.target = extras.get("linkpath", self.target)
        self.user = extras.get("uname", self.user)
        self.group = extras.get("gname", self.group)
        self.size = _pax_number(extras, "size", self.size)
        self.uid = _pax_number(extras, "uid", self.uid)
        self.gid = _pax_number(extras, "gid", self.gid)
        self.mtime = _pax_number(extras, "mtime", self.mtime)


def read_extension(header: Header, content: bytes, extras: Extras) -> None:
    """Add what an extension says of the next entry. Raises ``ArchiveError``."""
    key = EXTENSIONS[header.flag]
    if key:
        _add(extras, key, content.removesuffix(b"\0"))
        return
    while content:
        length, space, _ = content.partition(b" ")
        end = int(length) if space and 0 < len(length) <= PAX_DIGITS_MAX and length.isdigit() else 0
        record = content[len(length) + 1 : end]
        name, equal, value = record.removesuffix(b"\n").partition(b"=")
        if not (equal and record.endswith(b"\n") and end <= len(content)):
            raise _damaged("a pax header does not read")
        keyword = name.decode("ascii", "replace")
        if keyword not in PASSED_OVER:
            if keyword not in TEXTS and keyword not in NUMBERS:
                raise _damaged(f"a pax header has {keyword[:64]!r}, which is not supported")
            _add(extras, keyword, value)
        content = content[end:]


def _add(extras: Extras, key: str, value: bytes) -> None:
    if key in extras or b"\0" in value:
        raise _damaged(f"{key} is said twice, or has a zero in it")
    extras[key] = value


def _pax_number(extras: Extras, key: str, otherwise: int) -> int:
    """A decimal number; parts of a second are cut off."""
    if key not in extras:
        return otherwise
    whole, point, part = extras[key].partition(b".")
    right = whole.isdigit() and len(whole) <= PAX_DIGITS_MAX and (key == "mtime" or not point)
    if not right or (point and not part.isdigit()) or int(whole) > NUMBERS[key]:
        raise _damaged(f"{key} is {extras[key][:40]!r}")
    return int(whole)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, largest: int, name: str) -> int:
    """An empty field is 0."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            raise _damaged(f"a {name} that is no number, or negative: {field!r}")
        value = int(digits or b"0", 8)
    if value > largest:
        raise _damaged(f"a {name} of {value}")
    return value


def _damaged(problem: str) -> ArchiveError:
    return ArchiveError(f"the archive is refused: {problem}", "the package is damaged: fetch or build it again")
