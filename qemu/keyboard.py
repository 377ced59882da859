"""Keys of the machine's keyboard, pressed and held.

A key that goes down before the guest's driver looks is lost, and a real keyboard repeats: so a held
key sends "down" again every :data:`REPEAT_SECONDS` from power-on, until it is released. Names are
the emulator's key codes: ``r``, ``f12``, ``esc``, ``power``.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from qemu.errors import MonitorError
from qemu.monitor import Monitor

REPEAT_SECONDS = 0.05
HOLD_SECONDS_MAX = 600.0


def send_key(monitor: Monitor, key: str, down: bool) -> None:
    """One press (``down``) or one release. Raises: MonitorError: there is no such key."""
    event = {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}}
    monitor.execute("input-send-event", {"events": [event]})


class HeldKey:
    """A key held from the moment this is made, for ``seconds`` at most, or until :meth:`release`."""

    def __init__(self, monitor: Monitor, key: str, seconds: float) -> None:
        self._monitor = monitor
        self._key = key
        self._deadline = time.monotonic() + min(seconds, HOLD_SECONDS_MAX)
        self._released = threading.Event()
        send_key(monitor, key, down=True)  # here, where a wrong name is the caller's error
        self._thread = threading.Thread(target=self._repeat, name=f"key {key}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the key go, and wait until it is up."""
        self._released.set()
        self._thread.join()

    def _repeat(self) -> None:
        with suppress(MonitorError):  # the machine may end before the finger lifts
            while time.monotonic() < self._deadline and not self._released.wait(REPEAT_SECONDS):
                send_key(self._monitor, self._key, down=True)
            send_key(self._monitor, self._key, down=False)
