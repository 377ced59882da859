"""Updates step by step on a simulated device: who may do what when, and what is refused with which reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from payload.errors import PayloadBelowFloorError, PayloadKernelMismatchError
from recovery import actions, update
from recovery.floor import floor_after_commit
from recovery.pace import PacedReader, byte_count
from recovery.update import UpdateError
from statemachine.reasons import CODES
from statemachine.record import Image, Record, Slot
from tests.simulator.devices import Device, Kind, Version, factory
from tests.unit.payload_samples import BytesReader


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp("versions")
    return Kind(tuple(Version(folder, number, number) for number in (1, 2, 3)))


def install(device: Device, version: int, again: bool = False) -> str:
    return update.update(device.workshop(), device.ledger(), device.stick(version), again)


def record_of(device: Device) -> Record:
    return device.journal(look_only=True).record


def refusal(error: pytest.ExceptionInfo[UpdateError]) -> int:
    return error.value.reason


@pytest.mark.requirement("M4", "M6")
def test_the_other_slot_is_written_and_becomes_the_primary_one(two: Kind) -> None:
    device = factory(two, installed=1)
    assert install(device, 2) == update.INSTALLED
    record = record_of(device)
    assert (record.state, record.primary, record.booted, record.attempts_left) == ("TRYING", 1, 0, 3)
    assert record.reason == CODES["installed"]
    assert install(device, 2) == update.WAITS_FOR_RESTART


@pytest.mark.requirement("D4")
def test_the_version_that_runs_cannot_confirm_the_one_that_waits(two: Kind) -> None:
    device = factory(two, installed=1)
    install(device, 2)
    with pytest.raises(UpdateError) as error:
        update.commit(device.workshop(), device.ledger())
    assert refusal(error) == CODES["not-booted"]
    device.boot()
    assert update.commit(device.workshop(), device.ledger()).confirmed_version == 2


@pytest.mark.requirement("M7")
def test_a_version_on_trial_may_not_overwrite_the_last_good_one(two: Kind) -> None:
    device = factory(two, installed=1)
    install(device, 2)
    device.boot()
    with pytest.raises(UpdateError) as error:
        install(device, 3)
    assert refusal(error) == CODES["not-confirmed"]
    assert device.whole_slot(0) == two.version(1)


@pytest.mark.fault("R3")
def test_the_other_slot_is_not_given_up_while_the_one_that_runs_is_damaged(two: Kind) -> None:
    device = factory(two, installed=2, other=1, kept=(2, 1))
    device.storage.disks[0].rot(device.config["slot"]["rootfs"]["0"]["region"]["offset"] + 9, 1)
    with pytest.raises(UpdateError) as error:
        install(device, 3)
    assert refusal(error) == CODES["frames-damaged"]
    assert device.whole_slot(1) == two.version(1)
    assert record_of(device).slots[1].condition == "good"


def test_what_failed_here_is_installed_again_only_when_that_is_asked_for(two: Kind) -> None:
    device = factory(two, installed=1)
    install(device, 2)
    while device.boot().installed.version != 1:
        pass
    update.commit(device.workshop(), device.ledger())
    with pytest.raises(UpdateError) as error:
        install(device, 2)
    assert refusal(error) == CODES["failed-here"]
    assert install(device, 2, again=True) == update.INSTALLED


@pytest.mark.requirement("D4")
@pytest.mark.fault("H2", "H4")
def test_a_version_that_never_runs_well_gives_way_after_its_attempts(two: Kind) -> None:
    device = factory(two, installed=1)
    install(device, 2)
    assert [device.boot().installed.version for _ in range(4)] == [2, 2, 2, 1]
    record = record_of(device)
    assert [slot.condition for slot in record.slots] == ["good", "bad"]
    assert (record.state, record.primary) == ("TRYING", 0)


@pytest.mark.fault("R3")
def test_a_damaged_version_on_trial_is_repaired_before_anything_gives_way(two: Kind) -> None:
    device = factory(two, installed=1)
    install(device, 2)
    for _attempt in range(3):
        device.boot()
    device.storage.disks[0].rot(device.config["slot"]["rootfs"]["1"]["region"]["offset"] + 9, 1)
    assert device.boot().installed.version == 2
    assert device.whole_slot(1) == two.version(2)


@pytest.mark.fault("R3")
def test_a_slot_that_cannot_be_repaired_gives_way(two: Kind) -> None:
    device = factory(replace(two, places=1), installed=2, other=1, kept=(1,))
    device.journal().persist(record_of(device).but(attempts_left=0))
    device.storage.disks[0].rot(device.config["slot"]["rootfs"]["0"]["region"]["offset"] + 9, 1)
    assert device.boot().installed.version == 1


@pytest.mark.fault("R1", "R2")
def test_a_lost_journal_is_rebuilt_from_both_slots(two: Kind) -> None:
    device = factory(two, installed=1, other=2, kept=(1, 2))
    for place in device.config["journal"]["regions"]:
        device.storage.disks[0].rot(place["offset"], place["size"], "random")
    record = device.boot()
    assert (record.primary, record.floor, record.confirmed_version) == (1, 1, 2)
    assert record.slots[0] == Slot(record.slots[0].image, "good")
    assert record.slots[0].image.version == 1


@pytest.mark.fault("R1", "R2")
def test_a_lost_journal_beside_a_half_written_slot_boots_the_whole_one(two: Kind) -> None:
    device = factory(two, installed=1, other=2, kept=(1, 2))
    device.storage.disks[0].rot(device.config["slot"]["rootfs"]["1"]["region"]["offset"] + 9, 1)
    for place in device.config["journal"]["regions"]:
        device.storage.disks[0].rot(place["offset"], place["size"], "random")
    record = device.boot()
    assert (record.installed.version, record.slots[1].condition) == (1, "bad")


@pytest.mark.requirement("M4")
def test_a_rollback_verifies_first_and_has_to_be_confirmed(two: Kind) -> None:
    device = factory(two, installed=2, other=1, kept=(2, 1))
    assert update.rollback(device.workshop(), device.ledger()).state == "TRYING"
    assert device.boot().installed.version == 1
    damaged = factory(two, installed=2, other=1, kept=(2, 1))
    damaged.storage.disks[0].rot(damaged.config["slot"]["rootfs"]["1"]["region"]["offset"] + 9, 1)
    with pytest.raises(UpdateError) as error:
        update.rollback(damaged.workshop(), damaged.ledger())
    assert refusal(error) == CODES["frames-damaged"]
    with pytest.raises(UpdateError) as error:
        nothing = factory(two, installed=1)
        update.rollback(nothing.workshop(), nothing.ledger())
    assert refusal(error) == CODES["nothing-to-roll-back"]


@pytest.mark.requirement("M4")
def test_what_waits_for_a_restart_can_be_taken_back(two: Kind) -> None:
    for slots in (1, 2):
        device = factory(replace(two, slots=slots), installed=1)
        install(device, 2)
        update.rollback(device.workshop(), device.ledger())
        assert device.boot().installed.version == 1


@pytest.mark.requirement("M7")
def test_one_slot_with_one_place_refuses_unless_the_owner_allowed_it(two: Kind) -> None:
    device = factory(replace(two, slots=1, places=1), installed=1)
    with pytest.raises(UpdateError) as error:
        install(device, 2)
    assert refusal(error) == CODES["payload-no-place"]
    assert device.whole_places() == [two.version(1)]
    device.config["payload"]["in_place"] = True
    assert install(device, 2) == update.STAGED
    assert device.boot().installed.version == 2


@pytest.mark.requirement("M7")
@pytest.mark.fault("R5")
def test_one_slot_is_not_touched_where_the_replacement_has_rotted(two: Kind) -> None:
    device = factory(replace(two, slots=1), installed=1)
    install(device, 2)
    device.storage.disks[0].rot(device.config["payload"]["spare"]["offset"] + 4096 + 9, 1)
    before = device.slot_content(0)
    record = device.boot()
    assert (record.state, record.installed.version) == ("CONFIRMED", 1)
    assert device.slot_content(0) == before


@pytest.mark.fault("R5")
def test_one_slot_is_not_given_up_without_a_way_back(two: Kind) -> None:
    device = factory(replace(two, slots=1), installed=1)
    device.storage.disks[0].rot(device.config["payload"]["region"]["offset"] + 4096 + 9, 1)
    with pytest.raises(UpdateError) as error:
        install(device, 2)
    assert refusal(error) == CODES["no-way-back"]
    assert install(device, 1) == update.CURRENT, "brings its bundle again"
    assert install(device, 2) == update.STAGED


def test_a_version_below_the_floor_or_for_another_kernel_is_refused(two: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    device = factory(two, installed=2, kept=(2,))
    with pytest.raises(PayloadBelowFloorError):
        install(device, 1)
    release = type("Release", (), {"release": "0.0-other"})
    monkeypatch.setattr("recovery.workshop.os.uname", lambda: release)
    with pytest.raises(PayloadKernelMismatchError):
        install(device, 3)
    assert record_of(device).state == "CONFIRMED"


def test_a_change_by_somebody_else_meanwhile_is_noticed(two: Kind) -> None:
    device = factory(two, installed=1)
    seen = device.ledger().look()
    journal = device.journal()
    journal.persist(journal.record.but(state="SUSPECT"))
    with pytest.raises(UpdateError) as error:
        device.ledger().advance("update_started", 0, expected=seen)
    assert refusal(error) == CODES["update-moved"]


@pytest.mark.requirement("M4")
def test_the_floor_is_the_oldest_version_that_is_kept() -> None:
    record = Record("TRYING", slots=(Slot(Image(b"1" * 32, 5), "good"), Slot(Image(b"2" * 32, 9))), primary=1, floor=3)
    assert floor_after_commit(record, [5, 9]) == 5
    assert floor_after_commit(record, [9]) == 5, "the other slot's version stays allowed"
    assert floor_after_commit(record.but(slots=record.slots[::-1][:1], primary=0), [9]) == 9
    assert floor_after_commit(record, []) == 3, "nothing on the disk could bring it back"
    assert floor_after_commit(record, [2]) == 3
    assert floor_after_commit(record.with_condition(0, "bad"), [9, 4]) == 4
    assert floor_after_commit(record.but(floor=8), [9, 4]) == 8


def test_everything_that_is_kept_can_be_checked(two: Kind) -> None:
    device = factory(two, installed=1)
    found = update.findings(device.workshop(), record_of(device))
    told = [(one["what"], one["version"], one["damaged"]) for one in found]
    assert told == [("slot 0", 1, 0), ("slot 1", 0, None), ("place 0", 1, 0), ("place 1", 0, None)]
    writes = [one for one in device.storage.trace if one.kind == "write"]
    assert not writes


def test_the_rate_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = [100.0]
    monkeypatch.setattr("recovery.pace.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("recovery.pace.time.sleep", slept.append)
    reader = PacedReader(BytesReader(bytes(1000)), 100)
    assert reader.size == 1000
    for _ in range(3):
        reader.read(0, 50)
    assert slept == [0.5, 1.0]


@pytest.mark.parametrize(("text", "number"), [("500", 500), ("500K", 500 << 10), ("2m", 2 << 20), ("1G", 1 << 30)])
def test_a_rate_is_read(text: str, number: int) -> None:
    assert byte_count(text) == number


@pytest.mark.parametrize("text", ["", "0", "K", "-1", "1.5M", "1T"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="500K"):
        byte_count(text)


def test_every_action_of_the_table_is_there() -> None:
    from statemachine.table import ACTIONS

    assert set(actions.ACTIONS) | {"boot", "boot_pristine", "none"} == set(ACTIONS)
