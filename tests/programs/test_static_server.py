"""The workshop's web server, asked by the standard library's client and by bare sockets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from initramfs import static_server
from initramfs.errors import BuildError
from initramfs.static_server import UNSATISFIABLE, StaticServer, part_of

CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)

pytestmark = pytest.mark.requirement("D7")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    folder = tmp_path / "releases"
    (folder / "2.0").mkdir(parents=True)
    (folder / "os.ubk").write_bytes(CONTENT)
    (folder / "2.0" / "os 2.ubk").write_bytes(b"two")
    (folder / ".secret").write_bytes(b"hidden")
    (tmp_path / "outside").write_bytes(b"outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "empty").write_bytes(b"")
    yield from running(folder)


def running(path: Path, address: str = "") -> Iterator[StaticServer]:
    with StaticServer(path, address) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        yield server
        server.stop()
        thread.join(5)
        assert not thread.is_alive()


def ask(
    server: StaticServer, target: str, method: str = "GET", host: str = "127.0.0.1", **fields: str
) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(host, server.port, timeout=5)
    connection.request(method, target, headers={name.replace("_", "-"): value for name, value in fields.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_a_file_and_its_facts(server: StaticServer) -> None:
    response, body = ask(server, "/os.ubk")
    assert (response.status, body) == (200, CONTENT)
    assert response.headers["Accept-Ranges"] == "bytes" and response.headers["ETag"].startswith('"')
    assert response.version == 11
    response, body = ask(server, "/os.ubk", "HEAD")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", str(SIZE))
    assert ask(server, "/2.0/os%202.ubk")[1] == b"two"
    assert ask(server, "/empty")[1] == b""


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=100-", 100, SIZE), ("bytes=-50", SIZE - 50, SIZE),
     (f"bytes=5-{10**17}", 5, SIZE), (f"bytes=-{10**17}", 0, SIZE)],
)  # fmt: skip
def test_a_part_of_a_file(server: StaticServer, wanted: str, first: int, end: int) -> None:
    response, body = ask(server, "/os.ubk", Range=wanted)
    assert (response.status, body) == (206, CONTENT[first:end])
    assert response.headers["Content-Range"] == f"bytes {first}-{end - 1}/{SIZE}"
    response, body = ask(server, "/os.ubk", "HEAD", Range=wanted)
    assert (response.status, body, response.headers["Content-Length"]) == (206, b"", str(end - first))


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", f"bytes={10**17}-", "bytes=-0"])
def test_a_part_that_is_not_there(server: StaticServer, wanted: str) -> None:
    response, body = ask(server, "/os.ubk", Range=wanted)
    assert (response.status, body, response.headers["Content-Range"]) == (416, b"", f"bytes */{SIZE}")


@pytest.mark.parametrize(
    "wanted", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=x-", "bytes=" + "9" * 99 + "-"]
)
def test_what_is_no_single_range_is_the_whole_file(server: StaticServer, wanted: str) -> None:
    response, body = ask(server, "/os.ubk", Range=wanted)
    assert (response.status, len(body)) == (200, SIZE)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_every_small_range(size: int) -> None:
    """Against the words of RFC 9110, byte by byte."""
    for first in range(9):
        for last in range(9):
            wanted = {at for at in range(size) if first <= at <= last}
            part = part_of(f"bytes={first}-{last}", size)
            if last < first:
                assert part is None
            elif not wanted:
                assert part == UNSATISFIABLE
            else:
                assert part is not None and set(range(*part)) == wanted
    for count in range(9):
        part = part_of(f"bytes=-{count}", size)
        assert part == ((max(0, size - count), size) if count and size else UNSATISFIABLE)


def test_a_changed_file_is_sent_whole(server: StaticServer, tmp_path: Path) -> None:
    response, _body = ask(server, "/os.ubk")
    tag, modified = response.headers["ETag"], response.headers["Last-Modified"]
    for validator in (tag, modified):
        assert ask(server, "/os.ubk", Range="bytes=1-2", If_Range=validator)[1] == CONTENT[1:3]
    assert ask(server, "/os.ubk", If_None_Match=tag)[0].status == 304
    os.utime(tmp_path / "releases" / "os.ubk", (1, 1))
    for validator in (tag, modified, f"W/{tag}"):
        response, body = ask(server, "/os.ubk", Range="bytes=1-2", If_Range=validator)
        assert (response.status, len(body)) == (200, SIZE)
    assert response.headers["Last-Modified"] == formatdate(1, usegmt=True)
    assert ask(server, "/os.ubk", If_None_Match=tag)[0].status == 200


@pytest.mark.parametrize(
    "target",
    ["/", "/absent", "/2.0", "/.secret", "/link", "/../outside", "/%2e%2e/outside", "/2.0/..%2f..%2foutside", "/a%00b",
     "//etc/passwd", "/..%5coutside"],
)  # fmt: skip
def test_nothing_else_is_served(server: StaticServer, target: str) -> None:
    assert ask(server, target)[0].status == 404


def test_what_is_served_is_listed(server: StaticServer) -> None:
    assert server.files() == ["/empty", "/os.ubk", "/2.0/os%202.ubk"]
    assert all(ask(server, path)[0].status == 200 for path in server.files())


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "os.ubk").write_bytes(b"one")
    (tmp_path / "other").write_bytes(b"other")
    for server in running(tmp_path / "os.ubk", "127.0.0.1"):
        assert server.urls() == [f"http://127.0.0.1:{server.port}/os.ubk"]
        assert ask(server, "/os.ubk")[1] == b"one"
        assert ask(server, "/other")[0].status == ask(server, "/x/os.ubk")[0].status == 404


def test_both_families_of_addresses_reach_it(server: StaticServer) -> None:
    assert ask(server, "/2.0/os%202.ubk", host="127.0.0.1")[1] == b"two"
    if socket.has_ipv6 and server._http.address_family == socket.AF_INET6:
        assert ask(server, "/2.0/os%202.ubk", host="::1")[1] == b"two"
    assert all(url.startswith("http://") and url.endswith(f":{server.port}/") for url in server.urls())


def test_a_connection_is_kept_for_the_next_request(server: StaticServer) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    sockets = set()
    for first in range(0, SIZE, SIZE // 4):
        connection.request("GET", "/os.ubk", headers={"Range": f"bytes={first}-{first + 9}"})
        assert connection.getresponse().read() == CONTENT[first : first + 10]
        sockets.add(id(connection.sock))
        assert connection.sock is not None
    connection.request("GET", "/absent")
    assert connection.getresponse().read() is not None
    assert len(sockets) == 1
    connection.close()


def test_requests_behind_each_other_are_answered_in_order(server: StaticServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as wire:
        part = b"GET /os.ubk HTTP/1.1\r\nHost: x\r\nRange: bytes=%d-%d\r\n%s\r\n"
        wire.sendall(part % (1, 3, b"") + part % (65, 67, b"Connection: close\r\n"))
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.count(b" 206 ") == 2
    assert answer.index(CONTENT[1:4]) < answer.index(CONTENT[65:68])


@pytest.mark.parametrize(
    "request_line", [b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 70_000]
)
def test_what_is_no_request_ends_in_an_error_and_the_server_goes_on(server: StaticServer, request_line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as wire:
        wire.sendall(request_line)
        wire.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert b" 200 " not in answer
    assert ask(server, "/2.0/os%202.ubk")[1] == b"two"


def test_connections_are_bounded(server: StaticServer, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(static_server.CONNECTIONS_MAX)]
    for wire in held:
        wire.sendall(b"GET /2.0/os%202.ubk HTTP/1.1\r\n\r\n")
        assert wire.recv(65536).startswith(b"HTTP/1.1 200")
    with pytest.raises((ConnectionError, OSError)):
        ask(server, "/2.0/os%202.ubk")
    for wire in held:
        wire.close()


def test_a_port_that_is_taken_is_said(server: StaticServer, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as raised:
        StaticServer(tmp_path, "127.0.0.1", server.port)
    assert "--port" in raised.value.hint
