"""A transaction read straight from web servers: only what the device lacks travels, and what arrives is right."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from packagemanager.errors import TransactionError
from packagemanager.transaction import Transaction, believe
from payload.bundle import read_header
from payload.errors import PayloadExpiredError
from payload.fetch import HttpSource
from payload.trust import trusted_key
from tests.programs.http_source import Slept, client
from tests.unit.payload_samples import COMPATIBLE, ROOT
from tests.unit.transaction_samples import SERIAL, Folder, Master, installed_root, state, unpacked
from tests.unit.web_server import Breaks, Request, StaticFile, WebServer

pytestmark = pytest.mark.requirement("M3")
LARGE = random.Random(1).randbytes(400_000)
NEW = random.Random(2).randbytes(60_000)


class Offered:
    """A transaction for two states: one has the old version, the other nothing; and a device with the old version."""

    def __init__(self, folder: Path) -> None:
        master = Master(folder)
        self.old = master.add("tool", "1", {"usr/bin/tool": LARGE})
        wanted = [
            master.add("tool", "2", {"usr/bin/tool": LARGE[:200_000] + b"new" + LARGE[200_000:]}),
            master.add("more", "1", {"usr/bin/more": NEW}),
        ]
        self.content = master.transaction(wanted, [state(self.old), {}])
        self.deb_bytes = wanted[0].size
        self.root: Folder = installed_root(folder / "root", self.old)

    def taken(self, source: HttpSource, last_serial: int = 0, seen: int = 0) -> dict[str, dict[str, bytes]]:
        """What a device with the old version makes of what ``source`` offers; ``seen``: the newest signed time."""
        header = read_header(source)
        trusted = trusted_key(ROOT, COMPATIBLE).with_time(seen)
        manifest, _trusted = believe(header, trusted, COMPATIBLE, last_serial, network=True)
        transaction = Transaction(source, header, manifest)
        sources = transaction.sources(state(self.old), self.root)
        transaction.announce(sources)
        return {key: unpacked(each)[1] for key, each in sources.items()}

    def is_right(self, found: dict[str, dict[str, bytes]]) -> bool:
        tool = {"usr/bin/tool": LARGE[:200_000] + b"new" + LARGE[200_000:]}
        return found == {"tool:amd64": tool, "more:amd64": {"usr/bin/more": NEW}}


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offered:
    return Offered(tmp_path_factory.mktemp("offered"))


def source(*servers: WebServer) -> HttpSource:
    """One transaction, from mirrors."""
    first, *others = [HttpSource(client(), server.url, Slept()) for server in servers]
    for other in others:
        assert first.is_same(other)
        first.add(other)
    return first


def test_only_what_this_device_lacks_is_fetched(offered: Offered) -> None:
    answer = StaticFile(offered.content)
    with WebServer(answer) as server:
        assert offered.is_right(offered.taken(source(server)))
        assert len(server.requests) <= 8, server.ranges
    assert answer.sent < len(offered.content) - offered.deb_bytes + 4 * 32_768


@pytest.mark.fault("N1")
def test_a_network_that_goes_away_is_an_error_in_time(offered: Offered) -> None:
    server = WebServer(StaticFile(offered.content))
    file = source(server)
    header = read_header(file)
    manifest, _trusted = believe(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, 0, network=True)
    server.stop()
    with pytest.raises(TransactionError, match="cannot be read") as raised:
        Transaction(file, header, manifest).sources(state(offered.old), offered.root)
    assert "the device is unchanged" in raised.value.advice


@pytest.mark.fault("N3")
@pytest.mark.parametrize("after", [5000, 30_000])
def test_connections_that_break_cost_nothing_twice(offered: Offered, after: int) -> None:
    answer = Breaks(offered.content, after)
    with WebServer(answer) as server:
        assert offered.is_right(offered.taken(source(server)))
    assert answer.sent < len(offered.content)


@pytest.mark.fault("N3")
def test_a_file_that_ends_too_early_is_refused(offered: Offered) -> None:
    with WebServer(StaticFile(offered.content[: len(offered.content) // 3])) as server, pytest.raises(TransactionError):
        offered.taken(source(server))


class Corrupts(StaticFile):
    """Changes a byte of every body that is not the start of the file; ``times`` such bodies."""

    times = 1 << 30

    def __call__(self, connection: socket.socket, request: Request) -> bool:
        first, end, _is_part = self.span(request)
        if first == 0 or self.times == 0:
            return super().__call__(connection, request)
        self.times -= 1
        connection.sendall(self.header(request))
        body = bytearray(self.content[first:end])
        body[len(body) // 2] ^= 1
        self.send(connection, bytes(body))
        return True


@pytest.mark.fault("N4", "N6")
def test_a_mirror_that_lies_is_left_for_the_other(offered: Offered) -> None:
    with WebServer(Corrupts(offered.content)) as bad, WebServer(StaticFile(offered.content)) as good:
        assert offered.is_right(offered.taken(source(bad, good)))


@pytest.mark.fault("N4")
def test_bytes_that_are_wrong_for_ever_are_refused(offered: Offered) -> None:
    with WebServer(Corrupts(offered.content)) as server, pytest.raises(TransactionError, match="cannot be read"):
        offered.taken(source(server))


@pytest.mark.fault("N7")
def test_an_old_transaction_is_refused_by_its_header_alone(offered: Offered) -> None:
    answer = StaticFile(offered.content)
    with WebServer(answer) as server, pytest.raises(TransactionError, match="not newer"):
        offered.taken(source(server), last_serial=SERIAL)
    assert answer.sent <= 2 * 4096


@pytest.mark.fault("N8")
def test_a_server_that_holds_newer_ones_back_is_noticed(offered: Offered) -> None:
    """What the device saw signed later than this one's end says that somebody keeps an old one alive."""
    with WebServer(StaticFile(offered.content)) as server, pytest.raises(PayloadExpiredError):
        offered.taken(source(server), seen=201)
