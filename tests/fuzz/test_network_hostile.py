"""Whatever a server or a name server sends: an answer or one of the errors that have a reason, in bounded memory."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from payload.dns import A, answers
from payload.errors import FetchError
from payload.http import HEADER_BYTES_MAX, RECEIVE_BYTES_MAX, Limits, Wire, request
from payload.url import join, parse
from tests.unit.test_payload_names import HOST, IPV4, OURS, message, record

pytestmark = pytest.mark.fault("N3", "N4", "N5", "N9")

URL = parse("http://example.org/os.ubk")
LIMITS = Limits()
BODY = bytes(range(256)) * 8
ANSWERS = (
    b"HTTP/1.1 206 Partial\r\nContent-Length: 2048\r\nContent-Range: bytes 0-2047/9999\r\nETag: \"x\"\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"400;a=b\r\n" + BODY[:1024] + b"\r\n400\r\n" + BODY[:1024] + b"\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n" + BODY,
    b"HTTP/1.1 302 Found\r\nLocation: http://other:81/x?y\r\nContent-Length: 0\r\n\r\n",
)  # fmt: skip
WORDS = (
    b"\r\n", b"\n", b": ", b"chunked", b"HTTP/1.1 ", b"\0", b" ", b"-1", b"ffffffff\r\n", b"Location: //\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Range: bytes 9-1/0\r\n", b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip


class Bytes:
    """A stream that gives what it has in pieces of any size, then ends."""

    def __init__(self, content: bytes, chance: random.Random) -> None:
        self.content = content
        self.chance = chance
        self.position = 0

    def recv(self, length: int, /) -> bytes:
        assert length <= RECEIVE_BYTES_MAX
        piece = self.content[self.position : self.position + min(length, self.chance.randrange(1, 3000))]
        self.position += len(piece)
        return piece

    def send(self, data: bytes, /) -> int:
        return len(data)

    def close(self) -> None:
        """Nothing to give back."""


def mutant(chance: random.Random) -> bytes:
    content = bytearray(chance.choice(ANSWERS))
    for _change in range(chance.randrange(1, 5)):
        at = chance.randrange(min(len(content), 200) if chance.random() < 0.8 else len(content))
        cut = chance.choice((0, 0, 1, 1, chance.randrange(20)))
        content[at : at + cut] = chance.choice((chance.randbytes(1), chance.choice(WORDS), b""))
    return bytes(content[: chance.randrange(len(content) + 1)] if chance.random() < 0.2 else content)


def try_answers(seed: int, count: int) -> int:
    """How many of ``count`` mutants were answers."""
    chance = random.Random(seed)
    taken = 0
    for _answer in range(count):
        content = mutant(chance)
        wire = Wire(Bytes(content, chance), LIMITS, lambda: None)
        with suppress(FetchError):
            answer = request(wire, URL, 0, 2047, "")
            assert sum(len(name) + len(value) for name, value in answer.fields.items()) <= 2 * HEADER_BYTES_MAX
            body = 0
            while piece := answer.piece(1000):
                body += len(piece)
                assert len(piece) <= 1000
            assert body <= len(content)
            taken += 1
            with suppress(FetchError):
                join(URL, answer.fields.get("location", "/"))
    return taken


def try_names(seed: int, count: int) -> None:
    chance = random.Random(seed)
    alias = b"\x05other" + OURS
    good = message(1, HOST, A, record(OURS, 5, alias), record(alias, A, IPV4), record(OURS, A, IPV4))
    for _answer in range(count):
        content = bytearray(good)
        for _change in range(chance.randrange(1, 5)):
            content[chance.randrange(len(content))] = chance.choice((0, 0xC0, 12, 255, chance.randrange(256)))
        with suppress(ValueError):
            found = answers(bytes(content[: chance.randrange(len(content) + 1)] or content), 1, HOST, A)
            assert all(address.count(".") == 3 for address in found)


def test_answers_of_servers() -> None:
    taken = try_answers(1, 5_000)
    assert 500 < taken < 4_900, "some mutants are answers, and some are not"


def test_answers_of_name_servers() -> None:
    try_names(1, 10_000)


@pytest.mark.long
def test_many_answers() -> None:
    for seed in range(2, 42):
        try_answers(seed, 25_000)
        try_names(seed, 25_000)
