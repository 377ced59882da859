"""The fuzz target of a server's answer: its head, its framing, and the pieces of its body."""

from __future__ import annotations

from contextlib import suppress

from payload.errors import FetchError
from payload.http import HEADER_BYTES_MAX, RECEIVE_BYTES_MAX, Limits, Wire, request
from payload.url import join, parse
from tests.fuzz.bundle_mutations import mutate_bytes
from tests.fuzz.target import Target

URL = parse("http://example.org/os.ubk")
LIMITS = Limits()
PIECE_BYTES = 1000


class Stream:
    """Gives ``content`` in pieces of ``piece_bytes``, then ends."""

    def __init__(self, content: bytes, piece_bytes: int) -> None:
        self.content = content
        self.piece_bytes = piece_bytes
        self.position = 0

    def recv(self, length: int, /) -> bytes:
        assert length <= RECEIVE_BYTES_MAX
        piece = self.content[self.position : self.position + min(length, self.piece_bytes)]
        self.position += len(piece)
        return piece

    def send(self, data: bytes, /) -> int:
        return len(data)

    def close(self) -> None:
        """Nothing to give back."""


def check_answer(data: bytes) -> None:
    """The first byte says in which pieces the rest arrives; the same rest is the same answer in any."""
    if not data:
        return
    whole, pieces = _answer(data[1:], RECEIVE_BYTES_MAX), _answer(data[1:], 1 + data[0])
    assert whole == pieces


def _answer(content: bytes, piece_bytes: int) -> tuple[int, dict[str, str], bytes] | None:
    wire = Wire(Stream(content, piece_bytes), LIMITS, lambda: None)
    try:
        answer = request(wire, URL, 0, 2047, "")
        assert sum(len(name) + len(text) for name, text in answer.fields.items()) <= 2 * HEADER_BYTES_MAX
        body = b"".join(iter(lambda: answer.piece(PIECE_BYTES), b""))
    except FetchError:
        return None
    assert len(body) <= len(content) and (answer.length is None or len(body) == answer.length)
    with suppress(FetchError):
        join(URL, answer.fields.get("location", ""))
    return answer.status, answer.fields, body


def seeds() -> list[bytes]:
    body = bytes(range(256))
    return [
        b"\x10HTTP/1.1 206 OK\r\nContent-Length: 256\r\nContent-Range: bytes 0-255/9999\r\nETag: \"x\"\r\n\r\n" + body,
        b"\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n80;a=b\r\n" + body[:128]
        + b"\r\n80\r\n" + body[128:] + b"\r\n0\r\nX: y\r\n\r\n",
        b"\xffHTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n" + body,
        b"\x03HTTP/1.1 302 Found\r\nLocation: http://other:81/x?y\r\nContent-Length: 0\r\n\r\n",
        b"\x40HTTP/1.1 416 No\r\nContent-Range: bytes */17\r\nContent-Length: 0\r\n\r\n",
    ]  # fmt: skip


TARGETS = {"http-answer": Target(check_answer, seeds, mutate_bytes, 1_000_000)}
