"""The virtual device's disk: one layout for partition table, configuration and damage."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from initramfs.config import parse
from scripts.virtual import debian_root, tiny_root
from scripts.virtual.commands import SetupError
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.layout import DEBIAN, PARTITIONED, TINY, TINY_TWO_SLOTS, Layout, device_toml
from scripts.virtual.usb_stick import PARTITION_OFFSET, make_fat_stick, make_raw_stick
from tests.unit import payload_samples

LAYOUTS = pytest.mark.parametrize("layout", [DEBIAN, TINY], ids=["debian", "tiny"])


@pytest.fixture
def disk(tmp_path: Path) -> DeviceDisk:
    return DeviceDisk.create(tmp_path / "disk.img", TINY)


@LAYOUTS
def test_the_configuration_says_what_the_layout_says(layout: Layout) -> None:
    config = parse(device_toml(layout))
    assert [region.offset for region in config.journal.regions] == [
        layout[f"journal-{copy}"].offset for copy in range(3)
    ]
    slot = config.slot["rootfs"]["0"]
    assert (slot.region.offset, slot.region.size) == (layout["slot"].offset, layout["slot"].size)
    assert [region.offset for region in slot.headers] == [layout["header-0"].offset, layout["header-1"].offset]
    assert (config.payload.region.offset, config.data.region.offset) == (
        layout["payload"].offset,
        layout["data"].offset,
    )


@pytest.mark.parametrize("layout", [DEBIAN, TINY, TINY_TWO_SLOTS], ids=["debian", "tiny", "two slots"])
def test_the_partition_table_says_what_the_layout_says(layout: Layout, tmp_path: Path) -> None:
    disk = DeviceDisk.create(tmp_path / "disk.img", layout)
    dump = subprocess.run(["/usr/sbin/sfdisk", "--dump", disk.path], capture_output=True, text=True, check=True)
    for name in set(PARTITIONED) & set(layout.extents):
        (line,) = (line for line in dump.stdout.splitlines() if f'name="{name}"' in line)
        assert f"start={layout[name].offset // 512:12}, size={layout[name].size // 512:12}" in line


@LAYOUTS
def test_the_journal_copies_are_far_apart(layout: Layout) -> None:
    first, middle, last = (layout[f"journal-{copy}"].offset for copy in range(3))
    assert first < layout.size * 0.1
    assert layout.size * 0.4 < middle < layout.size * 0.7
    assert last > layout.size * 0.9


def test_the_tiny_disk_is_64_mib() -> None:
    assert TINY.size == 64 << 20


def test_equal_disks_are_equal_bytes(tmp_path: Path) -> None:
    first, second = (DeviceDisk.create(tmp_path / name, TINY) for name in ("one", "two"))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_fresh_disk_is_sparse(disk: DeviceDisk) -> None:
    assert disk.path.stat().st_blocks * 512 < 8 << 20


def test_damage_stays_inside_its_region(disk: DeviceDisk) -> None:
    names = list(disk.layout.extents)
    before = {name: disk.digest(name) for name in names}
    disk.corrupt("slot", offset=4096, length=100, seed=7)
    after = {name: disk.digest(name) for name in names}
    assert [name for name in names if before[name] != after[name]] == ["slot"]
    assert not any(disk.read("slot", offset=0, length=4096))
    assert not any(disk.read("slot", offset=4196, length=4096))
    with pytest.raises(ValueError, match="outside slot"):
        disk.corrupt("slot", offset=disk.layout["slot"].size, length=1)


def test_damage_is_the_same_for_the_same_seed(disk: DeviceDisk) -> None:
    disk.corrupt("journal-0", seed=1)
    first = disk.digest("journal-0")
    disk.corrupt("journal-0", seed=2)
    assert disk.digest("journal-0") != first
    disk.corrupt("journal-0", seed=1)
    assert disk.digest("journal-0") == first


def test_zero_and_flip_bit(disk: DeviceDisk) -> None:
    clean = disk.digest("payload")
    disk.corrupt("payload")
    disk.zero("payload")
    assert disk.digest("payload") == clean
    disk.flip_bit("payload", 5000, 3)
    assert disk.read("payload", offset=5000, length=1) == b"\x08"


def test_rotten_partition_tables_leave_the_rest(disk: DeviceDisk) -> None:
    before = {name: disk.digest(name) for name in disk.layout.extents}
    disk.rot_partition_tables()
    assert before == {name: disk.digest(name) for name in disk.layout.extents}
    blocks = disk.path.read_bytes()
    assert b"EFI PART" not in blocks[: 1 << 20]
    assert b"EFI PART" not in blocks[-(1 << 20) :]


def test_the_production_code_installs_and_verifies_what_the_damage_hits(disk: DeviceDisk, tmp_path: Path) -> None:
    image = payload_samples.mixed_image(frames=9)
    bundle, created = payload_samples.make(tmp_path, image)
    disk.write_payload(bundle)
    manifest, report = disk.write_slot(bundle, payload_samples.ROOT)
    assert manifest.digest == created.digest
    assert disk.read("slot", length=len(image)) == image
    assert disk.read("payload", length=bundle.stat().st_size) == bundle.read_bytes()
    assert disk.read("header-0") == disk.read("header-1")
    assert report.header_copies == 2
    disk.corrupt("slot", offset=4 * payload_samples.FRAME, length=2 * payload_samples.FRAME)
    assert disk.write_slot(bundle, payload_samples.ROOT)[1].frames_written == 2


def test_a_payload_that_does_not_fit_is_refused(disk: DeviceDisk, tmp_path: Path) -> None:
    large = tmp_path / "large.ubk"
    with large.open("wb") as file:
        file.truncate(disk.layout["payload"].size + 1)
    with pytest.raises(SetupError, match="larger than the payload region"):
        disk.write_payload(large)


def test_files_of_the_data_file_system(disk: DeviceDisk) -> None:
    content = bytes(range(256)) * 40
    disk.data.write("/system/0123-0/upper/usr/sbin/init", content, 0o755)
    disk.data.write("/system/0123-0/upper/usr/sbin/init", content + b"again", 0o755)
    assert disk.data.read("/system/0123-0/upper/usr/sbin/init") == content + b"again"
    assert disk.data.names("/system") == ["0123-0"]
    assert disk.data.names("/nothing") == []
    assert disk.data.read("/nothing") == b""
    first_block = disk.data.blocks("/system/0123-0/upper/usr/sbin/init")[0]
    assert disk.path.read_bytes()[first_block : first_block + 256] == content[:256]
    name = f"{disk.path}?offset={disk.layout['data'].offset}"
    subprocess.run(["/usr/sbin/e2fsck", "-f", "-n", name], check=True, capture_output=True)
    shown = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "ls -p /system/0123-0/upper/usr/sbin", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "/100755/0/0/init/" in shown
    assert "/040755/0/0/./" in shown


def test_what_breaks_an_os_goes_into_every_overlay(disk: DeviceDisk) -> None:
    assert disk.write_overlays(debian_root.breakage("hang")) == 0
    for name in ("0123-0", "0123-1"):
        disk.data.write(f"/system/{name}/upper/etc/hostname", b"x\n")
    assert disk.write_overlays(debian_root.breakage("hang")) == 2
    assert disk.write_overlays(tiny_root.breakage("exit")) == 2
    for name in ("0123-0", "0123-1"):
        assert disk.data.read(f"/system/{name}/upper/usr/sbin/init").startswith(b"#!/bin/sh\n")
        assert disk.data.read(f"/system/{name}/upper/etc/misbehave") == b"exit\n"


def test_a_copy_is_the_same_disk(disk: DeviceDisk, tmp_path: Path) -> None:
    disk.corrupt("slot", length=1000)
    copy = disk.copy(tmp_path / "copy.img")
    assert copy.path.read_bytes() == disk.path.read_bytes()
    assert copy.path.stat().st_blocks <= disk.path.stat().st_blocks + 16


@pytest.mark.parametrize("partitioned", [False, True], ids=["whole", "partitioned"])
def test_a_fat_stick_holds_the_bundle(tmp_path: Path, partitioned: bool) -> None:
    bundle = tmp_path / "a.ubk"
    bundle.write_bytes(payload_samples.mixed_image(frames=30))
    stick = make_fat_stick(bundle, tmp_path / "stick.img", partitioned=partitioned)
    place = f"{stick}@@{PARTITION_OFFSET if partitioned else 0}"
    found = subprocess.run(["mtype", "-i", place, "::/unbrick/os.ubk"], capture_output=True, check=True)
    assert found.stdout == bundle.read_bytes()
    assert b"UNBRICK    " in stick.read_bytes()[: PARTITION_OFFSET + (64 << 10)]


def test_a_raw_stick_starts_with_the_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "a.ubk"
    bundle.write_bytes(b"bundle" * 1001)
    stick = make_raw_stick(bundle, tmp_path / "stick.img")
    assert stick.read_bytes().rstrip(b"\0") == bundle.read_bytes()
    assert stick.stat().st_size % 512 == 0
