"""A blank device is reinstalled over HTTP and HTTPS from a real nginx, while its power fails again and again.

The cuts are honest: the disk writes a log, and what the next boot finds is what a medium may hold then. All that a
flush had followed is there, and of the rest nothing, a part, or a part and a piece of a write. Counted is what the
guest's network card was sent, TCP's content in all, TLS and headers included.

So many bytes may come: the payload once; for each cut the frames that no flush had followed, and what lay in buffers;
for each start the first look, the header, the answers' headers, and with TLS a handshake for each connection.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path

import pytest

from payload import frames, http, http_client, tls
from payload.bundle import read_header
from payload.fetch import START_BYTES
from payload.sources import FileSource
from qemu.disks import Disk
from qemu.network_log import tcp_bytes_from
from qemu.pytest_plugin import MachineFactory
from qemu.write_log import WriteLog, crash_image
from scripts.virtual.kit import CACHE, Kit
from scripts.virtual.layout import MIB, plan
from scripts.virtual.layout import Device as DeviceOptions
from scripts.virtual.web_server import GUEST_HOST, WebServer
from tests.boot.conftest import FOLDER, made_once
from tests.boot.crash_states import any_power_cut
from tests.boot.device import LOOKED_AT_SECONDS
from tests.boot.download import Connected, large_bundle
from tests.programs.certificates import authority, server

pytestmark = [
    pytest.mark.boot,
    pytest.mark.requirement("D7", "M3", "M6", "M7", "M17"),
    pytest.mark.fault("S1", "S2", "S3", "S4", "N3"),
]

IMAGE_BYTES = 32 * MIB
FRAME_BYTES = 32 << 10  # small, so that what a cut may cost is less than what comes between two of them
LAYOUT = plan(slot_bytes=IMAGE_BYTES, payload_bytes=12 * MIB, data_bytes=25 * MIB)
CUTS = 20
RATE = 1_500_000  # bytes a second
# What comes before a cut: more than a cut may cost, and not all of it before the last cut.
UNTIL_CUT_BYTES = (700_000, 2_300_000)
UNTIL_CUT_SECONDS_MAX = 60.0
# In the kernel (half of a buffer that is set to twice as much), and in the program: what it read at once, a TLS record.
BUFFERED_BYTES = {
    "http": http_client.RECEIVE_BUFFER_BYTES + http.RECEIVE_BYTES_MAX,
    "https": http_client.RECEIVE_BUFFER_BYTES + http.RECEIVE_BYTES_MAX + tls.FEED_BYTES_MAX + tls.RECORD_BYTES_MAX,
}
ANSWERS_BYTES = 4 * 512  # of a start: first look, header, frames, and one more
CONNECTIONS = 2
HANDSHAKE_BYTES = 4096  # of the server's: hello, certificate, proof
# A record of up to 16 KiB has 22 bytes more (RFC 8446, 5.2); a slow server's are smaller.
RECORD_SHARE = {"http": 0.0, "https": 22 / 4096}


@pytest.fixture(scope="session")
def certificate() -> bytes:
    """The server's, with its key. Its authority's lies where the image is made, and lives as long as the image."""
    folder = FOLDER / "https"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "server.pem").exists():
        ca = authority()
        (folder / "ca.pem").write_bytes(ca.pem)
        server(ca, GUEST_HOST).write(folder)
    return (folder / "server.pem").read_bytes()


@pytest.fixture(scope="session")
def https_kit(certificate: bytes) -> Kit:
    return made_once(FOLDER / "https", device=DeviceOptions(network=True, https=True), layout=LAYOUT)


@pytest.fixture
def blank(https_kit: Kit, machine: MachineFactory, tmp_path: Path) -> Connected:
    """A device that has lost everything but its journal."""
    device = Connected(https_kit, large_bundle(https_kit, tmp_path, IMAGE_BYTES, FRAME_BYTES), machine, tmp_path)
    device.lose_everything()
    return device


class Link:
    """The device's net, and what came over it."""

    def __init__(self, device: Connected, web: WebServer, folder: Path) -> None:
        self.bytes_came = 0
        self._device = device
        self._web = web
        self._folder = folder

    def until_cut(self, chance: random.Random, bytes_before: int) -> None:
        """Switch the device on, cut the power once so much came, and leave it the disk that a medium may hold then."""
        device, log, packets = self._device, self._folder / "writes", self._folder / "packets"
        before = device.disk.copy(self._folder / "before.img")
        disk = Disk(device.disk.path, device.kit.device.serial, log=log)
        guest = device.start(self._web.url("slow/os.ubk"), disks=(disk,), network_log=packets)
        guest.expect(re.compile(r"from http.*: version 1"), LOOKED_AT_SECONDS, unless="E102 installed")
        deadline = time.monotonic() + UNTIL_CUT_SECONDS_MAX
        while tcp_bytes_from(packets, self._web.port) < bytes_before:
            assert time.monotonic() < deadline, "nothing comes any more"
            time.sleep(0.02)
        guest.power_off()
        self.bytes_came += tcp_bytes_from(packets, self._web.port)
        writes = WriteLog.read(log)
        cut = any_power_cut(writes, chance)
        crash_image(writes, before.path, device.disk.path, cut.upto, cut.lose, dict(cut.torn))

    def until_whole(self) -> None:
        """Switch the device on, and let it finish."""
        packets = self._folder / "packets"
        self._device.until_confirmed(self._device.start(self._web.url(), network_log=packets))
        self.bytes_came += tcp_bytes_from(packets, self._web.port)


def bytes_max(device: Connected, scheme: str, cuts: int) -> int:
    """What the words at the top of this file come to."""
    header = len(read_header(FileSource(str(device.bundle), "bundle")).raw)
    handshakes = CONNECTIONS * HANDSHAKE_BYTES if scheme == "https" else 0
    per_start = START_BYTES + header + ANSWERS_BYTES + handshakes
    per_cut = frames.FLUSH_FRAMES * FRAME_BYTES + BUFFERED_BYTES[scheme]
    whole = device.bundle.stat().st_size + cuts * per_cut + (cuts + 1) * per_start
    return int(whole * (1 + RECORD_SHARE[scheme]))


@pytest.mark.parametrize(
    ("scheme", "cuts"),
    [
        ("https", 1),
        pytest.param("http", CUTS, marks=pytest.mark.long),
        pytest.param("https", CUTS, marks=pytest.mark.long),
    ],
)
def test_power_cuts_at_random_moments_cost_a_bounded_number_of_bytes(
    blank: Connected, tmp_path: Path, certificate: bytes, scheme: str, cuts: int
) -> None:
    chance = random.Random(cuts)
    moments = [chance.randrange(*UNTIL_CUT_BYTES) for _ in range(cuts)]
    with WebServer(tmp_path / "web", CACHE, RATE, certificate if scheme == "https" else b"") as web:
        shutil.copy(blank.bundle, web.files / "os.ubk")
        link = Link(blank, web, tmp_path)
        for bytes_before in moments:
            link.until_cut(chance, bytes_before)
        link.until_whole()
    assert blank.is_whole()
    came, size, most = link.bytes_came, blank.bundle.stat().st_size, bytes_max(blank, scheme, cuts)
    print(f"{scheme}: {cuts} cuts: {came} bytes came for a bundle of {size}, {most} may")
    assert size <= came <= most
