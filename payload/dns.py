"""A server's name to its addresses: a minimal DNS client, RFC 1035 and 3596, over UDP.

Written here because the C library's resolver loads shared objects, which a static program cannot do. It asks
the given name servers for A and AAAA records, takes an answer only from whom it asked, with the number and the
question it asked, follows CNAMEs inside one answer, and ends in a bounded time. Not here: caching, search
domains, TCP, DNSSEC (a bundle is believed for its signature, not for where it came from).
"""

from __future__ import annotations

import os
import struct
import time
from struct import Struct

from payload.errors import NameUnresolvedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PORT = 53
A, CNAME, AAAA = 1, 5, 28
INTERNET = 1
MESSAGE_BYTES_MAX = 4096
# Above 1232 bytes an answer may be cut into fragments that get lost: RFC 9715.
ANSWER_BYTES_ASKED = 1232
NAME_BYTES_MAX = 255
LABEL_BYTES_MAX = 63
POINTERS_MAX = 32
RECORDS_MAX = 64
ALIASES_MAX = 8
ADDRESSES_MAX = 8
SERVERS_MAX = 3
ROUNDS_MAX = 3
ANSWER_SECONDS_MAX = 2.0
STRAY_MESSAGES_MAX = 64
RESOLV_CONF_BYTES_MAX = 16 << 10
_HEADER = Struct("!HHHHHH")
_QUESTION = Struct("!HH")
_RECORD = Struct("!HHIH")
_IS_ANSWER, _CODE = 0x8000, 0x000F
_NO_SUCH_NAME = 3
_RECURSION = 0x0100
_OPT = 41


class Resolver:
    """Asks ``servers`` (numeric addresses), one after the other. ``alive`` is called between waits."""

    __slots__ = ("_alive", "_port", "_servers")

    def __init__(self, servers: Sequence[str], alive: Callable[[], None], port: int = PORT) -> None:
        self._servers = tuple(servers[:SERVERS_MAX])
        self._alive = alive
        self._port = port

    def __call__(self, host: str) -> list[str]:
        """Numeric addresses of ``host``, at least one. An address is its own answer.

        Raises:
            NameUnresolvedError: nobody says one.
        """
        if is_address(host):
            return [host]
        if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
            return ["127.0.0.1", "::1"]
        refusal = "no name server is known"
        for _round in range(ROUNDS_MAX):
            for server in self._servers:
                found, refusal = self._ask_for_both(server, host)
                if found:
                    return found[:ADDRESSES_MAX]
        raise NameUnresolvedError(f"{host}: {refusal}")

    def _ask_for_both(self, server: str, host: str) -> tuple[list[str], str]:
        """The addresses, and why there are none. A server that is silent about one kind may know the other."""
        found: list[str] = []
        refusal = f"{server} knows no address"
        for kind in (A, AAAA):
            self._alive()
            try:
                found += self._ask(server, host, kind)
            except (OSError, ValueError) as error:
                refusal = f"{server}: {error}"
        return found, refusal

    def _ask(self, server: str, host: str, kind: int) -> list[str]:
        """Raises ``OSError`` where no answer comes, ``ValueError`` where it is none."""
        import socket

        number = int.from_bytes(os.urandom(2), "big")
        with socket.socket(family_of(server), socket.SOCK_DGRAM) as conversation:
            conversation.connect((server, self._port))  # from now on nobody else's messages arrive
            conversation.send(question(number, host, kind))
            deadline = time.monotonic() + ANSWER_SECONDS_MAX
            for _stray in range(STRAY_MESSAGES_MAX):
                conversation.settimeout(max(0.001, deadline - time.monotonic()))
                message = conversation.recv(MESSAGE_BYTES_MAX)
                try:
                    return answers(message, number, host, kind)
                except NotOurAnswer:
                    continue
        raise TimeoutError("no answer to this question")


class NotOurAnswer(ValueError):  # noqa: N818 - no failure: one waits for the next message
    """Another question's answer, or a forged one."""


def servers_of_system(path: str = "/etc/resolv.conf") -> list[str]:
    """The name servers of the OS this runs in; none where it does not say."""
    try:
        with open(path, "rb") as file:
            lines = file.read(RESOLV_CONF_BYTES_MAX).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver" and is_address(line[1])]


def is_address(text: str) -> bool:
    """Whether ``text`` is a numeric address."""
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):  # ValueError: a zero byte inside
            continue
        return True
    return False


