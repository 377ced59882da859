"""A bundle on web servers, read as if it were a file: ranges, resumed where they broke, from several mirrors.

Any static server will do. What will be read is announced, neighbouring ranges become one request, and bytes pass
straight through: memory does not grow with the file. After a break the download goes on at the byte where
it broke, if it is still the same file (size, ETag, Last-Modified). A server without ranges is read from the start
and what is not wanted is thrown away. A mirror that fails, or whose bytes are not the signed ones, is set
behind the others. When none gets anywhere for a while, reading raises, at once from then on: to wait, and
for how long, is for whoever decides what else could be done.

No byte from here is believed: that is for the digests of the frames.
"""

from __future__ import annotations

import os
import time

from payload.errors import (
    FetchError,
    PayloadChangedError,
    ServerMisbehavesError,
    ServerRefusedError,
    ServerUnreachableError,
)
from payload.http import RECEIVE_BYTES_MAX, number
from payload.url import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from payload.http import Response
    from payload.http_client import Client
    from payload.url import Url

URLS_MAX = 8
SIZE_BYTES_MAX = 1 << 50  # of a file whose server does not say
START_BYTES = 4096  # what a first look fetches; enough to see whether two mirrors have the same bundle
GAP_BYTES_MAX = 2048  # what a request of its own costs; with 8192 an update of 5 MB fetched 0.2 MB more
PROGRESS_BYTES_MIN = 4096  # with so many bytes since the last failure, failures are counted anew
ROUNDS_MAX = 4  # how often each mirror may fail without that
PAUSE_SECONDS_FIRST = 1.0
PAUSE_SECONDS_MAX = 60.0
DOUBTS_MAX = 2  # how often a mirror is asked again for a range whose bytes were wrong
LIES_MAX = 64  # wrong ranges in all, from whatever mirror
_TICK_SECONDS = 0.5


class Mirror:
    """One URL of the file, and what its server said of it. ``found`` is where redirects led."""

    __slots__ = ("etag", "found", "has_ranges", "modified", "size", "url")

    def __init__(self, url: Url) -> None:
        self.url = url
        self.found = url
        self.size: int | None = None
        self.etag = ""
        self.modified = ""
        self.has_ranges = True

    @property
    def validator(self) -> str:
        """For If-Range: RFC 9110, section 13.1.5 allows no weak ETag there."""
        return self.etag if self.etag.startswith('"') else self.modified if not self.etag else ""

    def learn(self, answer: Response, size: int | None) -> None:
        """The first answer says which file it is; any later one must say the same.

        Raises:
            PayloadChangedError: it is another file now.
        """
        etag, modified = _repeatable(answer.fields.get("etag", "")), _repeatable(answer.fields.get("last-modified", ""))
        for known, told in ((self.size, size), (self.etag, etag), (self.modified, modified)):
            if known and told and known != told:
                raise PayloadChangedError(f"{self.url} is another file now: {told} instead of {known}")
        self.size = size if self.size is None else self.size
        self.etag = self.etag or etag
        self.modified = self.modified or modified


def _repeatable(text: str) -> str:
    """A validator that may stand in a request; an ETag may have bytes that may not (RFC 9110, section 8.8.3)."""
    return text if text.isascii() and text.isprintable() else ""


class _Download:
    """An answer whose body is on its way: ``position`` is where in the file its next byte stands."""

    __slots__ = ("_answer", "end", "position")

    def __init__(self, answer: Response, position: int, end: int | None) -> None:
        self._answer = answer
        self.position = position
        self.end = end

    def piece(self, length_max: int) -> bytes:
        """The next bytes, none at the end. Raises ``FetchError``."""
        if self.end is not None:
            length_max = min(length_max, self.end - self.position)
        data = self._answer.piece(min(length_max, RECEIVE_BYTES_MAX)) if length_max > 0 else b""
        self.position += len(data)
        return data


def begin(client: Client, mirror: Mirror, first: int, end: int | None) -> _Download:
    """Ask ``mirror`` for the bytes from ``first`` to ``end`` (exclusive); a whole file may come instead.

    Raises:
        FetchError: neither comes.
    """
    try:
        answer, found = client.get(mirror.found, first, None if end is None else end - 1, mirror.validator)
    except FetchError:
        mirror.found = mirror.url  # where it led last time may be over
        raise
    mirror.found = found
    reading = _READINGS.get(answer.status)
    if reading is None:
        mirror.found = mirror.url
        raise ServerRefusedError(f"{found}: the server answers {answer.status}")
    return reading(mirror, answer, first, end)


def _partial(mirror: Mirror, answer: Response, first: int, end: int | None) -> _Download:
    """206: exactly the range that was asked for, or its beginning."""
    begins, stops, total = _content_range(answer.fields.get("content-range", ""))
    mirror.learn(answer, total)
    wrong_end = end is not None and stops > end
    wrong_length = answer.length is not None and answer.length != stops - begins
    if begins != first or stops <= begins or wrong_end or wrong_length or (total is not None and stops > total):
        raise ServerMisbehavesError(f"bytes {begins} to {stops} instead of {first} to {end}")
    return _Download(answer, begins, stops)


