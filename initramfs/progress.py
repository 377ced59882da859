"""What is being done, on standard error while a person watches; and how long each stage took.

Silent where standard error is no terminal, so that logs and scripts see results alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

REDRAW_SECONDS = 0.1


class Progress:
    """One line that is drawn over itself. ``seconds`` maps the stages passed to their duration."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._visible = self._stream.isatty()
        self._drawn_at = 0.0
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw("")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show ``name`` while the block runs, and remember how long it took."""
        self._draw(name)
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin

    def count(self, activity: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps; drawn a few times a second at most."""
        now = time.monotonic()
        if now - self._drawn_at >= REDRAW_SECONDS or done == total:
            self._drawn_at = now
            percent = 100 * done // total if total else 100
            self._draw(f"{activity} [{'#' * (percent // 5):<20}] {percent:3d} % ({done} of {total})")

    def _draw(self, text: str) -> None:
        if self._visible:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()
