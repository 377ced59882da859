"""Keys are rotated while the power fails: the real actions, journal and keyring on simulated disks.

A device runs version 5, signed by a key of root 1. Its slot is lost. A stick brings version 9 and the chain to
root 4, which revokes that key. What must hold after a cut or a fault at any operation:

* *known first*: a frame of version 9 in the slot means that the journal knows root 4.
* *never back*: a root that the journal once acknowledged stays known, whatever comes after; the chain is
  not needed again.
* *bounded*: with the power back and healthy media, the next boot installs version 9.
* *not taken away*: where the stick is pulled out or no good, the local payload with version 5 still installs,
  though its key is replaced (where no floor forbids that version).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from payload import roots, sources, trust
from payload.errors import PayloadKeyRevokedError
from payload.sources import RegionSource
from recovery import actions, device_journal, workshop
from recovery.device_journal import DeviceJournal
from recovery.keyring import Keyring
from recovery.workshop import Workshop, image_of
from statemachine.decide import Evidence, decide
from statemachine.record import Record, Slot
from statemachine.region import Region
from statemachine.step import step
from statemachine.store import JournalUnwritable
from tests.simulator.disk import Fault, PowerCut, Storage
from tests.unit.payload_samples import COMPATIBLE, FRAME, mixed_image
from tests.unit.trust_samples import (
    CHAIN,
    ROOT_1,
    ROOT_2,
    ROOT_3,
    ROOT_4,
    Vendor,
    changed,
    signed_root,
)

COPY = 4 * 4096
HEADER = 4 * 4096
SLOT = 4 * FRAME
PAYLOAD = 16 * 4096
JOURNAL_END = 3 * COPY
SLOT_AT = JOURNAL_END + 2 * HEADER
DISK = SLOT_AT + SLOT + PAYLOAD
ATTEMPTS = 3
STEPS_MAX = 40
FAULTS = ("eio", "full", "lost-write", "misdirected", "rot")


def place(offset: int, size: int) -> dict[str, int]:
    return {"offset": offset, "size": size}


CONFIG = {
    "compatible": COMPATIBLE,
    "boot_attempts": ATTEMPTS,
    "floor": 0,
    "disk": {"serial": "simulated"},
    "journal": {"regions": [place(number * COPY, COPY) for number in range(3)]},
    "slot": {
        "rootfs": {
            "0": {
                "region": place(SLOT_AT, SLOT),
                "headers": [place(JOURNAL_END + number * HEADER, HEADER) for number in (0, 1)],
            }
        }
    },
    "payload": {"region": place(SLOT_AT + SLOT, PAYLOAD)},
    "keyring": {"metadata": ROOT_1.text.decode()},
    "button": None,
}

# The same keys without a floor that forbids version 5.
MILD = [changed(root, floor=0) for root in (ROOT_2, ROOT_3, ROOT_4)]
MILD_CHAIN = tuple(
    signed_root(root, signers) for root, signers in zip(MILD, ("alice bob", "alice dave", "dave erin"), strict=True)
)


class World:
    """The device's disk and what is plugged in: ``sticks`` are whole bundles, on disks of their own."""

    def __init__(self, vendor: Vendor, chain: tuple[roots.Link, ...]) -> None:
        release = os.uname().release
        self.old = vendor.header(5, "build", kernel_release=release)
        self.new = vendor.header(9, "build-3 release", chain, kernel_release=release)
        self.plain = vendor.sample.plain
        self.payload = (self.old.raw + vendor.data).ljust(PAYLOAD, b"\0")
        self.stick = (self.new.raw + vendor.data).ljust(PAYLOAD, b"\0")
        stripped = vendor.header(9, "build-3 release", (), kernel_release=release)
        self.stripped_stick = (stripped.raw + vendor.data).ljust(PAYLOAD, b"\0")
        self.empty_stick = self.new.raw.ljust(PAYLOAD, b"\xff")

    def storage(self, stick: bytes) -> Storage:
        """Version 5 is confirmed, and its slot is gone."""
        disk = bytearray(DISK)
        disk[DISK - PAYLOAD :] = self.payload
        storage = Storage(images=[bytes(disk), stick])
        with media(storage):
            manifest = Keyring(CONFIG, Record()).believe(self.old)
            journal = DeviceJournal(CONFIG, "disk")
            image = image_of(manifest)
            journal.persist(
                Record("CONFIRMED", slots=(Slot(image, "good"),), confirmed=image.digest, floor=5, attempts_left=0)
            )
        return storage.restarted()


