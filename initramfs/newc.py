"""Reading an initramfs, independently of what wrote it: cpio "newc", compressed or not, concatenated.

Written from the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Every number is
checked against the bytes that are there; any input gives a list of members or :class:`DamagedImage`.
It keeps what the archive says, and does not unpack to a disk.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass

from initramfs.compression import DamagedImage, decompress

MAGICS = (b"070701", b"070702")  # 070702 carries a checksum, which the kernel ignores since 2.6
HEADER = re.compile(rb"(07070[12])([0-9A-Fa-f]{104})")
HEADER_BYTES = 110
ZEROES = re.compile(rb"\0+")
TRAILER = "TRAILER!!!"
NAME_BYTES_MAX = 4096
MEMBERS_MAX = 65_536
SEGMENTS_MAX = 16


@dataclass(frozen=True)
class Member:
    """One header of the archive, its name and its content. ``data`` is a symbolic link's target."""

    path: str
    mode: int
    uid: int
    gid: int
    links: int
    time_seconds: int
    inode: int
    device: tuple[int, int]
    data: bytes

    @property
    def format_bits(self) -> int:
        return stat.S_IFMT(self.mode)


@dataclass(frozen=True)
class Contents:
    """What a file holds: the members of all its segments in order, and how it was compressed."""

    members: tuple[Member, ...]
    compression: str
    unpacked_bytes: int


def read(image: bytes) -> Contents:
    """Every member of ``image``.

    Raises:
        DamagedImage: it is no initramfs, or is damaged; the offset is named.
    """
    members: list[Member] = []
    compressions: list[str] = []
    unpacked_bytes = 0
    rest = image
    for _segment in range(SEGMENTS_MAX):
        rest = rest.lstrip(b"\0")
        if not rest:
            break
        if rest.startswith(MAGICS):
            end = _read_segment(rest, 0, members)
            compressions.append("none")
            unpacked_bytes += end
            rest = rest[end:]
        else:
            content, rest, name = decompress(rest)
            _read_all(content, members)
            compressions.append(name)
            unpacked_bytes += len(content)
    else:
        raise DamagedImage(f"has more than {SEGMENTS_MAX} segments")
    if not compressions:
        raise DamagedImage("is empty")
    return Contents(tuple(members), "+".join(compressions), unpacked_bytes)


def _read_all(content: bytes, members: list[Member]) -> None:
    """The archives inside one compressed stream. Nothing but zeroes may follow the last one."""
    offset = 0
    while offset < len(content):
        if content[offset]:
            offset = _read_segment(content, offset, members)
        elif zeroes := ZEROES.match(content, offset):
            offset = zeroes.end()


def _read_segment(data: bytes, offset: int, members: list[Member]) -> int:
    """Append the members of the archive at ``offset``; returns where it ends."""
    while True:
        member, offset = _read_member(data, offset)
        if member.path == TRAILER:
            return offset
        if len(members) == MEMBERS_MAX:
            raise DamagedImage(f"has more than {MEMBERS_MAX} entries")
        members.append(member)


def _read_member(data: bytes, offset: int) -> tuple[Member, int]:
    header = HEADER.match(data, offset)
    if not header:
        raise DamagedImage(f"no entry where one should begin, at byte {offset} of the unpacked archive")
    numbers = [int(header[2][index : index + 8], 16) for index in range(0, 104, 8)]
    inode, mode, uid, gid, links, time_seconds, size, _, _, major, minor, name_size, _ = numbers
    name_end = offset + HEADER_BYTES + name_size
    if not 1 < name_size <= NAME_BYTES_MAX or data[name_end - 1 : name_end] != b"\0":
        raise DamagedImage(f"an entry's name is damaged, at byte {offset} of the unpacked archive")
    name = data[offset + HEADER_BYTES : name_end - 1]
    begin = _aligned(name_end)
    end = begin + size
    if end > len(data):
        raise DamagedImage(f"{name!r} should have {size} bytes, and the archive ends before")
    member = Member(
        name.decode("utf-8", "surrogateescape"),
        mode, uid, gid, links, time_seconds, inode, (major, minor), data[begin:end],
    )  # fmt: skip
    return member, _aligned(end)


def _aligned(offset: int) -> int:
    return (offset + 3) & ~3
