"""Recovery mends the packages of a read-write slot: its root is a folder, sticks hold signed transactions."""

from __future__ import annotations

from pathlib import Path

import pytest

from packagemanager.database import Database
from packagemanager.engine import Engine
from packagemanager.operation import PUT, Operation
from packagemanager.root import Root
from packagemanager.staging import Staging
from packagemanager.verify import verify
from payload.sources import FileSource
from recovery import packages
from recovery.package_repair import mend_packages
from statemachine.reasons import CODES
from tests.unit.running_os import OpenRoot, World, apply
from tests.unit.transaction_samples import state

pytestmark = [pytest.mark.requirement("D8"), pytest.mark.requirement("M20"), pytest.mark.fault("R4")]


class Slot:
    """Two packages that run well, and sticks."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.first, self.second = self.world.package("1.0"), self.world.package("2", "other")
        apply(self.world, self.world.transaction(self.first, self.second), live=True)
        self.world.mark_good()
        self.root = self.world.root
        self.sticks: list[Path] = []
        self._folder = folder

    def stick(self, *wanted: object, **more: object) -> None:
        path = self._folder / f"stick-{len(self.sticks)}"
        path.write_bytes(self.world.transaction(*wanted, **more).content)  # type: ignore[arg-type]
        self.sticks.append(path)

    def mend(self) -> int:
        workshop, journal = self.world.device.workshop(), self.world.device.journal()
        workshop.recall(journal.record)
        workshop._root = lambda _record: OpenRoot(self.root)
        workshop._media = lambda: [FileSource(str(path), path.name) for path in self.sticks]
        return mend_packages(workshop, journal.record)

    def damaged(self) -> list[str]:
        root = Root(str(self.root))
        try:
            return sorted(finding.place for finding in verify(Database(root)) if not finding.allowed)
        finally:
            root.close()


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path)


def test_files_come_back_from_the_sticks_that_have_them(slot: Slot) -> None:
    slot.stick(slot.world.package("9"), serial=9)  # another version
    slot.stick(slot.first)
    slot.stick(slot.first, slot.second, serial=3)
    (slot.root / "etc/sample").write_bytes(b"rot")
    (slot.root / "etc/other").unlink()
    assert slot.damaged() == ["etc/other", "etc/sample"]
    assert slot.mend() == 2
    assert slot.damaged() == [] and slot.world.content() == "1.0" and slot.world.content("other") == "2"
    assert slot.mend() == 0


def test_what_needs_no_package_is_repaired_without_one(slot: Slot) -> None:
    (slot.root / "etc/sample").chmod(0o600)
    assert slot.mend() == 1 and slot.damaged() == []


def test_what_cannot_be_repaired_is_said_by_name(slot: Slot, capfd: pytest.CaptureFixture[str]) -> None:
    slot.stick(slot.first, slot.second, states=[state(slot.first)])
    (slot.root / "etc/sample").unlink()
    (slot.root / "etc/other").write_bytes(b"rot")
    assert slot.mend() == 1
    assert "sample:amd64: /etc/sample is missing: its package" in capfd.readouterr().out
    assert slot.damaged() == ["etc/sample"]


def test_a_slot_without_packages_is_left_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    workshop, journal = world.device.workshop(), world.device.journal()
    workshop._root = lambda _record: OpenRoot(world.root)
    assert mend_packages(workshop, journal.record) == 0
    assert not (world.root / "var/lib/unbrick").exists()


def test_a_slot_that_cannot_be_mounted_is_somebody_elses_matter(slot: Slot) -> None:
    workshop, journal = slot.world.device.workshop(), slot.world.device.journal()

    def fail(_record: object) -> OpenRoot:
        raise OSError(5, "Input/output error")

    workshop._root = fail
    assert mend_packages(workshop, journal.record) == 0


def test_a_repair_that_was_cut_is_finished_and_not_tried(slot: Slot) -> None:
    root = Root(str(slot.root))
    staging = Staging(root)
    number = staging.text("etc/sample", b"1.0")
    engine = Engine(root)
    engine.prepare((Operation(PUT, "etc/sample", staged=number, kept=True),), {"kind": "repair"})
    engine.begin()
    event, reason, _fields = packages._finish(engine, slot.world.record)
    assert (event, reason, engine.phase()) == ("packages_undone", CODES["packages-absent"], None)
    assert not (slot.root / "var/lib/unbrick/packages/transaction").exists()
    root.close()


def test_a_link_that_nobody_can_follow_in_the_place_of_a_folder_stops_no_repair(slot: Slot) -> None:
    (slot.root / "etc/other").unlink()
    (slot.root / "etc").rename(slot.root / "moved")
    (slot.root / "etc").symlink_to("/".join("a" * 1500))
    slot.stick(slot.first, slot.second, serial=3)
    assert slot.mend() > 0
    assert slot.damaged() == [] and slot.world.content() == "1.0" and slot.world.content("other") == "2"
