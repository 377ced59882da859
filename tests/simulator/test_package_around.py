"""Around the change of files: scripts, refusals, a full disk, a disk that refuses; and cuts among scripts."""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from packagemanager.adopt import adopt
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.engine import Engine
from packagemanager.entry import FILE
from packagemanager.errors import (
    BlockedError,
    PackageError,
    RefusedError,
    ScriptError,
    TransactionError,
    UnsupportedError,
)
from packagemanager.files import path_of
from packagemanager.phases import TRYING
from packagemanager.process import Ended
from packagemanager.transact import DONE, NOTHING_TO_DO, ON_TRIAL, WAITS_FOR_RESTART, Manager, Order
from packagemanager.verify import verify
from tests.programs.package_constructs import SAME, p, q
from tests.simulator.disk import PowerCut
from tests.simulator.filesystem import BLOCK_BYTES, FileSystem, after_cut, survivors
from tests.simulator.package_world import (
    NEW,
    OLD,
    SCRIPT,
    Scripts,
    World,
    apply,
    before_the_update,
    differences,
    is_clean,
    snapshot,
    system,
)
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of
from tests.unit.payload_samples import BytesReader


class Ledger:
    def __init__(self, tree: FileSystem) -> None:
        self.told: list[tuple[str, str | None]] = []
        self._engine = Engine(tree)

    def staged(self, serial: int, digest: bytes) -> None:
        assert (serial, len(digest)) == (2, 32)
        self.told.append(("staged", self._engine.phase()))

    def applied(self) -> None:
        self.told.append(("applied", self._engine.phase()))

    def taken_back(self) -> None:
        self.told.append(("taken back", self._engine.phase()))

    def resumed(self, serial: int, digest: bytes, on_trial: bool) -> None:
        assert (serial, len(digest), on_trial) == (2, 32, self._engine.phase() == TRYING)
        self.told.append(("resumed", self._engine.phase()))

    def failing(self) -> None:
        self.told.append(("failing", self._engine.phase()))


def test_scripts_are_called_around_the_change() -> None:
    tree, world = before_the_update()
    scripts, ledger = Scripts(), Ledger(tree)
    told: list[tuple[str, int, int]] = []
    manager = Manager(tree, run=scripts, ledger=ledger, report=lambda *words: told.append(words))
    assert manager.apply(world.install(NEW, remove=["q"])) == ON_TRIAL
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        "unpack", "scripts before", "plan", "prepare", "files", "scripts after"]  # fmt: skip
    assert [(done, total) for stage, done, total in told if stage == "files"][-1] == (
        len(manager.engine.operations()),
    ) * 2
    assert scripts.calls == [
        "q.prerm remove",
        "p.prerm upgrade 2",
        "p.preinst upgrade 1 2",
        "q.postrm remove",
        "p.postrm upgrade 2",
        "p.postinst configure 1",
    ]
    assert ledger.told == [("staged", "forward"), ("applied", TRYING)]
    assert tree.open("usr/p").read() == b"2"
    with pytest.raises(RefusedError, match="on trial"):
        manager.apply(world.install(OLD))
    # Whoever comes in between runs nothing again.
    assert Manager(tree, run=Scripts("p.postinst configure 1")).resume().now == TRYING
    assert manager.settle() == DONE
    assert is_clean(tree)
    assert manager.settle() == NOTHING_TO_DO


@pytest.mark.fault("R4")
def test_a_package_that_says_it_is_larger_than_any_disk() -> None:
    for digits, fits in (("9" * 5000, False), ("0" * 5000 + "1", True), ("a few", True)):
        tree, world = system(), World()
        tree.blocks_max = 1 << 50
        order = world.install(p("1", {"/p": "1"}, control=f"Installed-Size: {digits}\n"))
        if fits:
            assert apply(tree, order) == DONE
            continue
        with pytest.raises(RefusedError, match="the packages need about"):
            apply(tree, order)


