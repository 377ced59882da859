"""The console face: one line a reason, the same words as in the journal, the log and the CLI.

A line is ``unbrick: E104 attempts-exhausted: detail``. Work that takes long shows how far it is at most
once a second. Used on the ordinary boot: imports ``sys`` and ``time`` alone.
"""

from __future__ import annotations

import sys
import time

from statemachine.reasons import advice, label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_INTERVAL_SECONDS = 1.0


def say(code: int, detail: str = "", with_advice: bool = False) -> None:
    """One line for a reason, and a second one with what to do where a person has to do something."""
    _print(f"unbrick: {label(code)}{': ' if detail else ''}{detail}")
    if with_advice:
        _print(f"unbrick: what to do: {advice(code)}")


def note(text: str) -> None:
    """A line that is no reason: what is going on."""
    _print(f"unbrick: {text}")


def tell_console(line: str) -> None:
    """The console face hears it too, whoever started this command; without a console nobody misses it."""
    try:
        with open("/dev/console", "w", encoding="ascii") as console:
            console.write(f"\r\n{line}\r\n")
    except OSError:
        pass


class Progress:
    """Shows ``verb: done of total frames`` and tells the supervisor that work goes on."""

    def __init__(self, verb: str, alive: Callable[[], None]) -> None:
        self._verb = verb
        self._alive = alive
        self._shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        self._alive()
        now = time.monotonic()
        if done < total and now - self._shown < PROGRESS_INTERVAL_SECONDS:
            return
        self._shown = now
        percent = 100 * done // total if total else 100
        bar = "#" * (percent // 5)
        _print(f"unbrick: {self._verb} [{bar:<20}] {percent:3d} % ({done} of {total} frames)")


def _print(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # a console that is gone must not stop a recovery
