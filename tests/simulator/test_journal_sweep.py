"""Every fault at every operation of opening, repair and append, and then a second one while reopening."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest

from statemachine.store import Store
from tests.simulator.disk import Fault
from tests.simulator.journal_sweep import (
    LYING,
    ONCE_AND_BACK,
    Count,
    Device,
    after_power_cuts,
    copies_of_the_newest,
    faults_at,
    fresh,
    rotten_copies,
    run,
)
from tests.simulator.journals import RECORD_BYTES

SLOTS = 4
pytestmark = pytest.mark.sweep


def distinct(devices: Iterable[Device], seen: set[object]) -> Iterator[Device]:
    for device in devices:
        key = device.key()
        if key not in seen:
            seen.add(key)
            yield device


def every_fault(device: Device, appends: int, store_class: type[Store], count: Count) -> Iterator[Device]:
    """One run with each fault at each operation, and none; the device in each state after it."""
    plain = Device(device.storage.restarted(), device.attempted, device.acknowledged)
    yield from after_power_cuts(run(plain, appends, store_class, count), count)
    for fault in faults_at(plain.storage):
        storage = device.storage.restarted([fault])
        faulty = Device(storage, device.attempted, device.acknowledged)
        yield from after_power_cuts(run(faulty, appends, store_class, count, fault.kind in LYING), count)


def sweep(device: Device, store_class: type[Store] = Store, second_faults: int = 0) -> Count:
    """A faulty run, a faulty reopening, a copy destroyed, a clean reopening.

    The second fault is played on ``second_faults`` of the states that the first run left, spread evenly;
    those where the newest record is alone on one copy come first.
    """
    count = Count()
    after_second: set[object] = set()
    after_first = sorted(distinct(every_fault(device, 2, store_class, count), set()), key=copies_of_the_newest)
    step = max(1, len(after_first) // second_faults) if second_faults else len(after_first) + 1
    for index, damaged in enumerate(after_first, 1):
        states = every_fault(damaged, 1, store_class, count) if index % step == 0 else [damaged]
        for state in distinct(states, after_second):
            for final in rotten_copies(state):
                run(final, 1, store_class, count)
    return count


def hide_and_come_back(device: Device, store_class: type[Store] = Store) -> Count:
    """A cut everywhere, a copy that is away for the next run, one that is destroyed when it is back."""
    count = Count()
    plain = replace(device, storage=device.storage.restarted())
    run(plain, 2, store_class, count)
    after_cut: set[object] = set()
    for at in range(plain.storage.operations):
        cut = replace(device, storage=device.storage.restarted([Fault("cut", at)]))
        for state in distinct(after_power_cuts(run(cut, 2, store_class, count), count), after_cut):
            for disk in range(3):
                away = Fault("vanished", 0, ONCE_AND_BACK, disk=disk)
                hidden = replace(state, storage=state.storage.restarted([away]))
                for back in after_power_cuts(run(hidden, 1, store_class, count), count):
                    for final in rotten_copies(back):
                        run(final, 1, store_class, count)
    return count


def new_device() -> Device:
    return fresh(SLOTS, 0)


def lost_device() -> Device:
    """Acknowledged records once, now noise: nothing is owed but a verdict and a new beginning."""
    device = fresh(SLOTS, 0)
    for disk in device.storage.disks:
        disk.rot(0, disk.size, "random", disk.number)
    return device


def damaged_device() -> Device:
    """Copy 0 has rotten slots, copy 1 lags by two records, copy 2 is whole."""
    device, older = fresh(SLOTS, 6), fresh(SLOTS, 4)
    disks = device.storage.disks
    disks[0].rot(2 * RECORD_BYTES, 2 * RECORD_BYTES, "random")
    disks[1].restore(older.storage.disks[1], 0, disks[1].size)
    return device


STARTS: dict[str, Callable[[], Device]] = {
    "new": new_device,
    "first lap": lambda: fresh(SLOTS, 2),
    "at the end of a lap": lambda: fresh(SLOTS, SLOTS - 1),
    "second lap": lambda: fresh(SLOTS, SLOTS + 1),
    "damaged": damaged_device,
    "lost": lost_device,
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.fault("S4")
@pytest.mark.fault("S5")
@pytest.mark.fault("S6")
@pytest.mark.fault("S7")
@pytest.mark.fault("S8")
@pytest.mark.fault("S9")
@pytest.mark.fault("S10")
@pytest.mark.fault("S11")
@pytest.mark.fault("S12")
@pytest.mark.fault("R1")
def test_no_fault_loses_an_acknowledged_record(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One fault everywhere, a second one while reopening some of the states, then one copy destroyed."""
    report(start, STARTS[start](), 0 if start == "lost" else 8, capsys)


@pytest.mark.long
@pytest.mark.parametrize("start", [start for start in STARTS if start != "lost"])
def test_no_two_faults_lose_what_two_copies_hold(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same with the second fault after many more states (a lost journal has nothing to lose, and many states)."""
    report(start, STARTS[start](), 100, capsys)


@pytest.mark.parametrize("records", range(1, 2 * SLOTS + 1))
@pytest.mark.fault("S12")
def test_a_copy_that_was_away_brings_nothing_old_back(records: int) -> None:
    assert hide_and_come_back(fresh(SLOTS, records)).runs > 100


def report(start: str, device: Device, second_faults: int, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    count = sweep(device, second_faults=second_faults)
    with capsys.disabled():
        print(f"\n{start}: {count}, {time.process_time() - began:.1f} s of processor time", end=" ")
    assert count.runs > 1000
