"""TLS as a device speaks it: the production executable, as an ordinary process, against `openssl s_server`.

The same C module, the same static OpenSSL and the same frozen Python as in the image; only the kernel is
the host's. What must be refused is refused by name and within its time.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.boot.frozen_stand_in import frozen_https
from tests.programs.certificates import DAY, NOW, Certificate, authority, server
from tests.programs.tls_server import listening, openssl_server, relay

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the executable is for x86_64"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="the other end is `openssl s_server`"),
    pytest.mark.requirement("D7"),
    pytest.mark.requirement("M17"),
]

PROCESS_SECONDS_MAX = 60
FILE_BYTES = 3 << 20
HOST = "updates.example.org"
CLIENT = """
import json, socket, time
from _blake2 import blake2b
from payload import tls
wish = json.loads(open(0, "rb").read())
started = time.monotonic()
answer = {"protocol": "", "bytes": 0, "digest": "", "error": "", "says": ""}
connection = socket.socket()
connection.settimeout(10)
connection.connect(("127.0.0.1", wish["port"]))
connection.settimeout(wish["silence_seconds"])
try:
    anchors = [bytes.fromhex(text) for text in wish["anchors"]]
    stream = tls.wrap(connection, wish["host"], anchors, wish["seconds"], wish["at"])
    answer["protocol"] = stream.protocol
    digest = blake2b()
    stream.sendall(wish["request"].encode() * wish["times"])
    while piece := stream.recv(1 << 20):
        answer["bytes"] += len(piece)
        digest.update(piece)
    answer["digest"] = digest.hexdigest()
    stream.close()
except OSError as error:
    answer["error"] = type(error).__name__
    answer["says"] = str(error)
