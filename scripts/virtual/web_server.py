"""A real nginx on this host's loopback: the static web server that a payload is downloaded from, by HTTP or HTTPS.

Debian's package, fetched and unpacked like the kernel: nothing is installed, and no service starts. Its answers
are logged with the bytes it sent, so that a test can count what travelled.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initramfs import debian
from initramfs.errors import BuildError
from scripts.virtual.commands import SetupError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PACKAGES = ("nginx", "libpcre2-8-0", "libssl3", "libcrypt1")
START_SECONDS = 10.0
STOP_SECONDS = 10.0
# What the kernel here takes off the server before the guest has it; part of what a power cut may lose.
SEND_BUFFER_BYTES = 64 << 10
# This host, as the guest of an emulator with user networking reaches it.
GUEST_HOST = "10.0.2.2"
GUEST_HOST_IPV6 = "[fec0::2]"

CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format bytes '$request_uri $status $body_bytes_sent "$http_range"';
  access_log {folder}/access.log bytes;
  client_body_temp_path {folder}/temporary;
  proxy_temp_path {folder}/temporary;
  fastcgi_temp_path {folder}/temporary;
  uwsgi_temp_path {folder}/temporary;
  scgi_temp_path {folder}/temporary;
  server {{
    listen 127.0.0.1:{port} {tls} sndbuf={send_buffer};
    listen [::1]:{port} {tls} sndbuf={send_buffer};
    {certificate}
    root {folder}/files;
    location /rangeless/ {{ max_ranges 0; alias {folder}/files/; }}
    location /dripping/ {{ limit_rate 1; alias {folder}/files/; }}
    location /slow/ {{ limit_rate {slow_rate}; alias {folder}/files/; }}
    location /circle/ {{ return 302 /circle/$msec; }}
    location /moved/ {{ return 301 /os.ubk; }}
  }}
}}
"""


@dataclass(frozen=True)
class Answered:
    """A line of the log: bytes of the body that were sent, of the headers not."""

    target: str
    status: int
    body_bytes: int
    range: str


class WebServer:
    """nginx with the files of ``folder/files``. Use as a context.

    ``/rangeless/`` serves them without ranges, ``/dripping/`` at a byte a second, ``/slow/`` at ``slow_rate``
    bytes a second; ``/circle/`` redirects for ever, ``/moved/`` to ``/os.ubk``. With a ``certificate`` (PEM, its key
    behind it) it speaks TLS and nothing else.
    """

    def __init__(self, folder: Path, cache: Path, slow_rate: int = 200_000, certificate: bytes = b"") -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._root = unpacked(cache)
        self._slow_rate = slow_rate
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WebServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, path: str = "os.ubk", host: str = GUEST_HOST) -> str:
        """Where a guest finds it."""
        return f"{'https' if self._certificate else 'http'}://{host}:{self.port}/{path}"

    def start(self) -> None:
        """Raises: SetupError."""
        configuration = self.folder / "nginx.conf"
        configuration.write_text(self._configuration())
        libraries = self._root / "usr/lib/x86_64-linux-gnu"
        self._process = subprocess.Popen(
            [self._root / "usr/sbin/nginx", "-p", self.folder, "-c", configuration, "-e", self.folder / "error.log"],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            stdin=subprocess.DEVNULL,
            stderr=(self.folder / "said").open("wb"),
        )
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "said").read_text(errors="replace")[:500]
                raise SetupError(f"nginx does not start: {said}", "see its error.log beside the console")
            time.sleep(0.05)

    def _configuration(self) -> str:
        tls, certificate = "", ""
        if self._certificate:
            pem = self.folder / "server.pem"
            pem.write_bytes(self._certificate)
            tls, certificate = "ssl", f"ssl_certificate {pem}; ssl_certificate_key {pem};"
        return CONFIGURATION.format(
            folder=self.folder,
            port=self.port,
            send_buffer=SEND_BUFFER_BYTES,
            slow_rate=self._slow_rate,
            tls=tls,
            certificate=certificate,
        )

    def stop(self) -> None:
        """Connections end, and nobody answers any more."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(STOP_SECONDS)
            self._process = None

    @property
    def log(self) -> list[Answered]:
        """Every answer that is over, cut off ones too."""
        path = self.folder / "access.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        found = [re.fullmatch(r'(\S+) (\d+) (\d+) "(.*)"', line) for line in lines]
        return [Answered(line[1], int(line[2]), int(line[3]), line[4]) for line in found if line is not None]

    @property
    def sent_bytes(self) -> int:
        """Bytes of all bodies."""
        return sum(answer.body_bytes for answer in self.log)


def unpacked(cache: Path) -> Path:
    """nginx and the libraries that the C library's own package does not have. Raises: SetupError."""
    try:
        return debian.unpack(debian.fetch(PACKAGES, cache_dir=cache), cache)
    except BuildError as error:
        raise SetupError(error.message, error.hint) from error


def free_port() -> int:
    """Of this host's loopback; nobody keeps it until it is used."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(1.0)
        return caller.connect_ex(("127.0.0.1", port)) == 0
