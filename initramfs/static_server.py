"""A web server of plain files for a bench or a workshop: HTTP/1.1 as RFC 9110 and 9112 have it, GET and HEAD.

Ranges (one in a request; several are answered with the whole file, which is allowed), If-Range, If-None-Match, entity
tags, kept connections. Bounded: connections, seconds of silence, length of a request. It serves files below one
folder or one single file, follows no link out of it and shows no hidden name. No TLS, no log-in, no logs.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote, unquote, urlsplit

from initramfs.errors import BuildError

CONNECTIONS_MAX = 32
SILENCE_SECONDS_MAX = 60
POLL_SECONDS = 0.1
FILES_LISTED_MAX = 1000
POSITION_DIGITS_MAX = 18
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


class StaticServer:
    """Listens once it is made; :meth:`run` answers until :meth:`stop` or Ctrl-C.

    Raises:
        BuildError: ``path`` is not there, or ``address`` and ``port`` cannot be listened on.
    """

    def __init__(self, path: Path, address: str = "", port: int = 0) -> None:
        if not path.exists():
            raise BuildError(f"{path}: No such file or directory", "Name a bundle or a folder of bundles.")
        self._path = path.resolve()
        self._address = address
        try:
            self._http = _listening(address, port, self._path)
        except OSError as error:
            hint = "Name a free one with --port N; --port 0 takes any." if error.errno == errno.EADDRINUSE else ""
            told = f"{address or 'all addresses'}, port {port}: {error.strerror or error}"
            raise BuildError(told, hint or "Name an address of this host with --address.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.server_close()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def urls(self) -> list[str]:
        """Where the file, or the folder, is to be found."""
        name = quote(self._path.name) if self._path.is_file() else ""
        hosts = [self._address] if self._address else _own_addresses()
        return [f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{name}" for host in hosts]

    def files(self) -> list[str]:
        """The paths that are served, at most FILES_LISTED_MAX of them."""
        return [f"/{quote(path)}" for _number, path in zip(range(FILES_LISTED_MAX), _served(self._path), strict=False)]

    def run(self) -> None:
        with suppress(KeyboardInterrupt):  # how a person ends it
            self._http.serve_forever(poll_interval=POLL_SECONDS)

    def stop(self) -> None:
        """End :meth:`run`, from another thread."""
        self._http.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], root: Path) -> None:
        self.address_family = family
        self.root = root
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "unbrick"
    sys_version = ""
    disable_nagle_algorithm = True  # a header and a body are two writes: without it each waits for an answer
    timeout = SILENCE_SECONDS_MAX
    wbufsize = -1

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *values: object) -> None:
        """No logs."""

    def _answer(self, *, with_body: bool) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that nobody reads must not pass for the next request
        path = _file_of(self.server.root, self.path)
        try:
            file = path.open("rb") if path else None
        except OSError:
            file = None
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(file, with_body)

    def _send(self, file: BinaryIO, with_body: bool) -> None:
        found = os.fstat(file.fileno())
        tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        modified = formatdate(found.st_mtime, usegmt=True)
        if self.headers.get("If-None-Match") in (tag, "*"):
            self._head(HTTPStatus.NOT_MODIFIED, {"ETag": tag})
            return
        wanted = self.headers.get("Range", "") if self.headers.get("If-Range", tag) in (tag, modified) else ""
        part = part_of(wanted, found.st_size)
        fields = {"ETag": tag, "Last-Modified": modified, "Accept-Ranges": "bytes"}
        if part == UNSATISFIABLE:
            fields |= {"Content-Range": f"bytes */{found.st_size}", "Content-Length": "0"}
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, fields)
            return
        status = HTTPStatus.OK
        first, end = part or (0, found.st_size)
        if part:
            status = HTTPStatus.PARTIAL_CONTENT
            fields["Content-Range"] = f"bytes {first}-{end - 1}/{found.st_size}"
        fields |= {"Content-Type": "application/octet-stream", "Content-Length": str(end - first)}
        self._head(status, fields)
        if with_body:
            self._body(file, first, end)

    def _head(self, status: HTTPStatus, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, file: BinaryIO, first: int, end: int) -> None:
        self.wfile.flush()
        sent = self.connection.sendfile(file, first, end - first) if end > first else 0
        self.close_connection = self.close_connection or sent != end - first  # the file became shorter


UNSATISFIABLE = (-1, -1)


def part_of(wanted: str, size: int) -> tuple[int, int] | None:
    """The first byte and the end of a ``Range``; None: all of it, as for what is no single range of bytes.

    :data:`UNSATISFIABLE` where nothing of the file is in it (RFC 9110, section 14.1.2).
    """
    found = _RANGE.fullmatch(wanted.replace(" ", ""))
    if found is None or max(map(len, found.groups())) not in range(1, POSITION_DIGITS_MAX + 1):
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) and size else UNSATISFIABLE
    if last and int(last) < int(first):
        return None
    end = min(int(last) + 1, size) if last else size
    return (int(first), end) if int(first) < size else UNSATISFIABLE


def _listening(address: str, port: int, root: Path) -> _Server:
    """IPv4 and IPv6 on one socket, where no address is named and the host has IPv6."""
    if address:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        return _Server(found[0], (str(found[4][0]), port), root)
    try:
        return _Server(socket.AF_INET6, ("::", port), root)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _Server(socket.AF_INET, ("0.0.0.0", port), root)


def _own_addresses() -> list[str]:
    """Those from which this host would talk to others; the loopback's where it has no network."""
    found = []
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # a datagram socket sends nothing by that
            found.append(str(probe.getsockname()[0]))
    return found or ["127.0.0.1"]


def _file_of(root: Path, target: str) -> Path | None:
    """The file that a request names; None where none is served under that name."""
    names = [name for name in unquote(urlsplit(target).path).split("/") if name]
    if any(name.startswith(".") or "\0" in name or "\\" in name for name in names):
        return None
    if root.is_file():
        return root if names == [root.name] else None
    path = root.joinpath(*names).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def _served(root: Path) -> Iterator[str]:
    if root.is_file():
        yield root.name
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            shown = str((Path(folder) / name).relative_to(root))
            if _file_of(root, quote(shown)):
                yield shown