answer["open"] = connection.fileno() >= 0 and not answer["digest"] and not answer["protocol"]
answer["seconds"] = time.monotonic() - started
print(json.dumps(answer))
"""


@dataclass(frozen=True)
class Answer:
    """What the device made of a connection. ``error`` is a class, ``open`` a socket that wrap() left open."""

    protocol: str
    bytes: int
    digest: str
    error: str
    says: str
    open: bool
    seconds: float


@dataclass(frozen=True)
class Client:
    """The device: whom it believes, whom it calls, and what time it knows to have passed."""

    executable: Path
    anchors: tuple[Certificate, ...]
    host: str = HOST
    at: int = NOW
    seconds: float = 10
    silence_seconds: float | None = None
    request: str = "GET /payload HTTP/1.0\r\n\r\n"
    times: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    def fetch(self, port: int) -> Answer:
        wish = {
            "port": port, "host": self.host, "at": self.at, "seconds": self.seconds, "request": self.request,
            "times": self.times,
            "silence_seconds": self.silence_seconds,
            "anchors": [one.der.hex() for one in self.anchors],
        }  # fmt: skip
        done = subprocess.run(
            [str(self.executable), CLIENT], input=json.dumps(wish),
            env=self.environment, capture_output=True, text=True, timeout=PROCESS_SECONDS_MAX, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        answer = Answer(**json.loads(done.stdout))
        assert not answer.open and len(answer.says) <= 200 and answer.says.isprintable()
        return answer


Connect = Callable[..., Client]
Serve = Callable[..., int]


@pytest.fixture(scope="module")
def ca() -> Certificate:
    return authority()


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frozen_https(tmp_path_factory.mktemp("https")).executable


@pytest.fixture
def client(executable: Path, ca: Certificate) -> Connect:
    """``client(host=…, at=…)``: by default one that believes in ``ca`` alone."""

    def make(**changes: object) -> Client:
        return Client(**{"executable": executable, "anchors": (ca,), **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """``serve(certificate, *options)`` starts a server, and is its port. It gives out `payload`."""
    (tmp_path / "payload").write_bytes(CONTENT)
    with ExitStack() as stack:
        yield lambda certificate, *options: stack.enter_context(openssl_server(tmp_path, certificate, *options))


CONTENT = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(FILE_BYTES // 32))
APPLICATION_DATA = 23
ANSWER_BYTES_MAX = 200
"""What `openssl s_server -WWW` sends before the file."""


def accepted(answer: Answer) -> bool:
    assert answer.error == "", answer.says
    return FILE_BYTES <= answer.bytes <= FILE_BYTES + ANSWER_BYTES_MAX


def refused(answer: Answer, error: str = "TlsError") -> str:
    """Before a byte of content was believed."""
    assert (answer.error, answer.protocol, answer.bytes) == (error, "", 0)
    return answer.says


@pytest.mark.parametrize(
    ("option", "protocol"),
    [("-tls1_3", "TLSv1.3 TLS_AES_256_GCM_SHA384"), ("-tls1_2", "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384")],
)
def test_a_file_comes_over_every_protocol(
    client: Connect, serve: Serve, ca: Certificate, option: str, protocol: str
) -> None:
    answer = client().fetch(serve(server(ca, HOST), option))
    assert accepted(answer) and answer.protocol == protocol


def test_the_bytes_are_those_of_the_server(client: Connect, serve: Serve, ca: Certificate) -> None:
    header = b"HTTP/1.0 200 ok\r\nContent-type: text/plain\r\n\r\n"
    assert client().fetch(serve(server(ca, HOST))).digest == hashlib.blake2b(header + CONTENT).hexdigest()


@pytest.mark.parametrize("options", [("-tls1_1",), ("-tls1",), ("-tls1_2", "-cipher", "AES256-SHA")])
def test_old_protocols_and_ciphers_are_refused(
    client: Connect, serve: Serve, ca: Certificate, options: tuple[str, ...]
) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    cipher = () if "-cipher" in options else ("-cipher", "ALL:@SECLEVEL=0")
    says = refused(client().fetch(serve(server(ca, HOST, key=rsa_key), *options, *cipher)))
    assert "alert" in says or "unsupported protocol" in says


@pytest.mark.parametrize(("host", "told"), [(HOST, True), ("192.0.2.7", False), ("2001:db8::7", False)])
def test_the_greeting_offers_two_protocols_and_tells_names_alone(client: Connect, host: str, told: bool) -> None:
    """RFC 8446 §4.2.1: supported_versions is 1.3 and 1.2; RFC 6066 §3: an address is no server name."""
    greetings: list[bytes] = []
    with listening(lambda connection: greetings.append(connection.recv(1 << 16))) as port:
        refused(client(host=host).fetch(port))
    assert b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03" in greetings[0]
    server_name = b"\x00" + len(host).to_bytes(2) + host.encode()
    assert (server_name in greetings[0]) == told


@pytest.mark.parametrize(
    ("name", "called"),
    [
        (HOST, HOST), (HOST, "UPDATES.Example.org"), (HOST, HOST + "."), ("*.example.org", HOST),
        ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("fe80::1", "fe80::1%eth0"), ("2001:db8::7", "2001:db8:0:0::7"),
    ],
)  # fmt: skip
def test_a_name_or_an_address_of_the_certificate(
    client: Connect, serve: Serve, ca: Certificate, name: str, called: str
) -> None:
    assert accepted(client(host=called).fetch(serve(server(ca, "other.example.org", name))))


@pytest.mark.fault("N9")
@pytest.mark.parametrize(
    ("name", "called", "kind"),
    [
        ("other.example.org", HOST, "hostname"), ("*.org", HOST, "hostname"),
        ("*.updates.example.org", HOST, "hostname"),
        ("up*.example.org", HOST, "hostname"), ("10.0.0.1", "127.0.0.1", "IP address"), ("::2", "::1", "IP address"),
        ("example.org", HOST, "hostname"), (HOST, "127.0.0.1", "IP address"), (HOST, "2130706433", "hostname"),
    ],
)  # fmt: skip
def test_another_host_is_refused(
    client: Connect, serve: Serve, ca: Certificate, name: str, called: str, kind: str
) -> None:
    says = refused(client(host=called).fetch(serve(server(ca, name))))
    assert says.lower() == f"{kind} mismatch".lower()


def test_a_subject_is_no_name(client: Connect, serve: Serve, ca: Certificate) -> None:
    assert refused(client().fetch(serve(server(ca, subject=HOST)))) == "hostname mismatch"


@pytest.mark.parametrize("host", ["", ".", ".example.org", "a\0b", "é.example.org", "x" * 254, "%eth0"])
def test_what_is_no_host_is_refused(client: Connect, serve: Serve, ca: Certificate, host: str) -> None:
    assert refused(client(host=host).fetch(serve(server(ca, HOST))))


@pytest.mark.fault("N6")
def test_another_authority_is_refused(client: Connect, serve: Serve) -> None:
    """Of the same name, too: it is the key that counts."""
    stranger = authority()
    assert "unable to get local issuer" in refused(client().fetch(serve(server(authority("other"), HOST))))
    assert refused(client().fetch(serve(server(stranger, HOST))))


def test_a_certificate_signed_by_itself(client: Connect, serve: Serve, ca: Certificate) -> None:
    """Is refused, unless it is the anchor itself."""
    own = server(None, HOST)
    port = serve(own)
    assert refused(client().fetch(port)) == "self-signed certificate"
    assert accepted(client(anchors=(ca, own)).fetch(port))


def test_chains(client: Connect, serve: Serve, ca: Certificate, tmp_path: Path) -> None:
    middle = authority("middle", ca)
    leaf = server(middle, HOST)
    assert accepted(client().fetch(serve(leaf)))
    pinned = Certificate(leaf.public, leaf.key)
    lonely = serve(pinned)
    assert "unable to" in refused(client().fetch(lonely))
    assert accepted(client(anchors=(middle,)).fetch(lonely)), "an authority in the middle may be the anchor"
    assert accepted(client(anchors=(pinned,)).fetch(lonely)), "and so may the server's own certificate"


def test_a_server_is_no_authority(client: Connect, serve: Serve, ca: Certificate) -> None:
    """One that owns an honest certificate cannot sign for others."""
    honest = server(ca, "honest.example.org")
    forged = server(honest, HOST)
    chained = Certificate(forged.public, forged.key, (honest.public,))
    assert refused(client().fetch(serve(chained)))


def test_certificates_for_other_uses_and_with_weak_keys(client: Connect, serve: Serve, ca: Certificate) -> None:
    of_a_client = server(ca, HOST, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert "purpose" in refused(client().fetch(serve(of_a_client)))
    weak = server(ca, HOST, key=rsa.generate_private_key(65537, 1024))
    assert "too weak" in refused(client().fetch(serve(weak, "-cipher", "ALL:@SECLEVEL=0")))


@pytest.mark.fault("T3")
@pytest.mark.fault("H6")
def test_what_is_over_at_the_known_time_is_refused(client: Connect, serve: Serve, ca: Certificate) -> None:
    port = serve(server(ca, HOST, from_days=-90, to_days=10))
    assert accepted(client(at=NOW + 9 * DAY).fetch(port))
    assert refused(client(at=NOW + 11 * DAY).fetch(port)) == "certificate has expired"
    assert refused(client(at=(1 << 31) + DAY).fetch(port)) == "certificate has expired"


@pytest.mark.fault("H6")
@pytest.mark.parametrize("at", [0, 1, NOW - 5000 * DAY])
def test_a_device_that_knows_an_old_time_alone_is_not_locked_out(
    client: Connect, serve: Serve, ca: Certificate, at: int
) -> None:
    """Nothing in the chain has begun by then: the known time is only a lower bound."""
    assert accepted(client(at=at).fetch(serve(server(authority("middle", ca), HOST))))


def test_an_anchor_is_believed_for_ever_and_an_authority_below_it_is_not(client: Connect, serve: Serve) -> None:
    """Unless the anchor is what the server presents as its own."""
    old = authority("old", to_days=-1)
    assert accepted(client(anchors=(old,)).fetch(serve(server(old, HOST))))
    ca = authority("ca")
    over = authority("over", ca, to_days=-1)
    assert refused(client(anchors=(ca,)).fetch(serve(server(over, HOST)))) == "certificate has expired"
    own = server(None, HOST, to_days=-1)
    assert refused(client(anchors=(own,)).fetch(serve(own))) == "certificate has expired"


@pytest.mark.fault("N3")
@pytest.mark.parametrize("kept", [0, 1, 5, 90, 127, 400, 700])
def test_a_handshake_that_ends_early(client: Connect, serve: Serve, ca: Certificate, kept: int) -> None:
    def cut(offset: int, record: bytes) -> bytes:
        return record[: max(0, kept - offset)]

    with listening(relay(serve(server(ca, HOST)), cut)) as port:
        answer = client().fetch(port)
    assert answer.error in ("TlsError", "ConnectionResetError") and answer.protocol == ""


@pytest.mark.fault("N3")
def test_content_that_ends_early_is_no_end(client: Connect, serve: Serve, ca: Certificate) -> None:
    """Between two records, where nothing looks cut: only the farewell says that this was all."""

    def cut(offset: int, record: bytes) -> bytes:
        return record if offset < FILE_BYTES // 2 else b""

    with listening(relay(serve(server(ca, HOST)), cut)) as port:
        answer = client().fetch(port)
    assert (
        answer.error in ("TlsBrokenError", "ConnectionResetError") and answer.protocol and 0 < answer.bytes < FILE_BYTES
    )


@pytest.mark.fault("N4")
@pytest.mark.parametrize("position", [3, 200, 5000, 100_000, 2_000_000])
def test_a_changed_bit_is_seen(client: Connect, serve: Serve, ca: Certificate, position: int) -> None:
    def flip(offset: int, piece: bytes) -> bytes:
        if not offset <= position < offset + len(piece):
            return piece
        changed = bytearray(piece)
        changed[position - offset] ^= 1
        return bytes(changed)

    with listening(relay(serve(server(ca, HOST)), flip)) as port:
        answer = client().fetch(port)
    assert answer.error == ("TlsBrokenError" if answer.protocol else "TlsError") and answer.bytes <= position


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-server\r\n", bytes(4096), b"\x16\x03\x03\xff\xff" + bytes(65535),
     b"\x15\x03\x03\x00\x02\x02\x28"],
)  # fmt: skip
def test_what_is_no_tls_is_refused(client: Connect, garbage: bytes) -> None:
    def peer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(garbage)
        connection.recv(1 << 16)

    with listening(peer) as port:
        assert refused(client().fetch(port))


@pytest.mark.fault("N5")
def test_garbage_without_end_is_cut_off(client: Connect) -> None:
    """Handshake messages that promise to go on, as large as the protocol has them."""

    def peer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        while True:
            connection.sendall(b"\x16\x03\x03\x40\x00" + b"\x02\xff\xff\xff" + bytes(0x3FFC))

    with listening(peer) as port:
        assert refused(client().fetch(port)) == "excessive message size"


@pytest.mark.fault("N2")
def test_a_server_that_says_nothing_costs_its_seconds(client: Connect) -> None:
    with listening(lambda connection: time.sleep(1.5)) as port:
        answer = client(seconds=0.5).fetch(port)
    assert refused(answer, "TimeoutError") and 0.4 < answer.seconds < 2


@pytest.mark.fault("N2")
def test_silence_may_be_bounded_more_tightly_than_a_record(client: Connect) -> None:
    """On a slow line a record takes its time, and a dead one is known to be dead before that."""
    with listening(lambda connection: time.sleep(1.5)) as port:
        answer = client(seconds=60, silence_seconds=0.5).fetch(port)
    assert refused(answer, "TimeoutError") and 0.4 < answer.seconds < 2
    with listening(_drip) as port:
        answer = client(seconds=1.2, silence_seconds=0.8).fetch(port)
    assert refused(answer, "TimeoutError") and 1.1 < answer.seconds < 3


@pytest.mark.fault("N2")
def test_a_server_that_drips_costs_its_seconds(client: Connect) -> None:
    """A byte now and then is no progress that would be worth waiting for."""
    with listening(_drip) as port:
        answer = client(seconds=0.8).fetch(port)
    assert refused(answer, "TimeoutError") and 0.7 < answer.seconds < 3


def _drip(connection: socket.socket) -> None:
    for byte in b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76" + bytes(100):
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


@pytest.mark.fault("N2")
def test_content_that_stalls_costs_its_seconds(client: Connect, serve: Serve, ca: Certificate) -> None:
    stalled: list[int] = []

    def stall(offset: int, record: bytes) -> bytes:
        if offset > 500_000 and not stalled:
            stalled.append(offset)
            time.sleep(1.5)
        return record

    with listening(relay(serve(server(ca, HOST)), stall)) as port:
        answer = client(seconds=0.6).fetch(port)
    assert answer.error == "TimeoutError" and 0 < answer.bytes < FILE_BYTES and answer.seconds < 4


def test_writing_to_one_who_has_gone_is_an_error_and_not_the_end(
    client: Connect, serve: Serve, ca: Certificate
) -> None:
    """No SIGPIPE: the process says what happened."""

    def hang_up(offset: int, record: bytes) -> bytes:
        return record if record[0] != APPLICATION_DATA else b""

    with listening(relay(serve(server(ca, HOST), "-tls1_2"), hang_up)) as port:
        answer = client(times=200_000).fetch(port)
    assert answer.error in ("BrokenPipeError", "ConnectionResetError") and answer.protocol


def test_no_file_is_opened_and_no_variable_read(client: Connect, serve: Serve, ca: Certificate, tmp_path: Path) -> None:
    """An OpenSSL that read its configuration would load what is not there, or believe whom it names."""
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = init\n[init]\nproviders = p\n[p]\nabsent = a\n[a]\nactivate=1\n"
    )
    stranger = authority("stranger")
    (tmp_path / "strangers.pem").write_bytes(stranger.pem)
    environment = {"OPENSSL_CONF": str(tmp_path / "openssl.cnf"), "SSL_CERT_FILE": str(tmp_path / "strangers.pem"),
                   "SSL_CERT_DIR": str(tmp_path), "OPENSSL_MODULES": str(tmp_path)}  # fmt: skip
    assert accepted(client(environment=environment).fetch(serve(server(ca, HOST))))
    assert refused(client(environment=environment).fetch(serve(server(stranger, HOST))))


@pytest.mark.parametrize("count", [0, 257])
def test_the_number_of_anchors_is_bounded(client: Connect, serve: Serve, ca: Certificate, count: int) -> None:
    says = refused(client(anchors=(ca,) * count).fetch(serve(server(ca, HOST))))
    assert says == f"{count} trust anchors; 1 to 256 are allowed"


def test_nothing_in_it_can_load_code(executable: Path) -> None:
    """The dynamic loader is not linked in, and no library path of OpenSSL's can be opened."""
    content = executable.read_bytes()
    assert b"_unbrick_tls" in content
    assert b"/usr/lib/x86_64-linux-gnu/ossl-modules" in content, "OpenSSL knows a path"
    assert b"DYNAMIC_LINKER" not in content and b"dlfcn_load" not in content
