"""The kernel modules that every contender gets, by name; dependencies come with them.

For a device with a virtio disk: root on squashfs under an overlay with its upper on ext4, a watchdog, a
button, and for recovery a USB stick with FAT and the network.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from initramfs import kernel_modules
from initramfs.newc import Member
from scripts.virtual.kernel import Kernel

MOUNT = ("virtio_pci", "virtio_blk", "squashfs")
BOOT = (*MOUNT, "ext4", "overlay", "i6300esb", "evdev")
RECOVERY = ("virtio_net", "xhci_pci", "usb_storage", "uas", "sd_mod", "vfat", "nls_ascii", "nls_cp437")
ALL = (*BOOT, *RECOVERY)


def members(kernel: Kernel) -> tuple[Member, ...]:
    """The files of the set with their dependencies, as they would lie in an image. Uncompressed."""
    return _members(kernel.root, kernel.release)


@cache
def _members(root: Path, release: str) -> tuple[Member, ...]:
    entries = sorted(kernel_modules.resolve(root, release, ALL), key=lambda entry: entry.path)
    return tuple(Member(entry.path.lstrip("/"), 0o100644, 0, 0, 1, 0, 0, (0, 0), entry.read()) for entry in entries)
