"""When recovery looks at the network, what it says of it, and how an interface is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from payload import fetch
from payload.dns import Resolver
from payload.errors import FetchError
from payload.http_client import Client
from recovery import link
from recovery.link import AddressMissingError, Link, LinkMissingError, name_servers_of
from recovery.network import Network, urls_on_command_line
from statemachine.reasons import CODES
from tests.unit.payload_samples import Sample, mixed_image
from tests.unit.web_server import StaticFile, WebServer

pytestmark = pytest.mark.requirement("D7", "M22")


def config(**changes: Any) -> dict[str, Any]:
    return {"interface": "any", "addresses": [], "gateway": "", "dns": [], "urls": [], **changes}


class LoopbackLink(Link):
    """A link whose address is always there, or never; cables are the test's."""

    def __init__(self, refusal: FetchError | None = None) -> None:
        super().__init__(config(), lambda: None)
        self.refusal = refusal
        self.cables: set[str] = set()
        self.downs = 0

    def up(self, alive: Callable[[], None]) -> list[str]:
        if self.refusal is not None:
            raise self.refusal
        return []

    def down(self) -> None:
        self.downs += 1

    def carriers(self) -> set[str]:
        return self.cables


class Told:
    def __init__(self) -> None:
        self.reasons: list[int] = []

    def __call__(self, reason: int, text: str) -> None:
        self.reasons.append(reason)


def looking(urls: list[str], loopback: LoopbackLink, told: Told) -> Network:
    return Network(config(urls=urls), lambda: None, told, loopback)


def test_what_servers_have_is_found_and_what_is_out_of_reach_is_told(tmp_path: Path) -> None:
    sample = Sample(tmp_path, mixed_image(3))
    told = Told()
    with WebServer(StaticFile(sample.content)) as server:
        place = looking(["http://127.0.0.1:1/os.ubk", server.url, "http://nowhere.example/"], LoopbackLink(), told)
        found = place.look() or []
        assert [source.name for source in found] == [server.url]
        assert all(place.is_source(source) for source in found)
        found[0].close()
    assert told.reasons == [CODES["server-unreachable"], CODES["name-unresolved"]]


@pytest.mark.fault("N1", "N9")
@pytest.mark.parametrize("refusal", [LinkMissingError("x"), AddressMissingError("x")])
def test_without_a_link_there_is_a_reason_and_the_next_look_starts_anew(refusal: FetchError) -> None:
    told, loopback = Told(), LoopbackLink(refusal)
    place = looking(["http://127.0.0.1:1/"], loopback, told)
    assert place.is_due()
    assert place.look() == []
    place.nothing_helped()
    assert loopback.downs == 0
    assert told.reasons == [place.reason] == [CODES[refusal.reason]]
    assert not place.is_due()
    place.look()
    place.nothing_helped()
    assert loopback.downs == 1, "a wrong lease may be why: it is not kept"


@pytest.mark.fault("N1")
def test_a_cable_ends_the_pause() -> None:
    loopback = LoopbackLink(AddressMissingError("x"))
    place = looking(["http://127.0.0.1:1/"], loopback, Told())
    place.look()
    assert not place.is_due()
    loopback.cables = {"eth0"}
    assert place.is_due()
    assert not place.is_due(), "once"


@pytest.mark.fault("N1")
def test_pauses_grow_for_ever_up_to_a_bound_and_start_anew_after_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1000.0
    monkeypatch.setattr("recovery.network.time.monotonic", lambda: moment)  # the clock's boundary
    place = looking(["http://127.0.0.1:1/"], LoopbackLink(AddressMissingError("x")), Told())

    def pause() -> float:
        nonlocal moment
        place.look()
        started = moment
        while not place.is_due():
            moment += 0.5
        return moment - started

    pauses = [pause() for _look in range(40)]
    assert 2.0 <= pauses[0] <= 5.5
    assert all(150 <= long <= 300.5 for long in pauses[7:])
    assert len(set(pauses[10:])) > 5, "a thousand devices do not come back in the same second"


def test_a_download_that_got_somewhere_makes_the_next_pause_short(tmp_path: Path) -> None:
    content = bytes(2 << 20)
    with WebServer(StaticFile(content)) as server:
        place = looking([server.url], LoopbackLink(), Told())
        for _look in range(10):
            for found in place.look() or []:
                found.close()
        long = place._next_look
        source = fetch.HttpSource(Client(Resolver([], lambda: None), lambda: None), server.url)
        source.read(0, len(content))
        place.note_received([source])
        assert place._next_look < long
        source.close()


