"""Other ends for the tests of TLS: `openssl s_server`, and what may stand between it and the device."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.programs.certificates import Certificate

SECONDS_MAX = 10
PIECE_BYTES = 16 * 1024

Peer = Callable[[socket.socket], None]


@contextlib.contextmanager
def openssl_server(folder: Path, certificate: Certificate, *options: str) -> Iterator[int]:
    """The port of an `openssl s_server` that gives out the files of ``folder`` (HTTP/1.0, `-WWW`)."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-WWW", *certificate.write(folder), *options]
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as it:
        try:
            yield _port(it)
        finally:
            it.kill()


def _port(server: subprocess.Popen[bytes]) -> int:
    """It says where it listens: `ACCEPT 127.0.0.1:40123`."""
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith(b"ACCEPT "):
            return int(line.rpartition(b":")[2])
    raise AssertionError("openssl s_server did not start")


@contextlib.contextmanager
def listening(peer: Peer) -> Iterator[int]:
    """The port of ``peer``, which is called in a thread with the one connection that it gets."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(SECONDS_MAX)

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.settimeout(SECONDS_MAX)
            peer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(SECONDS_MAX)


def relay(port: int, change: Callable[[int, bytes], bytes]) -> Peer:
    """To the server at ``port`` and back. Its answers go through ``change(offset, record)``, record by record
    (RFC 8446 §5.1); when one comes out shorter, the relay hangs up."""

    def peer(device: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as server:
            threading.Thread(target=_forward, args=(device, server), daemon=True).start()
            try:
                _relay(server, device, change)
            finally:
                device.shutdown(socket.SHUT_WR)  # closing alone would wait for the thread that reads

    return peer


def _relay(server: socket.socket, device: socket.socket, change: Callable[[int, bytes], bytes]) -> None:
    offset = 0
    with server.makefile("rb") as answers:
        while head := answers.read(5):
            record = head + answers.read(int.from_bytes(head[3:]))
            changed = change(offset, record)
            device.sendall(changed)
            offset += len(record)
            if len(changed) < len(record):
                return


def _forward(source: socket.socket, destination: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            destination.sendall(piece)
        destination.shutdown(socket.SHUT_WR)