def family_of(address: str) -> int:
    """The family of a numeric address."""
    import socket

    return socket.AF_INET6 if ":" in address else socket.AF_INET


def question(number: int, host: str, kind: int) -> bytes:
    """The message that asks for records of ``kind``. Raises ``ValueError`` for what is no name."""
    extension = b"\0" + _RECORD.pack(_OPT, ANSWER_BYTES_ASKED, 0, 0)  # RFC 6891
    return _HEADER.pack(number, _RECURSION, 1, 0, 0, 1) + encoded(host) + _QUESTION.pack(kind, INTERNET) + extension


def encoded(host: str) -> bytes:
    """The name as its labels, each behind its length. Raises ``ValueError``."""
    labels = [label.encode("ascii") for label in host.removesuffix(".").split(".")]
    name = b"".join(bytes((len(label),)) + label for label in labels if len(label) <= LABEL_BYTES_MAX) + b"\0"
    if not all(0 < len(label) <= LABEL_BYTES_MAX for label in labels) or len(name) > NAME_BYTES_MAX:
        raise ValueError(f"{host[:80]!r} is no name")
    return name


def answers(message: bytes, number: int, host: str, kind: int) -> list[str]:
    """The addresses of ``kind`` that ``message`` gives for ``host``; none if it says that there are none.

    Raises:
        NotOurAnswer: it does not answer this question.
        ValueError: it is malformed, or the server failed.
    """
    try:
        return _answers(message, number, host, kind)
    except (struct.error, IndexError) as error:
        raise ValueError("an answer that is cut short") from error


def _answers(message: bytes, number: int, host: str, kind: int) -> list[str]:
    told, flags, questions, records, _authorities, _additional = _HEADER.unpack_from(message)
    if told != number or not flags & _IS_ANSWER or questions != 1:
        raise NotOurAnswer("another message")
    name, position = _name(message, _HEADER.size)
    wanted = encoded(host).lower()
    if name != wanted or _QUESTION.unpack_from(message, position) != (kind, INTERNET):
        raise NotOurAnswer("another question")
    code = flags & _CODE
    if code not in (0, _NO_SUCH_NAME):
        raise ValueError(f"the name server answers with error {code}")
    return _addresses(_records(message, position + _QUESTION.size, records), wanted, kind)


def _records(message: bytes, position: int, count: int) -> list[tuple[bytes, int, bytes]]:
    """(owner, kind, data) of every record that can matter; the target of an alias is decompressed."""
    found = []
    for _number in range(min(count, RECORDS_MAX)):
        owner, position = _name(message, position)
        kind, family, _seconds, length = _RECORD.unpack_from(message, position)
        position += _RECORD.size
        data = message[position : position + length]
        if len(data) != length:
            raise ValueError("a record that is cut short")
        if family == INTERNET and kind in (A, AAAA, CNAME):
            found.append((owner, kind, _name(message, position)[0] if kind == CNAME else data))
        position += length
    return found


def _addresses(records: list[tuple[bytes, int, bytes]], name: bytes, kind: int) -> list[str]:
    import socket

    aliases = {owner: target for owner, record, target in records if record == CNAME}
    for _alias in range(ALIASES_MAX):
        if name not in aliases:
            break
        name = aliases[name]
    family, length = {A: (socket.AF_INET, 4), AAAA: (socket.AF_INET6, 16)}[kind]
    mine = [data for owner, record, data in records if record == kind and owner == name and len(data) == length]
    return [socket.inet_ntop(family, data) for data in mine]


def _name(message: bytes, position: int) -> tuple[bytes, int]:
    """The name at ``position`` in lower case, its labels behind their lengths; and where it ends.

    A pointer must lead backwards (RFC 1035, section 4.1.4: to a *prior* occurrence), so that no name is endless.
    """
    name = b""
    end = 0
    lowest = position
    for _pointer in range(POINTERS_MAX):
        while (length := message[position]) and length <= LABEL_BYTES_MAX:
            name += message[position : position + 1 + length].lower()
            position += 1 + length
            if len(name) >= NAME_BYTES_MAX:
                raise ValueError("a name that is too long")
        if length == 0:
            return name + b"\0", end or position + 1
        end = end or position + 2
        target = (length << 8 | message[position + 1]) & 0x3FFF
        if length < 0xC0 or target >= lowest:
            raise ValueError("a name that does not end")
        position = lowest = target
    raise ValueError("a name of too many pieces")
