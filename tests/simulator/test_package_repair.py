"""Damaged packages: everything that can happen to a file is found, and comes back bit for bit, whatever is cut."""

from __future__ import annotations

import pytest

from packagemanager import files as records
from packagemanager import verify
from packagemanager.changes import Wish
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.entry import NO_DIGEST
from packagemanager.errors import DatabaseError, RefusedError, TransactionError
from packagemanager.repair import repair
from packagemanager.repair_plan import needed
from packagemanager.transact import DONE, Manager, Order
from payload.digest import digest
from tests.simulator.filesystem import FileSystem
from tests.simulator.repair_cases import (
    ALLOWED,
    BASE,
    BY_ITSELF,
    FROM_PACKAGE,
    OTHER,
    PACKAGES,
    RECORDS,
    STATUS,
    VERSIONS,
    base,
    control,
    installed,
    nothing,
    opened,
    problems,
    put,
    remove_all,
    seen,
    sources,
)
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of
from tests.unit.payload_samples import BytesReader

pytestmark = [pytest.mark.requirement("D8"), pytest.mark.requirement("M20"), pytest.mark.fault("R4")]

WHOLE = installed()
TAKER = "taker:all"


def system() -> FileSystem:
    return WHOLE.restarted()


def inodes(tree: FileSystem) -> dict[str, int]:
    return {path: inode for path, inode in tree.now.reachable() if not path.startswith("var/")}


def test_what_was_installed_verifies() -> None:
    assert verify.verify(Database(system())) == []
    assert repair(system(), nothing).repaired == ()


@pytest.mark.parametrize("name", BY_ITSELF)
def test_what_the_record_tells_is_repaired_without_a_package(name: str) -> None:
    tree = system()
    BY_ITSELF[name](tree)
    assert seen(tree) != seen(WHOLE)
    outcome = repair(tree, nothing)
    assert seen(tree) == seen(WHOLE) and outcome.repaired and not outcome.left
    assert problems(tree) == []


def test_what_has_not_the_right_size_is_not_read() -> None:
    """A damaged file system has sizes that no memory holds."""
    tree, path = system(), "var/lib/dpkg/info/base.postinst"
    put(tree, "usr/bin/tool", b"damaged")
    put(tree, path, bytes(5000))
    opened_for_reading: list[str] = []
    open_it = tree.open
    tree.open = lambda path: opened_for_reading.append(path) or open_it(path)  # type: ignore[method-assign, func-returns-value]
    repair(tree, sources)
    assert path not in opened_for_reading
    assert "usr/bin/tool" in opened_for_reading
    assert seen(tree) == seen(WHOLE)


@pytest.mark.parametrize("name", FROM_PACKAGE)
def test_contents_come_back_from_the_package(name: str) -> None:
    tree = system()
    FROM_PACKAGE[name](tree)
    assert seen(tree) != seen(WHOLE)
    outcome = repair(tree, sources)
    assert seen(tree) == seen(WHOLE) and outcome.repaired and not outcome.left


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
    before = seen(tree)
    assert all(finding.allowed for finding in verify.verify(Database(tree)))
    assert repair(tree, nothing).repaired == () and seen(tree) == before
    tree.unlink("usr/lib/data/text")
    assert len(repair(tree, sources).repaired) == 1
    assert seen(tree) == before


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
    before = seen(tree)
    assert needed(verify.verify(Database(tree))) == (BASE, OTHER)
    with pytest.raises(RefusedError, match=r"packages: base:all 1.0-1, other:all 2:3$"):
        repair(tree, lambda keys: {})
    with pytest.raises(RefusedError, match=r"packages: other:all 2:3$"):
        repair(tree, lambda keys: sources([BASE]))
    assert seen(tree) == before


