"""One HTTP/1.1 connection as a client: RFC 9112, only GET, only what fetching ranges of a file needs.

The other side is hostile: lines, fields, headers and chunk sizes are bounded, every wait ends, and a server that
sends less than a few bytes a second is given up. A body is never collected here, it passes through. Nothing is
decided here either: redirects, retries and what bytes are worth are `payload.fetch`'s.

A *stream* is what bytes travel on: a socket with its timeout set, or TLS around one.
"""

from __future__ import annotations

import time

from payload.errors import FetchError, ServerMisbehavesError, ServerStalledError, ServerUnreachableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeVar

    from payload.url import Url

    Given = TypeVar("Given")
    Taken = TypeVar("Taken")

    class Stream(Protocol):
        """``recv`` gives at most that many bytes, none at the end. All raise ``OSError``, ``TimeoutError`` too."""

        def recv(self, length: int, /) -> bytes: ...
        def send(self, data: bytes, /) -> int: ...
        def close(self) -> None: ...


RECEIVE_BYTES_MAX = 64 << 10
LINE_BYTES_MAX = 8 << 10
CHUNK_LINE_BYTES_MAX = 256
HEADER_BYTES_MAX = 32 << 10
FIELDS_MAX = 100
INTERIM_RESPONSES_MAX = 4
LENGTH_DIGITS_MAX = 18
CHUNK_DIGITS_MAX = 15


class Limits:
    """How long a server is waited for. ``silence_seconds`` for the next byte; and while that is waited for, at
    least ``rate_bytes_per_second_min`` must arrive over every ``window_seconds``. Time in which this side
    is busy with something else does not count."""

    __slots__ = ("connect_seconds", "rate_bytes_per_second_min", "silence_seconds", "window_seconds")

    def __init__(
        self,
        *,
        connect_seconds: float = 10.0,
        silence_seconds: float = 20.0,
        window_seconds: float = 30.0,
        rate_bytes_per_second_min: int = 64,
    ) -> None:
        self.connect_seconds = connect_seconds
        self.silence_seconds = silence_seconds
        self.window_seconds = window_seconds
        self.rate_bytes_per_second_min = rate_bytes_per_second_min


class Wire:
    """The bytes of one stream, in pieces and in lines. ``received`` counts all of them."""

    __slots__ = ("_alive", "_buffer", "_limits", "_stream", "_useful_bytes", "_waited_seconds", "received")

    def __init__(self, stream: Stream, limits: Limits, alive: Callable[[], None]) -> None:
        self._stream = stream
        self._limits = limits
        self._alive = alive
        self._buffer = b""
        self._useful_bytes = 0
        self._waited_seconds = 0.0
        self.received = 0

    def send(self, data: bytes) -> None:
        """All of ``data``. Raises ``FetchError``."""
        while data:
            data = data[self._guarded(self._stream.send, data) :]

    def piece(self, length_max: int) -> bytes:
        """At least one byte of a body, none where the stream has ended. Raises ``FetchError``."""
        if not self._buffer:
            self._fill()
        taken, self._buffer = self._buffer[:length_max], self._buffer[length_max:]
        self._useful_bytes += len(taken)
        return taken

    def line(self, bytes_max: int) -> bytes:
        """The next line without its end. Raises ``FetchError``."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > bytes_max:
                raise ServerMisbehavesError(f"a line of more than {bytes_max} bytes")
            if not self._fill():
                raise ServerUnreachableError("the connection ended in the middle of an answer")
        if end > bytes_max:
            raise ServerMisbehavesError(f"a line of more than {bytes_max} bytes")
        found, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return found.removesuffix(b"\r")

    def close(self) -> None:
        self._stream.close()

    def _fill(self) -> bool:
        """Wait for more bytes; whether there are any."""
        started = time.monotonic()
        more = self._guarded(self._stream.recv, RECEIVE_BYTES_MAX)
        self.received += len(more)
        self._buffer += more
        self._waited_seconds += time.monotonic() - started
        if self._waited_seconds > self._limits.window_seconds:
            if self._useful_bytes < self._limits.window_seconds * self._limits.rate_bytes_per_second_min:
                raise ServerStalledError(f"{self._useful_bytes} bytes in {self._waited_seconds:.0f} s")
            self._waited_seconds, self._useful_bytes = 0.0, 0
        return bool(more)

    def _guarded(self, act: Callable[[Given], Taken], argument: Given) -> Taken:
        self._alive()
        try:
            return act(argument)
        except FetchError:
            raise
        except TimeoutError as error:
            raise ServerStalledError(f"nothing for {self._limits.silence_seconds:.0f} s") from error
        except OSError as error:
            raise ServerUnreachableError(f"the connection broke: {error}") from error


class Response:
    """The answer to a request, its body still on its way.

    ``fields`` have names in lower case. ``length`` is the body's, None where only its end will tell.
    """

    __slots__ = ("_body", "fields", "is_persistent", "length", "status")

    def __init__(self, status: int, fields: dict[str, str], body: Body, is_persistent: bool) -> None:
        self.status = status
        self.fields = fields
        self.length = body.length
        self.is_persistent = is_persistent
        self._body = body

    def piece(self, length_max: int) -> bytes:
        """At least one byte, none at the end. Raises ``FetchError``, also where the body is cut short."""
        return self._body.piece(length_max)

    @property
    def is_over(self) -> bool:
        """The body was read to its end: another request may follow."""
        return self._body.is_over


def request(wire: Wire, url: Url, first: int, last: int | None, validator: str) -> Response:
    """GET the bytes ``first`` to ``last`` (inclusive; None: to the end) of ``url``, and the answer's header.

    With ``validator`` (an ETag or a date) the server is asked for the whole file should it have changed.
    Raises ``FetchError``.
    """
    lines = [f"GET {url.target} HTTP/1.1", f"Host: {url.authority}", "User-Agent: unbrick", "Accept: */*"]
    lines += ["Accept-Encoding: identity", f"Range: bytes={first}-{'' if last is None else last}"]
    if validator:
        lines.append(f"If-Range: {validator}")
    wire.send("\r\n".join([*lines, "", ""]).encode("ascii"))
    for _interim in range(INTERIM_RESPONSES_MAX):
        version, status = _status(wire.line(LINE_BYTES_MAX))
        fields = _fields(wire)
        if status >= 200:
            return Response(status, fields, _body(wire, status, fields), _is_persistent(version, fields))
    raise ServerMisbehavesError(f"{INTERIM_RESPONSES_MAX} interim answers and no final one")


def _status(line: bytes) -> tuple[bytes, int]:
    version, _, rest = line.partition(b" ")
    code, space = rest[:3], rest[3:4]
    is_code = len(code) == 3 and code.isdigit() and space in (b"", b" ")
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or not is_code:
        raise ServerMisbehavesError(f"not an answer of HTTP/1.1: {line[:40]!r}")
    return version, int(code)


def _fields(wire: Wire) -> dict[str, str]:
    """Up to the empty line. What is there twice is joined, as RFC 9110, section 5.3 has it."""
    fields: dict[str, str] = {}
    room = HEADER_BYTES_MAX
    for _count in range(FIELDS_MAX + 1):
        line = wire.line(min(LINE_BYTES_MAX, room))
        room -= len(line)
        if not line:
            return fields
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        # No white space around a name: what other programs read differently is how answers are smuggled.
        if not colon or not key.isascii() or not key.replace("-", "").replace("_", "").isalnum():
            raise ServerMisbehavesError(f"not a header field: {line[:40]!r}")
        text = value.decode("latin-1").strip(" \t")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    raise ServerMisbehavesError(f"more than {FIELDS_MAX} header fields")


def _is_persistent(version: bytes, fields: dict[str, str]) -> bool:
    options = [option.strip().lower() for option in fields.get("connection", "").split(",")]
    return version == b"HTTP/1.1" and "close" not in options


def _body(wire: Wire, status: int, fields: dict[str, str]) -> Body:
    """How the body's end is known: RFC 9112, section 6.3."""
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise ServerMisbehavesError(f"encoded as {fields['content-encoding'][:40]!r}, which nobody asked for")
    if status in (204, 304):
        return _Counted(wire, 0)
    if "transfer-encoding" in fields:
        if fields["transfer-encoding"].lower() != "chunked" or "content-length" in fields:
            raise ServerMisbehavesError("an answer whose length cannot be known")
        return _Chunked(wire)
    if "content-length" in fields:
        return _Counted(wire, number(fields["content-length"]))
    return _UntilEnd(wire)


