"""Every truncation and every flipped bit of a delta part: the slot gets the same image, if need be by the plain way.

The device has the old version in its other slot and uses it as a seed, so units, reference frames and their indexes
are all read. Nothing of the delta part can make an installation fail, or put other bytes into the slot.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from payload.bundle import read_header
from payload.create import BundleInput, ImageInput, create
from payload.install import install
from payload.seeded import Reuse
from payload.seeds import Seed
from tests.simulator.journals import MemoryRegion
from tests.unit.payload_samples import COMPATIBLE, KERNEL, KEY, BytesReader, believe

pytestmark = [pytest.mark.long, pytest.mark.requirement("D6", "M6"), pytest.mark.fault("N3")]

BLOCK, FRAME = 4096, 16_384


class CountingReader(BytesReader):
    """Knows which plain frames were read: what is in front of ``plain_end``."""

    def __init__(self, content: bytes, plain_end: int) -> None:
        super().__init__(content)
        self.plain_end = plain_end
        self.plain_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        self.plain_bytes += length if offset < self.plain_end else 0
        return super().read(offset, length)


class Bench:
    def __init__(self, folder: Path) -> None:
        chance = random.Random(5)
        self.old = chance.randbytes(8 * BLOCK)
        changed = self.old[5 * BLOCK : 5 * BLOCK + 99] + b"new " * 999
        self.new = self.old[:BLOCK] + bytes(BLOCK) + self.old[2 * BLOCK : 5 * BLOCK] + changed.ljust(3 * BLOCK, b"!")
        self.old_manifest = believe(read_header(BytesReader(self.make(folder, "old", self.old, 6))))
        self.content = self.make(folder, "new", self.new, 7, folder / "old.ubk")
        self.header = read_header(BytesReader(self.content))
        self.manifest = believe(self.header)
        self.image = self.manifest.image("rootfs")
        self.plain_end = len(self.header.raw) + self.image.frames().stored_end()

    def make(self, folder: Path, name: str, image: bytes, version: int, *old: Path) -> bytes:
        (folder / name).write_bytes(image)
        inputs = (ImageInput(folder / name, "ext4", frame_size=FRAME),)
        fields = BundleInput(COMPATIBLE, version, name, KERNEL, inputs, units=bool(old), old_versions=old)
        create(fields, KEY, folder / f"{name}.ubk")
        return (folder / f"{name}.ubk").read_bytes()

    def install(self, content: bytes, *, is_named: bool) -> int:
        """Bytes that were read of plain frames. The slot holds the new image then, whatever ``content`` is."""
        slot = MemoryRegion(bytearray(len(self.new)))
        headers = [MemoryRegion(bytearray(8192)) for _copy in range(2)]
        seed = Seed(MemoryRegion(bytearray(self.old)), self.old_manifest if is_named else None)
        source = CountingReader(content, self.plain_end)
        reuse = Reuse(self.manifest, [seed])
        install(slot, headers, source, self.header, self.image, target_broken=True, reuse=reuse)
        assert slot.image == self.new
        assert all(bytes(copy.image).startswith(self.header.raw) for copy in headers)
        return source.plain_bytes


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("delta"))


@pytest.mark.parametrize("is_named", [True, False], ids=["old version known", "any seed"])
def test_every_flipped_bit_of_the_delta_part(bench: Bench, is_named: bool) -> None:
    whole = bench.install(bench.content, is_named=is_named)
    damaged = bytearray(bench.content)
    costs: Counter[bool] = Counter()
    for bit in range(8 * bench.plain_end, 8 * len(bench.content)):
        damaged[bit // 8] ^= 1 << bit % 8
        costs[bench.install(bytes(damaged), is_named=is_named) > whole] += 1
        damaged[bit // 8] ^= 1 << bit % 8
    assert costs[True] > 8 * 100, "no damage was ever noticed: nothing of the delta part was used"


@pytest.mark.parametrize("is_named", [True, False], ids=["old version known", "any seed"])
def test_every_truncation_of_the_delta_part(bench: Bench, is_named: bool) -> None:
    costs = {
        bench.install(bench.content[:end], is_named=is_named) for end in range(bench.plain_end, len(bench.content))
    }
    assert max(costs) > bench.install(bench.content, is_named=is_named)
