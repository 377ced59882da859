"""A whole virtual device from nothing: key, recovery image, operating systems, bundles, a disk.

What the demo and the boot tests share. Everything is kept in one folder and made again only where what it
is made from has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initramfs.build import Request, build_image
from initramfs.config import Config, frozen_module, load
from initramfs.progress import Progress
from payload.durable import atomic_replace
from payload.signing_key import generate_key
from qemu.disks import Disk
from qemu.machine import MachineOptions
from scripts.virtual import debian_root, tiny_root
from scripts.virtual.cache import cached
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.image import OsImage, OsRecipe
from scripts.virtual.kernel import fetch as fetch_kernel
from scripts.virtual.layout import DEBIAN, TINY, Device, Layout, device_toml

if TYPE_CHECKING:
    from collections.abc import Callable

    from payload.manifest import Manifest

CACHE = Path(__file__).parents[2] / "build" / "cache"
ARGUMENTS = "console=ttyS0 panic=3 loglevel=6 net.ifnames=0"
MEMORY_MIB = {"debian": 512, "tiny": 256}
LAYOUTS = {"debian": DEBIAN, "tiny": TINY}
DEVICE = Device()


@dataclass(frozen=True)
class Kit:
    """What a device is made of. ``system`` is ``debian`` or ``tiny``."""

    system: str
    folder: Path
    layout: Layout
    device: Device
    config: dict[str, Any]
    kernel: Path
    kernel_release: str
    initrd: Path
    unbrick_binary: Path

    @property
    def root_key(self) -> bytes:
        return bytes.fromhex(self.config["keyring"]["root"])

    def bundle(self, version: int, misbehave: str = "", **how: Any) -> Path:
        """The signed bundle of a version of the operating system."""
        from payload.bundle import MAGIC, PREFIX
        from payload.create import BundleInput, ImageInput, create
        from payload.manifest import MANIFEST_KEYS
        from payload.signing_key import load_signing_key

        recipe = OsRecipe(version, how.pop("filesystem", "squashfs"), misbehave, self.unbrick_binary)
        kind = how.pop("kind", "immutable")
        image = self._build_os(recipe, how)
        identity = {"image": str(image.path), "release": self.kernel_release, "key": self.root_key.hex(), "kind": kind}

        def make(folder: Path) -> None:
            part = ImageInput(image.path, image.filesystem, kind=kind, watchdog_owner=image.watchdog_owner)
            part = replace(part, init=image.init)
            made = BundleInput(self.device.compatible, version, image.version_name, self.kernel_release, (part,))
            create(made, load_signing_key(self.folder / "signing.key"), folder / "os.ubk")

        identity["format"] = f"{MAGIC.hex()} {PREFIX.format} {','.join(MANIFEST_KEYS)}"
        return cached(CACHE, "bundle", identity, make) / "os.ubk"

    def _build_os(self, recipe: OsRecipe, how: dict[str, Any]) -> OsImage:
        if self.system == "debian":
            return debian_root.build_os(recipe, CACHE, **how)
        return tiny_root.build_os(recipe, CACHE, **how)

    def disk(self, path: Path, bundle: Path, payload: Path | None = None) -> DeviceDisk:
        """A device fresh from the factory: ``bundle`` installed and not confirmed yet, ``payload`` beside it."""
        disk = DeviceDisk.create(path, self.layout)
        disk.write_payload(payload or bundle)
        self.install(disk, bundle)
        return disk

    def install(self, disk: DeviceDisk, bundle: Path) -> Manifest:
        """Install ``bundle`` into the slot: signed, verified, and not confirmed."""
        from recovery.workshop import image_of
        from statemachine.reasons import CODES
        from statemachine.record import Slot

        manifest, _report = disk.write_slot(bundle, self.root_key)
        journal = disk.journal(self.config)
        attempts = self.config["boot_attempts"]
        lost = journal.record.state == "JOURNAL_LOST"
        record = journal.record.but(state="TRYING", attempts_left=attempts)
        record = record.with_slot(record.primary, Slot(image_of(manifest)))
        journal.persist(record.but(reason=CODES["installed"], entered=0 if lost else record.entered))
        return manifest

    def options(self, disk: DeviceDisk, append: str = "", **changes: Any) -> MachineOptions:
        """A machine with this disk, the watchdog, a USB port and a keyboard."""
        options = MachineOptions(
            kernel=self.kernel,
            initrd=self.initrd,
            append=f"{ARGUMENTS} {append}".strip(),
            memory_mib=MEMORY_MIB[self.system],
            disks=(Disk(disk.path, self.device.serial),),
            watchdog="i6300esb",
            usb=True,
        )
        return replace(options, **changes)


def make_kit(
    folder: Path,
    system: str = "tiny",
    device: Device = DEVICE,
    say: Callable[[str], None] = print,
    layout: Layout | None = None,
) -> Kit:
    """Make everything that does not depend on a version of the operating system.

    ``layout`` is another one than the system's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "signing.key").exists():
        generate_key(folder / "signing.key", folder / "root.pub")
    layout = layout or LAYOUTS[system]
    (folder / "device.toml").write_text(device_toml(layout, device))
    say("recovery image: building")
    with Progress() as progress:
        built = build_image(Request(folder / "device.toml", folder / "recovery.cpio.zst", cache=CACHE), progress)
    say(f"recovery image: {built.facts.size_bytes / 1e6:.2f} MB, checked, as `unbrick build` makes it")
    binary = folder / "unbrick"
    atomic_replace(binary, built.tree.by_path["init"].data, mode=0o755)
    kernel = fetch_kernel(CACHE)
    return Kit(
        system=system,
        folder=folder,
        layout=layout,
        device=device,
        config=frozen_config(load(folder / "device.toml")),
        kernel=kernel.image,
        kernel_release=kernel.release,
        initrd=built.output,
        unbrick_binary=binary,
    )


def frozen_config(config: Config) -> dict[str, Any]:
    """The configuration as the device sees it."""
    module: dict[str, Any] = {}
    exec(compile(frozen_module(config), "device_config", "exec"), module)
    frozen: dict[str, Any] = module["CONFIG"]
    return frozen
