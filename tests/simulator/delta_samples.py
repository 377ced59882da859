"""Bundles with delta parts, and a device on a simulated disk that installs them."""

from __future__ import annotations

import random
from pathlib import Path

from payload.bundle import read_header
from payload.create import BundleInput, ImageInput, create
from payload.frames import FrameReader
from payload.install import install
from payload.seeded import Reuse
from payload.seeds import Seed
from tests.simulator.disk import Storage
from tests.unit.payload_samples import COMPATIBLE, KERNEL, KEY, BytesReader, believe

BLOCK = 4096
FRAME = 16 * BLOCK


class CountingReader(BytesReader):
    """A bundle behind a slow link: every read is noted."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads: list[tuple[int, int]] = []
        self.announced: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().read(offset, length)

    def announce(self, ranges: list[tuple[int, int]]) -> None:
        self.announced += ranges

    def fetched(self, from_offset: int = 0) -> int:
        return sum(length for offset, length in self.reads if offset >= from_offset)


def text(chance: random.Random, length: int) -> bytes:
    words = [b"system", b"library", b"return", b"0x%x", b"value of ", b"\n", b"void ", b"static "]
    made = bytearray()
    while len(made) < length:
        made += chance.choice(words) + b"%d " % chance.randrange(1000)
    return bytes(made[:length])


def old_image(frames_count: int = 6, seed: int = 1) -> bytes:
    chance = random.Random(seed)
    return text(chance, frames_count * FRAME - 5 * BLOCK) + bytes(5 * BLOCK)


def updated(old: bytes, seed: int = 2) -> bytes:
    """Some blocks changed a little, some inserted (what follows moves), some gone."""
    chance = random.Random(seed)
    blocks = [old[at : at + BLOCK] for at in range(0, len(old), BLOCK)]
    for number in chance.sample(range(len(blocks) - 6), 5):
        at = chance.randrange(BLOCK - 100)
        blocks[number] = blocks[number][:at] + b"CHANGED %d" % chance.randrange(10**9) + blocks[number][at + 20 :]
        blocks[number] = blocks[number][:BLOCK].ljust(BLOCK, b"!")
    blocks[20:20] = [text(chance, BLOCK) for _ in range(3)]
    del blocks[40:43]
    return b"".join(blocks)


class Version:
    """A bundle in memory, with the delta part that was asked for."""

    def __init__(self, folder: Path, name: str, image: bytes, number: int, *old: Version, units: bool = True) -> None:
        self.plain = image
        self.path = folder / f"{name}.ubk"
        (folder / f"{name}.img").write_bytes(image)
        inputs = (ImageInput(folder / f"{name}.img", "ext4", frame_size=FRAME),)
        olds = tuple(version.path for version in old)
        self.created = create(
            BundleInput(COMPATIBLE, number, name, KERNEL, inputs, units=units, old_versions=olds), KEY, self.path
        )
        self.content = self.path.read_bytes()
        self.header = read_header(BytesReader(self.content))
        self.manifest = believe(self.header)
        self.image = self.manifest.image("rootfs")

    def frame_reader(self) -> FrameReader:
        return FrameReader(BytesReader(self.content), len(self.header.raw), self.image.frames())


class Device:
    """A slot with some content, another slot, header regions."""

    def __init__(self, slot: bytes, other: bytes, size: int) -> None:
        self.storage = Storage(images=[bytes(2 * 8192) + slot.ljust(size, b"\0"), other.ljust(size, b"\0")])
        disk = self.storage.disks[0]
        self.headers = [disk.window(0, 8192), disk.window(8192, 8192)]
        self.slot = disk.window(16384, size)
        self.other = self.storage.disks[1].window(0, size)

    def install(self, version: Version, reader: CountingReader, seeds: list[Seed]) -> None:
        reuse = Reuse(version.manifest, seeds)
        install(self.slot, self.headers, reader, version.header, version.image, target_broken=True, reuse=reuse)
        assert self.slot.disk.peek(16384, len(version.plain)) == version.plain
