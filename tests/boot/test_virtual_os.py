"""The operating systems of the virtual device start from its disk, without the recovery image.

A small stand-in for it (``stop_gap.c``) mounts what the real one would, so what fails here is the
operating system's own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from initramfs import kernel_modules
from qemu.machine import Disk, Machine, MachineOptions
from qemu.pytest_plugin import MachineFactory
from scripts.comparison import cases, sides
from scripts.comparison.real_root import real_root
from scripts.virtual import debian_root, kernel, tiny_root
from scripts.virtual.commands import run
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.image import OsImage, OsRecipe, make_image
from scripts.virtual.layout import BOOT_MODULES, DEBIAN, TINY, Layout, plan
from tests.boot import lab_guest

pytestmark = pytest.mark.boot

CACHE = Path(__file__).parents[2] / "build" / "cache"
SECONDS = 90.0
LONG_SECONDS = 300.0
FILESYSTEMS = pytest.mark.parametrize("filesystem", ["squashfs", "erofs", "ext4"])


@dataclass(frozen=True)
class Parts:
    """What every machine of this file is made of."""

    kernel: Path
    initrd: Path
    mark_good: Path


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    for name in ("stop_gap", "mark_good"):
        source = Path(__file__).with_name(f"{name}.c")
        run(["gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o", folder / name, source], hint="")
    found = kernel.fetch(CACHE)
    modules = [module.source for module in kernel_modules.resolve(found.root, found.release, BOOT_MODULES)]
    initrd = lab_guest.write_initrd(folder / "initrd", (folder / "stop_gap").read_bytes(), modules)
    return Parts(found.image, initrd, folder / "mark_good")


Boot = Callable[..., Machine]


@pytest.fixture
def boot(machine: MachineFactory, parts: Parts, tmp_path: Path) -> Boot:
    """``boot(image, layout)``: a machine whose slot holds that image."""

    def start(image: OsImage, layout: Layout, prepare: Callable[[DeviceDisk], None] = lambda _disk: None) -> Machine:
        disk = DeviceDisk.create(tmp_path / "disk.img", layout)
        with image.path.open("rb") as source, disk.path.open("r+b") as target:
            target.seek(layout["slot"].offset)
            shutil.copyfileobj(source, target)
        prepare(disk)
        return machine(
            MachineOptions(
                kernel=parts.kernel,
                initrd=parts.initrd,
                append=f"console=ttyS0 panic=1 slot={image.filesystem}",
                memory_mib=512,
                disks=(Disk(disk.path, "system"),),
                watchdog="i6300esb",
            )
        )

    return start


@pytest.mark.parametrize(
    "filesystem",
    ["squashfs", pytest.param("erofs", marks=pytest.mark.long), pytest.param("ext4", marks=pytest.mark.long)],
)
def test_debian_reaches_multi_user_and_confirms(boot: Boot, parts: Parts, filesystem: str) -> None:
    guest = boot(debian_root.build_os(OsRecipe(1, filesystem, unbrick_binary=parts.mark_good), CACHE), DEBIAN)
    guest.expect("stop-gap: hands over", SECONDS, unless="Kernel panic")
    guest.expect("Using hardware watchdog 'i6300ESB timer'", SECONDS)
    guest.expect(re.compile("Reached target.*multi-user.target"), SECONDS, unless="FAILED")
    guest.expect("stand-in: mark-good", SECONDS, unless="FAILED")
    assert guest.boots == 1


@pytest.mark.long
def test_debian_with_a_failed_unit_starts_again_unconfirmed(boot: Boot, parts: Parts) -> None:
    recipe = OsRecipe(2, misbehave="never-good", unbrick_binary=parts.mark_good)
    guest = boot(debian_root.build_os(recipe, CACHE), DEBIAN)
    guest.expect(re.compile("Failed to start.*A service that fails on purpose"), SECONDS)
    guest.expect("stop-gap: hands over", SECONDS, unless="stand-in: mark-good")
    assert guest.boots == 2


@pytest.mark.long
def test_debian_panics_on_purpose(boot: Boot, parts: Parts) -> None:
    recipe = OsRecipe(2, misbehave="panic", unbrick_binary=parts.mark_good)
    guest = boot(debian_root.build_os(recipe, CACHE), DEBIAN)
    guest.expect("Kernel panic - not syncing: sysrq triggered crash", SECONDS)
    guest.expect("stop-gap: hands over", SECONDS, unless="stand-in: mark-good")


@FILESYSTEMS
def test_tiny_confirms(boot: Boot, parts: Parts, filesystem: str) -> None:
    guest = boot(tiny_root.build_os(OsRecipe(7, filesystem, unbrick_binary=parts.mark_good), CACHE), TINY)
    guest.expect("tiny-os: version 7 up", SECONDS, unless="Kernel panic")
    guest.expect("stand-in: mark-good", SECONDS)
    guest.expect("tiny-os: good", SECONDS)


def test_tiny_misbehaves_by_a_file_in_its_overlay(boot: Boot, parts: Parts) -> None:
    def prepare(disk: DeviceDisk) -> None:
        disk.data.write("/upper/etc/misbehave", b"panic\n")

    guest = boot(tiny_root.build_os(OsRecipe(1, unbrick_binary=parts.mark_good), CACHE), TINY, prepare)
    guest.expect("tiny-os: does on purpose: panic", SECONDS)
    guest.expect("Kernel panic - not syncing", SECONDS, unless="tiny-os: good")


@pytest.mark.parametrize(("misbehave", "shown"), [("exit", "Kernel panic"), ("reboot", "tiny-os: version 1 up")])
def test_tiny_misbehaves(boot: Boot, parts: Parts, misbehave: str, shown: str) -> None:
    recipe = OsRecipe(1, misbehave=misbehave, unbrick_binary=parts.mark_good)
    guest = boot(tiny_root.build_os(recipe, CACHE), TINY)
    guest.expect(f"tiny-os: does on purpose: {misbehave}", SECONDS, unless="tiny-os: good")
    guest.expect(shown, SECONDS, unless="tiny-os: good")


def test_tiny_ends_as_it_is_told(boot: Boot, parts: Parts) -> None:
    image = tiny_root.build_os(OsRecipe(1, unbrick_binary=parts.mark_good), CACHE, after_good="poweroff")
    guest = boot(image, TINY)
    guest.expect("tiny-os: good", SECONDS)
    guest.wait_exit(SECONDS)


@pytest.mark.long
@pytest.mark.requirement("M14")
@pytest.mark.skipif(os.geteuid() != 0, reason="roots are made by root")
def test_a_debian_whose_packages_were_updated_by_ours_confirms(boot: Boot, parts: Parts, tmp_path: Path) -> None:
    """libc, systemd, Python and 48 more, in a root that no image was made of before."""
    real = real_root(CACHE)
    root = sides.copy_root(real.archive, tmp_path / "root")
    assert "done" in cases.ours(root, real.new)
    base = tmp_path / "root.tar"
    run(["tar", "--create", "--numeric-owner", "--file", base, "--directory", root, "."], hint="")
    recipe = OsRecipe(1, unbrick_binary=parts.mark_good)
    layer = debian_root.layer_of(recipe, base).write(tmp_path / "layer.tar")
    make_image([base, layer], recipe.filesystem, tmp_path / "rootfs.img")
    image = OsImage(tmp_path / "rootfs.img", 1, "updated", recipe.filesystem, debian_root.INIT, "systemd")
    guest = boot(image, plan(slot_bytes=320 << 20, payload_bytes=16 << 20, data_bytes=256 << 20))
    guest.expect(re.compile("Reached target.*multi-user.target"), LONG_SECONDS, unless="FAILED")
    guest.expect("stand-in: mark-good", LONG_SECONDS, unless="FAILED")