@contextmanager
def media(storage: Storage) -> Iterator[None]:
    """What the production code opens are these disks: the only thing here that is not production."""

    def open_region(_disk: str, region: dict[str, int], writable: bool = True) -> Region:
        return storage.disks[0].window(region["offset"], region["size"])

    def scan(*_arguments: object, **_options: object) -> list[RegionSource]:
        return [RegionSource(storage.disks[1], "stick")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop, "open_region", open_region)
        patch.setattr(device_journal, "open_region", open_region)
        patch.setattr(sources, "scan", scan)
        yield


def boot(storage: Storage) -> Record:
    """One boot of recovery, until it would hand over or rest. Follows `recovery.conductor`."""
    with media(storage):
        journal = DeviceJournal(CONFIG, "disk")
        event, reason = decide(journal.record, Evidence())
        record, action = step(journal.record, event, ATTEMPTS, reason=reason)
        if not journal.try_persist(record):
            return record
        site = Workshop(CONFIG, "disk", lambda: None, journal.persist)
        for _ in range(STEPS_MAX):
            if action not in actions.ACTIONS or action == "rest":
                return journal.record
            site.recall(journal.record)
            try:
                event, reason, fields = actions.ACTIONS[action](site, journal.record)
            except JournalUnwritable:
                return journal.record
            record, action = step(journal.record, event, ATTEMPTS, reason=reason, **fields)
            if not journal.try_persist(record):
                return journal.record
        raise AssertionError("recovery goes round")


def known(storage: Storage) -> Record:
    """What the journal on these media holds; nothing is changed."""
    with media(Storage(images=storage.images())) as _:
        return DeviceJournal(CONFIG, "disk", look_only=True).record


def slot(storage: Storage) -> bytes:
    return storage.disks[0].peek(SLOT_AT, SLOT)


def problems_after(world: World, state: Storage) -> Iterator[str]:
    """What does not hold on media that a cut or a fault left, and after the next healthy boots."""
    before = known(state)
    if any(slot(state)) and before.root_version != 4:
        yield f"a frame is in the slot while the journal knows root {before.root_version}"
    stripped = Storage(images=[state.images()[0], world.stripped_stick])
    if before.root_version == 4 and boot(stripped).installed.version != 9:
        yield "root 4 is in the journal and of no use"
    healthy = state.restarted()
    healthy.heal()
    after = boot(healthy)
    if after.state != "TRYING":
        after = boot(healthy.restarted())
    if after.root_version < before.root_version:
        yield f"root {before.root_version} was known, root {after.root_version} is"
    if (after.state, after.installed.version, after.root_digest) != ("TRYING", 9, ROOT_4.digest):
        yield f"{after.state} with version {after.installed.version} by root {after.root_version}"
    if slot(healthy)[: len(world.plain)] != world.plain:
        yield "the slot does not hold version 9"


def sweep_cuts(world: World) -> Iterator[str]:
    """A cut at every write and flush, and every state that it can leave."""
    start = world.storage(world.stick)
    for number, state in cuts(start):
        for problem in problems_after(world, state):
            yield f"cut at {number}: {problem}"


def sweep_two_cuts(world: World) -> Iterator[str]:
    """A second cut in the boot after the first: one in 17 of all pairs, others for each first cut."""
    for number, state in cuts(world.storage(world.stick)):
        for later, again in list(cuts(state.restarted()))[number % 17 :: 17]:
            for problem in problems_after(world, again):
                yield f"cuts at {number} and {later}: {problem}"


def cuts(start: Storage) -> Iterator[tuple[int, Storage]]:
    trial = start.restarted()
    boot(trial)
    seen: set[bytes] = set()
    for number, operation in enumerate(trial.trace):
        if operation.kind == "read":
            continue
        storage = start.restarted([Fault("cut", number)])
        with pytest.raises(PowerCut):
            boot(storage)
        for state in storage.crash_states():
            if state.images()[0] not in seen:
                seen.add(state.images()[0])
                yield number, state


def sweep_faults(world: World) -> Iterator[str]:
    """Every fault at every operation of the device's disk; power stays for this boot."""
    start = world.storage(world.stick)
    trial = start.restarted()
    boot(trial)
    for number, operation in enumerate(trial.trace):
        for kind in FAULTS if operation.disk == 0 else ():
            storage = start.restarted([Fault(kind, number)])
            boot(storage)
            if storage.struck:
                for problem in problems_after(world, storage):
                    yield f"{kind} at {number}: {problem}"


SWEEPS: dict[str, Callable[[World], Iterator[str]]] = {
    "cuts": sweep_cuts,
    "two cuts": sweep_two_cuts,
    "faults": sweep_faults,
}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("rotation"), mixed_image(3))


@pytest.fixture(scope="module")
def world(vendor: Vendor) -> World:
    return World(vendor, CHAIN)


