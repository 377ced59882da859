"""Where everything lies on the virtual device's disk: the one place that decides it.

The partition table, the text of ``device.toml`` and every test that damages something come from here.
The journal's copies and the slot's headers stand apart from each other, in no partition.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
SMALL_BYTES = MIB  # a copy of the journal, a copy of the slot's header, the room of a partition table
PARTITIONED = ("payload", "slot", "data", "other", "spare")


@dataclass(frozen=True)
class Extent:
    """Bytes ``offset`` … ``offset + size`` of the disk; both are multiples of 1 MiB."""

    offset: int
    size: int

    def toml(self) -> str:
        return f"{{offset = {self.offset}, size = {self.size}}}"


@dataclass(frozen=True)
class Layout:
    """A disk of ``size`` bytes. Names: journal-0 … journal-2, header-0, header-1, payload, slot, data.

    With a second slot also other, other-header-0, other-header-1; with a second place for bundles also spare.
    """

    size: int
    extents: dict[str, Extent]

    def __getitem__(self, name: str) -> Extent:
        return self.extents[name]


def plan(
    *, slot_bytes: int, payload_bytes: int, data_bytes: int, two_slots: bool = False, spare: bool = False
) -> Layout:
    """The layout for these sizes, which are rounded up to whole MiB."""
    wanted = {
        "journal-0": SMALL_BYTES,
        "header-0": SMALL_BYTES,
        "payload": payload_bytes,
        "slot": slot_bytes,
        "journal-1": SMALL_BYTES,
        "header-1": SMALL_BYTES,
        "data": data_bytes,
        "journal-2": SMALL_BYTES,
    }
    if two_slots:
        wanted |= {"other-header-0": SMALL_BYTES, "other": slot_bytes, "other-header-1": SMALL_BYTES}
    if spare:
        wanted |= {"spare": payload_bytes}
    extents = {}
    offset = SMALL_BYTES
    for name, size in wanted.items():
        extents[name] = Extent(offset, -(-size // MIB) * MIB)
        offset += extents[name].size
    return Layout(offset + SMALL_BYTES, extents)


# The real OS: room for its uncompressed ext4 form. The tiny OS: a disk of 64 MiB in all.
DEBIAN = plan(slot_bytes=160 * MIB, payload_bytes=96 * MIB, data_bytes=256 * MIB)
TINY = plan(slot_bytes=20 * MIB, payload_bytes=12 * MIB, data_bytes=25 * MIB)
TINY_TWO_SLOTS = plan(slot_bytes=20 * MIB, payload_bytes=12 * MIB, data_bytes=25 * MIB, two_slots=True, spare=True)
TINY_SPARE = plan(slot_bytes=20 * MIB, payload_bytes=12 * MIB, data_bytes=25 * MIB, spare=True)


def sfdisk_script(layout: Layout) -> str:
    """The partition table as ``sfdisk`` reads it; ids are fixed, so that equal disks are equal bytes."""
    lines = ["label: gpt", "label-id: 756E6272-6963-4B00-8000-000000000000", "unit: sectors"]
    for number, name in enumerate([name for name in PARTITIONED if name in layout.extents], 1):
        extent = layout[name]
        lines.append(
            f"start={extent.offset // 512}, size={extent.size // 512}, name={name}, "
            f"uuid=756E6272-6963-4B00-8000-{number:012d}, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4"
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Device:
    """What ``device.toml`` says beside the layout."""

    compatible: str = "unbrick-virtual"
    serial: str = "unbrick-system"
    root_key: str = "root.pub"
    boot_attempts: int = 3
    watchdog_seconds: int = 20
    button: str = "KEY_R"
    hold_seconds: int = 2
    size_max_bytes: int = 5_300_000
    network: bool = False
    addresses: tuple[str, ...] = ()
    https: bool = False  # believes the certificates of ``ca.pem``, beside the configuration
    boot_modules: tuple[str, ...] = ()  # further ones that the OS finds loaded


BOOT_MODULES = ("virtio_pci", "virtio_blk", "squashfs", "erofs", "ext4", "overlay", "i6300esb", "evdev")
RECOVERY_MODULES = ("xhci_pci", "usb_storage", "uas", "sd_mod", "vfat", "nls_ascii", "nls_cp437")
SYSROOT_PACKAGES = (
    "libpython3.11-dev", "libpython3.11-minimal", "libpython3.11-stdlib", "zlib1g-dev", "libexpat1-dev",
    "libsodium-dev", "libzstd-dev", "liblzma-dev", "libc6-dev", "e2fsprogs",
)  # fmt: skip


NETWORK_MODULES = ("virtio_net", "e1000")
NETWORK_PACKAGES = ("dhcpcd-base",)
HTTPS_PACKAGES = ("libssl-dev",)
HTTPS_BYTES_MAX = 2_500_000  # what an image with HTTPS may be larger


def device_toml(layout: Layout, device: Device = Device()) -> str:
    """The text of the device's configuration for ``unbrick build``."""
    journal = "\n".join(f"  {layout[f'journal-{copy}'].toml()}," for copy in range(3))
    names = [("slot", "header"), ("other", "other-header")]
    slots = [pair for pair in names if pair[0] in layout.extents]
    spare = f"\nspare = {layout['spare'].toml()}" if "spare" in layout.extents else ""
    return f"""\
compatible = "{device.compatible}"
boot-attempts = {device.boot_attempts}

[disk]
serial = "{device.serial}"

[journal]
regions = [
{journal}
]

[payload]
region = {layout["payload"].toml()}{spare}

{"".join(_slot(layout, number, *pair) for number, pair in enumerate(slots))}
[data]
region = {layout["data"].toml()}

[watchdog]
module = "i6300esb"
parameters = "heartbeat={device.watchdog_seconds}"
device = "/dev/watchdog0"
timeout-seconds = {device.watchdog_seconds}

[button]
key = "{device.button}"
hold-seconds = {device.hold_seconds}

{_network(device)}[keyring]
root = "{device.root_key}"

[sysroot]
packages = {_texts((*SYSROOT_PACKAGES, *NETWORK_PACKAGES * device.network, *HTTPS_PACKAGES * device.https))}
arch = "amd64"

[kernel]
package = "linux-image-amd64"

[modules]
boot = {_texts((*BOOT_MODULES, *device.boot_modules))}
recovery = {_texts(RECOVERY_MODULES)}

[programs]
include = ["/usr/sbin/e2fsck"]

[image]
size-max-bytes = {device.size_max_bytes + HTTPS_BYTES_MAX * device.https}
compression = "zstd"
"""


def _slot(layout: Layout, number: int, name: str, header: str) -> str:
    headers = "\n".join(f"  {layout[f'{header}-{copy}'].toml()}," for copy in range(2))
    return f"""\
[slot.rootfs.{number}]
region = {layout[name].toml()}
headers = [
{headers}
]
"""


def _network(device: Device) -> str:
    """The URL comes with the kernel's command line: a test's server has a port of its own."""
    if not device.network:
        return ""
    return f"""\
[network]
modules = {_texts(NETWORK_MODULES)}
addresses = {_texts(device.addresses)}
{'gateway = "10.0.2.2"' if device.addresses else ""}
{_HTTPS * device.https}
"""


_HTTPS = """\
https = true
ca = "ca.pem"
"""


def _texts(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
