"""Decompression piece by piece: gzip, xz and zstd, for what is too large to be held at once.

Memory is bounded whatever the bytes claim. On the device zstd and xz are functions of the built-in C module
``_unbrick`` (libzstd, liblzma), on the build host of :mod:`payload.streams_host`. The length of the content is not
bounded here: whoever reads counts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    class Decoder(Protocol):
        """One stream. ``step`` gives some output, what it did not take of the input, and whether the stream ended."""

        def step(self, data: bytes) -> tuple[bytes, bytes, bool]: ...


OUTPUT_BYTES_MAX = 128 << 10
XZ_MEMORY_BYTES_MAX = 72 << 20  # what `xz -9` needs; `xz -6` needs 9 MiB
ZSTD_WINDOW_LOG_MAX = 26  # 64 MiB; level 19 has 8
GZIP_OR_NOTHING = 31  # zlib's windowBits: a gzip header, 32 KiB of window


def decompress(kind: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The content of one gzip member, xz stream or zstd frame, in pieces; ``plain`` gives the pieces as they are.

    Raises:
        ValueError: the bytes are damaged, end too early, or go on after the end; or want too much memory.
    """
    if kind == "plain":
        yield from pieces
        return
    decoder = DECODERS[kind]()
    ended = False
    for piece in pieces:
        rest, output = piece, b""
        while rest or (len(output) >= OUTPUT_BYTES_MAX and not ended):
            if ended:
                raise ValueError(f"{kind}: bytes after its end")
            before = len(rest)
            output, rest, ended = decoder.step(rest)
            if output:
                yield output
            elif rest and len(rest) == before and not ended:
                raise ValueError(f"{kind}: makes no progress")
    if not ended:
        raise ValueError(f"{kind}: ends too early")


class _Gzip:
    def __init__(self) -> None:
        import zlib

        self._stream = zlib.decompressobj(GZIP_OR_NOTHING)
        self._error = zlib.error

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        try:
            output = self._stream.decompress(data, OUTPUT_BYTES_MAX)
        except self._error as error:
            raise ValueError(f"gzip: {error}") from error
        return output, self._stream.unused_data or self._stream.unconsumed_tail, self._stream.eof


class _Native:
    """A stream of ``_unbrick``."""

    def __init__(self, stream: _unbrick.Stream) -> None:
        self._stream = stream

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        output, taken, ended = self._stream.step(data, OUTPUT_BYTES_MAX)
        return output, data[taken:], ended


DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": _Gzip}
try:
    import _unbrick
except ImportError:
    from payload import streams_host

    DECODERS["xz"] = lambda: streams_host.Xz(OUTPUT_BYTES_MAX, XZ_MEMORY_BYTES_MAX)
    DECODERS["zstd"] = lambda: streams_host.Zstd(ZSTD_WINDOW_LOG_MAX)
else:
    DECODERS["xz"] = lambda: _Native(_unbrick.xz_stream(XZ_MEMORY_BYTES_MAX))
    DECODERS["zstd"] = lambda: _Native(_unbrick.zstd_stream(ZSTD_WINDOW_LOG_MAX))
