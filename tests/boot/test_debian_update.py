"""A real Debian of more than 150 packages takes a real update of more than 18, and starts with what dpkg would leave.

*Offline*: the running OS stages it, recovery puts it in place before the next start, the scripts run in that.
*Live*: the running OS is changed under itself. Both are compared with dpkg's own work on the same root, file by file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from packagemanager.master.repository import deb_file
from packagemanager.places import TRANSACTION as UNDER_WAY
from qemu.pytest_plugin import MachineFactory
from scripts.comparison import database_difference, sides, tree_difference
from scripts.comparison.real_root import RealRoot, real_root
from scripts.virtual.kit import CACHE, Kit
from scripts.virtual.layer import Layer
from scripts.virtual.layout import MIB, plan
from tests.boot.conftest import made_once
from tests.boot.debian_packages import Base
from tests.boot.device import Device
from tests.boot.package_root import mounted
from tests.boot.test_debian_packages import taking

pytestmark = [pytest.mark.boot, pytest.mark.long, pytest.mark.requirement("M7", "M14")]

FOLDER = Path(__file__).parents[2] / "build" / "boot-tests" / "debian-update"
LAYOUT = plan(slot_bytes=320 * MIB, payload_bytes=320 * MIB, data_bytes=1024 * MIB)
PACKAGES_MIN, CHANGED_MIN = 150, 18
NAMED = {"libc6", "openssl", "systemd", "python3.11"}
SECONDS = 1500.0
# Emulated, the scripts of dozens of packages take minutes.
PATIENCE = "[Unit]\nJobTimeoutSec=1200\n"
# What every start changes in files of packages, or the image has over them.
NOT_COMPARED = ("usr/lib/os-release", "etc/hostname", "etc/fstab", "var/lib/dpkg/status-old", "etc/machine-id")


@pytest.fixture(scope="module")
def real() -> RealRoot:
    return real_root(CACHE)


@pytest.fixture(scope="module")
def kit() -> Kit:
    return made_once(FOLDER, "debian", layout=LAYOUT)


@pytest.fixture(scope="module")
def by_dpkg(real: RealRoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root after dpkg has installed the same packages."""
    root = sides.copy_root(real.archive, tmp_path_factory.mktemp("dpkg") / "root")
    sides.install_all(root, real.new)
    return root


@pytest.fixture
def device(kit: Kit, real: RealRoot, machine: MachineFactory, tmp_path: Path) -> Device:
    return Device(kit, kit.disk(tmp_path / "device.img", kit.bundle(1, base=real.archive)), machine)


def offer(device: Device, real: RealRoot, folder: Path, layer: Layer, *, deltas: bool) -> None:
    """Put the update into the user data, as a signed transaction, and have the OS take it when it is up."""
    kit, base = device.kit, Base(real.archive)
    new, old = ([deb_file(path) for path in sorted(debs.iterdir())] for debs in (real.new, real.old))
    names = {package.name for package in new}
    assert len(base.packages) >= PACKAGES_MIN
    assert len(names) >= CHANGED_MIN and names >= NAMED
    key = kit.folder / "signing.key"
    base.transaction(new, 7, kit.device.compatible, key, folder / "t.ubk", old if deltas else ())
    device.disk.data.write("/user/t.ubk", (folder / "t.ubk").read_bytes())
    layer.file("etc/systemd/system/unbrick-mark-good.service.d/zz-patience.conf", PATIENCE)
    device.lay_over(layer)


def differences(by_dpkg: Path, ours: Path) -> Iterator[str]:
    """What packages own and their database say, where that differs. Images have no times of their own."""
    owned = database_difference.owned(by_dpkg)
    for one in tree_difference.differences(by_dpkg, ours):
        if one.path in owned and one.aspect != "time" and one.path not in NOT_COMPARED:
            yield str(one)
    yield from map(str, database_difference.differences(by_dpkg, ours))


@pytest.mark.requirement("M2", "M13")
@pytest.mark.parametrize(
    ("options", "deltas", "taken", "lines"),
    [
        ("--offline", False, 4, ("E601 packages-finished: TRYING", "E100 confirmed: version 1")),
        ("--live", True, 0, ("E100 confirmed: version 1",)),
    ],
    ids=["offline", "live"],
)
def test_a_real_update_is_taken_and_starts(
    device: Device,
    real: RealRoot,
    by_dpkg: Path,
    tmp_path: Path,
    options: str,
    deltas: bool,
    taken: int,
    lines: tuple[str, ...],
) -> None:
    offer(device, real, tmp_path, taking(options, restart=taken), deltas=deltas)
    guest = device.power_on()
    for line in ("E100 confirmed: version 1", f"apply ended with {taken}", *lines, "apply ended with 2"):
        guest.expect(line, SECONDS)
    guest.close()
    record = device.record
    assert (record.state, record.packages_good) == ("CONFIRMED", 7)
    with mounted(device, tmp_path / "look") as root:
        assert list(differences(by_dpkg, root)) == []
        assert not (root / UNDER_WAY).exists()
