"""Load orders against kmod's own, on the modules of Debian's kernel. The running kernel is not asked by either."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from initramfs.debian import default_cache_dir, fetch, unpack
from initramfs.errors import FetchError, ToolError
from initramfs.kernel_modules import find_release, normalised, resolve

WANTED = [
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "squashfs",
    "overlay",
    "erofs",
    "loop",
    "usb_storage",
    "uas",
    "sd_mod",
    "xhci_pci",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "i6300esb",
    "evdev",
]
SAMPLES = 50


@pytest.fixture(scope="module")
def kernel() -> Path:
    if not shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("needs kmod")
    try:
        cache = default_cache_dir()
        return unpack(fetch(["linux-image-amd64"], "amd64", cache), cache)
    except (FetchError, ToolError) as error:
        pytest.skip(f"Debian's kernel is not to be had here: {error.message}")


def asked_from_modprobe(kernel: Path, release: str, name: str) -> list[str]:
    command = ["/usr/sbin/modprobe", "-C", "/dev/null", "-d", str(kernel), "-S", release, "--show-depends", name]
    output = subprocess.check_output(command, text=True, timeout=60)
    return [normalised(Path(path).stem) for path in re.findall(r"^insmod (\S+)", output, re.MULTILINE)]


def test_the_load_order_of_a_device_s_modules(kernel: Path) -> None:
    order = [entry.name for entry in resolve(kernel, find_release(kernel), WANTED)]
    virtio = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"]
    assert order[: len(virtio)] == virtio
    assert set(WANTED) <= set(order)
    pairs = [("crc32c_generic", "ext4"), ("scsi_mod", "sd_mod"), ("usb_storage", "uas"), ("libcrc32c", "erofs")]
    assert all(order.index(first) < order.index(second) for first, second in pairs)


@pytest.mark.parametrize("name", WANTED)
def test_modprobe_would_load_the_same(kernel: Path, name: str) -> None:
    release = find_release(kernel)
    assert {entry.name for entry in resolve(kernel, release, [name])} == set(asked_from_modprobe(kernel, release, name))


def test_modprobe_would_load_the_same_for_a_sample_of_all_modules(kernel: Path) -> None:
    release = find_release(kernel)
    listed = (kernel / f"lib/modules/{release}/modules.dep").read_text().splitlines()
    names = sorted(normalised(Path(line.partition(":")[0]).stem) for line in listed)
    for name in names[:: len(names) // SAMPLES]:
        entries = resolve(kernel, release, [name])
        assert {entry.name for entry in entries} == set(asked_from_modprobe(kernel, release, name)), name
        required = {entry.name for entry in entries if not entry.optional}
        assert name in required


def test_every_module_comes_after_those_whose_symbols_it_uses(kernel: Path) -> None:
    """``depends`` in .modinfo is the kernel build's own list, which depmod did not write."""
    entries = resolve(kernel, find_release(kernel), [*WANTED, "btrfs", "e1000e", "ahci", "dm_crypt"])
    position = {entry.name: place for place, entry in enumerate(entries)}
    for entry in entries:
        match = re.search(rb"\0depends=([^\0]*)\0", entry.read())
        assert match is not None, entry.name
        for needed in filter(None, match[1].decode().split(",")):
            assert position[normalised(needed)] < position[entry.name]