@pytest.mark.requirement("M10")
@pytest.mark.parametrize("failing", ["p.preinst upgrade 1 2", "p.postinst configure 1", "p.prerm failed-upgrade 1 2"])
@pytest.mark.parametrize("lines", [("", SAME), (SAME, "")], ids=["to a name with an architecture", "from one"])
def test_a_package_whose_control_files_have_two_names_is_told_that_it_is_taken_back(
    lines: tuple[str, str], failing: str
) -> None:
    tree, world = system(), World()
    old, new = (
        p(version, {"/usr/p": version}, architecture="amd64", control=control,
          controls=dict.fromkeys(("preinst", "postinst", "prerm", "postrm"), SCRIPT))
        for version, control in zip("12", lines, strict=True)
    )  # fmt: skip
    assert Manager(tree, run=Scripts()).apply(world.install(old), settle=True) == DONE
    before = snapshot(tree)
    scripts = Scripts(failing, *(("p.prerm upgrade 2",) if "prerm" in failing else ()))
    with pytest.raises(ScriptError):
        Manager(tree, run=scripts).apply(world.install(new), settle=True)
    assert scripts.calls[0] == "p.prerm upgrade 2"
    assert ("p.postrm upgrade 2" in scripts.calls) == (failing == "p.postinst configure 1")
    assert scripts.calls[-2:] == ["p.postrm abort-upgrade 1 2", "p.postinst abort-upgrade 2"]
    assert snapshot(tree) == before and is_clean(tree)


@pytest.mark.requirement("M10")
def test_what_the_old_control_file_activates_is_activated_under_its_new_name_too() -> None:
    tree, world = system(), World()
    listener = q("1", {"/q": "q"}, controls={"triggers": "interest word\n", "postinst": SCRIPT})
    old, new = (
        p(version, {"/usr/p": version}, architecture="amd64", control=control, controls={"triggers": "activate word\n"})
        for version, control in (("1", ""), ("2", SAME))
    )
    assert apply(tree, world.install(listener, old)) == DONE
    silent = p("3", {"/usr/p": "3"}, architecture="amd64")
    for package in (new, silent):
        scripts = Scripts()
        assert Manager(tree, run=scripts).apply(world.install(package), settle=True) == DONE
        assert scripts.calls == ["q.postinst triggered word"]


def test_the_first_transaction_of_a_root_without_a_format_of_names() -> None:
    tree, world = system(), World()
    tree.unlink("var/lib/dpkg/info/format")
    for version in ("1", "2"):
        library = p(version, {"/usr/p": version}, architecture="amd64", control="Multi-Arch: same\n")
        assert apply(tree, world.install(library)) == DONE
        database = Database(tree)
        assert database.list(database.packages["p:amd64"]) == ("", "usr", "usr/p")
        assert not database.lacks_format and verify(database) == []