def test_without_a_url_the_link_stays_down() -> None:
    loopback = LoopbackLink(AddressMissingError("x"))
    place = looking([], loopback, Told())
    assert not place.is_due()
    assert place.look() is None
    assert (place.reason, loopback.downs) == (0, 0)


def test_a_boot_server_names_a_url() -> None:
    line = b"console=ttyS0 unbrick.url=http://a/os.ubk quiet unbrick.url=http://b/ unbrick.urls=x \xff"
    assert urls_on_command_line(line) == ["http://a/os.ubk", "http://b/"]
    assert len(urls_on_command_line(b"unbrick.url=http://a/ " * 100)) == fetch.URLS_MAX


def interfaces(folder: Path) -> Path:
    """lo, a bridge, and two cards."""
    for name in ("lo", "br0", "eth0", "eth1"):
        (folder / "net" / name).mkdir(parents=True)
        (folder / "net" / name / "carrier").write_text("1\n" if name != "eth0" else "0\n")
    for number, driver in enumerate(("e1000", "virtio_net")):
        device = folder / "devices" / str(number)
        device.mkdir(parents=True)
        (folder / "drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(folder / "drivers" / driver)
        card = folder / "net" / f"eth{number}"
        (card / "device").symlink_to(device)
        (card / "address").write_text(f"52:54:00:00:00:0{number}\n")
    return folder / "net"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("any", ["eth0", "eth1"]),
        ("e1000", ["eth0"]),
        ("virtio_net", ["eth1"]),
        ("52:54:00:00:00:01", ["eth1"]),
        ("r8169", []),
    ],
)
def test_interfaces_are_chosen_by_what_does_not_change(tmp_path: Path, wanted: str, names: list[str]) -> None:
    chosen = Link(config(interface=wanted), lambda: None, str(interfaces(tmp_path)))
    assert chosen._wanted() == names
    assert chosen.carriers() == set(names) - {"eth0"}


def test_without_the_interface_there_is_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "APPEAR_SECONDS_MAX", 0.2)
    with pytest.raises(LinkMissingError):
        Link(config(interface="r8169"), lambda: None, str(interfaces(tmp_path))).up(lambda: None)


def test_a_static_address_needs_nobody() -> None:
    static = config(addresses=["192.0.2.10/24", "2001:db8::10/64"], gateway="192.0.2.1")
    arguments = Link(static, lambda: None)._arguments()
    for option in ("ip_address=192.0.2.10/24", "ip6_address=2001:db8::10/64", "routers=192.0.2.1"):
        assert arguments[arguments.index(option) - 1] == "-S"


def test_an_address_of_ipv6_counts_once_it_is_proven_and_leads_beyond_the_cable() -> None:
    table = b"""\
fe800000000000005054 02 40 20 80 eth0
fec00000000000005054 02 40 40 00 eth0
20010db8000000000001 03 40 00 40 eth1
20010db8000000000002 03 40 00 08 eth1
garbage
"""
    assert link.has_ipv6(table, "eth0")
    assert not link.has_ipv6(table, "eth1"), "tentative, or somebody else's"
    assert not link.has_ipv6(table.replace(b"fec00000000000005054 02 40 40", b"fe80 02 40 20"), "eth0")
    assert link.families_of("no-such-interface") == set()
    assert 4 in link.families_of("lo")


@pytest.mark.fault("N9")
def test_name_servers_of_a_lease_are_addresses_or_nothing() -> None:
    lease = b"ip_address=10.0.2.15\ndomain_name_servers='10.0.2.3 evil $(x) 10.0.2.4'\ndhcp6_name_servers=fec0::3\n\xff"
    assert name_servers_of(lease) == ["10.0.2.3", "10.0.2.4", "fec0::3"]
    assert name_servers_of(b"") == []


def test_every_failure_has_a_reason_with_advice() -> None:
    kinds: list[type[FetchError]] = [FetchError, *FetchError.__subclasses__()]
    assert len(kinds) >= 9
    assert all(kind.reason in CODES for kind in kinds)
