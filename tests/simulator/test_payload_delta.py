"""The delta part: how much old content helps, and what a device names as such."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest

from payload.bundle import read_header
from payload.create import BundleInput, ImageInput, create
from payload.delta import (
    APART,
    BLOCK_INDEX_START,
    BLOCKS,
    DIRECTORY_ENTRIES_MAX,
    DIRECTORY_ENTRY,
    DIRECTORY_START,
    REFERENCE_INDEX_START,
    REFERENCES,
    BlockIndex,
    encode_block_index,
    read_directory,
    read_index,
)
from payload.device_region import DeviceRegion
from payload.errors import PayloadFormatError, PayloadInputError, PayloadTruncatedError
from payload.frames import FrameReader, write
from payload.install import install
from payload.seeded import Reuse
from payload.seeds import ImageInBundle, Seed
from payload.sources import FileSource
from recovery.old_content import reuse
from tests.simulator.delta_samples import BLOCK, FRAME, CountingReader, Device, Version, old_image, updated
from tests.simulator.disk import Window
from tests.unit.payload_samples import COMPATIBLE, KERNEL, KEY, BytesReader, believe


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return Version(tmp_path_factory.mktemp("old"), "old", old_image(), 1, units=False)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, old: Version) -> Version:
    return Version(tmp_path_factory.mktemp("new"), "new", updated(old.plain), 2, old)


def plain_bytes(version: Version) -> int:
    return sum(version.image.frames()[index].stored_length for index in range(len(version.image.frames())))


def install_with(version: Version, slot: bytes, other: bytes, seeds: str) -> CountingReader:
    device = Device(slot, other, len(version.plain) + FRAME)
    reader = CountingReader(version.content)
    made = {"o": lambda: Seed(device.other), "s": lambda: Seed(device.slot, is_target=True)}
    device.install(version, reader, [made[letter]() for letter in seeds])
    return reader


def test_a_bundle_without_seeds_is_fetched_plain(new: Version) -> None:
    reader = install_with(new, b"", b"", "")
    assert reader.fetched() == plain_bytes(new)


@pytest.mark.requirement("M3")
def test_any_old_content_saves_bytes(new: Version, old: Version) -> None:
    reader = install_with(new, b"", old.plain, "o")
    assert reader.fetched() < plain_bytes(new) / 3


@pytest.mark.requirement("M3")
def test_a_named_old_version_saves_more(new: Version, old: Version) -> None:
    device = Device(b"", old.plain, len(new.plain) + FRAME)
    any_seed, named = CountingReader(new.content), CountingReader(new.content)
    device.install(new, named, [Seed(device.other, old.manifest)])
    device = Device(b"", old.plain, len(new.plain) + FRAME)
    device.install(new, any_seed, [Seed(device.other)])
    assert named.fetched() < 0.97 * any_seed.fetched()


def test_what_is_announced_is_what_is_read(new: Version, old: Version) -> None:
    for seed_of in (None, old.manifest):
        device = Device(b"", old.plain, len(new.plain) + FRAME)
        reader = CountingReader(new.content)
        device.install(new, reader, [Seed(device.other, seed_of)])
        assert reader.announced
        assert reader.reads[-len(reader.announced) :] == reader.announced


def test_the_plain_frames_are_always_there(new: Version) -> None:
    """What a repair, a stick or a device that knows no delta part reads is complete without it."""
    reader = FrameReader(BytesReader(new.content[: -new.created.delta_bytes]), len(new.header.raw), new.image.frames())
    assert b"".join(reader.frame(index) for index in range(len(reader.table))) == new.plain


def test_a_small_repair_does_not_pay_for_an_index(new: Version, old: Version) -> None:
    damaged = bytearray(new.plain)
    damaged[5 * FRAME + 1] ^= 1
    reader = install_with(new, bytes(damaged), old.plain, "o")
    assert len(reader.reads) == 2  # the directory, the frame


@pytest.mark.parametrize("how", ["rot", "short", "gone", "other", "empty"])
def test_a_seed_that_is_not_what_it_was_costs_bytes_only(new: Version, old: Version, how: str) -> None:
    device = Device(b"", old.plain, len(new.plain) + FRAME)
    for manifest in (None, old.manifest):
        seed = Seed(Lying(device.other, how), manifest)
        device.slot.write(0, bytes(device.slot.size))
        device.install(new, CountingReader(new.content), [seed])


class Lying:
    """Old content that changes between the look at it and its use."""

    def __init__(self, content: Window, how: str) -> None:
        self._content = content
        self._how = how
        self._seen: set[int] = set()
        self.size = content.size

    def read(self, offset: int, length: int) -> bytes:
        data = self._content.read(offset, length)
        again = all(block in self._seen for block in range(offset // BLOCK, (offset + length) // BLOCK))
        self._seen |= set(range(offset // BLOCK, (offset + length) // BLOCK))
        if self._how == "gone" and again:
            raise OSError("pulled out")
        lies = {"rot": data[:-1] + b"?", "short": data[:-1], "other": bytes(length), "empty": b"", "gone": data}
        return lies[self._how] if again else data


def test_the_slot_itself_is_a_seed_only_for_what_is_still_there(new: Version, old: Version) -> None:
    """In place: content moves to the front and to the back; what was replaced is fetched."""
    for moved in (old.plain, old.plain[3 * BLOCK :], bytes(3 * BLOCK) + old.plain):
        reader = install_with(new, moved, b"", "s")
        assert reader.fetched() < plain_bytes(new)


def test_in_place_never_reads_what_this_run_has_replaced(new: Version, old: Version) -> None:
    device = Device(old.plain, b"", len(new.plain) + FRAME)
    watched = Watched(device.slot)
    reuse = Reuse(new.manifest, [Seed(watched, old.manifest, is_target=True)])
    install(
        watched, device.headers, CountingReader(new.content), new.header, new.image, target_broken=True, reuse=reuse
    )
    assert device.slot.disk.peek(16384, len(new.plain)) == new.plain
    assert watched.written
    assert not watched.read_too_late


class Watched:
    """A slot that notes reads of old content that is there no more."""

    def __init__(self, slot: Window) -> None:
        self._slot = slot
        self.size, self.write_unit, self.erase_unit = slot.size, slot.write_unit, slot.erase_unit
        self.written: set[int] = set()
        self.read_too_late: list[int] = []
        self._frame = -1

    def read(self, offset: int, length: int) -> bytes:
        in_frames = range(offset // FRAME, -(-(offset + length) // FRAME))
        if self._frame >= 0 and length != FRAME and offset + length != (self._frame + 1) * FRAME:
            self.read_too_late += [index for index in in_frames if index in self.written]
        return self._slot.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._frame = offset // FRAME
        self.written.add(self._frame)
        self._slot.write(offset, data)

    def flush(self) -> None:
        self._slot.flush()


def test_an_old_image_in_a_bundle_is_a_seed(new: Version, old: Version) -> None:
    device = Device(b"", b"", len(new.plain) + FRAME)
    reader = CountingReader(new.content)
    device.install(new, reader, [Seed(ImageInBundle(old.frame_reader()), old.manifest)])
    assert reader.fetched() < plain_bytes(new) / 3


@pytest.mark.requirement("M3")
def test_of_several_old_versions_the_one_that_is_here_is_used(tmp_path: Path, old: Version) -> None:
    older = Version(tmp_path, "older", old_image(seed=9), 1, units=False)
    new = Version(tmp_path, "new", updated(older.plain), 3, old, older, units=False)
    device = Device(b"", older.plain, len(new.plain) + FRAME)
    reader = CountingReader(new.content)
    device.install(new, reader, [Seed(device.other, older.manifest)])
    assert reader.fetched() < plain_bytes(new) / 3


def test_several_images_have_a_directory_each(tmp_path: Path, old: Version) -> None:
    images = [updated(old.plain, 3)[: 2 * FRAME], updated(old.plain, 4)[: 2 * FRAME]]
    inputs = []
    for name, image in zip(("rootfs", "extra"), images, strict=True):
        (tmp_path / name).write_bytes(image)
        inputs.append(ImageInput(tmp_path / name, "ext4", slot_class=name, frame_size=FRAME))
    fields = BundleInput(COMPATIBLE, 2, "2", KERNEL, tuple(inputs), units=True, old_versions=(old.path,))
    create(fields, KEY, tmp_path / "two.ubk")
    content = (tmp_path / "two.ubk").read_bytes()
    header = read_header(BytesReader(content))
    manifest = believe(header)
    for name, image, kinds in (("rootfs", images[0], [BLOCKS, REFERENCES]), ("extra", images[1], [BLOCKS])):
        chosen = manifest.image(name)
        found = read_directory(BytesReader(content), header, manifest, chosen)
        assert [entry.kind for entry in found] == kinds
        device = Device(b"", old.plain, len(image) + FRAME)
        reader = CountingReader(content)
        reuse = Reuse(manifest, [Seed(device.other)])
        install(device.slot, device.headers, reader, header, chosen, target_broken=True, reuse=reuse)
        assert device.slot.disk.peek(16384, len(image)) == image
        assert reader.fetched() < 40_000


def test_a_unit_sees_far_and_less_far_where_an_old_version_has_its_block(tmp_path: Path) -> None:
    chance = random.Random(6)
    blocks = [chance.randbytes(BLOCK) for _ in range(80)]
    blocks[60] = blocks[10][:-4] + b"new!"
    image = b"".join(blocks)
    old = Version(tmp_path, "old", image, 1, units=False)

    def unit_bytes(*olds: Version) -> int:
        version = Version(tmp_path, "new", image, 2, *olds)
        device = Device(b"", b"".join(blocks[:60] + blocks[61:]), len(image) + FRAME)
        device.install(version, CountingReader(version.content), [Seed(device.other)])
        return block_index(version).frame_units(60 // 16)[60 % 16][1]

    assert unit_bytes() < 100
    assert unit_bytes(old) == BLOCK


def block_index(version: Version) -> BlockIndex:
    reader = BytesReader(version.content)
    entry = read_directory(reader, version.header, version.manifest, version.image)[0]
    return BlockIndex(read_index(reader, len(version.header.raw), entry), version.image)


def test_what_an_old_version_lacks_lies_side_by_side(new: Version, old: Version) -> None:
    kept = {old.plain[at : at + BLOCK] for at in range(0, len(old.plain), BLOCK)}
    index = block_index(new)
    units = [unit for frame in range(len(new.image.frames())) for unit in index.frame_units(frame)]
    parts: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    for number, (offset, length) in enumerate(units):
        if length:
            parts[new.plain[number * BLOCK :][:BLOCK] in kept].append((offset, offset + length))
    assert len(parts[False]) > 5 and len(parts[True]) > 50
    at = parts[False][0][0]
    for start, end in parts[False] + parts[True]:
        assert start == at
        at = end


def test_content_that_is_no_old_version_is_a_seed_for_both_parts(new: Version, old: Version) -> None:
    some = b"".join(old.plain[at : at + BLOCK] for at in range(0, len(old.plain), BLOCK) if at % (4 * BLOCK))
    reader = install_with(new, b"", some, "o")
    index = block_index(new)
    starts = [offset for frame in range(len(new.image.frames())) for offset, length in index.frame_units(frame)]
    apart = next(end for start, end in pairwise(starts) if end > start + BLOCK) + len(new.header.raw)
    together = min(starts) + len(new.header.raw)
    read = [offset for offset, _length in reader.reads]
    assert any(together <= offset < apart for offset in read) and any(offset >= apart for offset in read)
    assert reader.fetched() < plain_bytes(new) * 0.6


@pytest.mark.parametrize("length", [BLOCK + 1, APART, APART + BLOCK + 1])
def test_a_unit_with_a_length_that_none_has_is_refused(length: int, new: Version) -> None:
    blocks = [(length, b"digest", False), *[(0, b"", False)] * (len(new.plain) // BLOCK - 1)]
    with pytest.raises(PayloadFormatError, match="has not the length of one"):
        BlockIndex(encode_block_index(4096, 6, 0, blocks), new.image)


def test_the_same_input_gives_the_same_delta_part(tmp_path: Path, new: Version, old: Version) -> None:
    assert Version(tmp_path, "again", new.plain, 2, old).content[4096:] == new.content[4096:]


def test_a_bundle_that_is_none_is_no_old_version(tmp_path: Path) -> None:
    (tmp_path / "none.ubk").write_bytes(b"nothing")
    (tmp_path / "image").write_bytes(bytes(FRAME))
    fields = BundleInput(
        COMPATIBLE, 1, "1", KERNEL, (ImageInput(tmp_path / "image", "ext4"),), old_versions=(tmp_path / "none.ubk",)
    )
    with pytest.raises(PayloadInputError, match=r"none\.ubk"):
        create(fields, KEY, tmp_path / "out.ubk")


@pytest.mark.parametrize("units", [True, False])
def test_an_old_version_with_a_damaged_frame_is_named(tmp_path: Path, old: Version, units: bool) -> None:
    damaged = bytearray(old.content)
    damaged[len(old.header.raw) + 100] ^= 1
    old = Version(tmp_path, "damaged", old.plain, 1, units=False)
    old.path.write_bytes(damaged)
    with pytest.raises(PayloadInputError, match=r"damaged\.ubk cannot be read"):
        Version(tmp_path, "new", updated(old.plain), 2, old, units=units)
    assert not (tmp_path / "new.ubk").exists()


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """Beside the indexes: 4 bytes and some a block for the places, and what one frame is made of."""
    frame, count = 256 << 10, 96
    chance = random.Random(4)
    old = b"".join(chance.randbytes(64) * (BLOCK // 64) for _ in range(count * frame // BLOCK))
    new = old[BLOCK:] + b"new block".ljust(BLOCK, b"!")
    (tmp_path / "old.img").write_bytes(old)
    (tmp_path / "new.img").write_bytes(new)
    before, after = (ImageInput(tmp_path / f"{name}.img", "ext4", frame_size=frame) for name in ("old", "new"))
    create(BundleInput(COMPATIBLE, 1, "1", KERNEL, (before,)), KEY, tmp_path / "old.ubk")
    create(
        BundleInput(COMPATIBLE, 2, "2", KERNEL, (after,), units=True, old_versions=(tmp_path / "old.ubk",)),
        KEY,
        tmp_path / "new.ubk",
    )
    (tmp_path / "slot").write_bytes(bytes(len(new)))
    slot = DeviceRegion(str(tmp_path / "slot"), 0, len(new))
    seed = DeviceRegion(str(tmp_path / "old.img"), 0, len(old), writable=False)
    source = FileSource(str(tmp_path / "new.ubk"), "new")
    header = read_header(source)
    manifest = believe(header)
    image = manifest.image("rootfs")
    for named in (None, believe(read_header(FileSource(str(tmp_path / "old.ubk"), "old")))):
        tracemalloc.start()
        try:
            ways = Reuse(manifest, [Seed(seed, named)]).plan(source, header, image, slot, range(count))
            assert write(slot, ways, range(count)).written == count
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert slot.read(0, len(new)) == new
        slot.write(0, bytes(len(new)))
        assert peak < 10 * frame


def test_the_document_and_the_code_agree_on_the_delta_part() -> None:
    """docs/SPEC.md gives these numbers."""
    assert (DIRECTORY_START.size, DIRECTORY_ENTRY.size, DIRECTORY_ENTRIES_MAX) == (8, 84, 48)
    assert (BLOCK_INDEX_START.size, REFERENCE_INDEX_START.size) == (24, 16)


# What a device names as seeds


def test_a_device_names_its_slots_and_its_local_payload(new: Version, old: Version) -> None:
    device = Device(b"", old.plain, len(new.plain) + FRAME)
    device.headers[1].write(0, new.header.raw)
    other_headers = [BytesReader(old.header.raw.ljust(8192, b"\0"))]
    slots = [(device.slot, device.headers), (device.other, other_headers)]
    local = [BytesReader(old.content), BytesReader(b"no bundle".ljust(8192))]
    found = reuse(new.manifest, "rootfs", slots, 0, local, believe)  # type: ignore[arg-type]
    named = [(seed.manifest and seed.manifest.digest, seed.is_target) for seed in found.seeds]
    assert named == [(old.manifest.digest, False), (new.manifest.digest, True), (old.manifest.digest, False)]
    reader = CountingReader(new.content)
    install(device.slot, device.headers, reader, new.header, new.image, target_broken=True, reuse=found)
    assert reader.fetched() < plain_bytes(new) / 3


def test_a_last_good_copy_is_replaced_from_what_was_verified_alone(new: Version, old: Version) -> None:
    """G4: seeds may vanish, so they do not count where the old content is the only good one."""
    device = Device(old.plain, b"", len(new.plain) + FRAME)
    reader = CountingReader(new.content)
    found = Reuse(new.manifest, [Seed(device.slot, old.manifest, is_target=True)])
    install(device.slot, device.headers, reader, new.header, new.image, target_broken=False, reuse=found)
    assert reader.fetched() >= plain_bytes(new)
    cut = CountingReader(new.content[: len(new.header.raw) + 10])
    device = Device(old.plain, b"", len(new.plain) + FRAME)
    with pytest.raises(PayloadTruncatedError):
        install(device.slot, device.headers, cut, new.header, new.image, target_broken=False, reuse=found)
    assert device.slot.disk.peek(16384, len(old.plain)) == old.plain
