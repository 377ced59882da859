"""URLs and names: what is taken, what is refused, and name servers that answer anything at all."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from payload import dns
from payload.dns import AAAA, CNAME, A, NotOurAnswer, Resolver, answers, encoded, is_address, question
from payload.errors import NameUnresolvedError, ServerMisbehavesError
from payload.url import join, parse

pytestmark = pytest.mark.requirement("D7")

HOST = "updates.example.org"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://example.org/os.ubk", ("http", "example.org", 80, "/os.ubk")),
        ("HTTP://Example.ORG", ("http", "example.org", 80, "/")),
        ("https://example.org:8443/a/b?c=d#e", ("https", "example.org", 8443, "/a/b?c=d")),
        ("http://[2001:db8::1]:81/x", ("http", "2001:db8::1", 81, "/x")),
        ("http://10.0.2.2?x", ("http", "10.0.2.2", 80, "/?x")),
    ],
)
def test_urls(text: str, parts: tuple[str, str, int, str]) -> None:
    url = parse(text)
    assert (url.scheme, url.host, url.port, url.target) == parts
    again = parse(str(url))
    assert (again.origin, again.target) == (url.origin, url.target)


@pytest.mark.parametrize(
    "text",
    ["", "os.ubk", "ftp://example.org/", "http://", "http:///x", "http://a b/", "http://a/\r\nHost: b", "http://é/",
     "http://user@example.org/", "http://example.org:0/", "http://example.org:99999/", "http://example.org:8x/",
     "http://[::1/", "http://[::1]8/", "http://[x]/", "http://" + "a" * 3000, "http://a/" + "b" * 3000],
)  # fmt: skip
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ServerMisbehavesError):
        parse(text)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://other:8080/y", "http://other:8080/y"),
        ("//other/y", "http://other/y"),
        ("/y?z", "http://example.org:81/y?z"),
        ("y", "http://example.org:81/a/y"),
        ("?z=http://other/", "http://example.org:81/a/b?z=http://other/"),
    ],
)
def test_where_a_redirect_leads(location: str, target: str) -> None:
    assert str(join(parse("http://example.org:81/a/b?c"), location)) == target


def test_a_redirect_never_leaves_tls() -> None:
    assert join(parse("http://a/"), "https://b/").scheme == "https"
    with pytest.raises(ServerMisbehavesError, match="from https to http"):
        join(parse("https://a/"), "http://b/")


def record(owner: bytes, kind: int, data: bytes, length: int | None = None) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 60, len(data) if length is None else length) + data


def message(number: int, host: str, kind: int, *records: bytes, flags: int = 0x8180) -> bytes:
    asked = encoded(host) + struct.pack("!HH", kind, 1)
    return struct.pack("!HHHHHH", number, flags, 1, len(records), 0, 0) + asked + b"".join(records)


OURS = b"\xc0\x0c"  # a pointer to the question's name
IPV4 = socket.inet_aton("192.0.2.1")
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def test_addresses_of_both_families() -> None:
    assert answers(message(1, HOST, A, record(OURS, A, IPV4)), 1, HOST, A) == ["192.0.2.1"]
    assert answers(message(1, HOST, AAAA, record(OURS, AAAA, IPV6)), 1, HOST.upper(), AAAA) == ["2001:db8::1"]
    assert answers(message(1, HOST, A, flags=0x8183), 1, HOST, A) == [], "there is no such name"


def test_an_alias_is_followed_and_strangers_are_not() -> None:
    alias = record(OURS, CNAME, encoded("other.example"))
    told = message(1, HOST, A, alias, record(encoded("other.example"), A, IPV4), record(encoded("evil"), A, b"evil"))
    assert answers(told, 1, HOST, A) == ["192.0.2.1"]
    circle = [record(encoded("b"), CNAME, encoded("a")), record(encoded("a"), CNAME, encoded("b"))]
    assert answers(message(1, "a", A, *circle), 1, "a", A) == []


@pytest.mark.fault("N9")
@pytest.mark.parametrize(
    "wrong",
    [
        message(2, HOST, A, record(OURS, A, IPV4)),
        message(1, "other.example", A, record(OURS, A, IPV4)),
        message(1, HOST, AAAA, record(OURS, A, IPV4)),
        message(1, HOST, A, record(OURS, A, IPV4), flags=0x0100),
    ],
)
def test_answers_to_other_questions_are_none_of_ours(wrong: bytes) -> None:
    with pytest.raises(NotOurAnswer):
        answers(wrong, 1, HOST, A)


@pytest.mark.fault("N9")
@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        message(1, HOST, A, flags=0x8182),
        message(1, HOST, A, record(OURS, A, IPV4))[:-1],
        message(1, HOST, A, record(OURS, A, IPV4, length=500)),
        message(1, HOST, A, record(b"\xc0\xff", A, IPV4)),
        message(1, HOST, A, record(struct.pack("!H", 0xC000 | 12 + len(encoded(HOST)) + 4), A, IPV4)),
        message(1, HOST, A, record(b"\x80", A, IPV4)),
        message(1, HOST, A, record((b"\x3f" + b"a" * 63) * 5 + b"\0", A, IPV4)),
    ],
)
def test_malformed_answers(wrong: bytes) -> None:
    with pytest.raises(ValueError):
        answers(wrong, 1, HOST, A)


@pytest.mark.fault("N9")
def test_any_bytes_are_an_answer_or_an_error() -> None:
    """Mutants of good answers, and noise: nothing but ValueError, in bounded time."""
    chance = random.Random(3)
    good = message(1, HOST, A, record(OURS, CNAME, b"\x01a" + OURS), record(b"\x01a" + OURS, A, IPV4))
    for _mutant in range(20_000):
        mutant = bytearray(good)
        for _change in range(chance.randrange(1, 4)):
            mutant[chance.randrange(len(mutant))] = chance.randrange(256)
        with suppress(ValueError):
            answers(bytes(mutant[: chance.randrange(len(mutant) + 1)]), 1, HOST, A)
        with suppress(ValueError):
            answers(good[:12] + chance.randbytes(chance.randrange(100)), 1, HOST, A)


@pytest.mark.parametrize("host", ["", ".", "a..b", "a" * 64, ".".join("a" * 50 for _label in range(6)), "é"])
def test_what_is_no_name(host: str) -> None:
    with pytest.raises(ValueError):
        question(1, host, A)


Answering = Callable[[bytes, int], list[bytes]]


@contextmanager
def name_server(answer: Answering) -> Iterator[int]:
    """A name server on loopback: its port. ``answer`` gets the question and its kind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def serve() -> None:
            with suppress(OSError):
                while True:
                    asked, sender = listener.recvfrom(4096)
                    kind = struct.unpack_from("!H", asked, 12 + len(encoded(HOST)))[0]
                    for reply in answer(asked, kind):
                        listener.sendto(reply, sender)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def told(asked: bytes, kind: int) -> bytes:
    number = struct.unpack_from("!H", asked)[0]
    return message(number, HOST, kind, record(OURS, kind, {A: IPV4, AAAA: IPV6}[kind]))