def _whole(mirror: Mirror, answer: Response, first: int, end: int | None) -> _Download:
    """200: this server has no ranges, or the file is another one than `If-Range` named."""
    mirror.learn(answer, answer.length)
    mirror.has_ranges = False
    return _Download(answer, 0, mirror.size if answer.length is None else answer.length)


def _beyond(mirror: Mirror, answer: Response, first: int, end: int | None) -> _Download:
    """416: the file ends before the range."""
    if first < (mirror.size or 0):
        raise PayloadChangedError(f"{mirror.url} has become shorter than {first} bytes")
    raise ServerRefusedError(f"{mirror.url} has no byte {first}")


_READINGS = {200: _whole, 206: _partial, 416: _beyond}


def _content_range(text: str) -> tuple[int, int, int | None]:
    """First byte, end (exclusive), size of the file: RFC 9110, section 14.4."""
    unit, _, rest = text.partition(" ")
    span, slash, total = rest.strip().partition("/")
    first, dash, last = span.partition("-")
    if unit.lower() != "bytes" or not slash or not dash:
        raise ServerMisbehavesError(f"not a range of bytes: {text[:60]!r}")
    return number(first), number(last) + 1, None if total == "*" else number(total)


class _Run:
    """Neighbouring ranges that were announced, as one: what of them has not come yet."""

    __slots__ = ("end", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end


class _Lane:
    """A connection and what is on its way there; of which run, if it is no read out of turn."""

    __slots__ = ("client", "download", "run")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.download: _Download | None = None
        self.run: _Run | None = None

    def close(self) -> None:
        self.download = None
        self.client.close()


class HttpSource:
    """The bundle at one or more URLs. Follows `payload.bundle.Reader`; ``name`` is for people.

    Up to three connections: frames may be read in turn from three parts of the file (plain ones, units, units that lie
    apart), and what is read out of turn must not end what was announced.
    Raises ``FetchError`` where the first look at ``url`` fails.
    """

    __slots__ = (
        "_bytes_at_failure", "_doubted", "_failures", "_lanes", "_lies", "_mirrors", "_pause",
        "_refusal", "_runs", "_taken", "name", "size", "start",
    )  # fmt: skip

    def __init__(self, client: Client, url: str, pause: Callable[[float], None] | None = None) -> None:
        mirror = Mirror(parse(url))
        self.name = str(mirror.url)
        self._mirrors = [mirror]
        self._lanes = (_Lane(client), _Lane(client.another()), _Lane(client.another()))
        self._pause = pause or Pause(client.alive)
        self._runs: list[_Run] = []
        self._failures = self._lies = 0
        self._taken = self._bytes_at_failure = 0
        self._doubted: tuple[int, int] = (0, 0)
        self._refusal: FetchError | None = None
        self.start = b""
        try:
            self._lanes[0].download = begin(client, mirror, 0, START_BYTES)
            self.size = SIZE_BYTES_MAX if mirror.size is None else mirror.size
            self.start = b"".join(self._first_pieces(self._lanes[0]))
        except FetchError:
            self.close()
            raise

    def _first_pieces(self, lane: _Lane) -> list[bytes]:
        pieces = []
        while (download := lane.download) is not None and download.position < START_BYTES:
            pieces.append(self._take(lane, download, START_BYTES - download.position))
            if not pieces[-1]:
                break
        return pieces

    @property
    def received(self) -> int:
        """Bytes that came in, headers included."""
        return sum(lane.client.received for lane in self._lanes)

    def is_same(self, other: HttpSource) -> bool:
        """Whether both seem to hold the same bundle: its header's digest is among the first bytes."""
        return self.start == other.start and self.size == other.size

    def remember(self, start: bytes) -> None:
        """Have the first bytes, which turned out to be right, not come again."""
        self.start = start

    def add(self, other: HttpSource) -> None:
        """Take over the mirrors of another source, which is closed."""
        self._mirrors += other._mirrors
        other.close()

    def announce(self, ranges: Sequence[tuple[int, int]]) -> None:
        """What will be read next, (offset, length) each, rising within each part of the file. Neighbours become one
        request."""
        runs: list[_Run] = []
        for offset, length in sorted(ranges):
            if runs and offset <= runs[-1].end + GAP_BYTES_MAX:
                runs[-1].end = max(runs[-1].end, offset + length)
            elif length > 0:
                runs.append(_Run(offset, offset + length))
        self._runs = runs

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the file.

        Raises:
            FetchError: no mirror gets anywhere.
        """
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        pieces = [self.start[offset : offset + length]]
        end = offset + length
        position = offset + len(pieces[0])
        while position < min(end, self.size):
            try:
                piece = self._piece(position, end)
            except FetchError as error:
                self._set_behind(error)
                continue
            pieces.append(piece)
            position += len(piece)
            self._taken += len(piece)  # what is passed over gets nobody anywhere
        return b"".join(pieces)

    def doubt(self, offset: int) -> bool:
        """The bytes at `offset` were not the signed ones. Whether asking again makes sense."""
        where, times = self._doubted
        self._doubted = (offset, times + 1 if where == offset else 1)
        self._lies += 1
        if self._lies > LIES_MAX and self._refusal is None:
            self._refusal = ServerMisbehavesError(f"{self._lies} times other bytes than the signed ones")
        if self._refusal is not None or self._doubted[1] >= DOUBTS_MAX * len(self._mirrors):
            return False
        self._rotate()
        if offset < len(self.start):
            self.start = b""
        return True

    def close(self) -> None:
        """Give the connections back."""
        for lane in self._lanes:
            lane.close()

    def _piece(self, position: int, end: int) -> bytes:
        """At least one byte at ``position``, or none if the file turns out to end there."""
        lane = self._lane_at(position) or self._lane_to(position, end)
        download = lane.download
        assert download is not None, "a lane that was chosen has a download"
        while download.position < position:
            if not self._take(lane, download, position - download.position):
                return b""
        return self._take(lane, download, end - position)

    def _take(self, lane: _Lane, download: _Download, length_max: int) -> bytes:
        data = download.piece(length_max)
        if lane.run is not None:
            lane.run.start = max(lane.run.start, download.position)
        if not data and download.end is not None:
            raise ServerUnreachableError(f"the answer ended {download.end - download.position} bytes too early")
        if not data:
            self.size = download.position  # the server had not said it
        if not data or download.position == download.end:
            lane.download = None
        return data

    def _lane_at(self, position: int) -> _Lane | None:
        """The lane whose download comes by at ``position``."""
        return next((lane for lane in self._lanes if lane.download and self._comes_by(lane.download, position)), None)

    def _comes_by(self, download: _Download, position: int) -> bool:
        distance = position - download.position
        within = download.end is None or position < download.end
        return within and distance >= 0 and (distance <= GAP_BYTES_MAX or not self._mirrors[0].has_ranges)

    def _lane_to(self, position: int, end: int) -> _Lane:
        """A lane with a new download from ``position``: the rest of an announced run, or just up to ``end``."""
        run = next((run for run in self._runs if run.start <= position < run.end), None)
        lane = next((lane for lane in self._lanes if lane.download is None), self._lanes[-1])
        if lane.download is not None:
            lane.close()
        lane.run = run
        lane.download = begin(lane.client, self._mirrors[0], position, end if run is None else run.end)
        return lane

    def _rotate(self) -> None:
        for lane in self._lanes:
            lane.close()
        self._mirrors.append(self._mirrors.pop(0))

    def _set_behind(self, error: FetchError) -> None:
        """The first mirror failed: go on with the next. Raises ``error`` where that has no prospects."""
        self._rotate()
        if isinstance(error, PayloadChangedError):
            self._mirrors.pop()
        if self._taken - self._bytes_at_failure >= PROGRESS_BYTES_MIN:
            self._failures = 0
        self._bytes_at_failure = self._taken
        self._failures += 1
        if not self._mirrors or self._failures >= ROUNDS_MAX * len(self._mirrors):
            self._refusal = error
            raise error
        if self._failures % len(self._mirrors) == 0:
            self._pause(pause_seconds(self._failures // len(self._mirrors) - 1))


class Pause:
    """Waits, and says meanwhile that this is on purpose."""

    __slots__ = ("_alive",)

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def __call__(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._alive()
            time.sleep(min(left, _TICK_SECONDS))


def pause_seconds(failures: int, first: float = PAUSE_SECONDS_FIRST, most: float = PAUSE_SECONDS_MAX) -> float:
    """Twice as long after every failure, up to ``most``; then by chance somewhere in the upper half of that, so
    that a thousand devices do not come back to a server in the same second."""
    whole = min(most, first * (1 << min(failures, 30)))
    return whole * (1 + int.from_bytes(os.urandom(2), "big") / 65536) / 2


def open_sources(
    urls: Sequence[str], client: Callable[[], Client]
) -> tuple[list[HttpSource], list[tuple[str, FetchError]]]:
    """The bundles behind ``urls``, mirrors of the same one as one source; and what did not answer, with why."""
    found: list[HttpSource] = []
    refused: list[tuple[str, FetchError]] = []
    for url in urls[:URLS_MAX]:
        try:
            source = HttpSource(client(), url)
        except FetchError as error:
            refused.append((url, error))
            continue
        twin = next((other for other in found if other.is_same(source)), None)
        if twin is None:
            found.append(source)
        else:
            twin.add(source)
    return found, refused
