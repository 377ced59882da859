"""Undoing what scripts, the owner and the running system changed meanwhile: the old set is back, and nothing is lost.

Cut anywhere, it is undone again; what was made since is beside, under a name of its own, and named.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from packagemanager import places, taken_away
from packagemanager.database import Database
from packagemanager.engine import Engine
from packagemanager.errors import PackageError
from packagemanager.phases import TRYING
from packagemanager.process import Ended
from packagemanager.scripts import call_good
from packagemanager.transact import DONE, ON_TRIAL, WAITS_FOR_RESTART, Manager
from packagemanager.verify import verify
from recovery.packages import undo
from statemachine.record import Record
from tests.programs.package_constructs import Package, p
from tests.simulator.filesystem import FileSystem, after_cut, survivors
from tests.simulator.package_world import World, system

pytestmark = pytest.mark.requirement("M8", "M13")

SCRIPT = "#!/bin/sh\n"
Act = Callable[[FileSystem], None]


class Acting:
    """Scripts that do something to the system: by "package.script"; those in ``failing`` end with 1."""

    def __init__(self, tree: FileSystem, acts: Mapping[str, Act], failing: Sequence[str] = ()) -> None:
        self.tree = tree
        self.acts = acts
        self.failing = failing

    def __call__(self, program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        name = f"{environment['DPKG_MAINTSCRIPT_PACKAGE']}.{environment['DPKG_MAINTSCRIPT_NAME']} {words[0]}"
        if name in self.acts:
            self.acts[name](self.tree)
        return Ended(1 if name in self.failing else 0, b"said\n")


def content(tree: FileSystem, path: str) -> bytes | None:
    found = tree.look(path)
    return None if found is None else tree.open(path).read()


def edit(tree: FileSystem, path: str, text: bytes) -> None:
    """As an editor does it: a new file over the old name."""
    tree.write(f"{path}.edited", [text])
    tree.rename(f"{path}.edited", path)


def installed(*packages: Package) -> tuple[FileSystem, World]:
    tree, world = system(), World()
    assert Manager(tree).apply(world.install(*packages), settle=True) == DONE
    return tree, world


def findings(tree: FileSystem) -> list[str]:
    return [str(one) for one in verify(Database(tree)) if not one.allowed]


def purging() -> tuple[FileSystem, World, dict[str, Act]]:
    package = Package(
        "q", "1", {"/etc/q/q.conf": b"shipped\n"}, conffiles=["/etc/q/q.conf"], controls={"postrm": SCRIPT}
    )
    tree, world = installed(package)
    edit(tree, "etc/q/q.conf", b"mine, for years\n")
    tree.set_attributes("etc/q", 0o750, 0, 7, 0)
    tree.write("etc/q/generated", [b"by the program"])
    tree.sync()
    return tree, world, {"q.postrm purge": lambda tree: places.remove(tree, "etc/q")}


def check_purged_is_back(tree: FileSystem) -> None:
    folder = tree.look("etc/q")
    assert folder is not None and (folder.mode, folder.gid) == (0o750, 7)
    assert content(tree, "etc/q/q.conf") == b"mine, for years\n"
    assert findings(tree) == []


def test_a_folder_that_a_purge_removed_comes_back_with_what_was_kept_of_it() -> None:
    tree, world, acts = purging()
    other = Package("other", "1", {"/usr/bin/other": b""}, controls={"postinst": SCRIPT})
    manager = Manager(tree, run=Acting(tree, acts, ["other.postinst configure"]))
    with pytest.raises(PackageError, match=r"other\.postinst"):
        manager.apply(world.install(other, remove=["q"], purge=True))
    check_purged_is_back(tree)


def undone_cut_anywhere(tree: FileSystem) -> Iterator[FileSystem]:
    """What is on trial is undone by recovery: cut at every operation, and undone again."""
    run = tree.restarted()
    run.watch = []
    Engine(run).back()
    for number, moment in enumerate(run.watch):
        for left in survivors(moment.pending, 20, 4):
            disk = after_cut(moment.base, left)
            assert Engine(disk).resume().now in (None, TRYING), f"cut after {moment.kind} {number}"
            if Engine(disk).phase() == TRYING:
                Engine(disk).back()
            yield disk


@pytest.mark.fault("S1", "S2", "S3")
def test_so_it_does_by_recovery_cut_anywhere() -> None:
    tree, world, acts = purging()
    manager = Manager(tree, run=Acting(tree, acts))
    assert manager.apply(world.install(remove=["q"], purge=True)) == ON_TRIAL
    tree.sync()
    for disk in undone_cut_anywhere(tree):
        check_purged_is_back(disk)


def test_a_file_comes_back_where_a_folder_of_the_new_set_was_filled() -> None:
    tree, world = installed(p("1", {"/usr/lib/p/plugins": b"the old registry"}))
    new = p("2", {"/usr/lib/p/plugins/a": b"a"}, controls={"postinst": SCRIPT})
    acts: dict[str, Act] = {"p.postinst configure": lambda tree: tree.write("usr/lib/p/plugins/cache", [b"made"])}
    manager = Manager(tree, run=Acting(tree, acts, ["p.postinst configure"]))
    with pytest.raises(
        PackageError, match=r"plugins is not as it was: what was there since is now /usr/lib/p/plugins\.unbrick-undone"
    ):
        manager.apply(world.install(new))
    assert content(tree, "usr/lib/p/plugins") == b"the old registry"
    assert content(tree, "usr/lib/p/plugins.unbrick-undone/cache") == b"made"
    assert findings(tree) == []


def test_what_the_owner_saved_during_a_trial_is_beside_what_comes_back() -> None:
    tree, world = installed(p("1", {"/etc/c": b"1\n", "/etc/gone": b"gone\n"}, conffiles=["/etc/c"]))
    two = p("2", {"/etc/c": b"2\n", "/etc/new": b"2\n"}, conffiles=["/etc/c", "/etc/new"])
    assert Manager(tree).apply(world.install(two)) == ON_TRIAL
    for name in ("c", "new", "gone"):
        edit(tree, f"etc/{name}", b"mine\n")
    tree.sync()
    left = Engine(tree.restarted()).back()
    assert sorted(left) == [(f"etc/{name}", f"what was there since is now /etc/{name}.unbrick-undone")
                            for name in ("c", "gone", "new")]  # fmt: skip


@pytest.mark.fault("S1", "S2", "S3")
def test_cut_while_it_is_undone_the_owners_files_are_not_lost() -> None:
    tree, world = installed(p("1", {"/etc/c": b"1\n", "/etc/gone": b"gone\n"}, conffiles=["/etc/c"]))
    two = p("2", {"/etc/c": b"2\n", "/etc/new": b"2\n"}, conffiles=["/etc/c", "/etc/new"])
    assert Manager(tree).apply(world.install(two)) == ON_TRIAL
    for name in ("c", "new", "gone"):
        edit(tree, f"etc/{name}", f"my {name}\n".encode())
    tree.sync()
    for disk in undone_cut_anywhere(tree):
        assert [content(disk, f"etc/{name}") for name in ("c", "gone", "new")] == [b"1\n", b"gone\n", None]
        for name in ("c", "new", "gone"):
            assert content(disk, f"etc/{name}.unbrick-undone") == f"my {name}\n".encode()
        assert disk.look("etc/c.unbrick-undone.2") is None


def test_what_cannot_come_back_to_its_place_is_not_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world = installed(p("1", {"/etc/c": b"1\n"}))
    assert Manager(tree).apply(world.install(p("2", {"/etc/c": b"2\n"}))) == ON_TRIAL
    rename = tree.rename

    def busy(old: str, new: str) -> None:
        if new == "etc/c":
            raise OSError(errno.EBUSY, "something is mounted there")
        rename(old, new)

    monkeypatch.setattr(tree, "rename", busy)
    saved = f"{places.LOST}/c.unbrick-undone"
    assert Manager(tree).undo() == (("etc/c", f"something is mounted there; it is now /{saved}"),)
    assert content(tree, saved) == b"1\n"


# Two versions and scripts of the second: a conffile that goes, a folder that becomes a link, as the helper does it.
ONE = p("1", {"/etc/old.conf": b"shipped\n", "/usr/share/p/data": b"needed\n"}, conffiles=["/etc/old.conf"])
HELP = f"{SCRIPT}dpkg-maintscript-helper rm_conffile /etc/old.conf 2~ -- \"$@\"\n" \
       f"dpkg-maintscript-helper dir_to_symlink \\\n  '/usr/share/p/' /usr/share/q 2~ -- \"$@\"\n"  # fmt: skip
TWO = p(
    "2",
    {"/usr/share/q/data": b"new\n", "/usr/share/p": ("q",)},
    controls={"preinst": HELP, "postinst": HELP, "postrm": HELP},
)


def away(tree: FileSystem) -> None:
    tree.rename("etc/old.conf", "etc/old.conf.dpkg-remove")
    tree.rename("usr/share/p", "usr/share/p.dpkg-backup")
    tree.make_directory("usr/share/p")


def finish(tree: FileSystem) -> None:
    tree.unlink("etc/old.conf.dpkg-remove")
    places.remove(tree, "usr/share/p.dpkg-backup")
    tree.remove_directory("usr/share/p")
    tree.make_link("usr/share/p", "/usr/share/q")


def abort(tree: FileSystem) -> None:
    if tree.look("etc/old.conf.dpkg-remove") is not None:
        tree.rename("etc/old.conf.dpkg-remove", "etc/old.conf")
    if tree.look("usr/share/p.dpkg-backup") is not None:
        tree.remove_directory("usr/share/p")
        tree.rename("usr/share/p.dpkg-backup", "usr/share/p")


MOVING: dict[str, Act] = {"p.preinst upgrade": away, "p.postinst configure": finish, "p.postrm abort-upgrade": abort}


def check_moved_is_back(tree: FileSystem) -> None:
    assert content(tree, "etc/old.conf") == b"shipped\n"
    assert content(tree, "usr/share/p/data") == b"needed\n"
    assert findings(tree) == []
    assert tree.look(taken_away.FOLDER) is None


@pytest.mark.parametrize("failing", ["p.preinst upgrade", "p.postinst configure", ""])
def test_what_a_helper_moved_away_and_deleted_comes_back(failing: str) -> None:
    tree, world = installed(ONE)
    manager = Manager(tree, run=Acting(tree, MOVING, [failing]))
    order = world.install(TWO)
    if failing:
        with pytest.raises(PackageError, match="ended with 1"):
            manager.apply(order)
    else:
        assert manager.apply(order) == ON_TRIAL
        assert tree.look("etc/old.conf") is None
        manager.undo()
    check_moved_is_back(tree)


class Recovery:
    """What recovery works with, as far as packages are concerned."""

    def __init__(self, tree: FileSystem) -> None:
        self.tree = tree

    def open_root(self, record: Record) -> Recovery:
        return self

    def alive(self) -> None: ...

    def close(self) -> None: ...


def undone_by_recovery(tree: FileSystem) -> FileSystem:
    """The boots failed, and the power with the last of them."""
    tree.sync()
    disk = tree.restarted()
    undo(Recovery(disk), Record())  # type: ignore[arg-type]
    return disk.restarted([])


@pytest.mark.requirement("M20")
def test_recovery_brings_back_what_scripts_deleted_before_the_system_runs() -> None:
    tree, world = installed(ONE)
    assert Manager(tree, run=Acting(tree, MOVING)).apply(world.install(TWO)) == ON_TRIAL
    disk = undone_by_recovery(tree)
    assert (content(disk, "etc/old.conf"), content(disk, "usr/share/p/data")) == (b"shipped\n", b"needed\n")
    Manager(disk, run=Acting(disk, MOVING)).resume()
    check_moved_is_back(disk)


@pytest.mark.requirement("M20")
def test_what_a_script_moved_and_can_move_back_is_left_to_it() -> None:
    tree, world = installed(ONE)
    assert Manager(tree, run=Acting(tree, MOVING)).apply(world.install(TWO), live=False) == WAITS_FOR_RESTART
    disk = undone_by_recovery(tree)
    assert content(disk, "etc/old.conf") is None
    Manager(disk, run=Acting(disk, MOVING)).resume()
    check_moved_is_back(disk)


def test_configuration_that_a_script_deletes_by_itself_comes_back() -> None:
    tree, world = installed(ONE)
    new = p("2", {"/usr/share/p/data": b"needed\n"}, controls={"postinst": SCRIPT})
    manager = Manager(tree, run=Acting(tree, {"p.postinst configure": lambda tree: tree.unlink("etc/old.conf")}))
    assert manager.apply(world.install(new)) == ON_TRIAL
    manager.undo()
    check_moved_is_back(tree)


def test_of_a_set_that_stays_nothing_comes_back() -> None:
    tree, world = installed(ONE)
    assert Manager(tree, run=Acting(tree, MOVING)).apply(world.install(TWO)) == ON_TRIAL
    call_good(tree)
    Engine(tree).done()
    disk = undone_by_recovery(tree)
    assert disk.look("etc/old.conf") is None
    Manager(disk, run=Acting(disk, MOVING)).resume()
    assert disk.look("etc/old.conf") is None and disk.look(taken_away.FOLDER) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("dpkg-maintscript-helper dir_to_symlink /usr/share/p /usr/share/q 2~ -- \"$@\"", True),
        ("\tdpkg-maintscript-helper symlink_to_dir \\\n  \"/usr/share/p/\" q 2~ p -- \"$@\"", True),
        ("if dpkg-maintscript-helper supports dir_to_symlink; then :; fi", False),
        ("dpkg-maintscript-helper dir_to_symlink /usr/share/pp /usr/share/q 2~", False),
        ("for d in a b; do dpkg-maintscript-helper dir_to_symlink $d x 2~; done", True),
        ("dpkg-maintscript-helper $verb /usr/share/x", True),
        ("true", False),
    ],
)  # fmt: skip
def test_what_the_helper_is_called_with_is_kept_and_all_where_that_cannot_be_told(text: str, kept: bool) -> None:
    tree, world = installed(ONE)
    new = p("2", {"/usr/share/p/data": b"needed\n"}, controls={"postinst": f"{SCRIPT}{text}\n"})
    acts: dict[str, Act] = {"p.postinst configure": lambda tree: tree.unlink("usr/share/p/data")}
    manager = Manager(tree, run=Acting(tree, acts, ["p.postinst configure"]))
    with pytest.raises(PackageError, match="ended with 1"):
        manager.apply(world.install(new))
    assert (content(tree, "usr/share/p/data") == b"needed\n") == kept


def test_a_folder_that_has_become_a_link_stays_one_and_what_was_kept_is_beside() -> None:
    """As `/lib` does: whatever else is there must not be out of reach by an undo."""
    tree, world = installed(p("1", {"/lib/p.so": b"1\n"}))
    tree.write("lib/ld.so", [b"of all\n"])
    new = p("2", {"/lib/p.so": b"2\n"}, controls={"postinst": f"{SCRIPT}dpkg-maintscript-helper $verb /x y\n"})

    def merge(tree: FileSystem) -> None:
        tree.rename("lib", "usr/lib")
        tree.make_link("lib", "usr/lib")

    manager = Manager(tree, run=Acting(tree, {"p.postinst configure": merge}))
    assert manager.apply(world.install(new)) == ON_TRIAL
    saved = f"{places.LOST}/p.so.unbrick-undone"
    assert ("lib/p.so", f"a link is in the place of its folder; it is now /{saved}") in manager.undo()
    assert (content(tree, "lib/ld.so"), content(tree, saved)) == (b"of all\n", b"1\n")


@pytest.mark.parametrize("refused", ["a loop", "the list", "the disk is full"])
def test_what_refuses_is_told_and_the_scripts_are_not_told_again(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    tree, world = installed(ONE)
    manager = Manager(tree, run=Acting(tree, MOVING))
    assert manager.apply(world.install(TWO)) == ON_TRIAL
    if refused == "a loop":
        places.remove(tree, "usr/share/q")
        tree.unlink("usr/share/p")
        tree.make_link("usr/share/p", "p")
    elif refused == "the list":
        tree.unlink(taken_away.LIST)
        tree.write(taken_away.LIST, [b"rotten"])
    else:

        def full(old: str, new: str) -> None:
            raise OSError(errno.ENOSPC, "no room")

        monkeypatch.setattr(tree, "hard_link", full)
    left = dict(manager.undo())
    assert tree.look(taken_away.FOLDER) is None
    if refused == "a loop":
        assert content(tree, "etc/old.conf") == b"shipped\n", "one path alone is in the way"
    elif refused == "the list":
        assert "stays away" in left[""]
    else:
        saved = f"{places.LOST}/old.conf.unbrick-undone"
        assert (left["etc/old.conf"], content(tree, saved)) == (f"no room; it is now /{saved}", b"shipped\n")


def test_what_a_failing_script_leaves_is_said_with_the_failure() -> None:
    tree, world = installed(ONE)
    failing = ["p.preinst upgrade", "p.postrm abort-upgrade"]
    manager = Manager(tree, run=Acting(tree, {}, failing))
    with pytest.raises(PackageError, match=r"(?s)p\.preinst.*\nthe script p\.postrm abort-upgrade"):
        manager.apply(world.install(TWO))


def test_a_cut_after_the_undo_does_not_start_a_system_without_what_scripts_deleted() -> None:
    tree, world = installed(ONE)
    assert Manager(tree, run=Acting(tree, MOVING)).apply(world.install(TWO)) == ON_TRIAL
    Engine(tree).back()
    disk = undone_by_recovery(tree)
    assert (content(disk, "etc/old.conf"), content(disk, "usr/share/p/data")) == (b"shipped\n", b"needed\n")


def test_a_folder_that_cannot_come_back_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world, acts = purging()
    assert Manager(tree, run=Acting(tree, acts)).apply(world.install(remove=["q"], purge=True)) == ON_TRIAL
    rename = tree.rename

    def elsewhere(old: str, new: str) -> None:
        if old == places.RETURNING:
            raise OSError(errno.EXDEV, "another file system")
        rename(old, new)

    monkeypatch.setattr(tree, "rename", elsewhere)
    assert ("etc/q", "another file system") in Manager(tree).undo()
    assert tree.look(places.RETURNING) is None
    assert content(tree, f"{places.LOST}/q.conf.unbrick-undone") == b"mine, for years\n"


def test_a_loop_of_links_in_the_way_drops_what_waits_and_nothing_else() -> None:
    tree, world = installed(p("1", {"/etc/d/c": b"1\n"}))
    assert Manager(tree).apply(world.install(p("2", {"/etc/d/c": b"2\n"})), live=False) == WAITS_FOR_RESTART
    places.remove(tree, "etc/d")
    tree.make_link("etc/d", "d")
    disk = undone_by_recovery(tree)
    Engine(disk).resume()
    assert disk.look(places.TRANSACTION) is None