@pytest.mark.requirement("D6", "M7")
@pytest.mark.fault("T5")
def test_a_rotation_comes_with_a_payload(world: World) -> None:
    storage = world.storage(world.stick)
    record = boot(storage)
    assert (record.state, record.installed.version) == ("TRYING", 9)
    assert (record.root_version, record.root, record.floor) == (4, ROOT_4.text, 8)
    assert slot(storage)[: len(world.plain)] == world.plain


@pytest.mark.sweep
@pytest.mark.requirement("D6", "M7")
@pytest.mark.fault("T5", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10")
@pytest.mark.parametrize("sweep", ["cuts", pytest.param("two cuts", marks=pytest.mark.long), "faults"])
def test_cut_during_rotation(world: World, sweep: str) -> None:
    assert list(SWEEPS[sweep](world)) == []


@pytest.mark.requirement("D6", "M7")
@pytest.mark.fault("T5", "R5")
def test_a_rotation_does_not_take_the_local_payload_away(vendor: Vendor) -> None:
    """The stick's header is right and its frames are not: the root is known now, and version 5 still comes back."""
    mild = World(vendor, MILD_CHAIN)
    storage = mild.storage(mild.empty_stick)
    record = boot(storage)
    assert (record.state, record.installed.version, record.root_version) == ("TRYING", 5, 4)
    assert slot(storage)[: len(mild.plain)] == mild.plain


@pytest.mark.requirement("D6")
@pytest.mark.fault("T2", "T4")
def test_a_floor_in_a_root_forbids_even_the_local_payload(world: World) -> None:
    storage = world.storage(world.empty_stick)
    record = boot(storage)
    assert (record.state, record.root_version, record.floor) == ("WAITING", 4, 8)
    assert not any(slot(storage))


@pytest.mark.requirement("D6")
@pytest.mark.fault("T2", "N7")
def test_a_root_that_a_later_source_brings_revokes_what_an_earlier_one_offers(vendor: Vendor) -> None:
    mild = World(vendor, MILD_CHAIN)
    stolen = vendor.header(12, "build", kernel_release=os.uname().release).raw + vendor.data
    images = mild.storage(mild.stick).images()
    storage = Storage(images=[images[0][:-PAYLOAD] + stolen.ljust(PAYLOAD, b"\0"), images[1]])
    record = boot(storage)
    assert (record.state, record.installed.version, record.root_version) == ("TRYING", 9, 4)


@pytest.mark.requirement("D6")
@pytest.mark.fault("T2")
def test_a_refused_bundle_still_tells_which_keys_are_revoked(world: World, vendor: Vendor) -> None:
    keys = Keyring(CONFIG, Record())
    release = os.uname().release
    with pytest.raises(PayloadKeyRevokedError):
        keys.installable(vendor.header(12, "build", CHAIN, kernel_release=release), release)
    with pytest.raises(PayloadKeyRevokedError):
        keys.installable(vendor.header(12, "build", kernel_release=release), release)


@pytest.mark.requirement("D6")
@pytest.mark.fault("R2", "T2")
def test_the_slots_headers_bring_the_root_back_when_the_journal_is_lost(world: World, vendor: Vendor) -> None:
    storage = world.storage(world.stick)
    boot(storage)
    images = storage.restarted().images()
    revoked = vendor.header(10, "build", kernel_release=os.uname().release).raw + vendor.data
    lost = Storage(images=[bytes(JOURNAL_END) + images[0][JOURNAL_END:], revoked.ljust(PAYLOAD, b"\0")])
    record = boot(lost)
    assert (record.state, record.installed.version) == ("TRYING", 9)
    assert (record.root_version, record.root_digest, record.floor) == (4, ROOT_4.digest, 9)
    damaged = lost.restarted().images()
    gone = Storage(images=[damaged[0][:JOURNAL_END] + bytes(DISK - JOURNAL_END), damaged[1]])
    for _ in range(2 * ATTEMPTS):
        record = boot(gone)
    assert (record.state, record.root_version) == ("WAITING", 4), "version 10 is by a revoked key"


# The mutants: each drops one thing that a rotation must do.


def keep_nothing(self: Workshop, record: Record) -> Record:
    return record


def forgetful(self: Keyring, record: Record) -> trust.Trusted:
    return trust.Trusted(self._pinned, record.floor, record.clock_floor)


MUTANTS: dict[str, tuple[object, str, object]] = {
    "the root is not kept": (Workshop, "keep_trust", keep_nothing),
    "the journal's root is not read": (Keyring, "_state_of", forgetful),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(target, attribute, mutant)
    assert next(sweep_cuts(world), None) is not None
