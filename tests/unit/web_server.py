"""A web server on loopback that does what a test says: a static one, and the ways in which one can be hostile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType


class Request:
    """A request as it came in; ``range`` is what its Range field asks for, (first, last or None)."""

    def __init__(self, head: bytes, connection: int) -> None:
        lines = head.decode("ascii").split("\r\n")
        self.method, self.target, self.version = lines[0].split(" ")
        self.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        self.connection = connection
        first, _, last = self.fields.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        self.range = (int(first), int(last) if last else None)


Answer = Callable[[socket.socket, Request], bool]
"""Answers one request; whether the connection stays open."""


class WebServer:
    """Answers every request by ``answer``, which a test may replace at any time. ``requests`` keeps them all."""

    def __init__(self, answer: Answer, family: int = socket.AF_INET) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        self._listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
        self.url = f"http://{host}:{self.port}/os.ubk"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> WebServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No more connections, and the open ones end."""
        for place in (self._listener, *self._connections):
            with suppress(OSError):
                place.shutdown(socket.SHUT_RDWR)
            place.close()

    @property
    def ranges(self) -> list[tuple[int, int | None]]:
        return [request.range for request in self.requests]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _address = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(connection)
                number = len(self._connections)
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection:
            stays = True
            while stays:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    more = connection.recv(4096)
                    if not more:
                        return
                    head += more
                request = Request(head[:-4], number)
                self.requests.append(request)
                stays = self.answer(connection, request)


def field_lines(**fields: object) -> bytes:
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()).encode()


def head(status: int, **fields: object) -> bytes:
    return f"HTTP/1.1 {status} Test\r\n".encode() + field_lines(**fields) + b"\r\n"


class StaticFile:
    """A file with ranges, ETag and If-Range, as any web server has it. ``sent`` counts bodies."""

    def __init__(self, content: bytes, etag: str = '"one"') -> None:
        self.content = content
        self.etag = etag
        self.has_ranges = True
        self.sent = 0

    def span(self, request: Request) -> tuple[int, int, bool]:
        """First byte, end, and whether it is a part."""
        first, last = request.range
        is_current = request.fields.get("if-range", self.etag) == self.etag
        if not self.has_ranges or "range" not in request.fields or not is_current:
            return 0, len(self.content), False
        return first, min(len(self.content), len(self.content) if last is None else last + 1), True

    def header(self, request: Request) -> bytes:
        first, end, is_part = self.span(request)
        if is_part and first >= len(self.content):
            return head(416, Content_Length=0, Content_Range=f"bytes */{len(self.content)}")
        if not is_part:
            return head(200, Content_Length=len(self.content), ETag=self.etag)
        span = f"bytes {first}-{end - 1}/{len(self.content)}"
        return head(206, Content_Length=end - first, Content_Range=span, ETag=self.etag)

    def __call__(self, connection: socket.socket, request: Request) -> bool:
        header = self.header(request)
        first, end, _is_part = self.span(request)
        connection.sendall(header)
        if not header.startswith(b"HTTP/1.1 416"):
            self.send(connection, self.content[first:end])
        return True

    def send(self, connection: socket.socket, body: bytes) -> None:
        for start in range(0, len(body), 4096):
            self.sent += len(body[start : start + 4096])  # before the client can have it
            connection.sendall(body[start : start + 4096])


class Breaks(StaticFile):
    """Ends every connection after so many bytes of body."""

    def __init__(self, content: bytes, after: int, times: int = 1 << 30) -> None:
        super().__init__(content)
        self.after = after
        self.times = times

    def __call__(self, connection: socket.socket, request: Request) -> bool:
        first, end, _is_part = self.span(request)
        if self.times == 0 or end - first <= self.after:
            return super().__call__(connection, request)
        self.times -= 1
        connection.sendall(self.header(request))
        self.send(connection, self.content[first : first + self.after])
        return False


def raw(*pieces: bytes, stays: bool = False, repeat: bool = False) -> Answer:
    """Sends exactly these bytes; ``repeat`` the last one for ever."""

    def answer(connection: socket.socket, _request: Request) -> bool:
        for piece in pieces:
            connection.sendall(piece)
        while repeat:
            connection.sendall(pieces[-1])
        return stays

    return answer
