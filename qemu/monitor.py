"""The emulator's control socket: commands, their answers, events. Every wait has an end.

Source: the QEMU Machine Protocol, docs/interop/qmp-spec.txt: one JSON object per line in both
directions; a greeting, ``qmp_capabilities``, then commands; events may come between.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from qemu.errors import MonitorError

ANSWER_SECONDS = 30.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
EVENTS_KEPT = 1000
CONNECT_POLL_SECONDS = 0.01

Message = dict[str, object]


class Monitor:
    """One connection. Several threads may use it: a lock lets one command through at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pending = bytearray()
        self._events: deque[Message] = deque(maxlen=EVENTS_KEPT)

    def connect(self, timeout_seconds: float, ended: Callable[[], str] = lambda: "") -> None:
        """Wait for the emulator to open its socket, and get ready for commands.

        Raises: MonitorError: it did not in time, or it ended first (``ended`` then says how).
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                self._socket.connect(str(self._path))
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if ended() or time.monotonic() >= deadline:
                    raise MonitorError(ended() or f"no control socket in {timeout_seconds:g} s") from error
                time.sleep(CONNECT_POLL_SECONDS)
        if "QMP" not in self._receive(deadline):
            raise MonitorError(f"{self._path} does not greet as an emulator does")
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run one command and return its answer.

        Raises: MonitorError: it was refused, or there was no answer in :data:`ANSWER_SECONDS`.
        """
        request = {"execute": command, "arguments": dict(arguments or {})}
        with self._lock:
            deadline = time.monotonic() + ANSWER_SECONDS
            self._send(json.dumps(request).encode() + b"\n", deadline)
            while True:
                message = self._receive(deadline)
                if "event" in message:
                    self._events.append(message)
                elif "error" in message:
                    raise MonitorError(f"{command} was refused: {message['error']}")
                elif "return" in message:
                    return message["return"]

    def wait_event(self, name: str, timeout_seconds: float, **data: object) -> Message:
        """Wait for the event ``name`` whose data contain ``data``; events before it are dropped.

        Raises: MonitorError: it did not come in time.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            while True:
                event = self._events.popleft() if self._events else self._receive(deadline)
                content = event.get("data", {})
                if event.get("event") == name and isinstance(content, dict) and data.items() <= content.items():
                    return event

    def close(self) -> None:
        """Close the connection; the emulator goes on."""
        self._socket.close()

    def _send(self, request: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            self._socket.sendall(request)
        except OSError as error:
            raise MonitorError(f"the emulator does not listen: {error}") from error

    def _receive(self, deadline: float) -> Message:
        """The next message, of any kind."""
        while b"\n" not in self._pending:
            if len(self._pending) > ANSWER_BYTES_MAX:
                raise MonitorError(f"an answer is longer than {ANSWER_BYTES_MAX} bytes")
            try:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                arrived = self._socket.recv(64 * 1024)
            except OSError as error:
                raise MonitorError(f"the emulator does not answer: {error}") from error
            if not arrived:
                raise MonitorError("the emulator closed its control socket")
            self._pending += arrived
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise MonitorError(f"not a message: {bytes(line[:80])!r}") from error
        if not isinstance(message, dict):
            raise MonitorError(f"not a message: {bytes(line[:80])!r}")
        return message
