"""The tree below a folder: it cannot be left, whatever links say, and does what the simulated one does."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from packagemanager import root as module
from packagemanager.entry import DIRECTORY, FILE, LINK
from packagemanager.root import FOLDERS_KEPT_MAX, Root
from recovery import running_root
from recovery.running_root import is_layered

pytestmark = pytest.mark.requirement("M13")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("not ours")
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Iterator[Root]:
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    (tmp_path / "root/lib").symlink_to("usr/lib")
    (tmp_path / "root/absolute").symlink_to("/usr/lib")
    tree = Root(str(tmp_path / "root"))
    yield tree
    tree.close()


@pytest.mark.parametrize(
    "target",
    ["../outside", "../../../../../../../outside", "{outside}", "usr/../../outside", "usr/lib/../../../outside"],
)
def test_no_link_leads_out(root: Root, outside: Path, target: str) -> None:
    Path(root.folder, "evil").symlink_to(target.format(outside=outside))
    assert root.look("evil/secret") is None
    for act in (
        lambda: root.write("evil/planted", [b"x"]),
        lambda: root.unlink("evil/secret"),
        lambda: root.open("evil/secret"),
        lambda: root.hard_link("evil/secret", "stolen"),
        lambda: root.set_attributes("evil/secret", 0o777, 0, 0, 0),
        lambda: root.replace("evil/planted", b"x"),
    ):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            act()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_a_root_that_holds_the_same_names_is_meant_instead(root: Root, outside: Path) -> None:
    inside = Path(root.folder, str(outside).lstrip("/"))
    inside.mkdir(parents=True)
    Path(root.folder, "evil").symlink_to(outside)
    root.write("evil/secret", [b"ours"])
    assert (inside / "secret").read_bytes() == b"ours"
    assert (outside / "secret").read_text() == "not ours"


@pytest.mark.parametrize("path", ["/etc", "a//b", "a/../b", "./a", "a/.", "..", "a/"])
def test_a_path_that_is_not_canonical_is_an_error(root: Root, path: str) -> None:
    for act in (root.look, root.resolve, root.unlink, root.make_directory):
        with pytest.raises(OSError, match="not a canonical path"):
            act(path)


def test_links_of_folders_are_followed_inside(root: Root) -> None:
    assert root.resolve("lib/libc.so") == "usr/lib/libc.so"
    assert root.resolve("absolute/libc.so") == "usr/lib/libc.so"
    assert root.resolve("lib") == "lib"
    assert root.resolve("not/there/yet") == "not/there/yet"
    assert root.resolve("lib/not/there") == "usr/lib/not/there"
    root.write("lib/libc.so", [b"a", b"b"])
    assert Path(root.folder, "usr/lib/libc.so").read_bytes() == b"ab"


def test_a_ring_of_links_is_an_error(root: Root) -> None:
    Path(root.folder, "one").symlink_to("two")
    Path(root.folder, "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels") as error:
        root.look("one/x")
    assert error.value.errno == errno.ELOOP


def test_what_is_remembered_of_folders_follows_our_own_changes(root: Root) -> None:
    root.make_directory("other")
    root.make_link("way", "usr/lib")
    root.make_link("far", "way")
    root.write("far/one", [b"1"])
    root.make_link("next", "other")
    root.rename("next", "way")
    root.write("far/two", [b"2"])
    assert (root.list("usr/lib"), root.list("other")) == (["one"], ["two"])
    root.unlink("other/two")
    root.remove_directory("other")
    with pytest.raises(FileNotFoundError):
        root.write("far/three", [b"3"])


def test_many_folders_do_not_use_up_the_descriptors(root: Root) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(4 * FOLDERS_KEPT_MAX):
        root.make_directory(f"usr/{number}")
        root.write(f"usr/{number}/file", [b""])
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= FOLDERS_KEPT_MAX + 4
    root.sync()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_act_on_two_folders_never_loses_one_of_them(root: Root) -> None:
    """What is remembered is given up between two acts, not within one."""
    for number in range(FOLDERS_KEPT_MAX):
        for folder in (f"usr/{number}", f"usr/{number}/from", f"usr/{number}/to"):
            root.make_directory(folder)
        root.write(f"usr/{number}/from/file", [b"x"])
    root.sync()
    for number in range(FOLDERS_KEPT_MAX):
        root.hard_link(f"usr/{number}/from/file", f"usr/{number}/to/file")
    root.sync()
    for number in range(FOLDERS_KEPT_MAX):
        root.rename(f"usr/{number}/from/file", f"usr/{number}/to/renamed")
    assert {tuple(root.list(f"usr/{number}/to")) for number in range(FOLDERS_KEPT_MAX)} == {("file", "renamed")}


def test_kinds_and_attributes(root: Root) -> None:
    root.write("file", [b"content"])
    root.set_attributes("file", 0o4755, os.getuid(), os.getgid(), 1_234_567_890)
    root.make_link("link", "nowhere")
    root.set_attributes("link", 0o777, os.getuid(), os.getgid(), 77)
    root.make_directory("folder")
    root.set_attributes("folder", 0o1777, os.getuid(), os.getgid(), 88)
    os.mkfifo(Path(root.folder, "pipe"))
    file, link, folder, pipe = (root.look(name) for name in ("file", "link", "folder", "pipe"))
    assert file and link and folder and pipe
    assert (file.kind, file.mode, file.size, file.mtime) == (FILE, 0o4755, 7, 1_234_567_890)
    assert (link.kind, link.mtime, root.read_link("link")) == (LINK, 77, "nowhere")
    assert (folder.kind, folder.mode, folder.mtime) == (DIRECTORY, 0o1777, 88)
    assert pipe.kind == "other"
    with pytest.raises(OSError, match="not a file"):
        root.open("pipe")


def test_a_new_file_replaces_nothing_and_follows_nothing(root: Root, outside: Path) -> None:
    Path(root.folder, "link").symlink_to(outside / "new")
    for path in ("link", "lib"):
        with pytest.raises(FileExistsError):
            root.write(path, [b""])
    assert not (outside / "new").exists()
    root.write("file", [b"1"])
    with pytest.raises(FileExistsError):
        root.write("file", [b"2"])


def test_a_second_name_of_a_link_is_the_link(root: Root) -> None:
    root.hard_link("lib", "second")
    assert root.read_link("second") == "usr/lib"
    first, second = root.look("lib"), root.look("second")
    assert first and second and first.inode == second.inode


def test_replace_works_where_a_link_leads_to_the_folder(root: Root) -> None:
    root.replace("lib/state", b"one")
    root.replace("lib/state", b"two")
    assert root.open("lib/state").read() == b"two"
    assert root.list("usr/lib") == ["state"]


@pytest.mark.requirement("M8")
def test_the_lock_is_the_kernels(root: Root) -> None:
    held = root.lock("lock")
    with pytest.raises(BlockingIOError):
        Root(root.folder).lock("lock")
    held.close()
    held.close()
    Root(root.folder).lock("lock").close()


def test_names_that_are_no_text_are_kept(root: Root) -> None:
    name = os.fsdecode(b"caf\xe9 \n")
    root.write(name, [b"x"])
    assert os.path.exists(os.fsencode(root.folder) + b"/caf\xe9 \n")  # noqa: PTH110 - bytes
    assert name in root.list("")


def test_room_is_told(root: Root) -> None:
    size, inodes = root.free()
    assert size > 0 and inodes > 0


def flushed(monkeypatch: pytest.MonkeyPatch, root: Root) -> list[str]:
    """The folders whose file systems a flush is for; both kinds of flush are for the same."""
    found: list[str] = []

    def note(descriptor: int) -> None:
        found.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(module, "flush_file_system", note)
    root.sync()
    once = list(found)
    root.replace("state", b"x", after_all=True)
    assert found == once * 2
    root.close()
    return once


def test_the_file_system_below_an_overlay_is_flushed_by_itself(
    tmp_path: Path, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overlay does not say that a write failed there."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda _path: True)
    monkeypatch.setattr(running_root, "DATA", str(data))
    assert flushed(monkeypatch, running_root.running_root(root.folder)) == [root.folder, str(data)]
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(data))
    assert not is_layered()
    assert flushed(monkeypatch, running_root.running_root(root.folder)) == [root.folder]


def test_a_folder_that_was_renamed_is_not_walked_any_more(root: Root) -> None:
    root.make_directory("folder")
    root.write("folder/file", [b"old"])
    root.rename("folder", "elsewhere")
    root.make_directory("folder")
    root.write("folder/new", [b"new"])
    assert (root.list("folder"), root.list("elsewhere")) == (["new"], ["file"])


def test_a_file_with_extended_attributes_is_not_plain(root: Root) -> None:
    root.write("file", [b""])
    assert root.is_plain("file")
    try:
        os.setxattr(f"{root.folder}/file", "user.note", b"x")
    except OSError:
        pytest.skip("this file system has none")
    assert not root.is_plain("file")
