"""The serial console of a guest: a file that the emulator appends to, matched line by line.

The emulator writes the file itself, so nothing is lost when nobody listens, and no reader can hold
the guest up. Every line is looked at once: a literal text or a regular expression matches *within*
one line (``^`` and ``$`` are its ends). The last line may be unfinished, as a prompt is: literal
text matches there at once; an expression whose match touches the end of what has arrived waits for
more, or for :data:`QUIET_SECONDS` of silence, so that ``(\\d+)`` never sees half a number.

Does not interpret terminal escapes, and does not keep what it has passed: the file does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from qemu.errors import ConsoleTimeout, ConsoleUnwanted, MachineEnded

Expected = str | re.Pattern[str]

CHUNK_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024
TAIL_LINES = 40
TAIL_BYTES = 32 * 1024
POLL_SECONDS = 0.02
QUIET_SECONDS = 0.3

# The stamp keeps a guest that prints /proc/version from counting as a start. A kernel told to be
# `quiet` does not print this line.
KERNEL_START = re.compile(r"\[ *0\.0+\](?:\[ *[TC]\d+\])? Linux version ")


class LineReader:
    """Reads a growing file once, from its beginning, as lines without their line ends.

    A line longer than :data:`LINE_BYTES_MAX` bytes is handed out in pieces.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._pending = b""

    def poll(self) -> tuple[list[str], bool]:
        """The lines that are complete now, and whether anything at all arrived. Reads one chunk."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                arrived = stream.read(CHUNK_BYTES)
        except FileNotFoundError:
            arrived = b""
        self._offset += len(arrived)
        *lines, self._pending = (self._pending + arrived).split(b"\n")
        if len(self._pending) > LINE_BYTES_MAX:
            lines.append(self._pending)
            self._pending = b""
        return [_text(line) for line in lines], bool(arrived)

    @property
    def partial(self) -> str:
        """What has arrived of the line that is not complete yet."""
        return _text(self._pending)


class Console:
    """Waits for text on the console of one machine. Not safe for several threads."""

    def __init__(self, path: Path, ended: Callable[[], str] = lambda: "") -> None:
        """``ended`` says how the machine has ended, and is empty while it runs."""
        self.path = path
        self._reader = LineReader(path)
        self._lines: list[str] = []
        self._passed = 0
        self._start_reader = LineReader(path)
        self._starts = 0
        self._ended = ended

    def expect(self, expected: Expected, timeout_seconds: float, unless: Expected | None = None) -> re.Match[str]:
        """Wait for ``expected`` after the previous match, and return the match.

        Raises:
            ConsoleTimeout: it did not come within ``timeout_seconds``.
            ConsoleUnwanted: ``unless`` came first.
            MachineEnded: the machine is gone, everything it printed has been looked at.
        """
        wanted, unwanted = _pattern(expected), _pattern(unless)
        deadline = time.monotonic() + timeout_seconds
        quiet_since = time.monotonic()
        while True:
            match = self._match_lines(wanted, unwanted)
            if match is not None:
                return match
            ended = self._ended()  # asked before reading, so that its last words are read as well
            self._lines, arrived = self._reader.poll()
            now = time.monotonic()
            if arrived and now < deadline:
                quiet_since = now
                continue
            settled = isinstance(expected, str) or bool(ended) or now - quiet_since >= QUIET_SECONDS
            match = None if self._lines else self._match_partial(wanted, settled)
            if match is not None:
                return match
            if now >= deadline:
                waited = f"no {wanted.pattern!r} on the console within {timeout_seconds:g} s"
                raise self.timeout(waited)
            if ended:
                raise MachineEnded(f"{ended} before {wanted.pattern!r} was printed", self._evidence())
            time.sleep(POLL_SECONDS)

    def _match_lines(self, wanted: re.Pattern[str], unwanted: re.Pattern[str]) -> re.Match[str] | None:
        """Look at the complete lines, and leave those behind a match for the next call."""
        for number, line in enumerate(self._lines):
            position, self._passed = self._passed, 0
            match = wanted.search(line, position)
            bad = unwanted.search(line, position)
            if bad is not None and (match is None or bad.start() < match.start()):
                self._lines = self._lines[number + 1 :]
                raise ConsoleUnwanted(f"the console says {line.strip()!r}", self._evidence())
            if match is not None:
                self._lines = self._lines[number:]
                self._passed = match.end()
                return match
        self._lines = []
        return None

    def _match_partial(self, wanted: re.Pattern[str], settled: bool) -> re.Match[str] | None:
        """Look at the unfinished last line: a prompt never ends. ``settled``: a match may touch its end."""
        partial = self._reader.partial
        match = wanted.search(partial, self._passed)
        if match is None or not (settled or match.end() < len(partial)):
            return None
        self._passed = match.end()
        return match

    @property
    def starts(self) -> int:
        """How often a kernel has started on this console so far."""
        arrived = True
        while arrived:
            lines, arrived = self._start_reader.poll()
            self._starts += sum(1 for line in lines if KERNEL_START.search(line))
        return self._starts

    def timeout(self, waited: str) -> ConsoleTimeout:
        """The error for a wait that has ended in vain, with the end of the console in it."""
        return ConsoleTimeout(waited, self._evidence())

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last ``lines`` lines that were printed, whether matched or not."""
        try:
            with self.path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - TAIL_BYTES))
                return "\n".join(_text(stream.read()).splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _evidence(self) -> str:
        return f"the whole console: {self.path}; its last {TAIL_LINES} lines:\n{self.tail()}"


_NEVER = re.compile(r"(?!)")


def _pattern(expected: Expected | None) -> re.Pattern[str]:
    if expected is None:
        return _NEVER
    return re.compile(re.escape(expected)) if isinstance(expected, str) else expected


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").replace("\r", "")
