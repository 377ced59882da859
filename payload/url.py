"""Addresses of files on web servers: RFC 3986 as far as ``http`` and ``https`` need it, and no further.

A URL comes from the configuration, the kernel's command line or a stranger's redirect, and parts of it go into
a request: what is not plain printable ASCII is refused, not escaped. Who may be asked is not decided here.
"""

from __future__ import annotations

from payload.errors import ServerMisbehavesError

URL_CHARACTERS_MAX = 2048
PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65535
_HOST_CHARACTERS_MAX = 253  # RFC 1035, section 2.3.4


class Url:
    """``host`` is a name or an address without brackets; ``target`` is path and query, as a request has them."""

    __slots__ = ("host", "port", "scheme", "target")

    def __init__(self, scheme: str, host: str, port: int, target: str) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.target = target

    @property
    def authority(self) -> str:
        """Host and port, as the Host field has them: RFC 9110, section 7.2."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a connection serves."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse(text: str) -> Url:
    """The URL that ``text`` is; a fragment is dropped. Raises ``ServerMisbehavesError``."""
    if len(text) > URL_CHARACTERS_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise ServerMisbehavesError(f"not a URL: {text[:80]!r}")
    scheme, colon, rest = text.partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in PORTS:
        raise ServerMisbehavesError(f"not a URL of http or https: {text[:80]!r}")
    rest = rest.partition("#")[0]
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    host, port = _host_and_port(rest[:end], PORTS[scheme])
    target = rest[end:]
    return Url(scheme, host, port, target if target.startswith("/") else f"/{target}")


def join(base: Url, location: str) -> Url:
    """Where a redirect from ``base`` leads: RFC 3986, section 5.2, without dot segments.

    Raises:
        ServerMisbehavesError: it is no URL, or it would leave TLS.
    """
    if "://" in location.partition("?")[0]:
        found = parse(location)
    elif location.startswith("//"):
        found = parse(f"{base.scheme}:{location}")
    elif location.startswith("/"):
        found = parse(f"{base.scheme}://{base.authority}{location}")
    else:
        path = base.target.partition("?")[0]
        folder = path if location.startswith("?") else path.rpartition("/")[0] + "/"
        found = parse(f"{base.scheme}://{base.authority}{folder}{location}")
    if base.scheme == "https" and found.scheme != "https":
        raise ServerMisbehavesError(f"a redirect leads from https to {found.scheme}")
    return found


def _host_and_port(authority: str, port_default: int) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        known = bracket and host and all(letter in "0123456789abcdefABCDEF:." for letter in host)
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = authority.partition(":")
        known = bool(host) and all(letter.isalnum() or letter in "-._" for letter in host)
    if not known or len(host) > _HOST_CHARACTERS_MAX or colon not in ("", ":"):
        raise ServerMisbehavesError(f"not a server's name: {authority[:80]!r}")
    if not port:
        return host.lower(), port_default
    if not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= _PORT_MAX:
        raise ServerMisbehavesError(f"not a port: {port[:80]!r}")
    return host.lower(), int(port)
