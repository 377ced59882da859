"""What scripts may take away has second names: they never harm a set that stays, and never hold up what comes next."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from packagemanager import places
from packagemanager.errors import PackageError
from packagemanager.process import Ended
from packagemanager.root import Root
from packagemanager.transact import DONE, ON_TRIAL, Manager
from recovery.packages import undo
from statemachine.record import Record
from tests.programs.package_constructs import Package, p
from tests.simulator.filesystem import FileSystem
from tests.simulator.package_world import World
from tests.simulator.test_package_undo import (
    MOVING,
    ONE,
    SCRIPT,
    TWO,
    Acting,
    Recovery,
    content,
    edit,
    findings,
    installed,
)

pytestmark = pytest.mark.requirement("M8", "M13")

UNREADABLE = SCRIPT + 'dpkg-maintscript-helper rm_conffile "$OLD" 2~ -- "$@"\n'  # all of the package is kept
CONFFILE = p("1", {"/etc/c": b"1\n"}, conffiles=["/etc/c"])


def with_two_names(version: str, data: bytes, **more: str) -> Package:
    names = {"/usr/lib/p/b": "/usr/lib/p/a", **{f"/usr/lib/p/{name}": path for name, path in more.items()}}
    return p(version, {"/usr/lib/p/a": data}, hard_links=names, controls={"postinst": UNREADABLE})


def test_a_new_file_with_the_size_and_the_time_of_the_old_one_stays() -> None:
    tree, world = installed(with_two_names("1", b"old code\n"))
    new = with_two_names("2", b"new code\n")
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(new), settle=True) == DONE
    assert [content(tree, f"usr/lib/p/{name}") for name in "ab"] == [b"new code\n"] * 2
    assert findings(tree) == []


def test_a_third_name_of_a_file_does_not_tear_the_others_apart() -> None:
    tree, world = installed(with_two_names("1", b"same\n"))
    new = with_two_names("2", b"same\n", c="/usr/lib/p/a")
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(new), settle=True) == DONE
    assert findings(tree) == []


def test_configuration_has_one_name_while_a_set_is_on_trial(tmp_path: Path) -> None:
    """Debian's cron ignores a file that has two."""
    tree, world = Root(str(tmp_path)), World()
    places.make_folders(tree, places.FOLDER, "bin", "etc", "var/lib/dpkg/info", "var/lib/dpkg/updates")
    tree.write("bin/sh", [b""])
    tree.write("var/lib/dpkg/status", [])
    assert Manager(tree).apply(world.install(CONFFILE), settle=True) == DONE
    new = p("2", {"/etc/c": b"1\n"}, conffiles=["/etc/c"], controls={"postinst": SCRIPT})
    run = Mover(tree)
    assert Manager(tree, run=run).apply(world.install(new)) == ON_TRIAL
    assert (tmp_path / "etc/c.bak").stat().st_nlink == 1
    undo(Recovery(tree), Record())  # type: ignore[arg-type]
    assert [(tmp_path / "etc" / name).stat().st_nlink for name in ("c", "c.bak")] == [1, 1]
    assert (tmp_path / "etc/c").read_bytes() == b"1\n"


class Mover:
    def __init__(self, tree: Root) -> None:
        self.tree = tree

    def __call__(self, *_arguments: object) -> Ended:
        if self.tree.look("etc/c.bak") is None:
            self.tree.rename("etc/c", "etc/c.bak")
        return Ended(0, b"")


HELPED = SCRIPT + 'dpkg-maintscript-helper symlink_to_dir /usr/share/p old 2~ -- "$@"\n'


