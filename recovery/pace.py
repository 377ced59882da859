"""How an update looks and how fast it goes, for a person at a terminal and for a device that has other work."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from payload.bundle import Reader

SHOWN_INTERVAL_SECONDS = 0.2
LOGGED_INTERVAL_SECONDS = 5.0
BAR_CHARACTERS = 30
BYTE_TEXT_CHARACTERS = 10  # so that a line on a terminal covers the one before
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def byte_count(text: str) -> int:
    """A number of bytes such as ``500``, ``500K`` or ``2M`` (units of 1024). Raises ``ValueError``."""
    factor = _UNITS.get(text[-1:].upper(), 1)
    number = text[:-1] if factor > 1 else text
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise ValueError(f"{text!r} is not a number of bytes such as 500K or 2M")
    return int(number) * factor


class PacedReader:
    """``source``, at most ``bytes_per_second`` of it on the average; 0 is no limit.

    Of a source behind a network those bytes count that came in, whatever they were read for.
    """

    def __init__(self, source: Reader, bytes_per_second: int) -> None:
        self._source = source
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @property
    def size(self) -> int:
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        if self._bytes_per_second:
            now = time.monotonic()
            if self._free_at > now:
                time.sleep(self._free_at - now)
            before = received(self._source)
            try:
                return self._source.read(offset, length)
            finally:
                came = length if before is None else (received(self._source) or 0) - before
                self._free_at = max(now, self._free_at) + came / self._bytes_per_second
        return self._source.read(offset, length)


def received(source: Reader) -> int | None:
    """How many bytes came in over the network for ``source`` so far; None for one that is not behind a network."""
    count: int | None = getattr(source, "received", None)
    return count


def byte_text(count: int) -> str:
    """A number of bytes for people: ``512 bytes``, ``12.3 MiB``."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


class Terminal:
    """Shows (activity, done, total) as a bar on a terminal, and as a line now and then in a log.

    ``watch`` is a source whose received bytes are shown as well, if it is behind a network.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = 0.0
        self.watch: Reader | None = None

    def __call__(self, activity: str, done: int, total: int) -> None:
        now = time.monotonic()
        interval = SHOWN_INTERVAL_SECONDS if self._live else LOGGED_INTERVAL_SECONDS
        if done < total and now - self._shown < interval:
            return
        self._shown = now
        share = done / total if total else 1.0
        bar = "#" * int(share * BAR_CHARACTERS)
        came = None if self.watch is None else received(self.watch)
        fetched = "" if came is None else f"  {byte_text(came):>{BYTE_TEXT_CHARACTERS}} fetched"
        line = f"{activity:<14} [{bar:<{BAR_CHARACTERS}}] {share:4.0%}{fetched}"
        ending = "\n" if done >= total or not self._live else ""
        self._stream.write(f"\r{line}{ending}" if self._live else f"{line}\n")
        self._stream.flush()