def test_a_name_server_is_asked() -> None:
    with name_server(lambda asked, kind: [told(asked, kind)]) as port:
        assert Resolver(["127.0.0.1"], lambda: None, port)(HOST) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.fault("N9")
def test_forged_answers_before_the_right_one_are_passed_over() -> None:
    def answer(asked: bytes, kind: int) -> list[bytes]:
        right = told(asked, kind)
        return [bytes((right[0] ^ 1,)) + right[1:]] * 5 + [right]

    with name_server(answer) as port:
        assert Resolver(["127.0.0.1"], lambda: None, port)(HOST) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.fault("N9")
def test_silence_and_strays_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "ANSWER_SECONDS_MAX", 0.05)
    for answer in (lambda asked, kind: [], lambda asked, kind: [b"x" * 20] * 100):
        with name_server(answer) as port, pytest.raises(NameUnresolvedError):
            Resolver(["127.0.0.1"], lambda: None, port)(HOST)


def test_without_servers_only_addresses_are_known() -> None:
    resolve = Resolver([], lambda: None)
    assert resolve("10.0.2.2") == ["10.0.2.2"]
    assert resolve("2001:db8::1") == ["2001:db8::1"]
    assert "127.0.0.1" in resolve("localhost")
    with pytest.raises(NameUnresolvedError):
        resolve(HOST)


def test_the_name_servers_of_an_os(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# x\nnameserver 192.0.2.7\nnameserver\nnameserver evil;rm\nsearch a\nnameserver ::1\n")
    assert dns.servers_of_system(str(file)) == ["192.0.2.7", "::1"]
    assert dns.servers_of_system(str(tmp_path / "absent")) == []
    assert not is_address("1.2.3.4\0")
