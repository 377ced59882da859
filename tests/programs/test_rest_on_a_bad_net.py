"""A device that rests looks for sticks and at its button about every two seconds, whatever the network does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from payload import tls
from payload.dns import Resolver
from payload.errors import FetchError, ServerUnreachableError
from payload.http import Limits
from payload.http_client import Client
from payload.sources import FileSource
from payload.url import parse
from recovery import actions
from recovery.link import Link
from recovery.network import LookEndedError, Network
from recovery.workshop import Workshop
from statemachine.record import Record
from tests.simulator.devices import Device, Kind, Version, factory
from tests.unit.test_recovery_network import config

pytestmark = [pytest.mark.requirement("D7", "D10", "M22"), pytest.mark.fault("N1", "N2", "N9")]

PATIENCE = Limits(connect_seconds=60, silence_seconds=60, window_seconds=60)
SECONDS_MAX = 8.0  # of work that takes a second or two, on a busy host
rest = actions.rest


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def unreachable() -> Iterator[int]:
    """A place where connections are neither taken nor refused: nobody takes those that wait, and there are too many."""
    with ExitStack() as all_of_them, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _waiting in range(4):
            caller = all_of_them.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Patience:
    """Is over after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.calls = 0
        self._deadline = time.monotonic() + seconds

    def __call__(self) -> None:
        self.calls += 1
        if time.monotonic() > self._deadline:
            raise LookEndedError("enough")


@pytest.mark.parametrize("where", ["silent", "unreachable"])
def test_every_wait_can_be_ended(where: str, request: pytest.FixtureRequest) -> None:
    patience = Patience(1.5)
    port = request.getfixturevalue(where)
    asking = Client(Resolver((), patience), patience, PATIENCE)
    started = time.monotonic()
    with pytest.raises(LookEndedError):
        asking.get(parse(f"http://127.0.0.1:{port}/os.ubk"), 0, 10)
    assert time.monotonic() - started < SECONDS_MAX
    assert 3 <= patience.calls < 20


def test_a_wait_inside_tls_can_be_ended() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = tls.TlsStream(ours, NeverReady(), 60.0, Patience(1.5))  # type: ignore[arg-type]
        with pytest.raises(LookEndedError):
            stream.shake_hands()


class NeverReady:
    """OpenSSL's session at its beginning: it wants to read."""

    def handshake(self) -> bool:
        return False

    def take(self) -> bytes:
        return b""


def test_a_connection_that_nobody_answers_has_an_end(unreachable: int) -> None:
    asking = Client(Resolver((), lambda: None), lambda: None, Limits(connect_seconds=0.5))
    with pytest.raises(ServerUnreachableError):
        asking.get(parse(f"http://127.0.0.1:{unreachable}/os.ubk"), 0, 10)


class SlowLink(Link):
    """A link that is there, or that waits for its address until nobody waits any more."""

    def __init__(self, has_address: bool) -> None:
        super().__init__(config(), lambda: None)
        self._has_address = has_address

    def up(self, alive: Callable[[], None]) -> list[str]:
        while not self._has_address:
            alive()
            time.sleep(0.1)
        return []

    def down(self) -> None:
        """Nothing is up."""

    def carriers(self) -> set[str]:
        return set()


class Site:
    """A resting device whose network leads nowhere. ``plug_in``: a stick is found so many seconds later."""

    def __init__(self, device: Device, stick: Path, urls: list[str], has_address: bool) -> None:
        self.looks = 0
        self._stick = stick
        self._there_at = time.monotonic() + 1e9
        self.told: list[str] = []
        world: dict[str, Any] = {"opener": device.opener, "media": self._media}
        self.workshop = Workshop(device.config, "simulated", lambda: None, lambda _record: None, **world)
        self.record = Record("WAITING", slots=device.journal(look_only=True).record.slots)
        self.workshop.recall(self.record)
        network = Network(
            config(urls=urls), lambda: None, lambda _reason, text: self.told.append(text), SlowLink(has_address)
        )
        self.workshop._network = network

    def plug_in(self, seconds: float) -> None:
        self._there_at = time.monotonic() + seconds

    def _media(self) -> list[FileSource]:
        self.looks += 1
        return [FileSource(str(self._stick), "stick")] if time.monotonic() >= self._there_at else []


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return Version(tmp_path_factory.mktemp("rest"), 2, 2)


@pytest.mark.parametrize("where", ["silent", "unreachable", "no address"])
def test_a_stick_is_found_while_the_network_is_asked(
    where: str, version: Version, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.watch.REST_POLL_SECONDS", 0.2)
    monkeypatch.setattr(actions, "REST_POLL_SECONDS", 0.2)
    (tmp_path / "stick.ubk").write_bytes(version.content)
    port = 1 if where == "no address" else request.getfixturevalue(where)
    device = factory(Kind((version,), slots=1), installed=2, kept=())
    site = Site(device, tmp_path / "stick.ubk", [f"http://127.0.0.1:{port}/os.ubk"] * 3, where != "no address")
    site.plug_in(1.5)
    started = time.monotonic()
    assert rest(site.workshop, site.record)[0] == "source_appeared"
    assert 1.5 <= time.monotonic() - started < SECONDS_MAX
    assert site.looks >= 3
    assert site.told == [], "the network is not to blame"


def test_a_link_that_is_not_waited_for_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    place = Link(config(), lambda: None)
    monkeypatch.setattr(place, "_wanted", lambda: ["eth0", "eth1"])
    monkeypatch.setattr(place, "_run", lambda _seconds, *arguments, output="": ran.append(arguments))
    monkeypatch.setattr("recovery.link.STATE_FOLDERS", ())
    with pytest.raises(FetchError):
        place.up(Patience(0.0))
    assert [arguments for arguments in ran if arguments[0] == "-x"] == [("-x", "eth0"), ("-x", "eth1")]
