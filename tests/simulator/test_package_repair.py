"""Damaged packages: everything that can happen to a file is found, and comes back bit for bit, whatever is cut."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from packagemanager import verify
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.errors import DatabaseError, RefusedError, TransactionError
from packagemanager.repair import repair
from packagemanager.repair_plan import damage, needed
from tests.simulator.disk import PowerCut
from tests.simulator.filesystem import FileSystem, after_cut, survivors
from tests.simulator.package_sweep import is_left, snapshot
from tests.simulator.repair_cases import (
    ALLOWED,
    BASE,
    BY_ITSELF,
    FROM_PACKAGE,
    OTHER,
    PACKAGES,
    RECORDS,
    STATUS,
    base,
    installed,
    put,
    sources,
)
from tests.unit.payload_samples import BytesReader

if TYPE_CHECKING:
    from packagemanager.incoming import Source

pytestmark = [pytest.mark.requirement("D8"), pytest.mark.requirement("M20"), pytest.mark.fault("R4")]

Seen = dict[str, tuple[object, ...]]
WHOLE = installed()


def nothing(keys: Sequence[str]) -> dict[str, Source]:
    raise AssertionError(f"asked for {keys}")


def system() -> FileSystem:
    return WHOLE.restarted()


def files(tree: FileSystem) -> Seen:
    """Everything; of the database not the times, and not what it was one change earlier."""
    assert not is_left(tree)
    return {path: (*seen[:4], *seen[5:]) if path.startswith("var/") else seen
            for path, seen in snapshot(tree).items() if not path.endswith("status-old")}  # fmt: skip


def inodes(tree: FileSystem) -> dict[str, int]:
    return {path: inode for path, inode in tree.now.reachable() if not path.startswith("var/")}


def problems(tree: FileSystem) -> list[verify.Finding]:
    return damage(verify.verify(Database(tree)))


def test_what_was_installed_verifies() -> None:
    assert verify.verify(Database(system())) == []
    assert repair(system(), nothing).repaired == ()


@pytest.mark.parametrize("name", BY_ITSELF)
def test_what_the_record_tells_is_repaired_without_a_package(name: str) -> None:
    tree = system()
    BY_ITSELF[name](tree)
    assert files(tree) != files(WHOLE)
    outcome = repair(tree, nothing)
    assert files(tree) == files(WHOLE) and outcome.repaired and not outcome.left
    assert problems(tree) == []


@pytest.mark.parametrize("name", FROM_PACKAGE)
def test_contents_come_back_from_the_package(name: str) -> None:
    tree = system()
    FROM_PACKAGE[name](tree)
    assert files(tree) != files(WHOLE)
    outcome = repair(tree, sources)
    assert files(tree) == files(WHOLE) and outcome.repaired and not outcome.left


@pytest.mark.parametrize("name", [name for name in FROM_PACKAGE if "record" not in name and name != "everything"])
def test_what_verifies_is_not_touched(name: str) -> None:
    tree = system()
    FROM_PACKAGE[name](tree)
    broken = {finding.place for finding in problems(tree)}
    before = inodes(tree)
    repair(tree, sources)
    after = inodes(tree)
    if "usr/bin/tool" in broken:
        broken.add("usr/bin/again")  # another name of it
    assert {path for path in before if before[path] != after[path]} <= broken


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_owner_did_stays(name: str) -> None:
    tree = system()
    ALLOWED[name](tree)
    before = files(tree)
    assert all(finding.allowed for finding in verify.verify(Database(tree)))
    assert repair(tree, nothing).repaired == () and files(tree) == before
    tree.unlink("usr/lib/data/text")
    assert len(repair(tree, sources).repaired) == 1
    assert files(tree) == before


def test_each_problem_has_its_name() -> None:
    names = {
        "a mode": verify.OTHER_MODE, "an owner": verify.OTHER_OWNER, "a link is gone": verify.MISSING,
        "a link leads elsewhere": verify.OTHER_TARGET, "a second name is another file": verify.SEPARATED,
        "dpkg's list": verify.NO_LIST, "a file is gone": verify.MISSING, "a byte of a file": verify.CHANGED,
        "a file is cut": verify.CHANGED, "a link is in the place of a file": verify.OTHER_KIND,
        "a file is in the place of a folder": verify.OTHER_KIND, "no record": verify.NO_RECORD,
    }  # fmt: skip
    for name, problem in names.items():
        tree = system()
        {**BY_ITSELF, **FROM_PACKAGE}[name](tree)
        first = problems(tree)[0]
        assert first.problem == problem and problem in str(first), name


def test_packages_that_are_lacking_are_named_and_nothing_changes() -> None:
    tree = system()
    for path in ("usr/bin/tool", "usr/lib/other/deep/file"):
        tree.unlink(path)
    before = files(tree)
    assert needed(verify.verify(Database(tree))) == (BASE, OTHER)
    with pytest.raises(RefusedError, match=r"2 damaged files .* base:all 1.0-1, other:all 2:3"):
        repair(tree, lambda keys: {})
    with pytest.raises(RefusedError, match=r"packages: other:all 2:3$"):
        repair(tree, lambda keys: sources([BASE]))
    assert files(tree) == before


@pytest.mark.parametrize(
    ("package", "kind"),
    [(base(version="1.0-2"), RefusedError), (base(tool=b"changed"), TransactionError), (PACKAGES[OTHER], RefusedError)],
)
def test_another_package_than_was_installed_is_refused(package: bytes, kind: type[Exception]) -> None:
    tree = system()
    tree.unlink("usr/bin/tool")
    before = files(tree)
    with pytest.raises(kind):
        repair(tree, lambda keys: {BASE: Deb(BytesReader(package))})
    assert files(tree) == before


def test_a_folder_with_files_of_others_is_left() -> None:
    tree = system()
    tree.unlink("usr/lib/data/text")
    tree.make_directory("usr/lib/data/text")
    put(tree, "usr/lib/data/text/mine", b"mine")
    tree.unlink("usr/lib/data/empty")
    outcome = repair(tree, sources)
    assert [str(finding) for finding, _why in outcome.left] == ["base:all: /usr/lib/data/text is of another kind"]
    assert tree.look("usr/lib/data/empty") is not None and tree.look("usr/lib/data/text/mine") is not None


def test_a_system_without_any_memory_is_refused() -> None:
    tree = system()
    for path in (STATUS, "var/lib/dpkg/status-old", f"{RECORDS}/base", f"{RECORDS}/other"):
        tree.unlink(path)
    with pytest.raises(DatabaseError, match="nothing else tells"):
        repair(tree, sources)


@pytest.mark.parametrize("name", ["diversions", "statoverride"])
def test_what_dpkg_keeps_twice(name: str) -> None:
    tree = system()
    path = f"var/lib/dpkg/{name}"
    put(tree, path, b"torn\nb")
    with pytest.raises(DatabaseError, match="copy of it"):
        put(tree, f"{path}-old", b"torn\nc")
        repair(tree, nothing)
    right = {"diversions": b"/usr/bin/a\n/usr/bin/a.old\nbase\n", "statoverride": b"#1 #2 600 /etc/x\n"}[name]
    put(tree, f"{path}-old", right)
    repair(tree, nothing)
    assert tree.open(path).read() == right


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
    assert files(tree) == files(WHOLE)


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
                assert files(again) == files(WHOLE), cut_at
        else:
            break
    assert cuts > 50 / stride
