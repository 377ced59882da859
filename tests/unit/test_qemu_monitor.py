"""The control socket, against a peer that answers as an emulator does, or does not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qemu import monitor as monitor_module
from qemu.errors import MonitorError
from qemu.monitor import Monitor

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


class Peer:
    """Sends its script: the greeting, then for every request the next answer. Keeps the requests."""

    def __init__(self, path: Path, greeting: bytes, answers: list[bytes]) -> None:
        self.requests: list[dict[str, object]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._greeting = greeting
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as stream, suppress(ConnectionError):
            connection.sendall(self._greeting)
            for answer in self._answers:
                self.requests.append(json.loads(stream.readline()))
                connection.sendall(answer)
            stream.read()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


@pytest.fixture
def monitor(path: Path) -> Iterator[Monitor]:
    made = Monitor(path)
    yield made
    made.close()


def test_a_command_gets_its_own_answer_and_events_are_kept(path: Path, monitor: Monitor) -> None:
    answers = [
        b'{"return": {}}\r\n',
        b'{"event": "RESET", "data": {}}\r\n{"event": "GONE", "data": {"device": "a"}}\r\n{"return": [1]}\r\n',
    ]
    peer = Peer(path, GREETING, answers)
    monitor.connect(5)
    assert monitor.execute("query-it", {"node-name": "x"}) == [1]
    assert peer.requests[1] == {"execute": "query-it", "arguments": {"node-name": "x"}}
    assert monitor.wait_event("GONE", 1, device="a")["event"] == "GONE"
    peer.close()


def test_a_refusal_is_told(path: Path, monitor: Monitor) -> None:
    peer = Peer(path, GREETING, [b'{"return": {}}\n', b'{"error": {"class": "X", "desc": "no such key"}}\n'])
    monitor.connect(5)
    with pytest.raises(MonitorError, match=r"input-send-event was refused.*no such key"):
        monitor.execute("input-send-event")
    peer.close()


def test_silence_has_an_end(path: Path, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(path, GREETING, [b'{"return": {}}\n', b""])
    monitor.connect(5)
    monkeypatch.setattr(monitor_module, "ANSWER_SECONDS", 0.1)
    with pytest.raises(MonitorError, match="does not answer"):
        monitor.execute("query-status")
    with pytest.raises(MonitorError, match="does not answer"):
        monitor.wait_event("RESET", 0.1)
    peer.close()


def test_an_emulator_that_never_opens_its_socket(monitor: Monitor) -> None:
    with pytest.raises(MonitorError, match=r"no control socket in 0\.1 s"):
        monitor.connect(0.1)
    with pytest.raises(MonitorError, match="ended with code 1"):
        monitor.connect(60, lambda: "ended with code 1")


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b'{"hello": 1}\n', "does not greet"),
        (b"SSH-2.0\n", "not a message"),
        (b"[]\n", "not a message"),
        (b"x" * 5_000_000, "longer than"),
    ],
)
def test_a_peer_that_is_no_emulator(path: Path, monitor: Monitor, greeting: bytes, said: str) -> None:
    peer = Peer(path, greeting, [])
    with pytest.raises(MonitorError, match=said):
        monitor.connect(5)
    peer.close()
