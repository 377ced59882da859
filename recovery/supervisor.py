"""The way to PID 1: two pipes that `recovery/native/supervisor.c` opened before it started this process.

Every message is a line on descriptor 3; a byte on descriptor 4 says that the boot modules are loaded.
Outside PID 1's child (tests, the OS) there is no such pipe and nothing is sent.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MESSAGES_DESCRIPTOR = 3
MODULES_DESCRIPTOR = 4
MODULES_SECONDS_MAX = 60
COUNTED_PAUSE_SECONDS = 3  # so that a person can read the reason
UNCOUNTED_PAUSE_SECONDS = 300


class Supervisor:
    """PID 1, as its child sees it."""

    def __init__(self, messages: int = MESSAGES_DESCRIPTOR, modules: int = MODULES_DESCRIPTOR) -> None:
        self._messages = messages
        self._modules = modules

    def progress(self) -> None:
        """Work goes on: PID 1 pets the watchdog for a while longer."""
        self._send(".")

    def wait_for_modules(self) -> None:
        """Return when PID 1 has loaded the boot modules, or after a bounded time without that."""
        ready, _, _ = select.select([self._modules], [], [], MODULES_SECONDS_MAX)
        if ready:
            os.read(self._modules, 1)

    def watch(self, device: str, seconds: int) -> None:
        """Have PID 1 open the watchdog and pet it while progress goes on."""
        self._send(f"watchdog {device} {seconds}")

    def hand_over(self, root: str, init: str, watchdog_owner: str, *, counted: bool = True) -> NoReturn:
        """Have PID 1 make ``root`` the root and become ``init``. Does not return: this process is ended.

        Where that fails the machine starts again: soon if this boot is ``counted``, else after a rest.
        """
        pause_seconds = COUNTED_PAUSE_SECONDS if counted else UNCOUNTED_PAUSE_SECONDS
        self._send(f"handover {root} {init} {watchdog_owner} {pause_seconds}")
        while True:
            select.select([], [], [], 60)

    def _send(self, line: str) -> None:
        os.write(self._messages, line.encode() + b"\n")
