"""Requests to any web server: connects, keeps one connection, follows a few redirects. Reads no bodies.

What a connection is made of is the caller's: ``resolve`` turns names into addresses, ``secure`` puts TLS around
a socket (None: this image has none). ``socket`` is imported late: an ordinary boot has no use for it.
"""

from __future__ import annotations

import errno
import os

from payload.dns import family_of
from payload.errors import FetchError, ServerMisbehavesError, ServerRefusedError, ServerUnreachableError
from payload.http import Limits, Wire, request
from payload.url import join
from payload.waiting import FOR_INPUT, FOR_OUTPUT, until_ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from payload.http import Response, Stream
    from payload.url import Url

    Resolve = Callable[[str], list[str]]
    Secure = Callable[[socket, str], Stream]

REDIRECTS_MAX = 5
REDIRECTS = (301, 302, 303, 307, 308)
ADDRESSES_TRIED_MAX = 4
# What the kernel takes in while nobody reads: with it, what a power cut can lose has a bound.
RECEIVE_BUFFER_BYTES = 256 << 10
MSG_NOSIGNAL = 0x4000  # <linux/socket.h>


class Client:
    """One connection at a time, used again for the same server. ``alive`` is called between all waits, and about every
    second of each; what it raises ends them."""

    __slots__ = ("_answer", "_origin", "_received", "_wire", "alive", "limits", "resolve", "secure")

    def __init__(
        self,
        resolve: Resolve,
        alive: Callable[[], None],
        limits: Limits | None = None,
        secure: Secure | None = None,
    ) -> None:
        self.resolve = resolve
        self.alive = alive
        self.limits = limits or Limits()
        self.secure = secure
        self._wire: Wire | None = None
        self._origin: tuple[str, str, int] | None = None
        self._answer: Response | None = None
        self._received = 0

    def another(self) -> Client:
        """One like this, with a connection of its own."""
        return Client(self.resolve, self.alive, self.limits, self.secure)

    @property
    def received(self) -> int:
        """Bytes that came in, headers included."""
        return self._received + (self._wire.received if self._wire else 0)

    def get(self, url: Url, first: int, last: int | None, validator: str = "") -> tuple[Response, Url]:
        """The answer to :func:`payload.http.request`, which is no redirect, and where it was found.

        Raises:
            FetchError: nothing answers, or not as it must.
        """
        for _redirect in range(REDIRECTS_MAX + 1):
            answer = self._request(url, first, last, validator)
            if answer.status not in REDIRECTS:
                return answer, url
            location = answer.fields.get("location", "")
            if not location:
                raise ServerMisbehavesError(f"{url} redirects to nowhere")
            url = join(url, location)
        raise ServerMisbehavesError(f"more than {REDIRECTS_MAX} redirects, the last to {url}")

    def close(self) -> None:
        """Give the connection up. The next request makes another one."""
        if self._wire is not None:
            self._received += self._wire.received
            self._wire.close()
            self._wire = None
        self._answer = None

    def _request(self, url: Url, first: int, last: int | None, validator: str) -> Response:
        if self._is_kept(url):
            try:
                return self._exchange(url, first, last, validator)
            except ServerUnreachableError:
                pass  # a connection that was idle for long is often closed just now
        self.close()
        self._wire = Wire(self._dial(url), self.limits, self.alive)
        self._origin = url.origin
        return self._exchange(url, first, last, validator)

    def _is_kept(self, url: Url) -> bool:
        answer = self._answer
        return self._origin == url.origin and answer is not None and answer.is_over and answer.is_persistent

    def _exchange(self, url: Url, first: int, last: int | None, validator: str) -> Response:
        assert self._wire is not None, "a request needs a connection"
        self._answer = None
        self._answer = request(self._wire, url, first, last, validator)
        return self._answer

    def _dial(self, url: Url) -> Stream:
        """Raises ``FetchError``."""
        if url.scheme == "https" and self.secure is None:
            raise ServerRefusedError(f"{url}: https is not part of this image")
        refusal: OSError = ServerUnreachableError(f"{url.host} has no address")
        for address in _mixed(self.resolve(url.host))[:ADDRESSES_TRIED_MAX]:
            self.alive()
            try:
                return self._connect(address, url)
            except OSError as error:
                refusal = error
        if isinstance(refusal, FetchError):
            raise refusal
        raise ServerUnreachableError(f"{url.authority}: {refusal}") from refusal

    def _connect(self, address: str, url: Url) -> Stream:
        """Raises ``OSError``."""
        import socket

        connection = socket.socket(family_of(address), socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            connection.setblocking(False)
            refusal = connection.connect_ex((address, url.port))
            if refusal == errno.EINPROGRESS:
                self._wait(connection, FOR_OUTPUT, self.limits.connect_seconds)
                refusal = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if refusal:
                raise OSError(refusal, os.strerror(refusal))
            connection.settimeout(self.limits.silence_seconds)
            if url.scheme == "https" and self.secure is not None:
                return self.secure(connection, url.host)
            return _Plain(connection, self)
        except BaseException:
            connection.close()
            raise

    def _wait(self, connection: socket, event: int, seconds: float) -> None:
        """Raises ``TimeoutError``."""
        if not until_ready(connection.fileno(), event, seconds, self.alive):
            raise TimeoutError(f"nothing for {seconds:.0f} s")


class _Plain:
    """A socket as a stream. A peer that is gone must be an error, not a signal that ends the process."""

    __slots__ = ("_client", "_connection", "close")

    def __init__(self, connection: socket, client: Client) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._client = client
        self.close = connection.close

    def recv(self, length: int) -> bytes:
        while True:
            try:
                return self._connection.recv(length)
            except BlockingIOError:
                self._client._wait(self._connection, FOR_INPUT, self._client.limits.silence_seconds)

    def send(self, data: bytes) -> int:
        while True:
            try:
                return self._connection.send(data, MSG_NOSIGNAL)
            except BlockingIOError:
                self._client._wait(self._connection, FOR_OUTPUT, self._client.limits.silence_seconds)


def _mixed(addresses: list[str]) -> list[str]:
    """Both families in turn, IPv4 first: one of them may lead nowhere."""
    families = [[one for one in addresses if (":" in one) is version_6] for version_6 in (False, True)]
    order = [(place, number) for number, family in enumerate(families) for place in range(len(family))]
    return [families[number][place] for place, number in sorted(order)]
