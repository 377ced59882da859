"""The container: the header of a ``.ubk`` file as bytes. Layout: docs/SPEC.md, "The bundle".

Everything in the header is length-capped and read in bounded memory. What comes out of
:func:`read_header` is whole but *not believed*: only ``payload.trust.verify`` turns it into a manifest.
"""

from __future__ import annotations

from struct import Struct

from payload.digest import DIGEST_BYTES, digest
from payload.errors import (
    PayloadCorruptError,
    PayloadFormatError,
    PayloadMissingError,
    PayloadTooLargeError,
    PayloadTruncatedError,
    PayloadUnreadableError,
)
from payload.manifest import MANIFEST_BYTES_MAX
from payload.roots import CHAIN_BYTES_MAX, decode_chain, encode_chain
from payload.signatures import SIGNATURE_ENTRY_BYTES, SIGNATURES_MAX, decode_signatures, encode_signatures
from payload.table import ENTRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from payload.roots import Link
    from payload.signatures import Signatures
else:
    Protocol = object

# A high byte and both line ends: what a text-mode copy would change is found at once (as in PNG).
MAGIC = b"\x89UBK\r\n\x1a\n"
FORMAT = 1
# magic, checksum of the rest of the header, format, lengths of manifest, signatures, roots, tables; reserved
PREFIX = Struct(f"<8s{DIGEST_BYTES}sIIIIII")
CHECKED_FROM = len(MAGIC) + DIGEST_BYTES
HEADER_UNIT_BYTES = 4096
TABLES_BYTES_MAX = 16 << 20


class Reader(Protocol):
    """Anything a bundle can be read from: a file, a partition, a region of the disk."""

    @property
    def size(self) -> int:
        """Bytes that are there."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end. Raises ``OSError``."""


def is_far(reader: Reader) -> bool:
    """Whether ``reader`` is behind a network: it wants to be told what will be read (``announce``)."""
    return hasattr(reader, "announce")


class Header:
    """The parts of a header that is whole, none of them believed yet.

    ``raw`` is the header as it stands, a multiple of 4096 bytes: what the slot's header regions keep.
    Frame data begins right behind it, at ``len(raw)``.
    """

    __slots__ = ("manifest_bytes", "raw", "roots", "signatures", "tables")

    def __init__(
        self, raw: bytes, manifest_bytes: bytes, signatures: Signatures, roots: tuple[Link, ...], tables: bytes
    ) -> None:
        self.raw = raw
        self.manifest_bytes = manifest_bytes
        self.signatures = signatures
        self.roots = roots
        self.tables = tables


def read_header(reader: Reader) -> Header:
    """The header at the start of ``reader``, checked for being whole.

    Raises:
        BundleError: there is none, or it is cut short, damaged, too large or of another format.
    """
    prefix = read_exactly(reader, 0, PREFIX.size)
    length = header_length(*_lengths(prefix))
    return decode_header(read_exactly(reader, 0, length))


def decode_header(raw: bytes) -> Header:
    """The header that ``raw`` is, from its first byte to its last. Raises ``BundleError``."""
    if len(raw) < PREFIX.size:
        raise PayloadTruncatedError(f"a header of {len(raw)} bytes")
    lengths = _lengths(raw)
    if len(raw) != header_length(*lengths):
        raise PayloadTruncatedError(f"{len(raw)} bytes of a header of {header_length(*lengths)}")
    if digest(memoryview(raw)[CHECKED_FROM:]) != raw[len(MAGIC) : CHECKED_FROM]:
        raise PayloadCorruptError("the header of the bundle is damaged")
    manifest, signatures, roots, tables, fill = _sections(raw, lengths)
    if any(fill):
        raise PayloadFormatError("the end of the header is not filled with zeroes")
    return Header(raw, manifest, decode_signatures(signatures), decode_chain(roots), tables)


def encode_header(
    manifest_bytes: bytes, signatures: Iterable[tuple[bytes, bytes]], tables: bytes, roots: Iterable[Link] = ()
) -> bytes:
    """The header of these parts: signatures are (key id, signature), tables in the images' order.

    Raises ``BundleError`` for parts that no header may have.
    """
    sections = (manifest_bytes, encode_signatures(signatures), encode_chain(roots), tables)
    lengths = tuple([len(section) for section in sections])
    rest = PREFIX.pack(b"", b"", FORMAT, *lengths, 0)[CHECKED_FROM:] + b"".join(sections)
    rest += bytes(header_length(*lengths) - CHECKED_FROM - len(rest))
    raw = MAGIC + digest(rest) + rest
    decode_header(raw)  # nothing leaves that would not be taken back
    return raw


def header_length(*section_lengths: int) -> int:
    """Bytes of a header with sections of these lengths, filled up to a multiple of 4096."""
    content = PREFIX.size + sum(section_lengths)
    return -(-content // HEADER_UNIT_BYTES) * HEADER_UNIT_BYTES


def read_exactly(reader: Reader, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset``.

    Raises:
        PayloadTruncatedError: there are fewer.
        PayloadUnreadableError: the medium says no.
    """
    if offset + length > reader.size:
        raise PayloadTruncatedError(f"the bundle has {reader.size} bytes and needs {offset + length} or more")
    try:
        data = reader.read(offset, length)
    except OSError as error:
        raise PayloadUnreadableError(f"{length} bytes at {offset} cannot be read: {error}", error) from error
    if len(data) != length:
        raise PayloadTruncatedError(f"the bundle ends at {offset + len(data)} and needs {offset + length}")
    return data


def _lengths(prefix: bytes) -> tuple[int, int, int, int]:
    magic, _checksum, form, manifest, signatures, roots, tables, reserved = PREFIX.unpack_from(prefix)
    if magic != MAGIC:
        raise PayloadMissingError("no bundle starts here")
    if form != FORMAT or reserved != 0:
        raise PayloadFormatError(f"bundle format {form} is not {FORMAT}, the one known here")
    limits = (MANIFEST_BYTES_MAX, SIGNATURES_MAX * SIGNATURE_ENTRY_BYTES, CHAIN_BYTES_MAX, TABLES_BYTES_MAX)
    for length, limit in zip((manifest, signatures, roots, tables), limits, strict=True):
        if length > limit:
            raise PayloadTooLargeError(f"a part of the header has {length} bytes, allowed are {limit}")
    if signatures % SIGNATURE_ENTRY_BYTES or tables % ENTRY.size:
        raise PayloadFormatError("a list in the header has no whole number of entries")
    return manifest, signatures, roots, tables


def _sections(raw: bytes, lengths: tuple[int, ...]) -> list[bytes]:
    """The sections of ``raw``, and what lies behind the last."""
    sections = []
    start = PREFIX.size
    for length in (*lengths, len(raw) - PREFIX.size - sum(lengths)):
        sections.append(raw[start : start + length])
        start += length
    return sections