@pytest.mark.parametrize("where", ["live", "recovery"])
def test_a_link_comes_back_where_a_folder_is_that_was_filled(where: str) -> None:
    tree, world = installed(p("1", {"/usr/share/old/data": b"needed\n", "/usr/share/p": ("old",)}))
    helped = {"preinst": HELPED, "postinst": HELPED, "postrm": HELPED}
    new = p("2", {"/usr/share/p/data": b"new\n"}, controls=helped)

    def fill(tree: FileSystem) -> None:
        tree.unlink("usr/share/p.dpkg-backup")
        tree.write("usr/share/p/cache", [b"made"])

    acts = {
        "p.preinst upgrade": lambda tree: tree.rename("usr/share/p", "usr/share/p.dpkg-backup"),
        "p.postinst configure": fill,
    }
    manager = Manager(tree, run=Acting(tree, acts))
    assert manager.apply(world.install(new)) == ON_TRIAL
    if where == "live":
        said = "what was there since is now /usr/share/p.unbrick-undone"
        assert ("usr/share/p", said) in manager.undo()
    else:
        undo(Recovery(tree), Record())  # type: ignore[arg-type]
    assert (content(tree, "usr/share/p/data"), findings(tree)) == (b"needed\n", [])
    assert content(tree, "usr/share/p.unbrick-undone/cache") == b"made"


@pytest.mark.parametrize("helper", ["dpkg-maintscript-helper", "/usr/bin/dpkg-maintscript-helper"])
def test_the_helper_may_be_called_by_its_path(helper: str) -> None:
    tree, world = installed(p("1", {"/usr/share/p/data": b"needed\n"}))
    text = f'{SCRIPT}{helper} dir_to_symlink /usr/share/p q 2~ -- "$@"\n'
    new = p("2", {"/usr/share/q/data": b"new\n", "/usr/share/p": ("q",)}, controls={"preinst": text})
    acts = {"p.preinst upgrade": lambda tree: places.remove(tree, "usr/share/p")}
    manager = Manager(tree, run=Acting(tree, acts))
    assert manager.apply(world.install(new)) == ON_TRIAL
    manager.undo()
    assert content(tree, "usr/share/p/data") == b"needed\n"


def test_a_disk_that_is_full_while_names_are_kept_leaves_names_of_one_file_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on an overlay: a second name is of a copy, and the first one is now that copy."""
    files, names = {"/usr/lib/p/a": b"same\n", "/usr/lib/p/z": b"z"}, {"/usr/lib/p/b": "/usr/lib/p/a"}
    tree, world = installed(p("1", files, hard_links=names))
    hard_link, count = tree.hard_link, [0]

    def copied_up(old: str, new: str) -> None:
        if new.startswith(f"{places.SCRIPTS}/files/"):
            count[0] += 1
            if count[0] == 3:
                raise OSError(errno.ENOSPC, "no room")
            if not old.startswith(places.SCRIPTS):
                stat, data = tree.look(old), content(tree, old)
                assert stat is not None and data is not None
                edit(tree, old, data)
                tree.set_attributes(old, stat.mode, stat.uid, stat.gid, stat.mtime)
        hard_link(old, new)

    monkeypatch.setattr(tree, "hard_link", copied_up)
    new = p("2", files, hard_links=names, controls={"postinst": UNREADABLE})
    with pytest.raises(PackageError):
        Manager(tree, run=Acting(tree, {})).apply(world.install(new))
    assert count[0] == 3
    assert findings(tree) == []


USER = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_whoever_owns_a_folder_cannot_lead_an_undo_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """He has the time of a flush to put a link in the place of a folder of his."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        tree, world = Root(name), World()
        places.make_folders(tree, places.FOLDER, "etc/d", "var/lib/dpkg/info", "var/lib/dpkg/updates")
        tree.write("var/lib/dpkg/status", [])
        assert Manager(tree).apply(world.install(p("1", {"/srv/app/conf/x": b"1\n"})), settle=True) == DONE
        for folder in ("app", "app/conf"):
            os.chown(root / "srv" / folder, USER, USER)
        assert Manager(tree).apply(world.install(p("2", {"/srv/app/conf/x": b"2\n"}))) == ON_TRIAL
        as_user(lambda: (root / "srv/app/conf/mine").write_text("mine"))
        as_user(lambda: (root / "srv/app/conf/mine").rename(root / "srv/app/conf/x"))
        sync = tree.sync
        swapped: list[bool] = []

        def swap() -> None:
            (root / "srv/app/conf").rename(root / "srv/app/old")
            (root / "srv/app/conf").symlink_to("/etc/d")

        def swapping() -> None:
            sync()
            if (root / "srv/app/conf/x.unbrick-undone").exists() and not swapped:
                swapped.append(True)
                as_user(swap)

        monkeypatch.setattr(tree, "sync", swapping)
        left = dict(Manager(tree).undo())
        assert swapped
        assert not list((root / "etc/d").iterdir())
        assert "it is now" in left["srv/app/conf/x"]
        tree.close()


