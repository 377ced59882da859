"""The client's end of TLS over a connected socket: HTTPS without the HTTP. A build option of the image.

The certificate must lead to one of the given anchors and carry the host's name or address; TLS is 1.2 or
later. What OpenSSL does is in ``recovery/native/tls/tls.c``; here is what takes time: every call waits at
most so many seconds for the network, whatever the other end does, and no write ends the process.

Keeps strangers from reading along, and fools from being heard. It is *not* why a payload is believed: that
is its signature. ``at``, the time of judgement, is therefore allowed to be old: see docs/SECURITY.md.

Does not connect, look up names, or resume sessions. Where the image was built without HTTPS the module is
there, and :func:`wrap` raises.
"""

from __future__ import annotations

import time

from payload.errors import ServerUntrustedError
from payload.waiting import FOR_INPUT, FOR_OUTPUT, until_ready

try:
    import _unbrick_tls
except ImportError:
    _unbrick_tls = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from socket import socket
    from typing import TypeVar

    Answer = TypeVar("Answer")

FEED_BYTES_MAX = 64 * 1024
RECORD_BYTES_MAX = 16 * 1024  # RFC 8446 §5.1
HOST_CHARACTERS_MAX = 253  # RFC 1035 §3.1, without the final dot
MSG_NOSIGNAL = 0x4000  # <linux/socket.h>


class TlsError(ServerUntrustedError):
    """The other end is not who it must be, or does not speak TLS as it must. ``str()`` is OpenSSL's reason."""


class TlsBrokenError(TlsError):
    """It was who it must be, and what came then was tampered with, or ends without a farewell."""

    reason = "server-unreachable"


def nobody() -> None:
    """Whom it does not matter to."""


def wrap(
    connection: socket,
    host: str,
    anchors: Iterable[bytes],
    seconds: float,
    at: int,
    alive: Callable[[], None] = nobody,
) -> TlsStream:
    """Shake hands with ``host`` over the connected ``connection``, which belongs to the stream from now on.

    ``host`` is a DNS name or an IP address without brackets; ``anchors`` are certificates as DER;
    ``seconds`` bounds the handshake, and each later call, which may take a whole record of 16 KiB to come; a
    time-out that the connection has already bounds each wait for the next byte besides. ``at`` is the newest
    time that is known to have passed, in seconds since 1970; ``alive`` is called about every second of a wait. If this
    raises, the connection is closed.

    Raises:
        TlsError: there is no such certificate, it is over, it is for another host, or this is no TLS.
        TimeoutError: the handshake is not done in ``seconds``.
        OSError: the connection broke.
    """
    try:
        stream = TlsStream(connection, _session(host, tuple(anchors), at), seconds, alive)
        stream.shake_hands()
    except BaseException:
        connection.close()
        raise
    return stream


class TlsStream:
    """A connection after its handshake. ``seconds`` bounds each call, and may be changed at any time.

    A call that raised leaves a stream that is good for :meth:`close` alone. Waiting for :meth:`fileno` is
    not enough before :meth:`recv`: more may have been received than was asked for.
    """

    __slots__ = ("_alive", "_connection", "_session", "_silence_seconds", "seconds")

    def __init__(
        self, connection: socket, session: _unbrick_tls.Session, seconds: float, alive: Callable[[], None] = nobody
    ) -> None:
        self._alive = alive
        self._silence_seconds = connection.gettimeout() or seconds
        connection.setblocking(False)
        self._connection = connection
        self._session = session
        self.seconds = seconds

    def shake_hands(self) -> None:
        """Called once, by :func:`wrap`."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                is_done = self._session.handshake()
            except ValueError as error:
                self._send_what_can_be_sent()  # tell the other end why
                raise TlsError(str(error)) from None
            self._flush(deadline)
            if is_done:
                return
            self._feed(deadline)

    @property
    def protocol(self) -> str:
        """As ``TLSv1.3 TLS_AES_256_GCM_SHA384``."""
        return self._session.protocol()

    def recv(self, size_max: int) -> bytes:
        """One byte to ``size_max``; none after the other end has said that this is all.

        Raises:
            TlsBrokenError: the bytes were tampered with, or end without that word.
            TimeoutError, OSError: the network.
        """
        assert size_max > 0
        deadline = time.monotonic() + self.seconds
        size_max = min(size_max, RECORD_BYTES_MAX)
        while True:
            content = self._answer(lambda: self._session.read(size_max))
            if content is not None:
                return content
            self._flush(deadline)  # a new key of theirs is answered by one of ours
            self._feed(deadline)

    def send(self, content: bytes | memoryview) -> int:
        """Send one record's worth, and say how many bytes that was. Raises as :meth:`recv`."""
        piece = content[:RECORD_BYTES_MAX]
        if piece:
            self._answer(lambda: self._session.write(piece))
            self._flush(time.monotonic() + self.seconds)
        return len(piece)

    def sendall(self, content: bytes) -> None:
        """Send all of it; each record has ``seconds``. Raises as :meth:`recv`."""
        rest = memoryview(content)
        while rest:
            rest = rest[self.send(rest) :]

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        """Say farewell if that takes no time, and close the socket. Never raises."""
        try:
            self._session.farewell()
            self._send_what_can_be_sent()
        finally:
            self._connection.close()

    def _answer(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except ValueError as error:
            raise TlsBrokenError(str(error)) from None

    def _feed(self, deadline: float) -> None:
        """Hand what arrives, or that nothing more will, to the session."""
        self._wait_for(FOR_INPUT, deadline)
        try:
            content = self._connection.recv(FEED_BYTES_MAX)
        except BlockingIOError:  # it looked as if there were something
            return
        self._session.feed(content)

    def _flush(self, deadline: float) -> None:
        rest = memoryview(self._session.take())
        while rest:
            self._wait_for(FOR_OUTPUT, deadline)
            try:
                rest = rest[self._connection.send(rest, MSG_NOSIGNAL) :]
            except BlockingIOError:
                continue

    def _send_what_can_be_sent(self) -> None:
        try:
            self._connection.send(self._session.take(), MSG_NOSIGNAL)
        except OSError:
            return

    def _wait_for(self, event: int, deadline: float) -> None:
        seconds = min(deadline - time.monotonic(), self._silence_seconds)
        if not until_ready(self._connection.fileno(), event, seconds, self._alive):
            raise TimeoutError("the other end does not answer in time")


def _session(host: str, anchors: tuple[bytes, ...], at: int) -> _unbrick_tls.Session:
    if _unbrick_tls is None:
        raise TlsError("this program was built without HTTPS")
    name = host.partition("%")[0].removesuffix(".")  # a certificate has no zone and no final dot
    if not name.isascii() or len(name) > HOST_CHARACTERS_MAX:
        raise TlsError("no host has such a name")
    try:
        return _unbrick_tls.Session(name, _is_address(name), anchors, at)
    except ValueError as error:
        raise TlsError(str(error)) from None


def _is_address(name: str) -> bool:
    from socket import AF_INET, AF_INET6, inet_pton

    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, name)
        except OSError:
            continue
        return True
    return False
