"""Whole devices without slot and payload, reinstalled over HTTP from a real nginx, whatever the net does meanwhile."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from payload import http_client
from payload.bundle import read_header
from payload.fetch import START_BYTES
from payload.sources import FileSource
from payload.table import FRAME_BYTES_DEFAULT
from qemu.machine import Machine
from qemu.pytest_plugin import MachineFactory
from scripts.virtual.kit import CACHE, Kit, make_kit
from scripts.virtual.layout import Device as DeviceOptions
from scripts.virtual.web_server import GUEST_HOST, GUEST_HOST_IPV6, SEND_BUFFER_BYTES, WebServer
from tests.boot.conftest import FOLDER
from tests.boot.device import LOOKED_AT_SECONDS, change_byte, shown
from tests.boot.download import Connected, large_bundle
from tests.unit.web_server import WebServer as AnyServer
from tests.unit.web_server import head, raw

pytestmark = [pytest.mark.boot, pytest.mark.requirement("D7", "M3", "M6", "M17")]

STALLED_SECONDS = 240.0
# Beyond what is asked for: what the server had sent and the kernels on the way had taken when it ended.
IN_FLIGHT_BYTES = 2 * http_client.RECEIVE_BUFFER_BYTES + 2 * SEND_BUFFER_BYTES + (256 << 10)


@pytest.fixture(scope="session")
def network_kit() -> Kit:
    folder = FOLDER / "network"
    folder.mkdir(parents=True, exist_ok=True)
    return make_kit(folder, "tiny", DeviceOptions(network=True), say=lambda _text: None)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    with WebServer(tmp_path / "web", CACHE) as server:
        yield server


@pytest.fixture
def bare(network_kit: Kit, machine: MachineFactory, tmp_path: Path, web: WebServer) -> Connected:
    """A device that has lost everything; the server has what it needs."""
    device = Connected(network_kit, network_kit.bundle(1), machine, tmp_path)
    device.lose_everything()
    shutil.copy(device.bundle, web.files / "os.ubk")
    return device


@pytest.fixture
def large(network_kit: Kit, machine: MachineFactory, tmp_path: Path) -> Connected:
    """The same with a bundle of 16 MiB; the test's own server serves it."""
    device = Connected(network_kit, large_bundle(network_kit, tmp_path), machine, tmp_path)
    device.lose_everything()
    return device


def slowly(device: Connected, folder: Path, rate: int) -> WebServer:
    server = WebServer(folder / "web", CACHE, slow_rate=rate)
    shutil.copy(device.bundle, server.files / "os.ubk")
    return server


def consoles(guest: Machine) -> str:
    return guest.console.path.read_text(errors="replace")


def test_a_blank_device_is_reinstalled_over_http(bare: Connected, web: WebServer) -> None:
    guest = bare.start(web.url())
    bare.until_confirmed(guest)
    assert bare.is_whole()
    assert shown(
        consoles(guest),
        "E301 slot-unreadable: REINSTALLING",
        f"from {web.url()}: version 1",
        "bytes came over the network",
        "E113 slot-verified: ACTIVATING",
        "E100 confirmed: version 1",
    )
    web.stop()
    assert web.sent_bytes <= bare.bundle.stat().st_size + START_BYTES, "every byte travels once"


@pytest.mark.requirement("M22", "D10")
def test_a_held_button_and_an_empty_slot_lead_to_the_network(bare: Connected, web: WebServer) -> None:
    guest = bare.start(web.url(), hold_key="r")
    bare.until_confirmed(guest)
    assert shown(consoles(guest), "E106 button-held: SUSPECT", f"from {web.url()}: version 1", "E100 confirmed")
    assert bare.is_whole()


@pytest.mark.requirement("D6")
def test_the_network_is_not_asked_while_something_local_helps(
    network_kit: Kit, machine: MachineFactory, tmp_path: Path, web: WebServer
) -> None:
    device = Connected(network_kit, network_kit.bundle(1), machine, tmp_path)
    device.disk.zero("slot")
    shutil.copy(device.bundle, web.files / "os.ubk")
    device.until_confirmed(device.start(web.url()))
    assert device.is_whole()
    assert web.log == []


@pytest.mark.requirement("M3")
def test_only_damaged_frames_travel(network_kit: Kit, machine: MachineFactory, tmp_path: Path, web: WebServer) -> None:
    device = Connected(network_kit, large_bundle(network_kit, tmp_path), machine, tmp_path)
    shutil.copy(device.bundle, web.files / "os.ubk")
    device.disk.zero("payload")
    device.disk.corrupt("slot", length=3 * FRAME_BYTES_DEFAULT)
    device.until_confirmed(device.start(web.url()))
    assert device.is_whole()
    web.stop()
    header = len(read_header(FileSource(str(device.bundle), "bundle")).raw)
    assert web.sent_bytes <= 3 * FRAME_BYTES_DEFAULT + header + START_BYTES