def number(text: str) -> int:
    """A count of bytes. Raises ``ServerMisbehavesError``."""
    if not text.isascii() or not text.isdigit() or len(text) > LENGTH_DIGITS_MAX:
        raise ServerMisbehavesError(f"not a number of bytes: {text[:40]!r}")
    return int(text)


class _Counted:
    """A body of a known length."""

    __slots__ = ("_left", "_wire", "length")

    def __init__(self, wire: Wire, length: int) -> None:
        self._wire = wire
        self._left = length
        self.length: int | None = length

    @property
    def is_over(self) -> bool:
        return self._left == 0

    def piece(self, length_max: int) -> bytes:
        if self._left == 0:
            return b""
        data = self._wire.piece(min(length_max, self._left))
        if not data:
            raise ServerUnreachableError(f"the connection ended {self._left} bytes too early")
        self._left -= len(data)
        return data


class _UntilEnd:
    """A body that lasts until the connection ends. Whether it was cut short cannot be seen here."""

    __slots__ = ("_wire", "length")

    is_over = False

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.length: int | None = None

    def piece(self, length_max: int) -> bytes:
        return self._wire.piece(length_max)


class _Chunked:
    """RFC 9112, section 7.1. Chunks may be as many as they like: the minimal rate counts what is in them."""

    __slots__ = ("_chunk", "_wire", "is_over", "length")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._chunk: _Counted | None = None
        self.is_over = False
        self.length: int | None = None

    def piece(self, length_max: int) -> bytes:
        if self.is_over:
            return b""
        if self._chunk is None:
            size = self._chunk_size()
            if size == 0:
                _fields(self._wire)  # trailers, of no interest
                self.is_over = True
                return b""
            self._chunk = _Counted(self._wire, size)
        data = self._chunk.piece(length_max)
        if self._chunk.is_over:
            self._chunk = None
            if self._wire.line(CHUNK_LINE_BYTES_MAX):
                raise ServerMisbehavesError("a chunk is longer than it says")
        return data

    def _chunk_size(self) -> int:
        text = self._wire.line(CHUNK_LINE_BYTES_MAX).partition(b";")[0].rstrip(b" \t")
        if not text or len(text) > CHUNK_DIGITS_MAX or text.strip(b"0123456789abcdefABCDEF"):
            raise ServerMisbehavesError(f"not a chunk's size: {text[:40]!r}")
        return int(text, 16)


if TYPE_CHECKING:
    Body = _Counted | _UntilEnd | _Chunked
