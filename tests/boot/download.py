"""What the download tests share: devices that have lost everything, on a net with a real web server."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from payload.create import BundleInput, ImageInput, create
from payload.signing_key import load_signing_key
from payload.table import FRAME_BYTES_DEFAULT
from qemu.machine import Machine
from qemu.pytest_plugin import MachineFactory
from scripts.virtual import tiny_root
from scripts.virtual.image import OsRecipe
from scripts.virtual.kit import CACHE, Kit
from tests.boot.device import Device

LARGE_BYTES = 16 << 20


class Connected(Device):
    """A device on the emulator's net, told by its boot loader where bundles are."""

    def __init__(self, kit: Kit, bundle: Path, machine: MachineFactory, folder: Path) -> None:
        small = kit.bundle(1)  # the large one has no room in the payload region
        super().__init__(kit, kit.disk(folder / "device.img", bundle, payload=small), machine)
        self.bundle = bundle
        self.intact = self.digests("slot")

    def lose_everything(self) -> None:
        """Nothing is left but the journal, which says that version 1 was installed."""
        for name in ("slot", "header-0", "header-1", "payload"):
            self.disk.zero(name)

    def start(self, *urls: str, network: str = "virtio-net-pci", **changes: Any) -> Machine:
        words = " ".join(f"unbrick.url={url}" for url in urls)
        return self.power_on(words, network=network, **changes)

    def is_whole(self) -> bool:
        return self.digests("slot") == self.intact


def large_bundle(kit: Kit, folder: Path, size: int = LARGE_BYTES, frame_size: int = FRAME_BYTES_DEFAULT) -> Path:
    """Version 1, with so much noise behind its file system that a download takes a while."""
    image = tiny_root.build_os(OsRecipe(1, "squashfs", "", kit.unbrick_binary), CACHE)
    content = image.path.read_bytes()
    path = folder / "large.img"
    path.write_bytes(content + random.Random(1).randbytes(size - len(content)))
    part = ImageInput(path, "squashfs", watchdog_owner=image.watchdog_owner, init=image.init, frame_size=frame_size)
    made = BundleInput(kit.device.compatible, 1, "large", kit.kernel_release, (part,))
    create(made, load_signing_key(kit.folder / "signing.key"), folder / "large.ubk")
    return folder / "large.ubk"
