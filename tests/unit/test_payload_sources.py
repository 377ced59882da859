"""Media that people plug in: found, bounded, never trusted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from payload import sources
from payload.sources import Candidate, FileSource, RegionSource, candidates, order, scan
from tests.unit.payload_samples import OTHER_KEY, BytesReader, Sample, believe, make, mixed_image

MIB = 1 << 20


class Bench:
    """A /sys/class/block and a /dev in a folder, and a mounter that reads FAT by mtools."""

    def __init__(self, folder: Path) -> None:
        self.sys_block = folder / "sys"
        self.devices = folder / "devices"
        self.dev = folder / "dev"
        self.mount_point = folder / "mnt"
        self.mounted: list[str] = []
        for directory in (self.sys_block, self.dev, self.mount_point):
            directory.mkdir()

    def plug(self, name: str, content: bytes, label: str = "", disk: str = "") -> Path:
        node = self.devices / disk / name
        node.mkdir(parents=True)
        (self.sys_block / name).symlink_to(node)
        (node / "size").write_text(f"{len(content) // 512}\n")
        (node / "uevent").write_text(f"MAJOR=8\nDEVNAME={name}\n" + (f"PARTNAME={label}\n" if label else ""))
        (self.dev / name).write_bytes(content)
        return self.dev / name

    def plug_fat(self, name: str, files: dict[str, bytes], folder: str = "unbrick", size: int = 4 * MIB) -> None:
        image = self.plug(name, bytes(size))
        subprocess.run(["/usr/sbin/mkfs.vfat", "-n", "UNBRICK", image], check=True, capture_output=True, timeout=20)
        environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
        arguments = ["-i", str(image)]
        subprocess.run(["mmd", *arguments, f"::/{folder}"], check=True, env=environment, timeout=20)
        paths = [image.parent.parent / file for file in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        command = ["mcopy", *arguments, *map(str, paths), f"::/{folder}"]
        subprocess.run(command, check=True, env=environment, timeout=20)

    def mount(self, device: str, directory: str) -> None:
        self.mounted.append(device)
        environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
        command = ["mcopy", "-s", "-n", "-i", device, "::/*", directory]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=20)
        if done.returncode != 0:
            raise OSError(done.stderr.decode())

    def unmount(self, directory: str) -> None:
        subprocess.run(["find", directory, "-mindepth", "1", "-delete"], check=True, timeout=20)

    def scan(self, *exclude: str) -> list[sources.Source]:
        return scan(
            self,
            lambda: None,
            exclude_disks=exclude,
            mount_point=str(self.mount_point),
            sys_block=str(self.sys_block),
            dev=str(self.dev),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sources"), mixed_image(3))


def test_a_raw_bundle_on_a_disk_or_a_partition(bench: Bench, sample: Sample) -> None:
    bench.plug("sda", sample.content.ljust(MIB, b"\0"))
    bench.plug("sdb", bytes(MIB))
    bench.plug("sdb1", sample.content.ljust(MIB, b"\0"), label="UNBRICK", disk="sdb-tree")
    found = bench.scan()
    assert [source.name for source in found] == ["sdb1 'UNBRICK'", "sda"]
    taken, refused = candidates(found, believe)
    assert [candidate.manifest.version for candidate in taken] == [7, 7]
    assert refused == []


def test_bundles_on_a_fat_stick(bench: Bench, sample: Sample) -> None:
    bench.plug_fat("sda", {"two.ubk": b"garbage", "one.UBK": sample.content, "readme.txt": b"no"})
    found = bench.scan()
    assert [source.name for source in found] == ["sda one.UBK", "sda two.ubk"]
    assert list(bench.mount_point.iterdir()) == []
    taken, refused = candidates(found, believe)
    assert taken[0].source.read(0, 1 << 20) == sample.content
    assert [error.reason for _source, error in refused] == ["payload-truncated"]


def test_bundles_outside_the_folder_are_not_seen(bench: Bench, sample: Sample) -> None:
    bench.plug_fat("sda", {"one.ubk": sample.content}, folder="other")
    assert bench.scan() == []
    assert list(bench.mount_point.iterdir()) == []


def test_the_own_disk_is_not_looked_at(bench: Bench, sample: Sample) -> None:
    content = sample.content.ljust(MIB, b"\0")
    bench.plug("vda", content)
    bench.plug("vda2", content, disk="vda-tree")
    assert len(bench.scan()) == 2
    assert bench.scan("vda", "vda-tree") == []


def test_virtual_and_empty_devices_are_not_looked_at(bench: Bench, sample: Sample) -> None:
    for name in ("loop0", "ram0", "zram0", "nbd0", "dm-0", "md0", "sr0"):
        bench.plug(name, sample.content.ljust(MIB, b"\0"))
    bench.plug("sda", b"")
    assert bench.scan() == []


def test_no_other_file_system_is_mounted(bench: Bench) -> None:
    image = bench.plug("sda", bytes(8 * MIB))
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", image], check=True, capture_output=True, timeout=20)
    bench.plug("sdb", os.urandom(510) + b"\x55\xaa")
    assert bench.scan() == []
    assert bench.mounted == []


def test_a_medium_that_fails_does_not_hide_the_others(bench: Bench, sample: Sample) -> None:
    gone = bench.plug("sda", sample.content.ljust(MIB, b"\0"))
    gone.unlink()
    torn = bytearray(MIB)
    torn[510:512], torn[54:59] = b"\x55\xaa", b"FAT16"
    bench.plug("sdb", bytes(torn))
    bench.plug("sdc", sample.content.ljust(MIB, b"\0"))
    assert [source.name for source in bench.scan()] == ["sdc"]


def test_everything_is_bounded(bench: Bench, sample: Sample) -> None:
    bench.plug_fat("sda", {f"{number:02}.ubk": b"x" for number in range(20)})
    for number in range(60):
        bench.plug(f"sdb{number:02}", sample.content)
    found = bench.scan()
    assert len([source for source in found if source.name.startswith("sda")]) == sources.FILES_PER_MEDIUM_MAX
    assert len(found) == sources.SOURCES_MAX


def test_names_of_strangers_are_made_printable() -> None:
    assert sources.printable("a\x1b[2J\nß" + "x" * 500) == "a?[2J??" + "x" * 57


def test_a_fifo_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError):
        FileSource(str(tmp_path / "fifo"), "fifo")


def test_symbolic_links_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(OSError):
            FileSource(str(path), "link")


def test_a_region_is_a_source(sample: Sample) -> None:
    source = RegionSource(BytesReader(sample.content), "payload")
    taken, _refused = candidates([source], believe)
    assert taken[0].source.name == "payload"


def make_candidates(folder: Path) -> dict[int, Candidate]:
    made = {}
    for version in (3, 9, 5):
        sample = Sample(folder, mixed_image(1), f"v{version}", version=version)
        source = RegionSource(sample.reader, f"v{version}")
        made[version] = Candidate(source, sample.header, sample.manifest)
    return made


def test_the_order_of_candidates(tmp_path: Path) -> None:
    made = make_candidates(tmp_path)
    found = list(made.values())

    def versions(**arguments: object) -> list[int]:
        return [one.manifest.version for one in order(found, **{"floor": 0, **arguments})]  # type: ignore[arg-type]

    assert versions() == [9, 5, 3]
    assert versions(floor=4) == [9, 5]
    assert versions(wanted_digest=made[5].manifest.digest) == [5, 9, 3]
    assert versions(exclude_digests={made[9].manifest.digest}) == [5, 3]
    assert versions(floor=10) == []


def test_equal_candidates_stay_in_the_order_of_their_sources(sample: Sample) -> None:
    both = [Candidate(RegionSource(sample.reader, name), sample.header, sample.manifest) for name in "ab"]
    assert [one.source.name for one in order(both, floor=0)] == ["a", "b"]


@pytest.mark.fault("T1")
def test_a_stranger_s_bundle_is_refused_with_its_reason(tmp_path: Path) -> None:
    path, _created = make(tmp_path, mixed_image(1), key=OTHER_KEY)
    taken, refused = candidates([FileSource(str(path), "stick")], believe)
    assert taken == []
    assert refused[0][1].reason == "payload-wrong-key"
