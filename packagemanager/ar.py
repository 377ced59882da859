"""The outer archive of a ``.deb``: the common form of ``ar``, with short names (deb(5), ar(5)).

Only where its members are; nothing of their content is read.
"""

from __future__ import annotations

from packagemanager.errors import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from payload.bundle import Reader

MAGIC = b"!<arch>\n"
HEADER_BYTES = 60
HEADER_END = b"`\n"
NAME_BYTES, SIZE_AT, SIZE_BYTES = 16, 48, 10
MEMBERS_MAX = 16
ADVICE = "the file is damaged or no Debian package: fetch it again"


class Member:
    """``offset`` and ``size`` are of the content, in bytes."""

    __slots__ = ("name", "offset", "size")

    def __init__(self, name: str, offset: int, size: int) -> None:
        self.name = name
        self.offset = offset
        self.size = size


def members(reader: Reader) -> tuple[Member, ...]:
    """Every member in order; all of them lie inside of the file, and nothing is left behind them.

    Raises:
        ArchiveError: not such an archive, or cut off.
        OSError: the file cannot be read.
    """
    if reader.read(0, len(MAGIC)) != MAGIC:
        raise ArchiveError("this is no Debian package: it does not begin as an ar archive", ADVICE)
    found: list[Member] = []
    offset = len(MAGIC)
    while offset < reader.size:
        if len(found) == MEMBERS_MAX:
            raise ArchiveError(f"more than {MEMBERS_MAX} members", ADVICE)
        member = _member(reader.read(offset, HEADER_BYTES), offset + HEADER_BYTES)
        offset = member.offset + member.size
        if offset > reader.size:
            missing_bytes = offset - reader.size
            raise ArchiveError(f"the package is cut off: {missing_bytes} bytes of {member.name} are missing", ADVICE)
        if offset % 2 and offset < reader.size:
            if reader.read(offset, 1) != b"\n":
                raise ArchiveError(f"no line feed stands behind {member.name}", ADVICE)
            offset += 1
        found.append(member)
    return tuple(found)


def _member(header: bytes, offset: int) -> Member:
    if len(header) != HEADER_BYTES or header[-len(HEADER_END) :] != HEADER_END:
        raise ArchiveError(f"no header of a member at byte {offset - HEADER_BYTES}", ADVICE)
    name = header[:NAME_BYTES].rstrip(b" ").removesuffix(b"/")
    size = header[SIZE_AT : SIZE_AT + SIZE_BYTES].rstrip(b" ")
    if not size.isdigit() or not name or not all(0x20 < byte < 0x7F and byte != 0x2F for byte in name):
        raise ArchiveError(f"the header of a member at byte {offset - HEADER_BYTES} has no name or no size", ADVICE)
    return Member(name.decode("ascii"), offset, int(size))
