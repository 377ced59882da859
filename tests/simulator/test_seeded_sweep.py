"""Every fault at every operation of an installation that reuses old content, then again until it is done.

What must hold is what ``test_install_sweep`` says: *whole*, *spared*, *signed*, *bounded*. Here the source has a
delta part, and the seeds are another slot on a disk of its own, the slot that is being written, or both; with and
without the version's name. The faults hit the seeds as well.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from payload import seeded, seeds
from payload.bundle import read_header
from payload.create import BundleInput, ImageInput, create
from payload.digest import digest
from payload.errors import PayloadError
from payload.install import install
from payload.seeded import Reuse
from payload.seeds import Seed
from tests.simulator.disk import Disk, Fault, PowerCut, Storage, Window
from tests.unit.payload_samples import COMPATIBLE, KERNEL, KEY, BytesReader, believe

BLOCK = 4096
FRAME = BLOCK
HEADER = 4096
SLOT_AT = 2 * HEADER
SLOT = 6 * FRAME
# How many of the disks that a cut left are cut again: every 50th, and of what these leave every 500th.
CUT_STRIDES = (50, 500, 1)
ONCE = ("eio", "full", "read-only", "vanished", "lost-write", "misdirected", "rot")


class Version:
    """A bundle in memory."""

    def __init__(self, folder: Path, name: str, plain: bytes, *old: Path) -> None:
        (folder / name).write_bytes(plain)
        inputs = (ImageInput(folder / name, "ext4", frame_size=FRAME),)
        self.path = folder / f"{name}.ubk"
        create(BundleInput(COMPATIBLE, 2, name, KERNEL, inputs, units=bool(old), old_versions=old), KEY, self.path)
        self.plain = plain
        self.content = self.path.read_bytes()
        self.header = read_header(BytesReader(self.content))
        self.manifest = believe(self.header)


class World:
    """The slot's disk, the source's disk, the other slot's disk; and which of them are seeds.

    ``prefers_large``: the disks say so, as a real one does. Frames of old content are written one by one all the same.
    """

    def __init__(
        self, old: Version, new: Version, slot: bytes, other: bytes, named: bool, prefers_large: bool = False
    ) -> None:
        self.prefers_large = prefers_large
        self.new = new
        self.named = old.manifest if named else None
        # The header copies are right already: cuts between them are the matter of the other sweep.
        self.disk = new.header.raw * 2 + slot.ljust(SLOT, b"!")
        self.source = new.content.ljust(-(-len(new.content) // 512) * 512, b"\0")
        self.other = other.ljust(SLOT, b"\0")

    def storage(self, *faults: Fault) -> Storage:
        images = [self.disk, self.source, self.other]
        return Storage(images=images, faults=faults, prefers_large=self.prefers_large)

    def run(self, storage: Storage) -> PayloadError | None:
        """One attempt."""
        disk, source, other = storage.disks
        slot = SignedOnly(disk, self.new)
        old_content = [Seed(other.window(0, SLOT), self.named), Seed(slot, self.named, is_target=True)]
        try:
            install(
                slot,
                [disk.window(number * HEADER, HEADER) for number in (0, 1)],
                source,
                self.new.header,
                self.new.manifest.image("rootfs"),
                target_broken=True,
                reuse=Reuse(self.new.manifest, old_content),
            )
        except PayloadError as error:
            return error
        return None


class SignedOnly(Window):
    """The slot, with an eye on every write."""

    def __init__(self, disk: Disk, version: Version) -> None:
        super().__init__(disk, SLOT_AT, SLOT)
        self._table = version.manifest.image("rootfs").frames()

    def write(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), FRAME):
            if digest(data[at : at + FRAME]) != self._table[(offset + at) // FRAME].digest:
                raise UnsignedBytesError(f"unsigned bytes are written at {offset + at}")
        super().write(offset, data)


class UnsignedBytesError(Exception):
    """What is never to happen."""


def damaged(world: World, storage: Storage) -> set[int]:
    plain = storage.disks[0].peek(SLOT_AT, len(world.new.plain))
    pieces = range(0, len(plain), FRAME)
    return {at // FRAME for at in pieces if plain[at : at + FRAME] != world.new.plain[at : at + FRAME]}


def completes(world: World, storage: Storage) -> Iterator[str]:
    """One run on a healthy disk ends the matter, without touching what is right."""
    intact = set(range(len(world.new.plain) // FRAME)) - damaged(world, storage)
    failure = world.run(storage)
    if failure is not None:
        yield f"not done: {failure.reason}: {failure}"
    durable = storage.restarted()
    if damaged(world, durable):
        yield f"frames {damaged(world, durable)} are wrong on the medium"
    if world.new.header.raw not in [durable.disks[0].peek(number * HEADER, HEADER) for number in (0, 1)]:
        yield "no header copy is right on the medium"
    for operation in storage.trace:
        if operation.kind != "write" or operation.disk != 0 or operation.offset < SLOT_AT:
            continue
        first = (operation.offset - SLOT_AT) // FRAME
        for index in intact.intersection(range(first, first + operation.length // FRAME)):
            yield f"frame {index} was right and is written"


def sweep_cuts(world: World) -> Iterator[str]:
    """A cut at every operation, every disk it can leave; from some of these again; then a healthy run."""
    level = [world.storage()]
    for stride in CUT_STRIDES:
        left = [state for start in level for state in cut_everywhere(world, start)]
        for state in left:
            yield from completes(world, state.restarted())
        level = left[::stride]


def cut_everywhere(world: World, start: Storage) -> Iterator[Storage]:
    number = 0
    seen = set()
    while not ran_through(world, storage := start.restarted([Fault("cut", number)])):
        for state in storage.crash_states():
            image = state.images()[0]
            if image not in seen:
                seen.add(image)
                yield state
        number += 1


def ran_through(world: World, storage: Storage) -> bool:
    try:
        world.run(storage)
    except PowerCut:
        return False
    return True


def sweep_faults(world: World) -> Iterator[str]:
    """Every single fault at every operation, with the power on; then a healthy run, from a healthy source."""
    healthy = world.storage()
    assert world.run(healthy) is None
    for number in range(healthy.operations):
        for kind in ONCE:
            storage = world.storage(Fault(kind, number))
            world.run(storage)
            slot, _source, other = storage.restarted().images()
            for problem in completes(world, Storage(images=[slot, world.source, other])):
                yield f"{kind} at {number}: {problem}"


SWEEPS = {"cuts": sweep_cuts, "faults": sweep_faults}


def make_worlds(folder: Path) -> dict[str, World]:
    chance = random.Random(7)
    blocks = [(b"block %d of the image " % chance.randrange(1 << 30) * BLOCK)[:BLOCK] for _ in range(4)]
    blocks[1] = chance.randbytes(BLOCK)
    old = Version(folder, "old", b"".join(blocks))
    moved = [blocks[1], blocks[3], bytes(BLOCK), blocks[0][:-9] + b"different"]
    new = Version(folder, "new", b"".join(moved), old.path)
    half = new.plain[:FRAME] + old.plain[FRAME:]
    return {
        "other slot": World(old, new, b"", old.plain, named=False),
        "other slot, named": World(old, new, b"", old.plain, named=True),
        "in place": World(old, new, old.plain, b"", named=False),
        "in place, named": World(old, new, old.plain, b"", named=True),
        "in place after a cut": World(old, new, half, b"", named=True),
        "other slot, a real disk": World(old, new, b"", old.plain, named=True, prefers_large=True),
        "in place, a real disk": World(old, new, old.plain, b"", named=False, prefers_large=True),
    }


NAMES = ["other slot", "other slot, named", "in place", "in place, named", "in place after a cut"]
REAL_DISK = ["other slot, a real disk", "in place, a real disk"]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    return make_worlds(tmp_path_factory.mktemp("seeded"))


@pytest.mark.sweep
@pytest.mark.requirement("M7")
@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.parametrize("name", [*NAMES, *REAL_DISK])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_nothing_is_left_unrecovered(worlds: dict[str, World], name: str, sweep: str) -> None:
    assert list(SWEEPS[sweep](worlds[name])) == []


def test_the_seeds_are_used_in_these_worlds(worlds: dict[str, World]) -> None:
    for name, world in worlds.items():
        storage = world.storage()
        assert world.run(storage) is None
        header = len(world.new.header.raw)
        table = world.new.manifest.image("rootfs").frames()
        plain = {header + table[index].offset for index in range(len(table)) if table[index].stored_length}
        read = {one.offset for one in storage.trace if one.kind == "read" and one.disk == 1}
        assert not plain <= read, name


def unverified(self: seeded.SeededFrames, index: int) -> bytes:
    way = self._ways.pop(index, None)
    return way.frame(index) if way is not None else self._plain.frame(index)


def anything_at_any_time(self: seeds.Base, extents: object, frame: int) -> bool:
    return True


def without_a_way_back(self: seeded.SeededFrames, index: int) -> bytes:
    plain = self._ways[index].frame(index) if index in self._ways else self._plain.frame(index)
    return plain if digest(plain) == self.table[index].digest else bytes(len(plain))


MUTANTS = {
    "seeds are believed": (seeded.SeededFrames, "frame", unverified, {"holds": anything_at_any_time}),
    "no plain frame as fallback": (seeded.SeededFrames, "frame", without_a_way_back, {"holds": anything_at_any_time}),
}


@pytest.mark.sweep
@pytest.mark.parametrize("real_disk", [False, True])
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(
    worlds: dict[str, World], name: str, real_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, attribute, mutant, of_base = MUTANTS[name]
    monkeypatch.setattr(place, attribute, mutant)
    for other, replacement in of_base.items():
        monkeypatch.setattr(seeds.Base, other, replacement)
    assert next(problems(worlds, real_disk), None) is not None


def problems(worlds: dict[str, World], real_disk: bool) -> Iterator[str]:
    try:
        for sweep in (sweep_faults, sweep_cuts):  # the quickest first
            for world in worlds.values():
                if world.prefers_large == real_disk:
                    yield from sweep(world)
    except (UnsignedBytesError, ValueError, AssertionError) as error:  # the last one is the disk's
        yield str(error)