@pytest.mark.fault("N1", "N3", "N4", "N5", "N6")
def test_bad_mirrors_are_named_and_a_good_one_is_found(bare: Connected, web: WebServer) -> None:
    content = bare.bundle.read_bytes()
    (web.files / "half.ubk").write_bytes(content[: len(content) // 2])
    (web.files / "lies.ubk").write_bytes(content)
    for offset in range(8192, len(content), 65536):
        change_byte(web.files / "lies.ubk", offset)
    with AnyServer(raw(head(200), b"z" * 65536, repeat=True)) as endless:
        guest = bare.start(
            web.url("circle/"),
            f"http://{GUEST_HOST}:{endless.port}/endless",
            web.url("absent"),
            f"http://{GUEST_HOST}:1/",
            web.url("half.ubk"),
            web.url("lies.ubk"),
            web.url("rangeless/os.ubk"),
        )
        bare.until_confirmed(guest)
    said = consoles(guest)
    assert bare.is_whole()
    for reason in (
        "E436 server-misbehaves: .*more than 5 redirects",
        "E435 server-refused: .*404",
        "E433 server-unreachable",
        "E413 payload-missing: .*endless",
        "E404 payload-truncated: .*half.ubk",
    ):
        assert re.search(reason, said), f"{reason} is not said:\n{said[-5000:]}"


@pytest.mark.fault("N1")
def test_a_device_waits_for_a_server_and_goes_on_by_itself(bare: Connected, web: WebServer) -> None:
    web.stop()
    guest = bare.start(web.url())
    guest.expect("E433 server-unreachable: WAITING", LOOKED_AT_SECONDS)
    guest.expect("waiting for a USB stick labelled UNBRICK, the network", LOOKED_AT_SECONDS)
    web.start()
    bare.until_confirmed(guest)
    assert bare.is_whole()


@pytest.mark.long
@pytest.mark.fault("N1")
def test_a_cable_that_is_pulled_and_plugged_in_again(large: Connected, tmp_path: Path) -> None:
    with slowly(large, tmp_path, rate=1_500_000) as web:
        guest = large.start(web.url("slow/os.ubk"))
        guest.expect(re.compile(r"write \[#.*\(\d+ of 64 frames\)"), LOOKED_AT_SECONDS)
        guest.plug_cable(False)
        time.sleep(5)
        guest.plug_cable(True)
        large.until_confirmed(guest)
        assert large.is_whole()
    assert web.sent_bytes <= large.bundle.stat().st_size + START_BYTES + 2 * (FRAME_BYTES_DEFAULT + IN_FLIGHT_BYTES)


@pytest.mark.long
def test_an_ipv6_net_where_routers_give_the_address(bare: Connected, web: WebServer) -> None:
    bare.until_confirmed(bare.start(web.url(host=GUEST_HOST_IPV6), network_options="ipv4=off"))
    assert bare.is_whole()


@pytest.mark.long
@pytest.mark.fault("N2")
def test_a_byte_a_second_is_given_up_and_the_next_mirror_is_asked(bare: Connected, web: WebServer) -> None:
    guest = bare.start(web.url("dripping/os.ubk"), web.url())
    guest.expect("E434 server-stalled", STALLED_SECONDS)
    bare.until_confirmed(guest)
    assert bare.is_whole()


@pytest.mark.long
@pytest.mark.parametrize("network", ["e1000", "virtio-net-pci"])
def test_a_static_address(machine: MachineFactory, tmp_path: Path, web: WebServer, network: str) -> None:
    folder = FOLDER / "static"
    folder.mkdir(parents=True, exist_ok=True)
    kit = make_kit(folder, "tiny", DeviceOptions(network=True, addresses=("10.0.2.77/24",)), say=lambda _text: None)
    device = Connected(kit, kit.bundle(1), machine, tmp_path)
    device.lose_everything()
    shutil.copy(device.bundle, web.files / "os.ubk")
    device.until_confirmed(device.start(web.url(), network=network))
    assert device.is_whole()


@pytest.mark.long
@pytest.mark.fault("N1", "N9")
def test_a_name_server_that_leads_nowhere_is_waiting_with_a_reason(bare: Connected) -> None:
    guest = bare.start("http://updates.example.org/os.ubk", network_options="dns=10.0.2.99")
    guest.expect(re.compile("E432 name-unresolved: .*10[.]0[.]2[.]99"), LOOKED_AT_SECONDS)  # as the lease says
    guest.expect("E432 name-unresolved: WAITING", LOOKED_AT_SECONDS)


@pytest.mark.long
@pytest.mark.parametrize("memory_mib", [128, 120])
def test_little_memory_is_enough(bare: Connected, web: WebServer, memory_mib: int) -> None:
    """With 116 MiB this kernel has not enough to unpack the image."""
    bare.until_confirmed(bare.start(web.url(), memory_mib=memory_mib))
    assert bare.is_whole()
