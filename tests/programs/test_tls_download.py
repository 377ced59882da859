"""A download over HTTPS: the production executable on this host, and a real nginx."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.virtual.web_server import unpacked
from tests.boot.frozen_stand_in import CACHE, frozen_https
from tests.programs.certificates import DAY, NOW, Certificate, authority, server

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the executable is for x86_64"),
    pytest.mark.requirement("D7"),
    pytest.mark.requirement("M17"),
]

SECONDS_MAX = 60
FILE_BYTES = 4 << 20
HOST = "updates.example.org"
CONFIGURATION = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 16; }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t;
  fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{
    listen unix:{folder}/socket; listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.pem;
    root {folder}/files;
  }}
}}
"""
CLIENT = """
import json
from _blake2 import blake2b
from payload import fetch, tls
from payload.http_client import Client
wish = json.loads(open(0, "rb").read())
anchors = tuple(map(bytes.fromhex, wish["anchors"]))

def client():
    secure = lambda connection, host: tls.wrap(connection, host, anchors, 20, wish["at"])
    return Client(lambda name: ["127.0.0.1"], lambda: None, secure=secure)

found, refused = fetch.open_sources([wish["url"]], client)
answer = {"refused": [(error.reason, str(error)) for url, error in refused]}
for source in found:
    half = source.size // 2
    end = source.read(half, source.size - half)
    content = source.read(0, half) + end
    answer["digest"] = blake2b(content).hexdigest()
    source.close()
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frozen_https(tmp_path_factory.mktemp("https")).executable


@pytest.fixture(scope="module")
def ca() -> Certificate:
    return authority()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, ca: Certificate) -> Iterator[int]:
    """The port of one with a certificate of ``ca`` for ``HOST``; its content is :func:`content`."""
    import socket

    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    (folder / "files/os.ubk").write_bytes(content())
    server(ca, HOST).write(folder)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port))
    root = unpacked(CACHE)
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")}
    program = str(root / "usr/sbin/nginx")
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with subprocess.Popen(command, env=libraries, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + SECONDS_MAX
            while not (folder / "socket").exists():
                assert process.poll() is None and time.monotonic() < deadline, (folder / "error.log").read_text()
                time.sleep(0.05)
            yield port
        finally:
            process.kill()


def content() -> bytes:
    return b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(FILE_BYTES // 32))


def downloaded(executable: Path, port: int, anchor: Certificate, host: str = HOST, at: int = NOW) -> dict[str, object]:
    wish = {"url": f"https://{host}:{port}/os.ubk", "anchors": [anchor.der.hex()], "at": at}
    command = [str(executable), CLIENT]
    done = subprocess.run(
        command, input=json.dumps(wish), capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_ranges_come_over_tls_bit_for_bit(executable: Path, nginx: int, ca: Certificate) -> None:
    answer = downloaded(executable, nginx, ca)
    assert answer == {"refused": [], "digest": hashlib.blake2b(content()).hexdigest()}


@pytest.mark.fault("N6")
def test_a_server_that_is_not_believed_has_a_reason(executable: Path, nginx: int, ca: Certificate) -> None:
    cases = (
        (downloaded(executable, nginx, authority("other")), "unable to get local issuer certificate"),
        (downloaded(executable, nginx, ca, host="other.example.org"), "hostname mismatch"),
        (downloaded(executable, nginx, ca, at=NOW + 100 * DAY), "certificate has expired"),
    )
    for answer, says in cases:
        assert answer == {"refused": [["server-untrusted", says]]}