def test_what_a_preinst_says_of_owners_and_modes_counts_for_its_package() -> None:
    """It may make the user that files belong to, and enter an override."""
    tree, world = system(), World()
    owner: dict[str, Any] = {"uid": 4242, "gid": 4243, "uname": "svc", "gname": "svc"}
    members = [
        member("./usr/file", mode=0o640, **owner),
        member("./usr/folder", "directory", mode=0o750, **owner),
        member("./usr/link", "link", linkname="file", mode=0o777, **owner),
        member("./usr/other", mode=0o600, **owner),
        member("./usr/again", "hard-link", linkname="./usr/file", **owner),
        member("./usr/unknown", uid=7, uname="nobody-knows"),
    ]
    scripts = {"preinst": SCRIPT.encode()}
    package = deb_of(tar_of(members), control_tar(b"Package: p\nVersion: 1\nArchitecture: all\n", scripts), "")

    def run(program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        tree.write("etc/passwd", [b"root:x:0:0::/:\nsvc:x:150:151::/:\n"])
        tree.write("etc/group", [b"root:x:0:\nsvc:x:151:\n"])
        tree.write("var/lib/dpkg/statoverride", [b"svc root 4711 /usr/other\n"])
        return Ended(0, b"")

    assert Manager(tree, run=run).apply(bringing(package, world.install(p("1", {})))) == ON_TRIAL
    looks = {name: tree.look(f"usr/{name}") for name in ("file", "folder", "link", "other", "again", "unknown")}
    assert {name: (found.mode, found.uid, found.gid) for name, found in looks.items() if found} == {
        "file": (0o640, 150, 151), "folder": (0o750, 150, 151), "link": (0o777, 150, 151), "other": (0o4711, 150, 0),
        "again": (0o640, 150, 151), "unknown": (0o644, 7, 0)}  # fmt: skip
    assert verify(Database(tree)) == []


def test_a_folder_in_the_place_of_a_file_may_come_behind_what_is_in_it() -> None:
    tree, world = before_the_update()
    members = [member("./usr/p/x", content=b"x"), member("./usr/p", "directory")]
    package = deb_of(tar_of(members), control_tar(b"Package: p\nVersion: 2\nArchitecture: all\n"), "")
    assert apply(tree, bringing(package, world.install(p("2", {})))) == DONE
    assert verify(Database(tree)) == []


def bringing(package: bytes, order: Order) -> Order:
    """The order, with this as the package p."""
    return Order(order.wish, lambda keys: {"p:all": Deb(BytesReader(package))}, order.serial, order.transaction)


@pytest.mark.parametrize("call", ["q.prerm remove", "p.preinst upgrade 1 2"])
def test_a_script_that_fails_before_the_change_stops_it(call: str) -> None:
    scripts, ledger = without_change(call)
    assert ledger.told == []
    assert "q.postinst abort-remove" in scripts.calls


@pytest.mark.parametrize("call", ["p.postinst configure 1", "q.postrm remove"])
def test_a_script_that_fails_after_the_change_takes_it_back(call: str) -> None:
    scripts, ledger = without_change(call)
    assert ledger.told == [("staged", "forward"), ("applied", TRYING), ("taken back", None)]
    assert scripts.calls[-2:] == ["p.postinst abort-upgrade 2", "q.postinst abort-remove"]


def without_change(call: str) -> tuple[Scripts, Ledger]:
    """An update in which this call fails, so that the old set is there and nothing else."""
    tree, world = before_the_update()
    old = snapshot(tree)
    scripts, ledger = Scripts(call), Ledger(tree)
    with pytest.raises(ScriptError, match=call):
        Manager(tree, run=scripts, ledger=ledger).apply(world.install(NEW, remove=["q"]))
    assert snapshot(tree) == old
    assert is_clean(tree)
    return scripts, ledger


@pytest.mark.parametrize("well", [True, False])
def test_recovery_changes_the_files_and_the_system_runs_the_scripts(well: bool) -> None:
    tree, world = before_the_update()
    old = snapshot(tree)
    scripts = Scripts()
    assert Manager(tree, run=scripts).apply(world.install(NEW, remove=["q"]), live=False) == WAITS_FOR_RESTART
    assert snapshot(tree) == old
    assert not any("postinst" in call for call in scripts.calls)

    tree = tree.restarted()
    assert Engine(tree).resume(at_start=True).now == TRYING  # recovery, before the system runs
    manager = Manager(tree, run=scripts)
    assert manager.resume().now == TRYING
    assert scripts.calls[-1] == "p.postinst configure 1"
    tree.sync()
    tree = tree.restarted()
    if well:
        Engine(tree).done()  # mark-good
        assert Manager(tree, run=Scripts("p.postinst abort-upgrade 2")).resume().found is None
        assert tree.open("usr/p").read() == b"2"
    else:
        Engine(tree).back()  # recovery, once attempts ran out
        scripts = Scripts()
        Manager(tree, run=scripts).resume()
        assert scripts.calls[-1] == "q.postinst abort-remove"
        assert snapshot(tree) == old
    assert is_clean(tree)


@pytest.mark.fault("S10")
@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.95])
def test_a_full_disk_is_no_change(share: float) -> None:
    tree, world = before_the_update()
    old = snapshot(tree)
    probe = tree.restarted()
    probe.blocks_max = probe.inodes_max = 1 << 40
    free_bytes = probe.free()[0]
    order = world.install(p("2", {f"/usr/p{number}": "x" * 5000 for number in range(60)}))
    Manager(probe).apply(order)
    used = (free_bytes - probe.free()[0]) // BLOCK_BYTES
    tree.blocks_max = (1 << 40) - (free_bytes // BLOCK_BYTES) + int(used * share)
    tree.inodes_max = 1 << 40
    with pytest.raises(RefusedError, match="no room"):
        Manager(tree).apply(order)
    tree.blocks_max = tree.inodes_max = 1 << 60
    assert snapshot(tree) == old
    assert is_clean(tree)


def test_what_a_package_says_of_its_size_is_looked_at_first() -> None:
    tree, world = before_the_update()
    tree.blocks_max, tree.inodes_max = 2000, 1000
    big = p("2", {"/usr/p": "2"}, control="Installed-Size: 9000000\n")
    operations = tree.operations
    with pytest.raises(RefusedError, match="need about 8789 MiB"):
        Manager(tree).apply(world.install(big))
    assert tree.operations - operations < 5


def test_what_we_remember_may_be_lost_and_the_next_transaction_still_comes() -> None:
    tree, world = before_the_update()
    replacing = p("2", {"/usr/q": "taken", "/usr/p": "2"}, control="Replaces: q\n")
    for path in ("wanted", "files/p", "files/q"):
        tree.unlink(f"var/lib/unbrick/packages/{path}")
        tree.write(f"var/lib/unbrick/packages/{path}", [b"rotten"])
    assert apply(tree, world.install(replacing)) == DONE
    assert Manager(tree).wanted().packages == {"q:all": "1", "p:all": "2"}
    assert tree.open("usr/q").read() == b"taken"
    assert adopt(tree).packages == ["q:all"]
    assert verify(Database(tree)) == []


class Sectors(io.BytesIO):
    """A file whose bytes from ``bad`` on the disk does not give."""

    bad = 0

    def read(self, size: int | None = -1) -> bytes:
        left = self.bad - self.tell()
        if left <= 0:
            raise OSError(errno.EIO, "bad sector")
        return super().read(min(size or 0, left))


@pytest.mark.fault("R4")
@pytest.mark.parametrize("bad", [0, 1, 300_000])
@pytest.mark.parametrize("run", [None, Scripts()])
def test_a_file_that_the_disk_does_not_give_is_replaced(
    monkeypatch: pytest.MonkeyPatch, bad: int, run: Scripts | None
) -> None:
    tree, world = system(), World()
    assert apply(tree, world.install(p("1", {"/usr/p": "p" * 600_000}, controls={"prerm": SCRIPT}))) == DONE
    opened, rotten = tree.open, tree._node("usr/p", FILE).content

    def read(path: str) -> io.BytesIO:
        content = opened(path).getvalue()
        if content != rotten or path != "usr/p":
            return io.BytesIO(content)
        sectors = Sectors(content)
        sectors.bad = bad
        return sectors

    monkeypatch.setattr(tree, "open", read)
    inode = tree._find("usr/p")
    assert Manager(tree, run=run).apply(world.install(p("2", {"/usr/p": "p" * 600_000})), settle=True) == DONE
    assert tree._find("usr/p") != inode and tree._node("usr/p", FILE).content == rotten


def test_an_adoption_that_something_is_in_the_way_of_is_taken_back() -> None:
    tree, _world = before_the_update()
    tree.unlink(path_of("p"))
    tree.sync()
    old, blocked = snapshot(tree), 0
    for number in range(60):
        run = tree.restarted()
        run.errors = {number: errno.EPERM}
        try:
            adopt(run)
        except BlockedError:
            blocked += 1
            assert is_clean(run) and snapshot(run) == old
        except PackageError:
            continue
    assert blocked


def without_folders(world: World) -> Order:
    package = deb_of(tar_of([member("./usr/q/x")]), control_tar(b"Package: p\nVersion: 2\nArchitecture: all\n"), "")
    return bringing(package, world.install(p("2", {})))


Refusal = tuple[Callable[[World], Order], type[PackageError], str]
REFUSALS: dict[str, Refusal] = {
    "a file of another package": (
        lambda world: world.install(p("2", {"/usr/q": "mine"})), RefusedError, "/usr/q of p:all is also in q:all 1"),
    "a file in two packages that come": (
        lambda world: world.install(p("2", {"/x": "1"}), q("2", {"/x": "2"})), RefusedError,
        "/x is in p:all and in q:all"),
    "a folder where another package has a file": (
        lambda world: world.install(p("2", {"/usr/q/x": "mine"})), RefusedError,
        "/usr/q of p:all is also in q:all 1"),
    "a folder that no package names, in the place of a file": (
        without_folders, RefusedError,
        "/usr/q: /usr/q/x needs a folder there, and what is there belongs to no package that goes"),
    "a folder with files of nobody": (
        lambda world: world.install(p("2", {"/usr/local": "x"})), RefusedError, "/usr/local: a folder is there"),
    "a script that nobody can run": (
        lambda world: world.install(p("2", {"/x": "1"}, controls={"postinst": "#!/bin/nothing\n"})), UnsupportedError,
        "there is no /bin/nothing to run it"),
    "a script that calls us": (
        lambda world: world.install(p("2", {"/x": "1"}, controls={"postinst": "#!/bin/sh\ndpkg -i y.deb\n"})),
        UnsupportedError, "dpkg -i"),
    "an unknown control file": (
        lambda world: world.install(p("2", {"/x": "1"}, controls={"more": "x"})), UnsupportedError, "'more'"),
    "an old transaction": (
        lambda world: Order(world.install(NEW).wish, lambda keys: {}, 0, bytes(32)), TransactionError, "is not newer"),
    "nobody brings it": (
        lambda world: Order(world.install(NEW).wish, lambda keys: {}, 9, bytes(32)), RefusedError,
        "p:all 2 is wanted and nobody brings it"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_before_any_change(name: str) -> None:
    make, kind, message = REFUSALS[name]
    tree, world = before_the_update()
    tree.make_directory("usr/local")
    tree.write("usr/local/mine", [b"m"])
    old = snapshot(tree)
    scripts = Scripts()
    with pytest.raises(kind) as refused:
        Manager(tree, run=scripts).apply(make(world))
    assert message in str(refused.value)
    assert refused.value.advice
    assert snapshot(tree) == old
    assert is_clean(tree)
    assert scripts.calls == []


@pytest.mark.fault("S7")
@pytest.mark.fault("S9")
def test_a_disk_that_refuses_leaves_a_whole_set() -> None:
    start, world = before_the_update()
    order = world.install(NEW, remove=["q"])
    old = snapshot(start)
    probe = start.restarted()
    apply(probe, order)
    new = snapshot(probe)
    for errors, numbers in (("errors", range(0, probe.operations, 3)), ("read_errors", range(1, probe.looks, 7))):
        refused = 0
        for number in numbers:
            tree = start.restarted()
            getattr(tree, errors)[number] = errno.EIO
            refused += goes_on(tree, order)
            assert snapshot(tree) in (old, new), (errors, number)
            assert is_clean(tree)
        assert refused > 20


def goes_on(tree: FileSystem, order: Order) -> bool:
    """Whether the disk's error was told; the next call goes on."""
    try:
        apply(tree, order)
    except PackageError:
        Manager(tree).resume(settle=True)
        return True
    return False


@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.requirement("M7")
@pytest.mark.parametrize("cuts_max", [30, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_cut_among_scripts_leaves_a_whole_set(cuts_max: int) -> None:
    """What scripts began is finished or taken back, whatever of their own notes was lost; once more in between, too."""
    start, world = before_the_update()
    order = world.install(NEW, remove=["q"])
    old = snapshot(start)
    run = start.restarted()
    run.watch = []
    assert Manager(run, run=Scripts()).apply(order, settle=True) == DONE
    new, moments = snapshot(run), run.watch
    chance = random.Random("scripts")
    for number in sorted(chance.sample(range(len(moments)), min(cuts_max, len(moments)))):
        moment = moments[number]
        for left in survivors(moment.pending, 3, 3):
            tree = after_cut(moment.base, left)
            tree.cut_at = chance.randrange(60)
            with suppress(PowerCut):
                Manager(tree, run=Scripts()).resume(settle=True)
            tree = tree.restarted(next(iter(survivors(tree.pending, 1, 1))))
            scripts = Scripts()
            Manager(tree, run=scripts).resume(settle=True)
            found = snapshot(tree)
            assert found in (old, new), f"cut after {moment.kind} {number}: {differences(found, old, new)}"
            assert is_clean(tree)
            # Never both: what is taken back is not configured.
            assert not {"p.postinst configure 1", "p.postinst abort-upgrade 2"} <= set(scripts.calls)
            assert Manager(tree, run=Scripts()).apply(order, settle=True) in (DONE, NOTHING_TO_DO)
            assert snapshot(tree) == new