def as_user(work: Callable[[], object]) -> None:
    process = os.fork()
    if process == 0:
        try:
            os.setgid(USER)
            os.setuid(USER)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_conffiles_that_are_one_file_stay_one() -> None:
    def of(version: str, **controls: str) -> Package:
        return p(version, {"/etc/a": b"1\n", "/usr/bin/x": version.encode()}, hard_links={"/etc/b": "/etc/a"},
                 conffiles=["/etc/a", "/etc/b"], controls=controls)  # fmt: skip

    def is_one(tree: FileSystem) -> bool:
        found = [tree.look(f"etc/{name}") for name in "ab"]
        return all(one is not None and one.inode == found[0].inode for one in found if found[0] is not None)

    tree, world = installed(of("1", postrm=SCRIPT))
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(of("2", postinst=SCRIPT)), settle=True) == DONE
    assert is_one(tree)
    assert Manager(tree, run=Acting(tree, {})).apply(world.install(remove=["p"]), settle=True) == DONE
    assert is_one(tree)
    assert content(tree, "etc/b") == b"1\n"


def test_what_recovery_brought_back_comes_back_again_where_a_script_removes_it() -> None:
    tree, world = installed(CONFFILE)
    new = p("2", {"/usr/bin/x": b""}, controls=dict.fromkeys(("preinst", "postinst", "postrm"), SCRIPT))

    def abort(tree: FileSystem) -> None:
        places.remove(tree, "etc/c")
        if tree.look("etc/c.old") is not None:
            tree.rename("etc/c.old", "etc/c")

    acts = {
        "p.preinst upgrade": lambda tree: tree.rename("etc/c", "etc/c.old"),
        "p.postinst configure": lambda tree: tree.unlink("etc/c.old"),
        "p.postrm abort-upgrade": abort,
    }
    assert Manager(tree, run=Acting(tree, acts)).apply(world.install(new)) == ON_TRIAL
    tree.sync()
    disk = tree.restarted()
    undo(Recovery(disk), Record())  # type: ignore[arg-type]
    disk = disk.restarted([])
    assert content(disk, "etc/c") == b"1\n"
    assert tree.list("etc") == []
    assert Manager(disk, run=Acting(disk, acts)).resume().left == ()
    assert content(disk, "etc/c") == b"1\n"


@pytest.mark.parametrize("kept_as", ["labelled", "unreadable", "plain"])
def test_a_copy_is_made_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch, kept_as: str) -> None:
    """An access control list is no part of a copy, and a bad sector no reason to keep a package for ever."""
    tree, world = installed(CONFFILE)
    conffile, open_file = tree.look("etc/c"), tree.open
    assert conffile is not None

    def opened(path: str) -> object:
        if kept_as == "unreadable" and path == "etc/c":
            raise OSError(errno.EIO, "bad sector")
        return open_file(path)

    monkeypatch.setattr(tree, "open", opened)
    if kept_as == "labelled":
        tree.labelled.add("etc/c")
    new = Package("q", "1", {"/usr/bin/q": b""}, controls={"postinst": SCRIPT})
    acts = {"p.postrm purge": lambda tree: tree.unlink("etc/c")}
    removed = world.install(new, remove=["p"])
    kept: list[bool] = []

    def look_at_it(tree: FileSystem) -> None:
        found = tree.look(f"{places.SCRIPTS}/files/0")
        kept.append(found is not None and found.inode == conffile.inode)

    tree.write("var/lib/dpkg/info/p.prerm", [SCRIPT.encode()])
    acts["p.prerm remove"] = look_at_it
    assert Manager(tree, run=Acting(tree, acts)).apply(removed, settle=True) == DONE
    assert kept == [kept_as != "plain"]


