"""The frame table of one image: where each frame is stored and which bytes it must be.

A frame is the unit of verification, repair and resume. The table stays packed (48 bytes a frame):
a 2 GiB image needs 384 KiB. Bytes: docs/SPEC.md, "The bundle". No I/O here.
"""

from __future__ import annotations

from struct import Struct

from payload.digest import DIGEST_BYTES
from payload.errors import PayloadFormatError

ZERO, RAW, ZSTD = 0, 1, 2

# stored offset, stored length, kind, three zero bytes, digest of the plain frame
ENTRY = Struct(f"<QIB3s{DIGEST_BYTES}s")
FRAME_BYTES_MIN = 4096
FRAME_BYTES_MAX = 4 << 20
FRAME_BYTES_DEFAULT = 256 << 10
IMAGE_UNIT_BYTES = 4096
STORED_OFFSET_MAX = 1 << 62


def frame_count(image_bytes: int, frame_bytes: int) -> int:
    """How many frames an image has; the last may be shorter."""
    return -(-image_bytes // frame_bytes)


class Frame:
    """One entry. ``offset`` counts from the end of the header; lengths are bytes."""

    __slots__ = ("digest", "kind", "offset", "plain_length", "stored_length")

    def __init__(self, kind: int, offset: int, stored_length: int, plain_length: int, digest: bytes) -> None:
        self.kind = kind
        self.offset = offset
        self.stored_length = stored_length
        self.plain_length = plain_length
        self.digest = digest

    def encode(self) -> bytes:
        """The 48 bytes of this entry."""
        return ENTRY.pack(self.offset, self.stored_length, self.kind, bytes(3), self.digest)


class FrameTable:
    """The packed table of an image of ``image_bytes`` in frames of ``frame_bytes``.

    Raises:
        PayloadFormatError: an entry says what no bundle may say. Signed nonsense is refused as a
            whole, before the first frame is touched.
    """

    __slots__ = ("_entries", "frame_bytes", "image_bytes")

    def __init__(self, image_bytes: int, frame_bytes: int, entries: bytes) -> None:
        self.image_bytes = image_bytes
        self.frame_bytes = frame_bytes
        self._entries = entries
        if len(entries) != frame_count(image_bytes, frame_bytes) * ENTRY.size:
            raise PayloadFormatError(f"a frame table of {len(entries)} bytes does not fit its image")
        for index in range(len(self)):
            self._check(index)

    def __len__(self) -> int:
        return len(self._entries) // ENTRY.size

    def __getitem__(self, index: int) -> Frame:
        offset, stored_length, kind, _padding, digest = ENTRY.unpack_from(self._entries, index * ENTRY.size)
        return Frame(kind, offset, stored_length, self._plain_length(index), digest)

    def position(self, index: int) -> int:
        """Where frame ``index`` begins in the image, in bytes."""
        return index * self.frame_bytes

    def stored_end(self) -> int:
        """Where the last stored frame ends, counted from the end of the header."""
        return max((frame.offset + frame.stored_length for frame in map(self.__getitem__, range(len(self)))), default=0)

    def _plain_length(self, index: int) -> int:
        return min(self.frame_bytes, self.image_bytes - index * self.frame_bytes)

    def _check(self, index: int) -> None:
        frame = self[index]
        allowed = _STORED_LENGTHS.get(frame.kind)
        if allowed is None:
            raise PayloadFormatError(f"frame {index} is stored as unknown kind {frame.kind}")
        if frame.stored_length not in allowed(frame.plain_length):
            raise PayloadFormatError(f"frame {index} has a stored length of {frame.stored_length} bytes")
        if frame.offset > (STORED_OFFSET_MAX if frame.stored_length else 0):
            raise PayloadFormatError(f"frame {index} is stored at {frame.offset}")
        if frame.encode() != self._entries[index * ENTRY.size : (index + 1) * ENTRY.size]:
            raise PayloadFormatError(f"frame {index} has non-zero padding")


# kind -> the stored lengths it may have for a plain length
_STORED_LENGTHS = {
    ZERO: lambda plain: range(1),
    RAW: lambda plain: range(plain, plain + 1),
    ZSTD: lambda plain: range(1, plain),
}