def test_as_much_as_can_be_where_packages_are_lacking() -> None:
    tree = system()
    for path in ("usr/bin/tool", "usr/lib/other/deep/file", "usr/bin/link"):
        tree.unlink(path)
    outcome = repair(tree, lambda keys: sources([OTHER]), partial=True)
    assert [finding.place for finding, _why in outcome.left] == ["usr/bin/tool", "usr/bin/again"]
    assert [finding.place for finding in problems(tree)] == ["usr/bin/tool", "usr/bin/again"]
    tree.unlink(f"{RECORDS}/other")
    outcome = repair(tree, lambda keys: {}, partial=True)
    assert [str(finding) for finding, _why in outcome.left][-1] == "other:all: no record of its files"
    repair(tree, sources)
    assert seen(tree) == seen(WHOLE)


@pytest.mark.parametrize(
    ("package", "kind"),
    [(base(version="1.0-2"), RefusedError), (base(tool=b"changed"), TransactionError), (PACKAGES[OTHER], RefusedError)],
)
def test_another_package_than_was_installed_is_refused(package: bytes, kind: type[Exception]) -> None:
    tree = system()
    tree.unlink("usr/bin/tool")
    before = seen(tree)
    with pytest.raises(kind):
        repair(tree, lambda keys: {BASE: Deb(BytesReader(package))})
    assert seen(tree) == before


def test_files_that_another_package_replaced_stay_its_own() -> None:
    """Also where the record of the one that had them is lost, or the first of two names is the other's now."""
    tree = system()
    data = tar_of([member("usr/lib/data/text", content=b"replaced"), member("usr/bin/tool", content=b"another tool")])
    text = control("taker", "1").replace(b"Description", b"Replaces: base\nDescription")
    packages = {**PACKAGES, TAKER: deb_of(data, control_tar(text), ".gz")}
    order = Order(Wish({**VERSIONS, TAKER: "1"}), lambda keys: opened(packages, keys), 3, digest(b"3"))
    assert Manager(tree).apply(order, settle=True) == DONE
    whole = seen(tree)
    assert problems(tree) == []
    tree.unlink(f"{RECORDS}/base")
    repair(tree, lambda keys: opened(packages, keys))
    assert seen(tree) == whole
    tree.unlink(f"{RECORDS}/base")
    tree.unlink("var/lib/dpkg/info/base.list")
    repair(tree, lambda keys: opened(packages, keys))
    assert seen(tree) == whole
    tree.unlink("usr/bin/again")
    outcome = repair(tree, lambda keys: opened(packages, keys))
    assert ["another package" in why for _finding, why in outcome.left] == [True]


def test_a_folder_with_files_of_others_is_left() -> None:
    tree = system()
    tree.unlink("usr/lib/data/text")
    tree.make_directory("usr/lib/data/text")
    put(tree, "usr/lib/data/text/mine", b"mine")
    tree.unlink("usr/lib/data/empty")
    outcome = repair(tree, sources)
    assert [str(finding) for finding, _why in outcome.left] == ["base:all: /usr/lib/data/text is of another kind"]
    assert tree.look("usr/lib/data/empty") is not None and tree.look("usr/lib/data/text/mine") is not None


def test_a_link_of_the_owner_to_a_disk_that_is_not_there_stays() -> None:
    tree = system()
    remove_all(tree, "usr/lib/other")
    tree.make_link("usr/lib/other", "/srv")
    repair(tree, sources)
    assert tree.read_link("usr/lib/other") == "/srv" and tree.open("srv/deep/file").read() == b"deep"
    assert problems(tree) == []


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
        put(tree, f"{path}-old", b"#1 #2 600 no-path")
        repair(tree, nothing)
    right = {"diversions": b"/usr/bin/a\n/usr/bin/a.old\nbase\n", "statoverride": b"#1 #2 600 /etc/x\n"}[name]
    put(tree, f"{path}-old", right)
    repair(tree, nothing)
    assert tree.open(path).read() == right


