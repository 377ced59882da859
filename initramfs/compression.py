"""The compressions of an image that the kernel can undo, in both directions.

Compressing depends on the bytes alone: one thread, no time, no file name. Decompressing is bounded:
the inputs are files that anybody may have made.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zstandard

from initramfs.errors import BuildError

UNPACKED_BYTES_MAX = 1024 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
ZSTD_LEVEL = 19
ZSTD_WINDOW_LOG_MAX = 24  # 16 MiB: 6 % smaller than 8 MiB. The kernel allocates it while it unpacks.
ZSTD_WINDOW_BYTES_READ_MAX = 128 * 1024 * 1024
XZ_DICTIONARY_BYTES = 8 * 1024 * 1024
XZ_MEMORY_BYTES_MAX = 256 * 1024 * 1024
GZIP_LEVEL = 9


class DamagedImage(BuildError):  # noqa: N818 - what it is, not that it is an error
    """A file that should be an image is cut short, changed, or something else."""


class _Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


@dataclass(frozen=True)
class Compression:
    """``unpack`` returns the bytes of the first stream and what follows it in the file."""

    name: str
    magic: bytes
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], tuple[bytes, bytes]]


def compress(data: bytes, name: str) -> bytes:
    return BY_NAME[name].pack(data)


def settings(name: str) -> str:
    """What besides the bytes decides the result: another library version may compress differently."""
    versions = {"zstd": zstandard.ZSTD_VERSION, "gz": zlib.ZLIB_RUNTIME_VERSION}
    levels = {"zstd": (ZSTD_LEVEL, ZSTD_WINDOW_LOG_MAX), "xz": XZ_DICTIONARY_BYTES, "gz": GZIP_LEVEL}
    return f"{name} {levels.get(name, '')} {versions.get(name, '')}"


def decompress(data: bytes) -> tuple[bytes, bytes, str]:
    """Content of the stream ``data`` begins with, the bytes after it, and the compression's name.

    Raises:
        DamagedImage: unknown magic, damaged, cut short, or larger than ``UNPACKED_BYTES_MAX``.
    """
    for compression in BY_NAME.values():
        if compression.magic and data.startswith(compression.magic):
            try:
                content, rest = compression.unpack(data)
            except (zstandard.ZstdError, lzma.LZMAError, zlib.error, EOFError, MemoryError) as error:
                raise DamagedImage(f"the {compression.name} stream is damaged: {error}") from error
            return content, rest, compression.name
    raise DamagedImage(f"begins with {data[:6].hex(' ')}, which is no archive and no known compression")


def _zstd(data: bytes) -> bytes:
    """Level and window by measurement (docs/adr/0010-image-compression.md); the checksum shows damage."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        source_size=len(data),
        window_log=min(ZSTD_WINDOW_LOG_MAX, max(10, (len(data) - 1).bit_length())),
        write_checksum=1,
        threads=0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _zstd_unpack(data: bytes) -> tuple[bytes, bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_READ_MAX).decompressobj()
    unpacked = io.BytesIO()
    for offset in range(0, len(data), CHUNK_BYTES):
        unpacked.write(decompressor.decompress(data[offset : offset + CHUNK_BYTES]))
        _check_size(unpacked.tell())
        if decompressor.eof:
            rest = decompressor.unused_data + data[offset + CHUNK_BYTES :]
            return unpacked.getvalue(), rest
    raise EOFError("it ends early")


def _unpack(decompressor: _Decompressor, data: bytes) -> tuple[bytes, bytes]:
    unpacked = io.BytesIO()
    pending = data
    while not decompressor.eof:
        chunk = decompressor.decompress(pending, CHUNK_BYTES)
        pending = getattr(decompressor, "unconsumed_tail", b"")
        if not chunk and not pending and not decompressor.eof:
            raise EOFError("it ends early")
        unpacked.write(chunk)
        _check_size(unpacked.tell())
    return unpacked.getvalue(), decompressor.unused_data


def _xz(data: bytes) -> bytes:
    """CRC32, because the kernel knows no other check and panics."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": XZ_DICTIONARY_BYTES}]
    return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)


def _xz_unpack(data: bytes) -> tuple[bytes, bytes]:
    return _unpack(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES_MAX), data)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, GZIP_LEVEL, mtime=0)


def _gzip_unpack(data: bytes) -> tuple[bytes, bytes]:
    return _unpack(zlib.decompressobj(wbits=31), data)


def _check_size(size_bytes: int) -> None:
    if size_bytes > UNPACKED_BYTES_MAX:
        raise DamagedImage(f"unpacks to more than {UNPACKED_BYTES_MAX} bytes")


BY_NAME = {
    compression.name: compression
    for compression in (
        Compression("zstd", b"\x28\xb5\x2f\xfd", _zstd, _zstd_unpack),
        Compression("xz", b"\xfd7zXZ\0", _xz, _xz_unpack),
        Compression("gz", b"\x1f\x8b", _gzip, _gzip_unpack),
        Compression("none", b"", bytes, lambda data: (data, b"")),
    )
}
