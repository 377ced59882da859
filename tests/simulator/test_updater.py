"""An OS that updates itself whenever it runs, and versions that fail: each is installed once, and not again by itself.

One slot: nothing on the disk but the journal's list of what failed says that what is offered had its chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from recovery import update
from recovery.update import UpdateError
from statemachine.reasons import CODES
from tests.simulator.devices import ATTEMPTS, Device, Kind, Version, factory

pytestmark = [pytest.mark.requirement("D4", "M6"), pytest.mark.fault("H4")]

ROUNDS = 3
BOOTS = 4 * ATTEMPTS


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, ...]:
    folder: Path = tmp_path_factory.mktemp("updater")
    return tuple(Version(folder, number, number) for number in (1, 2, 3, 4))


def make_device(versions: tuple[Version, ...], *bad: int) -> Device:
    return factory(Kind(versions, slots=1, bad=bad), installed=1)


def live(device: Device, offered: int, boots: int = BOOTS, again: bool = False) -> list[int]:
    """Switch it on so often. An OS that runs confirms itself and asks for what is offered. What was staged."""
    staged = []
    for _boot in range(boots):
        record = device.boot()
        if record.installed.version in device.kind.bad:
            continue
        update.commit(device.workshop(), device.ledger())
        try:
            outcome = update.update(device.workshop(), device.ledger(), device.stick(offered), again)
        except UpdateError as error:
            assert error.reason == CODES["failed-here"], str(error)
            continue
        if outcome == update.STAGED:
            staged.append(offered)
    return staged


def installed(device: Device) -> int:
    record = device.journal(look_only=True).record
    assert record.state == "CONFIRMED"
    return record.installed.version


def test_a_version_that_fails_is_installed_once(versions: tuple[Version, ...]) -> None:
    device = make_device(versions, 2)
    assert live(device, 2, ROUNDS * BOOTS) == [2]
    assert installed(device) == 1


def test_others_that_fail_as_well_do_not_make_it_forgotten(versions: tuple[Version, ...]) -> None:
    device = make_device(versions, 2, 3)
    assert live_through(device, (2, 3, 2, 3)) == [2, 3]
    assert live_through(device, (4,)) == [4]
    assert installed(device) == 4
    assert live_through(device, (2, 3)) == [], "it failed here, whatever runs now"


def live_through(device: Device, offers: Sequence[int]) -> list[int]:
    return [staged for offered in offers for staged in live(device, offered)]


def test_a_person_may_try_it_again(versions: tuple[Version, ...]) -> None:
    device = make_device(versions, 2)
    live(device, 2)
    assert live(device, 2, 1, again=True) == [2]
    assert live(device, 2) == []


@pytest.mark.requirement("D9")
def test_where_nothing_else_is_left_recovery_takes_what_failed_once(versions: tuple[Version, ...]) -> None:
    """What ran well fails now, its bundle is gone, and the version on the disk is one that had failed before."""
    device = make_device(versions, 2)
    live(device, 2)
    disk, config = device.storage.disks[0], device.config
    journal = device.journal()
    journal.persist(journal.record.but(attempts_left=0))
    for lost in (config["slot"]["rootfs"]["0"]["region"], config["payload"]["region"]):
        disk.put(lost["offset"], bytes(lost["size"]))
    disk.put(config["payload"]["spare"]["offset"], versions[1].content)
    assert device.restarted().boot().installed.version == 2