def test_what_the_owner_saves_while_a_folder_goes_aside_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world = installed(CONFFILE)
    new = p("2", {"/etc/c/d": b"new\n"}, controls={"preinst": SCRIPT, "postinst": SCRIPT})
    acts = {
        "p.preinst upgrade": lambda tree: tree.unlink("etc/c"),
        "p.postinst configure": lambda tree: tree.write("etc/c/cache", [b""]),
    }
    manager = Manager(tree, run=Acting(tree, acts))
    assert manager.apply(world.install(new)) == ON_TRIAL
    sync = tree.sync

    def saving() -> None:
        sync()
        if tree.look("etc/c.unbrick-undone") is not None and tree.look("etc/c") is None:
            tree.write("etc/c", [b"mine\n"])

    monkeypatch.setattr(tree, "sync", saving)
    left = [reason for path, reason in manager.undo() if path == "etc/c"]
    assert content(tree, "etc/c") == b"mine\n"
    assert any("it is now /var/lib/unbrick/packages/lost/c.unbrick-undone" in reason for reason in left)


@pytest.mark.fault("S7", "S10")
@pytest.mark.parametrize("refused", ["the flush", "room"])
def test_what_recovery_cannot_copy_it_brings_back_by_a_second_name(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    tree, world = installed(ONE)
    assert Manager(tree, run=Acting(tree, MOVING)).apply(world.install(TWO)) == ON_TRIAL
    tree.sync()
    disk = tree.restarted()
    sync, write = disk.sync, disk.write

    def failing_sync() -> None:
        if any(name.endswith(".again") for name in disk.list(f"{places.SCRIPTS}/files")):
            raise OSError(errno.EIO, "once")
        sync()

    def failing_write(path: str, content: Iterable[bytes]) -> None:
        if path.endswith(".again"):
            raise OSError(errno.ENOSPC, "no room")
        write(path, content)

    monkeypatch.setattr(disk, *(("sync", failing_sync) if refused == "the flush" else ("write", failing_write)))
    undo(Recovery(disk), Record())  # type: ignore[arg-type]
    assert content(disk, "etc/old.conf") == b"shipped\n"
    assert content(disk, "usr/share/p/data") == b"needed\n"


def test_what_a_script_can_move_back_is_left_to_it_also_where_a_folder_is() -> None:
    tree, world = installed(p("1", {"/usr/share/old/data": b"needed\n", "/usr/share/p": ("old",)}))
    new = p("2", {"/usr/share/p/data": b"new\n"}, controls={"preinst": HELPED, "postinst": HELPED})
    acts = {
        "p.preinst upgrade": lambda tree: tree.rename("usr/share/p", "usr/share/p.dpkg-backup"),
        "p.postinst configure": lambda tree: tree.write("usr/share/p/cache", [b"made"]),
    }
    assert Manager(tree, run=Acting(tree, acts)).apply(world.install(new)) == ON_TRIAL
    undo(Recovery(tree), Record())  # type: ignore[arg-type]
    assert content(tree, "usr/share/p/cache") == b"made"
    Manager(tree, run=Acting(tree, {})).resume()
    assert content(tree, "usr/share/p/data") == b"needed\n"
    assert content(tree, "usr/share/p.unbrick-undone/cache") == b"made"