def test_folders_below_a_link_of_the_owner_that_leads_to_nothing() -> None:
    """Nobody lists the folder; the link stays, and what it leads to is made."""
    tree = system()
    remove_all(tree, "opt/app")
    tree.make_link("opt/app", "../srv/app")
    repair(tree, sources)
    assert tree.read_link("opt/app") == "../srv/app" and tree.look("srv/app/file") is not None
    assert problems(tree) == []


def test_without_a_digest_the_size_tells() -> None:
    tree = system()
    path = f"{RECORDS}/base"
    record = records.decode(tree.open(path).read(), path)
    for entry in record.entries:
        entry.digest = NO_DIGEST
    put(tree, path, records.encode(record.fields, record.entries))
    assert problems(tree) == []
    put(tree, "usr/lib/data/text", b"other", uid=33)
    tree.set_attributes("usr/lib/data/text", 0o644, 33, 33, 1)
    assert problems(tree) == []
    put(tree, "usr/lib/data/text", b"longer")
    assert [finding.problem for finding in problems(tree)] == [verify.CHANGED]


def test_what_was_wrong_before_the_system_was_taken_over() -> None:
    """A record made from the disk lacks what was gone, which is accepted; of what was changed, dpkg's MD5s tell."""
    tree = system()
    path = f"{RECORDS}/base"
    record = records.decode(tree.open(path).read(), path)
    entries = [entry for entry in record.entries if entry.path != "usr/lib/data/empty"]
    text = next(entry for entry in entries if entry.path == "usr/lib/data/text")
    text.size, text.digest = 5, NO_DIGEST
    put(tree, path, records.encode(record.fields, entries))
    put(tree, "var/lib/dpkg/info/base.md5sums", b"e1cbb0c3879af8347246f12c559a86b5  usr/lib/data/text\n")
    assert problems(tree) == []
    put(tree, "usr/lib/data/text", b"tExt\n", uid=33)
    assert [finding.problem for finding in problems(tree)] == [verify.CHANGED]
    tree.unlink("usr/lib/data/empty")
    repair(tree, sources)
    assert problems(tree) == [] and tree.look("usr/lib/data/empty") is None
    assert tree.open("usr/lib/data/text").read() == b"text\n"


def test_an_obsolete_conffile_stays_listed() -> None:
    tree = system()
    text = tree.open(STATUS).read().replace(b" /etc/base.conf", b" /etc/old.conf 0123 obsolete\n /etc/base.conf")
    put(tree, STATUS, text)
    put(tree, "var/lib/dpkg/info/base.list", b"/.\n")
    repair(tree, nothing)
    assert tree.open("var/lib/dpkg/info/base.list").read().endswith(b"/usr/lib64\n/etc/old.conf\n")


def test_diverted_files_are_looked_for_where_they_lie() -> None:
    tree = system()
    put(tree, "var/lib/dpkg/diversions", b"/usr/lib/data/text\n/usr/lib/data/text.distrib\n:\n")
    tree.rename("usr/lib/data/text", "usr/lib/data/text.distrib")
    put(tree, "usr/lib/data/text", b"of the owner")
    before = seen(tree)
    assert verify.verify(Database(tree)) == []
    put(tree, "usr/lib/data/text.distrib", b"broken")
    assert [finding.place for finding in problems(tree)] == ["usr/lib/data/text.distrib"]
    repair(tree, sources)
    assert seen(tree) == before


def test_what_the_owner_wants_of_a_file_counts_more_than_its_package() -> None:
    tree = system()
    put(tree, "var/lib/dpkg/statoverride", b"#11 #12 600 /usr/lib/data/text\n")
    assert [finding.problem for finding in problems(tree)] == [verify.OTHER_MODE]
    repair(tree, nothing)
    found = tree.look("usr/lib/data/text")
    assert found is not None and (found.mode, found.uid, found.gid) == (0o600, 11, 12)
    tree.unlink("usr/lib/data/text")
    repair(tree, sources)
    found = tree.look("usr/lib/data/text")
    assert found is not None and (found.mode, found.uid, found.gid, found.size) == (0o600, 11, 12, 5)
