"""The device that all contenders boot: one disk, one root on it, and the configuration of our image for it.

The root is a squashfs with one program, whose first act is the end of the measured time. It lies in the slot,
which is also a partition, so that a peer finds it by ``root=``. For us the slot is installed from a signed bundle
and the journal says CONFIRMED.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks import module_set
from scripts.virtual.cache import cached, file_digest
from scripts.virtual.commands import run
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.image import make_image
from scripts.virtual.kernel import Kernel
from scripts.virtual.layer import Layer
from scripts.virtual.layout import PARTITIONED, TINY, Device, device_toml

SOURCE = Path(__file__).with_name("first_line.c")
COMPILE = ("gcc", "-std=c11", "-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s")
FOLDERS = ("data", "dev", "etc", "mnt", "proc", "run", "sbin", "sys", "tmp", "usr", "usr/bin")
VERSION = 1
LAYOUT = TINY
DEVICE = Device()
ROOT_NODE = f"/dev/vda{PARTITIONED.index('slot') + 1}"
DATA_NODE = f"/dev/vda{PARTITIONED.index('data') + 1}"


@dataclass(frozen=True)
class BenchDevice:
    """``folder`` holds ``device.toml``, the key and ``device.img``, the disk as it leaves the factory."""

    folder: Path
    disk: DeviceDisk
    config: dict[str, Any]

    @property
    def toml(self) -> Path:
        return self.folder / "device.toml"

    def confirm(self, disk: DeviceDisk) -> None:
        """Say in the journal of ``disk`` what its OS would say by ``unbrick mark-good``: the boot was good."""
        from statemachine.reasons import CODES
        from statemachine.step import step

        journal = disk.journal(self.config)
        attempts = self.config["boot_attempts"]
        confirmed, _action = step(journal.record, "marked_good", attempts, reason=CODES["confirmed"])
        journal.persist(confirmed)


def make_device(folder: Path, cache: Path, kernel: Kernel) -> BenchDevice:
    """Make the device, or make it again. Raises: SetupError."""
    from initramfs.config import device_config, load
    from payload.signing_key import generate_key

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "signing.key").exists():
        generate_key(folder / "signing.key", folder / DEVICE.root_key)
    (folder / "device.toml").write_text(with_modules(device_toml(LAYOUT, DEVICE)))
    config = device_config(load(folder / "device.toml"))
    device = BenchDevice(folder, DeviceDisk.create(folder / "device.img", LAYOUT), config)
    _install(device, build_root(cache), kernel.release)
    return device


def with_modules(toml: str) -> str:
    """The device's configuration with the kernel modules that every contender gets."""
    for key, names in (("boot", module_set.BOOT), ("recovery", module_set.RECOVERY)):
        words = ", ".join(f'"{name}"' for name in names)
        toml, count = re.subn(rf"(?m)^{key} = \[.*\]$", f"{key} = [{words}]", toml)
        assert count == 1, f"device.toml has {count} lines for modules.{key}"
    return toml


def build_root(cache: Path) -> Path:
    """The root file system's image."""

    def make(folder: Path) -> None:
        run([*COMPILE, "-o", folder / "init", SOURCE], hint="run ./scripts/install")
        layer = Layer()
        for name in FOLDERS:
            layer.directory(name)
        layer.file("sbin/init", (folder / "init").read_bytes(), 0o755)
        make_image([layer.write(folder / "layer.tar")], "squashfs", folder / "rootfs.img")

    recipe = {"source": file_digest(SOURCE), "command": COMPILE, "folders": FOLDERS}
    return cached(cache, "first-line", recipe, make) / "rootfs.img"


def _install(device: BenchDevice, root: Path, release: str) -> None:
    """Install the root into the slot as version 1, and confirm it."""
    from payload.create import BundleInput, ImageInput, create
    from payload.signing_key import load_signing_key
    from recovery.workshop import image_of
    from statemachine.record import Slot

    made = BundleInput(DEVICE.compatible, VERSION, "first line", release, (ImageInput(root, "squashfs"),))
    bundle = device.folder / "root.ubk"
    create(made, load_signing_key(device.folder / "signing.key"), bundle)
    device.disk.write_payload(bundle)
    manifest, _report = device.disk.write_slot(bundle, bytes.fromhex(device.config["keyring"]["root"]))
    journal = device.disk.journal(device.config)
    journal.persist(journal.record.but(state="TRYING", slots=(Slot(image_of(manifest)),), floor=VERSION))
    device.confirm(device.disk)
