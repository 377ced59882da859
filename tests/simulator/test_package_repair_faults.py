"""Repairs on disks that give errors, fill up, rot further, or lose their power: told, or done by the next call."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping

import pytest

from packagemanager import places
from packagemanager import repair as repair_module
from packagemanager.changes import Wish
from packagemanager.engine import Engine
from packagemanager.errors import DiskError, PackageError, RefusedError
from packagemanager.operation import PUT, Operation
from packagemanager.phases import DAMAGED
from packagemanager.repair import repair
from packagemanager.staging import Staging
from packagemanager.transact import Manager, Order
from payload.digest import digest
from tests.simulator.disk import PowerCut
from tests.simulator.filesystem import FileSystem, after_cut, survivors
from tests.simulator.package_sweep import is_left
from tests.simulator.repair_cases import (
    BASE,
    BY_ITSELF,
    FROM_PACKAGE,
    OTHER,
    RECORDS,
    STATUS,
    TOOL,
    VERSIONS,
    base,
    installed,
    nothing,
    opened,
    problems,
    put,
    seen,
    sources,
)  # fmt: skip

pytestmark = [pytest.mark.requirement("D8"), pytest.mark.requirement("M20"), pytest.mark.fault("R4")]

WHOLE = installed()


def system() -> FileSystem:
    return WHOLE.restarted()


class Restless(FileSystem):
    """One file has another content each time that it is read."""

    restless: int | None = None
    reads = 0

    def open(self, path: str) -> io.BytesIO:
        if self._find(path) != self.restless:
            return super().open(path)
        self.reads += 1
        return io.BytesIO(b"text\n" if self.reads == 1 else b"tExt\n")


def test_what_changes_while_it_is_read_is_not_taken() -> None:
    tree = Restless(WHOLE.base)
    tree.set_attributes("usr/lib/data/text", 0o600, 33, 33, 1)
    tree.restless = tree._find("usr/lib/data/text")
    with pytest.raises(RefusedError, match="changes while it is read"):
        repair(tree, nothing)
    assert not is_left(tree)


class Rotten(FileSystem):
    """One file gives errors when it is read."""

    rotten: int | None = None

    def open(self, path: str) -> io.BytesIO:
        if self._find(path) == self.rotten:
            raise OSError(errno.EIO, "Input/output error")
        return super().open(path)


@pytest.mark.fault("S9")
@pytest.mark.parametrize("path", ["usr/bin/tool", "usr/lib/data/text", "etc/base.conf", STATUS, f"{RECORDS}/base"])
def test_a_file_that_cannot_be_read_is_put_anew(path: str) -> None:
    tree = Rotten(WHOLE.base)
    tree.rotten = tree._find(path)
    repair(tree, sources)
    assert tree._find(path) != tree.rotten
    assert seen(tree) == seen(WHOLE)


def test_what_is_damaged_again_and_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = system()
    tree.unlink("usr/bin/tool")
    monkeypatch.setattr(repair_module, "ROUNDS_MAX", 1)
    with pytest.raises(DiskError, match="is damaged again"):
        repair(tree, sources)


def test_a_transaction_on_trial_is_not_repaired() -> None:
    tree = system()
    engine = Engine(tree)
    staging = Staging(tree)
    number = staging.text("usr/bin/new", b"x")
    engine.prepare((Operation(PUT, "usr/bin/new", staged=number),), {"serial": "9"})
    engine.begin()
    engine.forward()
    with pytest.raises(RefusedError, match="on trial"):
        repair(tree, sources)
    engine.back()
    assert seen(tree) == seen(WHOLE)


def test_a_transaction_that_nobody_can_read_is_settled_by_the_records() -> None:
    """Of half an upgrade whose plan has rotted, the set stays that the database tells of."""
    tree = system()
    newer = {BASE: base(tool=b"new", version="1.0-2")}
    order = Order(Wish({BASE: "1.0-2", OTHER: VERSIONS[OTHER]}), lambda keys: opened(newer, keys), 3, digest(b"3"))
    tree.watch = []
    Manager(tree).apply(order)
    renames = [place for place, moment in enumerate(tree.watch) if moment.kind == "rename"]
    tree = system()
    tree.cut_at = renames[2]
    with pytest.raises(PowerCut):
        Manager(tree).apply(order)
    tree = tree.restarted()
    for path in (*places.PLANS, places.PHASE):
        put(tree, path, b"rot")
    assert Engine(tree).phase() == DAMAGED
    repair(tree, sources)
    assert problems(tree) == [] and Engine(tree).phase() is None
    assert tree.open("usr/bin/tool").read() == TOOL


EVERY: Mapping[str, tuple[str, ...]] = {
    "files": ("a file with two names", "a folder is gone", "a mode"),
    "structure": ("a torn record, and more", "below a link that is gone too", "dpkg's status is torn"),
}


@pytest.mark.fault("S1")
@pytest.mark.parametrize("names", EVERY)
@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.long)])
def test_a_cut_at_any_operation_is_repaired_by_the_next_call(names: str, stride: int) -> None:
    start = system()
    for name in EVERY[names]:
        {**BY_ITSELF, **FROM_PACKAGE}[name](start)
    start.sync()
    cuts = 0
    for cut_at in range(0, 2000, stride):
        tree = start.restarted()
        tree.cut_at = cut_at
        try:
            repair(tree, sources)
        except PowerCut:
            cuts += 1
            for left in survivors(tree.pending, 2, 3):
                again = after_cut(tree.base, left)
                repair(again, sources)
                assert seen(again) == seen(WHOLE), cut_at
        else:
            break
    assert cuts > 50 / stride


@pytest.mark.parametrize(
    ("number", "row"),
    [pytest.param(errno.EIO, "S7", marks=pytest.mark.fault("S7")),
     pytest.param(errno.ENOSPC, "S10", marks=pytest.mark.fault("S10"))],
)  # fmt: skip
@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.long)])
def test_an_error_of_the_disk_at_any_operation_is_told(number: int, row: str, stride: int) -> None:
    start = system()
    for name in EVERY["files"]:
        {**BY_ITSELF, **FROM_PACKAGE}[name](start)
    start.sync()
    told = 0
    for at in range(0, 2000, stride):
        tree = start.restarted()
        tree.errors = {at: number}
        try:
            repair(tree, sources)
        except PackageError as error:
            told += 1
            assert error.advice, row
        tree.errors = {}
        repair(tree, sources)
        assert seen(tree) == seen(WHOLE), at
        if tree.operations < at:
            break
    assert told > 20 / stride
