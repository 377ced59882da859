"""What cannot be read, removed or waited for, around an undo: it holds up neither recovery nor what comes next."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from packagemanager import discarded, places, scripts
from packagemanager.dpkg_lock import WAIT_SECONDS_MAX
from packagemanager.engine import Engine
from packagemanager.process import Ended
from packagemanager.transact import DONE, ON_TRIAL, WAITS_FOR_RESTART, Manager
from recovery.package_commit import settle
from recovery.packages import finish, undo
from statemachine.record import Record
from tests.programs.package_constructs import Package, p
from tests.simulator.filesystem import FileSystem, after_cut, survivors
from tests.simulator.package_world import World
from tests.simulator.test_package_second_names import CONFFILE
from tests.simulator.test_package_undo import (
    MOVING,
    ONE,
    SCRIPT,
    TWO,
    Acting,
    Recovery,
    content,
    installed,
)

pytestmark = pytest.mark.requirement("M8", "M13")


def on_trial() -> tuple[FileSystem, World]:
    tree, world = installed(CONFFILE)
    new = p("2", {"/etc/c": b"1\n", "/usr/bin/new": b""}, conffiles=["/etc/c"], controls={"postinst": SCRIPT})
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(new)) == ON_TRIAL
    tree.sync()
    return tree.restarted(), world


@pytest.mark.fault("S7")
@pytest.mark.parametrize(
    ("sector", "ends"), [("files/list", "good"), ("files/list", "undone"), ("plan", "undone"), ("begun", "undone")]
)
def test_notes_that_cannot_be_read_hold_up_nothing(monkeypatch: pytest.MonkeyPatch, sector: str, ends: str) -> None:
    tree, world = on_trial()
    bad, open_file = tree.look(f"{places.SCRIPTS}/{sector}"), tree.open
    assert bad is not None

    def opened(path: str) -> object:
        found = tree.look(path)
        if found is not None and found.inode == bad.inode:
            raise OSError(errno.EIO, "bad sector")
        return open_file(path)

    monkeypatch.setattr(tree, "open", opened)
    if ends == "good":
        settle(tree, Acting(tree, {}))
    else:
        Manager(tree, run=Acting(tree, {})).undo()
    Manager(tree, run=Acting(tree, {})).resume()
    third = p("3", {"/etc/c": b"3\n"}, conffiles=["/etc/c"])
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(third), settle=True) == DONE


def immutable(tree: FileSystem, monkeypatch: pytest.MonkeyPatch, path: str) -> pytest.MonkeyPatch:
    """As `chattr +i`: no name of the file can be removed or renamed; folders above it can."""
    marked = tree.look(path)
    assert marked is not None
    for method in ("unlink", "rename"):

        def refused(*paths: str, act: object = getattr(tree, method)) -> None:
            found = [tree.look(one) for one in paths]
            if any(one is not None and one.inode == marked.inode for one in found):
                raise OSError(errno.EPERM, "Operation not permitted")
            act(*paths)  # type: ignore[operator]

        monkeypatch.setattr(tree, method, refused)
    return monkeypatch


def test_a_second_name_that_cannot_be_removed_goes_out_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    one = p("1", {"/usr/bin/p": b"1\n"})
    tree, world = installed(one)
    assert Manager(tree).apply(world.install(p("2", {"/usr/bin/p": b"2\n"})), live=False) == WAITS_FOR_RESTART
    with monkeypatch.context() as patched:
        immutable(tree, patched, "usr/bin/p")
        assert finish(Recovery(tree), Record())[0] == "packages_undone"  # type: ignore[arg-type]
        assert content(tree, "usr/bin/p") == b"1\n"
        assert tree.list(places.DISCARDED) == ["transaction.unbrick-undone"]
        other = Package("q", "1", {"/usr/bin/q": b""})
        assert Manager(tree).apply(world.install(one, other), settle=True) == DONE
    assert Manager(tree).apply(world.install(remove=["q"]), settle=True) == DONE
    assert tree.look(places.DISCARDED) is None


@pytest.mark.fault("S7")
@pytest.mark.parametrize("broken", ["the disk", "this program"])
def test_recovery_always_answers(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    tree, _world = on_trial()
    look = tree.look

    def bad(path: str) -> object:
        if path.startswith(f"{places.SCRIPTS}/"):
            raise OSError(errno.EIO, "bad sector") if broken == "the disk" else RecursionError
        return look(path)

    monkeypatch.setattr(tree, "look", bad)
    assert undo(Recovery(tree), Record())[0] == "packages_undone"  # type: ignore[arg-type]
    monkeypatch.setattr(Engine, "facts", bad)
    monkeypatch.setattr(Engine, "phase", lambda _engine: bad(f"{places.SCRIPTS}/"))
    assert undo(Recovery(tree), Record())[0] == "packages_damaged"  # type: ignore[arg-type]


def test_what_is_lost_is_roots_alone() -> None:
    tree, world = installed(p("1", {"/opt/p/key": b"1\n"}, modes={"/opt/p": 0o700}))
    assert Manager(tree).apply(world.install(p("2", {"/opt/p/key": b"2\n"}, modes={"/opt/p": 0o700}))) == ON_TRIAL
    tree.rename("opt/p", "opt/p.real")
    tree.make_link("opt/p", "p.real")
    Manager(tree).undo()
    folder = tree.look(places.LOST)
    assert content(tree, f"{places.LOST}/key.unbrick-undone") == b"1\n"
    assert folder is not None and folder.mode == 0o700


def test_scripts_that_hang_when_it_is_taken_back_are_not_waited_for_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = "abcd"
    tree, world = installed(*(Package(name, "1", {f"/etc/{name}": name}, conffiles=[f"/etc/{name}"]) for name in names))
    controls = {"preinst": SCRIPT, "postinst": SCRIPT, "postrm": SCRIPT}
    new = [Package(name, "2", {f"/usr/{name}": name}, controls=controls) for name in names]
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(*new)) == ON_TRIAL
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def hanging(*_arguments: object) -> Ended:
        clock[0] += scripts.SCRIPT_SECONDS_MAX
        return Ended(-9, b"", ended_by_us=True)

    left = Manager(tree, run=hanging).undo()
    assert clock[0] == scripts.SCRIPT_SECONDS_MAX
    assert sum("was not called" in reason for _path, reason in left) >= len(names) - 1
    assert tree.look(places.SCRIPTS) is None


def test_the_unit_has_time_for_it() -> None:
    unit = Path(scripts.__file__).parent.parent / "recovery/os/system/unbrick-packages-back.service"
    line = next(line for line in unit.read_text().splitlines() if line.startswith("TimeoutStartSec="))
    needed = WAIT_SECONDS_MAX + scripts.BACK_SECONDS_MAX + scripts.SCRIPT_SECONDS_MAX
    assert int(line.partition("=")[2].removesuffix("min")) * 60 > needed


class FailsOnce:
    """The disk refuses the first look at, or opening of, what ``is_meant``."""

    def __init__(self, act: Callable[[str], object], is_meant: Callable[[str], bool]) -> None:
        self.act = act
        self.is_meant = is_meant
        self.failed = False

    def __call__(self, path: str) -> object:
        if self.is_meant(path) and not self.failed:
            self.failed = True
            raise OSError(errno.EIO, "once")
        return self.act(path)


@pytest.mark.fault("S7")
def test_a_look_that_fails_takes_no_good_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world = installed(ONE)
    told: list[str] = []
    manager = Manager(tree, run=Acting(tree, MOVING | {"p.postrm abort-upgrade": lambda _tree: told.append("back")}))
    assert manager.apply(world.install(TWO)) == ON_TRIAL
    look = tree.look
    for after in (DONE, None):
        failing = FailsOnce(look, lambda path: path == places.SCRIPTS_BEGUN and look(places.TRANSACTION) is None)
        monkeypatch.setattr(tree, "look", failing)
        assert (manager.settle() if after else manager.resume().now) == after
    assert (told, content(tree, "etc/old.conf")) == ([], None)


@pytest.mark.fault("S7")
def test_scripts_are_told_though_their_list_does_not_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world = installed(ONE)
    acts = {**MOVING, "p.postinst configure": lambda _tree: None}
    manager = Manager(tree, run=Acting(tree, acts))
    assert manager.apply(world.install(TWO)) == ON_TRIAL
    failing = FailsOnce(tree.open, lambda path: path == f"{places.SCRIPTS}/{scripts.PLAN}")
    monkeypatch.setattr(tree, "open", failing)
    assert manager.undo() == ()
    assert failing.failed
    assert tree.list("etc") == ["old.conf"]


def test_of_what_cannot_be_removed_the_rest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world = installed(p("1", {"/usr/bin/p": b"1\n", "/usr/bin/other": b"1\n"}))
    new = p("2", {"/usr/bin/p": b"2\n", "/usr/bin/other": b"2\n"})
    assert Manager(tree).apply(world.install(new), live=False) == WAITS_FOR_RESTART
    immutable(tree, monkeypatch, "usr/bin/p")
    finish(Recovery(tree), Record())  # type: ignore[arg-type]
    discarded.try_again(tree)
    folder = f"{places.DISCARDED}/transaction.unbrick-undone"
    assert tree.list(folder) == ["old"]
    assert len(tree.list(f"{folder}/old")) == 1


@pytest.mark.fault("S1", "S2", "S3")
def test_a_cut_while_notes_go_does_not_tell_scripts_again_without_what_was_kept() -> None:
    tree, world = installed(CONFFILE)
    new = p("2", {"/usr/bin/x": b""}, controls=dict.fromkeys(("postinst", "postrm"), SCRIPT))
    acts = {"p.postrm abort-upgrade": lambda tree: places.remove(tree, "etc/c")}
    assert Manager(tree, run=Acting(tree, acts)).apply(world.install(new)) == ON_TRIAL
    tree.sync()
    disk = tree.restarted()
    undo(Recovery(disk), Record())  # type: ignore[arg-type]
    run = disk.restarted()
    run.watch = []
    Manager(run, run=Acting(run, acts)).resume()
    for moment in run.watch:
        for left in survivors(moment.pending, 40, 4):
            again = after_cut(moment.base, left)
            Manager(again, run=Acting(again, acts)).resume()
            assert content(again, "etc/c") == b"1\n", moment.kind
