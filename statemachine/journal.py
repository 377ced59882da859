"""One record of the journal: its bytes, and nothing else. The layout is ``docs/SPEC.md``.

A record is a full snapshot of the device's state, as opaque bytes. This module knows neither what the
body means nor where records lie; it does not read or write any medium.
"""

from __future__ import annotations

from _blake2 import blake2b
from _struct import Struct

TYPE_CHECKING = False  # the ordinary boot does not pay for `import typing`
if TYPE_CHECKING:
    from typing import Final

MAGIC: Final = b"UNBRKJNL"
GAP_MAGIC: Final = b"UNBRKGAP"
FORMAT: Final = 1
# magic, format, record bytes, body bytes, reserved, identity, term, sequence, digest of the previous
HEADER: Final = Struct("<8sIIII16sQQ32s")
DIGEST_BYTES: Final = 32
IDENTITY_BYTES: Final = 16
RECORD_BYTES_MIN: Final = 4096
RECORD_BYTES_MAX: Final = 65536
POSITION_MAX: Final = 1 << 62  # of a term and of a sequence: their successors still fit their field
NO_PREVIOUS: Final = bytes(DIGEST_BYTES)

_ZEROES: Final = bytes(RECORD_BYTES_MAX)
_ONES: Final = b"\xff" * RECORD_BYTES_MAX


class Record:
    """A decoded record. ``raw`` is the whole of its bytes, ``digest`` their last 32."""

    __slots__ = ("body", "digest", "identity", "previous", "raw", "sequence", "term")

    def __init__(self, identity: bytes, term: int, sequence: int, previous: bytes, body: bytes, raw: bytes) -> None:
        self.identity = identity
        self.term = term
        self.sequence = sequence
        self.previous = previous
        self.body = body
        self.raw = raw
        self.digest = raw[-DIGEST_BYTES:]


def body_bytes_max(record_bytes: int) -> int:
    """The longest body that fits a record."""
    return record_bytes - HEADER.size - DIGEST_BYTES


def encode(record_bytes: int, identity: bytes, term: int, sequence: int, previous: bytes, body: bytes) -> bytes:
    """The ``record_bytes`` bytes of a record.

    Raises:
        ValueError: a field is out of its bounds, so that `decode` would refuse the result.
    """
    if not RECORD_BYTES_MIN <= record_bytes <= RECORD_BYTES_MAX:
        raise ValueError(f"a record has {RECORD_BYTES_MIN} to {RECORD_BYTES_MAX} bytes, not {record_bytes}")
    if len(identity) != IDENTITY_BYTES or len(previous) != DIGEST_BYTES:
        raise ValueError("the identity has 16 bytes and the previous digest 32")
    if not (0 < term < POSITION_MAX and 0 <= sequence < POSITION_MAX):
        raise ValueError(f"term {term} or sequence {sequence} out of bounds")
    if len(body) > body_bytes_max(record_bytes):
        raise ValueError(f"a body has at most {body_bytes_max(record_bytes)} bytes, not {len(body)}")
    header = HEADER.pack(MAGIC, FORMAT, record_bytes, len(body), 0, identity, term, sequence, previous)
    content = (header + body).ljust(record_bytes - DIGEST_BYTES, b"\0")
    return content + blake2b(content, digest_size=DIGEST_BYTES).digest()


def decode(raw: bytes) -> tuple[Record | None, str]:
    """The record that these bytes are, or None, and one word that says why.

    The words: ``valid``, ``length`` (no record has as many bytes), ``blank`` (never written: all 0x00
    or all 0xFF), ``gap`` (a repair found this record lost in every copy), ``magic``, ``format``,
    ``size`` (made for another record size), ``digest``, ``fields`` (the digest is right and a field is
    out of its bounds). Any bytes are welcome; never raises.
    """
    if not RECORD_BYTES_MIN <= len(raw) <= RECORD_BYTES_MAX:
        return None, "length"
    if raw[:8] != MAGIC:
        return None, _without_magic(raw)
    _, format_, size, body_bytes, reserved, identity, term, sequence, previous = HEADER.unpack_from(raw)
    if format_ != FORMAT:
        return None, "format"
    if size != len(raw):
        return None, "size"
    if blake2b(memoryview(raw)[:-DIGEST_BYTES], digest_size=DIGEST_BYTES).digest() != raw[-DIGEST_BYTES:]:
        return None, "digest"
    end = HEADER.size + body_bytes
    if (
        reserved != 0
        or body_bytes > body_bytes_max(size)
        or not 0 < term < POSITION_MAX
        or sequence >= POSITION_MAX
        or raw[end:-DIGEST_BYTES].strip(b"\0")
    ):
        return None, "fields"
    return Record(identity, term, sequence, previous, raw[HEADER.size : end], raw), "valid"


def header_sequence(start: bytes, record_bytes: int, identity: bytes) -> int:
    """The sequence that a record's first bytes claim, unproven by any digest.

    -1: these are not the first bytes of a record of this size and device.
    """
    magic, format_, size, _, _, owner, _, sequence, _ = HEADER.unpack_from(start)
    if magic != MAGIC or format_ != FORMAT or size != record_bytes or owner != identity:
        return -1
    return sequence if sequence < POSITION_MAX else -1


def is_blank(raw: bytes) -> bool:
    """Whether nothing was ever written here: all 0x00, or all 0xFF (erased flash)."""
    return _ZEROES.startswith(raw) or _ONES.startswith(raw)


def gap(record_bytes: int) -> bytes:
    """What a repair writes where a record is lost in every copy.

    Not blank: a blank slot would look like the end of the journal to a bisection in the first lap.
    """
    return GAP_MAGIC.ljust(record_bytes, b"\0")


def _without_magic(raw: bytes) -> str:
    if is_blank(raw):
        return "blank"
    return "gap" if raw == gap(len(raw)) else "magic"
