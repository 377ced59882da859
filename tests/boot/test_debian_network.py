"""A running Debian takes a transaction from a web server: only what it lacks travels."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from packagemanager.master.repository import deb_file
from qemu.pytest_plugin import MachineFactory
from scripts.virtual import debian_root
from scripts.virtual.kit import CACHE
from scripts.virtual.layout import Device as DeviceOptions
from scripts.virtual.web_server import WebServer
from tests.boot.conftest import made_once
from tests.boot.debian_packages import Base
from tests.boot.device import Device
from tests.boot.package_root import found
from tests.boot.test_debian_packages import SECONDS, taking
from tests.unit.transaction_samples import make_deb

pytestmark = [pytest.mark.boot, pytest.mark.long, pytest.mark.requirement("M1", "M3")]

FOLDER = Path(__file__).parents[2] / "build" / "boot-tests" / "debian-network"
NOISE = random.Random(3).randbytes(300_000)
ADDRESS = "ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0"
# Beside the package: header, index, and what the second call looks at.
BESIDE_BYTES_MAX = 40_000


def test_a_transaction_is_taken_from_a_web_server(machine: MachineFactory, tmp_path: Path) -> None:
    kit = made_once(FOLDER, "debian", device=DeviceOptions(network=True, boot_modules=("virtio_net",)))
    device = Device(kit, kit.disk(tmp_path / "device.img", kit.bundle(1)), machine)
    package = deb_file(make_deb(tmp_path / "debs", "sample", "1.0", {"usr/lib/sample/file": NOISE}))
    with WebServer(tmp_path / "web", CACHE) as web:
        base = Base(debian_root.build_base(CACHE))
        key = kit.folder / "signing.key"
        base.transaction([package], 7, kit.device.compatible, key, web.files / "t.ubk")
        device.lay_over(taking("--live", 0, web.url("t.ubk"), ADDRESS))
        guest = device.power_on(network="virtio-net-pci")
        for line in ("E100 confirmed", "apply ended with 0", "E100 confirmed", "apply ended with 2"):
            guest.expect(line, SECONDS)
        guest.close()
        sent_bytes = web.sent_bytes
    assert found(device, tmp_path / "look", "usr/lib/sample/file") == {"usr/lib/sample/file": NOISE}
    assert device.record.packages_good == 7
    assert len(NOISE) < sent_bytes < len(NOISE) + BESIDE_BYTES_MAX
