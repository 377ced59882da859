"""The network as a place where bundles may be: when to look there, and what a look found.

Looked at only where nothing local helps; the link comes up then and not before. What is out of reach is said
with its reason and asked again after a pause that doubles, for ever. Time alone ends a pause, or a cable
that is plugged in.
"""

from __future__ import annotations

import os
import time

from payload import fetch
from payload.dns import Resolver
from payload.errors import FetchError
from payload.http_client import Client
from recovery.console import note
from recovery.link import Link, first_bytes
from statemachine.reasons import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket
    from typing import Any

    from payload.fetch import HttpSource
    from payload.http import Stream
    from payload.http_client import Secure

    Tell = Callable[[int, str], None]

PAUSE_SECONDS_FIRST = 5.0
PAUSE_SECONDS_MAX = 300.0
PROGRESS_BYTES_MIN = 1 << 20
# A record of 16 KiB comes whole or not at all; PID 1 gives up on a recovery that is silent for twice as long.
TLS_SECONDS_MAX = 60.0
URL_WORD = "unbrick.url="


class LookEndedError(FetchError):
    """Nobody waits for the network any more."""

    reason = "resumed"


class Network:
    """``config`` is device.toml's ``[network]``. ``tell`` says a reason on the console. ``clock_floor`` is the newest
    signed time that was ever believed: certificates are judged by it."""

    def __init__(
        self,
        config: dict[str, Any],
        alive: Callable[[], None],
        tell: Tell,
        link: Link | None = None,
        clock_floor: int = 0,
    ) -> None:
        self._alive = alive
        self._tell = tell
        self._link = link or Link(config, alive)
        self._secure = secure(config, max(clock_floor, built_at()), self._pass)
        self._urls = [*urls_on_command_line(first_bytes("/proc/cmdline")), *config["urls"]]
        self._failures = 0
        self._next_look = 0.0
        self._carriers: set[str] = set()
        self.reason = 0
        self.is_over: Callable[[], bool] | None = None  # asked about every second of a look: True ends it

    def _pass(self) -> None:
        """Called between waits. Raises ``LookEndedError``."""
        self._alive()
        if self.is_over is not None and self.is_over():
            raise LookEndedError("something else turned up meanwhile")

    def is_due(self) -> bool:
        """Whether a pause is over: by time, or because a cable came in. Never without a URL to ask for."""
        if not self._urls:
            return False
        carriers = self._link.carriers()
        plugged = bool(carriers - self._carriers)
        self._carriers = carriers
        return plugged or time.monotonic() >= self._next_look

    def look(self) -> list[HttpSource] | None:
        """What servers have now; ``reason`` says why there is nothing. The caller closes them.

        None: nobody was asked, or not all; that says nothing of the network.
        """
        self.reason = 0
        if not self._urls:
            return None
        found: list[HttpSource] = []
        try:
            resolve = Resolver(self._link.up(self._pass), self._pass)
            found, refused = fetch.open_sources(self._urls, lambda: Client(resolve, self._pass, secure=self._secure))
        except FetchError as error:
            refused = [("network", error)]
        if any(isinstance(failure, LookEndedError) for _url, failure in refused):
            for source in found:
                source.close()
            return None
        for url, failure in refused:
            self.reason = CODES[failure.reason]
            self._tell(self.reason, f"{url}: {failure}")
        self._carriers = self._link.carriers()
        self._failures += 1
        self._next_look = time.monotonic() + fetch.pause_seconds(
            self._failures - 1, PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX
        )
        return found

    def nothing_helped(self) -> None:
        """Nothing that the last look found was a bundle for this device. Its sources are closed by now.

        A wrong lease may be why, and a page to log in at answers, too; a new lease may be of another server.
        """
        if self._failures > 1:
            self._link.down()

    @staticmethod
    def is_source(source: object) -> bool:
        return isinstance(source, fetch.HttpSource)

    def note_received(self, used: Sequence[object]) -> None:
        """After work with sources of :meth:`look`: if more than a look's worth came in, the next pause is short."""
        received = sum(source.received for source in used if isinstance(source, fetch.HttpSource))
        if received > 0:
            note(f"{received} bytes came over the network")
        if received >= PROGRESS_BYTES_MIN:
            self._failures = 0
            self._next_look = time.monotonic() + fetch.pause_seconds(0, PAUSE_SECONDS_FIRST)

    def down(self) -> None:
        """Leave the interface as it was found, for the OS."""
        self._link.down()


def urls_on_command_line(command_line: bytes) -> list[str]:
    """Those of ``unbrick.url=``: what a boot server offers goes before what was built in."""
    words = command_line.decode("utf-8", "replace").split()
    return [word.removeprefix(URL_WORD) for word in words if word.startswith(URL_WORD)][: fetch.URLS_MAX]


def secure(config: dict[str, Any], known_time: int, alive: Callable[[], None]) -> Secure | None:
    """What puts TLS around a connection, judging by ``known_time``; None for an image without it."""
    if not config.get("https"):
        return None
    anchors = tuple(map(bytes.fromhex, config["ca"]))

    def wrapped(connection: socket, host: str) -> Stream:
        from payload import tls

        return tls.wrap(connection, host, anchors, TLS_SECONDS_MAX, known_time, alive)

    return wrapped


def built_at() -> int:
    """When the image was built, in seconds since 1970: a time that has passed. 0 where the build was not dated."""
    try:
        return int(os.stat("/init").st_mtime)
    except OSError:
        return 0
