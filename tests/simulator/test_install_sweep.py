"""Every fault at every operation of the real installer, then again on the damaged disk until it is done.

What must hold, for a device whose journal says throughout that the slot is not to be booted:

* *whole*: when an installation says that it is done, slot and header copies are right bit for bit on
  the medium itself (a restart that loses every unflushed write changes nothing).
* *described*: after every cut at least one header copy is valid, if one was before, and copy 0
  describes what the slot holds, or the old image.
* *spared*: a frame that is right when a run begins is not written in that run.
* *signed*: what is written to the slot is, write by write, the content of a signed frame.
* *bounded*: with a healthy disk again, one more run is enough.

The sweep is evidence only because the mutants at the end of this file are all caught by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from payload import frames, install
from payload.bundle import Header, Reader, decode_header, read_header
from payload.digest import digest
from payload.errors import PayloadCorruptError, PayloadError
from payload.manifest import Manifest
from payload.table import FrameTable
from statemachine.region import Region
from tests.simulator.disk import Disk, Fault, PowerCut, Storage, Window
from tests.unit.payload_samples import FRAME, Sample, believe, mixed_image

HEADER = 4096
SLOT = 6 * FRAME
SLOT_AT = 2 * HEADER
ONCE = ("eio", "full", "read-only", "vanished", "lost-write", "misdirected", "rot")


class World:
    """The images of a device: its disk (headers, slot), its payload disk and a stick with the same."""

    def __init__(self, new: Sample, old: Sample, disk: bytes, prefers_large: bool = False) -> None:
        self.new, self.old, self.disk, self.prefers_large = new, old, disk, prefers_large
        self.payload = new.content.ljust(-(-len(new.content) // 512) * 512, b"\0")

    def storage(self, *faults: Fault) -> Storage:
        images = [self.disk, self.payload, self.payload]
        return Storage(images=images, faults=faults, prefers_large=self.prefers_large)

    def table(self) -> FrameTable:
        return self.new.image.frames()


@lru_cache
def believed(raw: bytes) -> Manifest:
    return believe(decode_header(raw))


def from_raw(header: Header) -> Manifest:
    return believed(header.raw)


class SignedOnly(Window):
    """The slot, with an eye on every write."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk, SLOT_AT, SLOT)
        self.table: FrameTable | None = None

    def write(self, offset: int, data: bytes) -> None:
        assert self.table is not None
        for at in range(0, len(data), FRAME):
            if digest(data[at : at + FRAME]) != self.table[(offset + at) // FRAME].digest:
                raise UnsignedBytesError(f"unsigned bytes are written at {offset + at}")
        super().write(offset, data)


class UnsignedBytesError(Exception):
    """What is never to happen."""


def regions(storage: Storage) -> tuple[SignedOnly, list[Window], list[Disk]]:
    disk, *payloads = storage.disks
    return SignedOnly(disk), [disk.window(number * HEADER, HEADER) for number in (0, 1)], payloads


def run(storage: Storage) -> PayloadError | None:
    """One attempt of the device: each source in turn, until one has what is missing."""
    slot, headers, payloads = regions(storage)
    failure: PayloadError | None = None
    for payload in payloads:
        try:
            header = read_header(payload)
            image = from_raw(header).image("rootfs")
            slot.table = image.frames()
            install.install(slot, headers, payload, header, image, target_broken=True)
            return None
        except PayloadError as error:
            failure = error
    return failure


def damaged(world: World, storage: Storage) -> set[int]:
    disk = storage.disks[0]
    table = world.table()
    plain = disk.peek(SLOT_AT, table.image_bytes)
    pieces = range(0, table.image_bytes, FRAME)
    return {at // FRAME for at in pieces if plain[at : at + FRAME] != world.new.plain[at : at + FRAME]}


def not_whole(world: World, storage: Storage) -> Iterator[str]:
    durable = storage.restarted()
    if damaged(world, durable):
        yield f"frames {damaged(world, durable)} are wrong on the medium"
    copies = [durable.disks[0].peek(number * HEADER, HEADER) for number in (0, 1)]
    if world.new.header.raw not in copies:
        yield "no header copy is right on the medium"


def not_spared(world: World, storage: Storage, intact: set[int]) -> Iterator[str]:
    for operation in storage.trace:
        if operation.kind == "write" and operation.disk == 0 and operation.offset >= SLOT_AT:
            first = (operation.offset - SLOT_AT) // FRAME
            for index in intact.intersection(range(first, first + operation.length // FRAME)):
                yield f"frame {index} was right and is written"


def not_described(world: World, storage: Storage) -> Iterator[str]:
    copies = [storage.disks[0].peek(number * HEADER, HEADER) for number in (0, 1)]
    known = {world.new.header.raw, world.old.header.raw}
    if not any(copy in known for copy in copies) and world.disk[:HEADER] in known:
        yield "no header copy is valid"
    if copies[0] == world.new.header.raw != world.disk[:HEADER] and damaged(world, storage):
        yield "copy 0 describes an image that is not there"


def completes(world: World, storage: Storage) -> Iterator[str]:
    """One run on a healthy disk ends the matter, without touching what is right."""
    intact = set(range(len(world.table()))) - damaged(world, storage)
    failure = run(storage)
    if failure is not None:
        yield f"not done: {failure.reason}: {failure}"
    yield from not_whole(world, storage)
    yield from not_spared(world, storage, intact)


def sweep_cuts(world: World) -> Iterator[str]:
    """Unlimited power cuts: every disk that any series of cuts can leave, each once."""
    waiting = [world.storage()]
    seen = {world.disk}
    while waiting:
        start = waiting.pop()
        for state in cut_everywhere(start):
            image = state.images()[0]
            if image not in seen:
                seen.add(image)
                waiting.append(state)
                yield from not_described(world, state)
        yield from completes(world, start.restarted())


def cut_everywhere(start: Storage) -> Iterator[Storage]:
    number = 0
    while True:
        storage = start.restarted([Fault("cut", number)])
        try:
            run(storage)
            return  # it ended before the cut came
        except PowerCut:
            yield from storage.crash_states()
        number += 1


def operations(world: World) -> int:
    storage = world.storage()
    assert run(storage) is None
    return storage.operations


def sweep_faults(world: World) -> Iterator[str]:
    """Every single fault at every operation; power stays, the device tries again."""
    for number in range(operations(world)):
        for kind in ONCE:
            for duration in (1, 3):
                storage = world.storage(Fault(kind, number, duration))
                attempts = [run(storage) for _ in range(2)]
                for problem in retried(world, storage, attempts):
                    yield f"{kind} × {duration} at {number}: {problem}"


def retried(world: World, storage: Storage, attempts: list[PayloadError | None]) -> Iterator[str]:
    if attempts[-1] is not None:
        yield f"not done: {attempts[-1].reason}"
    yield from not_whole(world, storage)


def sweep_fault_then_cut(world: World) -> Iterator[str]:
    """A fault at one operation and a cut at a later one; then a healthy disk."""
    count = operations(world)
    for number in range(count):
        for kind in ONCE:
            for later in range(number + 1, count + 4):
                storage = world.storage(Fault(kind, number), Fault("cut", later))
                try:
                    run(storage)
                    run(storage)
                except PowerCut:
                    for state in list(storage.crash_states())[:: max(1, later % 5)]:
                        for problem in completes(world, state):
                            yield f"{kind} at {number}, cut at {later}: {problem}"


SWEEPS: dict[str, Callable[[World], Iterator[str]]] = {
    "cuts": sweep_cuts,
    "faults": sweep_faults,
    "fault, then cut": sweep_fault_then_cut,
}


def make_worlds(folder: Path) -> dict[str, World]:
    new = Sample(folder, mixed_image(5), "new")
    old = Sample(folder, mixed_image(5, seed=2)[: 2 * FRAME] + new.plain[2 * FRAME :], "old", version=3)
    holed = bytearray(new.plain)
    holed[FRAME + 5] ^= 1
    holed[4 * FRAME : 5 * FRAME] = bytes(FRAME)
    behind = b"behind".ljust(SLOT - len(new.plain), b"!")
    run = bytearray(holed)
    run[3 * FRAME : 4 * FRAME] = old.plain[:FRAME]
    new_version = old.header.raw * 2 + old.plain + behind
    return {
        "new version": World(new, old, new_version),
        "repair": World(new, old, new.header.raw + bytes(HEADER) + bytes(holed) + behind),
        "no headers": World(new, old, bytes(2 * HEADER) + bytes(holed) + behind),
        "new version, gathered": World(new, old, new_version, prefers_large=True),
        "repair, gathered": World(new, old, new.header.raw + bytes(HEADER) + bytes(run) + behind, prefers_large=True),
    }


NAMES = ["new version", "repair", "no headers", "new version, gathered", "repair, gathered"]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    return make_worlds(tmp_path_factory.mktemp("sweep"))


@pytest.mark.sweep
@pytest.mark.requirement("M7")
@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.fault("S4")
@pytest.mark.fault("S5")
@pytest.mark.fault("S6")
@pytest.mark.fault("S7")
@pytest.mark.fault("S8")
@pytest.mark.fault("S9")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_nothing_is_left_unrecovered(worlds: dict[str, World], name: str, sweep: str) -> None:
    assert list(SWEEPS[sweep](worlds[name])) == []


# The mutants: each drops one thing that the installer must do.


def no_flush(region: Region) -> OSError | None:
    return None


def decode_unverified(self: frames.FrameReader, index: int, stored: bytes) -> bytes:
    entry = self.table[index]
    try:
        return frames._DECODERS[entry.kind](stored, entry.plain_length)
    except ValueError as error:
        raise PayloadCorruptError(str(error)) from error


def read_back_cached(region: Region, table: FrameTable, progress: frames.Progress) -> list[int]:
    return []


def verify_nothing(
    region: Region, table: FrameTable, progress: frames.Progress, indices: None = None, activity: str = ""
) -> list[int]:
    return []


def everything_damaged(
    region: Region, table: FrameTable, progress: frames.Progress, indices: None = None, activity: str = ""
) -> list[int]:
    return list(range(len(table))) if activity != "read back" else []


def headers_at_once(header_regions: list[Region], header: Header) -> int:
    for region in header_regions:
        region.write(0, header.raw)
    header_regions[0].flush()
    return len(header_regions)


real_bring_in = install._bring_in


def headers_first(slot: Window, reader: frames.FrameReader, missing: list[int], progress: frames.Progress) -> int:
    source: Reader = reader.reader
    disk = slot.disk
    install.write_slot_headers([disk.window(0, HEADER), disk.window(HEADER, HEADER)], read_header(source))
    return real_bring_in(slot, reader, missing, progress)


def add_over_gaps(self: frames._Gathered, index: int, plain: bytes) -> None:
    self._indices.append(index)
    self._plain.append(plain)


MUTANTS: dict[str, tuple[object, str, object]] = {
    "flush dropped": (frames, "flush_error", no_flush),
    "source not verified": (frames.FrameReader, "decode", decode_unverified),
    "cached read-back": (frames, "read_back", read_back_cached),
    "target not verified": (frames, "verify", verify_nothing),
    "healthy frames rewritten": (frames, "verify", everything_damaged),
    "both header copies in one flush": (install, "write_slot_headers", headers_at_once),
    "header before frames": (install, "_bring_in", headers_first),
}


@pytest.mark.sweep
@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(
    worlds: dict[str, World], name: str, gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(place, attribute, mutant)
    assert next(problems(worlds, gathered), None) is not None


@pytest.mark.sweep
def test_frames_gathered_over_a_gap_are_caught(worlds: dict[str, World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames._Gathered, "add", add_over_gaps)
    assert next(problems(worlds, gathered=True), None) is not None


def problems(worlds: dict[str, World], gathered: bool) -> Iterator[str]:
    try:
        for sweep in (sweep_faults, sweep_cuts, sweep_fault_then_cut):  # the quickest first
            for world in worlds.values():
                if world.prefers_large == gathered:
                    yield from sweep(world)
    except (UnsignedBytesError, OSError) as error:
        yield str(error)
