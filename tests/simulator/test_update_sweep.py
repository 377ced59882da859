"""Every cut and every fault at every operation of whole updates: install, commit, give way, roll back, keep.

A scenario is a whole life: a device whose version 1 is confirmed is switched on, asked for another version, and
switched on again until that one is confirmed, or was tried and gave way. In every state that a cut can leave:

* *good slots are good*: a slot that the journal calls good verifies against its signed header (G4), so the last
  good copy is never overwritten while anything else is on trial;
* *something is whole*: a slot, or with one slot the bundle that replaces its image;
* *what boots is whole*, signed, and at or above the floor (G3; `tests.simulator.devices` looks at every boot);
* *places do not lie*: a place that begins with a header holds the whole bundle;
* *what is confirmed can be repaired* from a place, where it could when it was confirmed;
* *headers come last*: a header that was not there when the life began describes what the slot holds;
* *the floor* is never above a good slot's version, nor above the best bundle on the disk;

and the life goes on from there, without a further fault, to its end (G2). Evidence only because of the mutants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from payload import install, place
from payload.bundle import Header, read_header
from payload.errors import PayloadError
from payload.manifest import Manifest
from recovery import conductor, update
from recovery.workshop import Workshop, image_of
from statemachine.record import Record
from tests.simulator.devices import HEADER, Device, Kind, RestingError, Version, ViolationError, Wish, factory, live
from tests.simulator.disk import Fault, PowerCut

ONCE = ("eio", "full", "read-only", "vanished", "lost-write", "misdirected", "rot")
BOTH_PLACES = 2
STATES_MAX = 64  # of one cut: more come from blanking a lost journal, whose own sweep looks at them all


@dataclass(frozen=True)
class Scenario:
    """``kept`` are the versions in the places, ``installed`` and ``other`` those in the slots (0: nothing).

    ``damage`` is what happened to the device before: ``slot`` (rot, and its attempts are used up) or ``journal``.
    """

    kind: Kind
    wish: Wish
    installed: int = 1
    other: int = 0
    kept: tuple[int, ...] = (1,)
    damage: str = ""

    def device(self) -> Device:
        device = factory(self.kind, self.installed, self.other, self.kept)
        disk = device.storage.disks[0]
        if self.damage == "slot":
            journal = device.journal()
            journal.persist(journal.record.but(attempts_left=0))
            disk.rot(device.config["slot"]["rootfs"]["0"]["region"]["offset"] + 9, 1)
        if self.damage == "journal":
            for place in device.config["journal"]["regions"]:
                disk.rot(place["offset"], place["size"], "random")
        return device.restarted()

    @property
    def ends(self) -> set[int]:
        """The versions that may run in the end."""
        good = self.wish.version not in self.kind.bad
        return {self.wish.version} if good else {self.installed}


Scenarios = dict[str, Scenario]


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Scenarios:
    return make_scenarios(tmp_path_factory.mktemp("versions"))


def make_scenarios(folder: Path) -> Scenarios:
    two = Kind(tuple(Version(folder, number, number) for number in (1, 2)))
    one = replace(two, slots=1)
    return {
        "upgrade": Scenario(two, Wish(2)),
        "upgrade, one place": Scenario(replace(two, places=1), Wish(2)),
        "upgrade, from afar": Scenario(replace(two, places=1), Wish(2, far=True)),
        "downgrade": Scenario(two, Wish(1), installed=2, kept=(2, 1)),
        "gives way": Scenario(replace(two, bad=(2,)), Wish(2)),
        "rollback": Scenario(two, Wish(1, rolled_back=True), installed=2, other=1, kept=(2, 1)),
        "one slot": Scenario(one, Wish(2)),
        "one slot, from afar": Scenario(one, Wish(2, far=True)),
        "one slot, gives way": Scenario(replace(one, bad=(2,)), Wish(2)),
        "one slot, rollback": Scenario(one, Wish(1, rolled_back=True), installed=2, kept=(2, 1)),
        "damaged": Scenario(one, Wish(1), damage="slot"),
        "damaged, gives way": Scenario(two, Wish(1), installed=2, other=1, kept=(1,), damage="slot"),
        "journal lost": Scenario(two, Wish(2), installed=2, other=1, kept=(2, 1), damage="journal"),
    }


NAMES = (
    "upgrade", "upgrade, one place", "downgrade", "gives way", "rollback", "one slot", "one slot, gives way",
    "one slot, rollback", "damaged", "damaged, gives way", "journal lost", "upgrade, from afar", "one slot, from afar",
)  # fmt: skip


def violations(scenario: Scenario, device: Device) -> Iterator[str]:
    record = device.restarted().journal(look_only=True).record
    wholes = [device.whole_slot(number) for number in range(scenario.kind.slots)]
    for number, slot in enumerate(record.slots):
        held = wholes[number]
        lies = held is None or held.manifest.digest != slot.image.digest
        if slot.condition == "good" and lies and scenario.damage != "slot":
            yield f"slot {number} is called good and is not whole"
        if slot.condition == "good" and slot.image.version < record.floor:
            yield f"the floor {record.floor} is above the good version {slot.image.version}"
    if not any(wholes) and (scenario.kind.slots > 1 or not device.whole_places()):
        yield "nothing is whole"
    best = max((one.number for one in device.whole_places()), default=0)
    if record.floor > max(best, scenario.installed if scenario.kind.places == 1 else 0):
        yield f"the floor {record.floor} is above the best bundle, {best}"
    yield from lying_places(scenario, device)
    yield from lying_headers(scenario, device)
    yield from not_repairable(scenario, device, record)


def lying_places(scenario: Scenario, device: Device) -> Iterator[str]:
    for number, content in enumerate(device.places()):
        for version in scenario.kind.versions:
            if content.startswith(version.header.raw) and not content.startswith(version.content):
                yield f"place {number} says that it holds version {version.number}"


def lying_headers(scenario: Scenario, device: Device) -> Iterator[str]:
    if scenario.kind.slots == 1 and scenario.kind.bad:
        return  # version 2 was there, and gives way again
    for number in range(scenario.kind.slots):
        before = (scenario.installed, scenario.other)[number]
        for version in scenario.kind.versions:
            lies = device.slot_content(number) != version.plain
            if version.number != before and device.slot_headers(number)[0] == version.header.raw and lies:
                yield f"the header of slot {number} describes version {version.number}, which is not there"


def not_repairable(scenario: Scenario, device: Device, record: Record) -> Iterator[str]:
    kept = [one.manifest.digest for one in device.whole_places()]
    if scenario.kind.places == BOTH_PLACES and record.confirmed not in kept and not scenario.damage:
        yield f"the confirmed version {record.confirmed_version} cannot be repaired"


def end_of(scenario: Scenario, device: Device) -> Iterator[str]:
    """The life from here, without a further fault."""
    try:
        record = live(device, scenario.wish)
    except RestingError:
        before = scenario.damage or scenario.wish.version in scenario.kind.bad
        if device.lying_disk and before and not _way_back(scenario, device):
            return  # two faults: what was wrong before, and the bundle that would have helped has rotted, too
        yield f"rests: {device.journal(look_only=True).record.reason}"
        return
    # A place that rotted is no longer kept: the permission to go back to its version is gone with it.
    refused = device.lying_disk and record.floor > scenario.wish.version
    ends = {scenario.installed} if refused else scenario.ends
    if record.state != "CONFIRMED" or record.installed.version not in ends:
        yield f"ends in {record.state} with version {record.installed.version}"
    if not device.lying_disk:  # rot that nothing has read yet
        yield from violations(scenario, device)


def _way_back(scenario: Scenario, device: Device) -> bool:
    return scenario.installed in [one.number for one in device.whole_places()]


def cuts(scenario: Scenario, start: Device) -> Iterator[tuple[int, Device]]:
    """Each state that a cut at each operation of the life can leave; a state that was seen is left out."""
    seen: set[int] = set()
    number = 0
    while True:
        device = start.restarted([Fault("cut", number)])
        try:
            live(device, scenario.wish)
            return
        except PowerCut:
            states = list(device.storage.crash_states(seed=number))
            for state in Random(number).sample(states, min(len(states), STATES_MAX)):
                image = hash(state.images()[0])
                if image not in seen:
                    seen.add(image)
                    yield number, Device(scenario.kind, state)
        number += 1


def sweep_cuts(scenario: Scenario, share: int = 1) -> Iterator[str]:
    """One cut anywhere; every state is looked at, each ``share``-th one lives on."""
    for count, (number, device) in enumerate(cuts(scenario, scenario.device())):
        for problem in violations(scenario, device):
            yield f"cut at {number}: {problem}"
        if count % share == 0:
            for problem in end_of(scenario, device):
                yield f"cut at {number}, then: {problem}"


def sweep_many_cuts(scenario: Scenario, lives: int) -> Iterator[str]:
    """Lives with one cut after the other, at any operation, each leaving any state that it can leave."""
    for seed in range(lives):
        chance = Random(seed)
        device = scenario.device()
        for _cut in range(chance.randrange(2, 12)):
            device = device.restarted([Fault("cut", chance.randrange(220))])
            try:
                live(device, scenario.wish)
                break
            except PowerCut:
                device = Device(scenario.kind, chance.choice(list(device.storage.crash_states(seed))))
            for problem in violations(scenario, device):
                yield f"life {seed}: {problem}"
        for problem in end_of(scenario, device.restarted()):
            yield f"life {seed}: {problem}"


def sweep_faults(scenario: Scenario, share: int = 1) -> Iterator[str]:
    """Every single fault at every operation; the power stays, a person tries again."""
    whole = scenario.device()
    live(whole, scenario.wish)
    for number in range(whole.storage.operations):
        on_stick = whole.storage.trace[number].disk > 0
        for kind in ONCE[number % share :: share]:
            if kind == "rot" and on_stick:
                continue  # another stick is needed then
            device = scenario.device()
            device.lying_disk = True
            device = device.restarted([Fault(kind, number, duration=1 + number % 3)])
            # It may rest or refuse; what counts is what becomes of it on a disk that works again.
            with suppress(RestingError, PayloadError, update.UpdateError):
                live(device, scenario.wish)
            healed = device.restarted()
            for problem in end_of(scenario, healed):
                yield f"{kind} at {number}: {problem}"


@pytest.mark.sweep
@pytest.mark.requirement("M4", "M6", "M7", "D4")
@pytest.mark.fault("S1", "S2", "S3", "S4")
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_anywhere(scenarios: Scenarios, name: str) -> None:
    assert list(sweep_cuts(scenarios[name], share=2)) == []


@pytest.mark.sweep
@pytest.mark.requirement("M7")
@pytest.mark.fault("S1")
@pytest.mark.parametrize("name", NAMES)
def test_cut_after_cut(scenarios: Scenarios, name: str) -> None:
    assert list(sweep_many_cuts(scenarios[name], 60)) == []


@pytest.mark.sweep
@pytest.mark.requirement("M7")
@pytest.mark.fault("S5", "S6", "S7", "S8", "S9")
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_anywhere(scenarios: Scenarios, name: str) -> None:
    assert list(sweep_faults(scenarios[name], share=5)) == []


@pytest.mark.long
@pytest.mark.requirement("M7")
@pytest.mark.parametrize("name", NAMES)
def test_every_cut_every_fault_and_a_thousand_lives(scenarios: Scenarios, name: str) -> None:
    assert list(sweep_cuts(scenarios[name])) == []
    assert list(sweep_faults(scenarios[name])) == []
    assert list(sweep_many_cuts(scenarios[name], 1000)) == []


# The mutants: each drops one thing that an update must do.


def not_doubting(self: Record, number: int) -> Record:
    return self


Parts = tuple[Any, Header, Manifest]


def journal_first(
    workshop: Workshop, ledger: update.Ledger, record: Record, number: int, bundle: Parts, _streamed: bool
) -> str:
    source, header, manifest = bundle
    fields = {"target": image_of(manifest), "target_slot": number}
    record = ledger.advance("update_started", 0, lambda _record: fields, record)
    ledger.advance("update_installed", 0, expected=record)
    slot = workshop.slots[number]
    install.install(slot.region, slot.headers, source, header, manifest.image("rootfs"), target_broken=True)
    return update.INSTALLED


real_install = update._install


def wrong_slot(
    workshop: Workshop, ledger: update.Ledger, record: Record, number: int, bundle: Parts, streamed: bool
) -> str:
    return real_install(workshop, ledger, record, 1 - number, bundle, streamed)


real_bring_in = install._bring_in


def headers_first(slot: Any, reader: Any, damaged: list[int], progress: Any) -> int:
    header = read_header(reader.reader)
    at = slot.offset - 2 * HEADER
    install.write_slot_headers([slot.disk.window(at, HEADER), slot.disk.window(at + HEADER, HEADER)], header)
    return real_bring_in(slot, reader, damaged, progress)


def floor_at_once(record: Record, kept: list[int]) -> int:
    return record.installed.version


real_copy = place._copy


def place_header_first(region: Any, source: Any, start: int, end: int, progress: Any) -> int:
    region.write(0, source.read(0, HEADER))
    return real_copy(region, source, start, end, progress)


real_write = place._write


def place_not_blanked(region: Any, offset: int, data: bytes) -> None:
    if any(data):
        real_write(region, offset, data)


def first_place(held: list[bytes | None], wanted: bytes, needed: bytes, in_place: bool = False) -> int:
    return 0


def nothing_kept(*_arguments: object) -> int:
    return 0


def never_gives_way(record: Record, event: str) -> str:
    return event


MUTANTS: dict[str, tuple[object, str, object]] = {
    "target not bad first": (Record, "doubting", not_doubting),
    "journal before frames": (update, "_install", journal_first),
    "the slot that runs is written": (update, "_install", wrong_slot),
    "headers before frames": (install, "_bring_in", headers_first),
    "commit raises the floor to its version": (update, "floor_after_commit", floor_at_once),
    "a place's header first": (place, "_copy", place_header_first),
    "a place is not blanked first": (place, "_write", place_not_blanked),
    "the needed place is overwritten": (update, "place_for", first_place),
    "staged and not kept": (update, "keep", nothing_kept),
    "a failing version does not give way": (conductor, "give_way", never_gives_way),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(scenarios: Scenarios, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(where, attribute, mutant)
    assert next(problems(scenarios), None) is not None


def problems(scenarios: Scenarios) -> Iterator[str]:
    try:
        for scenario in scenarios.values():
            yield from sweep_cuts(scenario, share=40)
    except (ViolationError, RestingError) as error:
        yield str(error)
