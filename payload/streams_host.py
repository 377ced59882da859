"""The libraries behind :mod:`payload.streams` where there is no ``_unbrick``: on the build host, never on a device."""

from __future__ import annotations

import lzma

import zstandard

ZSTD_INPUT_BYTES = 128  # the library does not bound its output; these make at most 4 MiB


class Xz:
    def __init__(self, output_bytes_max: int, memory_bytes_max: int) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memory_bytes_max)
        self._output_bytes_max = output_bytes_max

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """The library keeps what it did not take, so nothing is left before the end."""
        try:
            output = self._stream.decompress(data, self._output_bytes_max)
        except lzma.LZMAError as error:
            raise ValueError(f"xz: {error}") from error
        return output, self._stream.unused_data, self._stream.eof


class Zstd:
    def __init__(self, window_log_max: int) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=1 << window_log_max).decompressobj()

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        try:
            output = self._stream.decompress(data[:ZSTD_INPUT_BYTES])
        except zstandard.ZstdError as error:
            raise ValueError(f"zstd: {error}") from error
        return output, self._stream.unused_data + data[ZSTD_INPUT_BYTES:], self._stream.eof
