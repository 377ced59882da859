"""Two sets of files, the old and the new, that differ in every way a plan can make; and the plan from one to the other.

The planner here is the smallest that can be right: it knows no packages, only what is there and what shall be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Entry
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY, Operation
from packagemanager.staging import Staging

if TYPE_CHECKING:
    from packagemanager.tree import Tree


@dataclass(frozen=True)
class Item:
    """What is at a path. ``content`` is a file's bytes, a link's target, or the first name of a hard link."""

    kind: str
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_000_000_000

    def entry(self, path: str) -> Entry:
        target = self.content.decode() if self.kind in (LINK, HARD_LINK) else ""
        return Entry(path, self.kind, mode=self.mode, uid=self.uid, gid=self.gid, mtime=self.mtime, target=target)


Files = dict[str, Item]


def folder(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Item:
    return Item(DIRECTORY, mode=mode, uid=uid, gid=gid)


def file(content: str, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 1_000_000_000) -> Item:
    return Item(FILE, content.encode(), mode, uid, gid, mtime)


def link(target: str, mtime: int = 1_000_000_000) -> Item:
    return Item(LINK, target.encode(), 0o777, mtime=mtime)


def same_file_as(path: str) -> Item:
    return Item(HARD_LINK, path.encode())


COMMON: Files = {
    **{path: folder() for path in ("etc", "usr", "usr/bin", "usr/lib", "usr/share", "usr/share/doc", "var", "var/lib")},
    "lib": link("usr/lib"),
    "etc/passwd": file("root:0\n"),
    "etc/mine": file("a person's own\n", 0o600, 1000, 1000),
    "usr/lib/untouched.so": file("the same in both\n"),
    "usr/share/doc/other": folder(),
    "usr/share/doc/other/copyright": file("not ours\n"),
}

OLD: Files = {
    **COMMON,
    "usr/bin/tool": file("tool 1\n", 0o755),
    "usr/bin/sudo": file("sudo 1\n", 0o4755),
    "usr/bin/a": file("one file\n", 0o755),
    "usr/bin/b": same_file_as("usr/bin/a"),
    "usr/bin/gone": file("goes away\n", 0o755),
    "usr/bin/alias": link("tool"),
    "usr/bin/was-link": link("tool"),
    "usr/bin/was-file": file("becomes a link\n"),
    "usr/bin/mode-only": file("content stays\n", 0o755),
    "usr/bin/owner-only": file("content stays too\n", 0o644, 0, 0),
    "usr/lib/lib.so.1": link("lib.so.1.0"),
    "usr/lib/lib.so.1.0": file("library 1.0\n"),
    "etc/conf": file("as it was shipped\n"),
    "etc/conf.kept": file("changed by a person\n", 0o640, 0, 4),
    "usr/share/was-folder": folder(0o750, 3, 3),
    "usr/share/was-folder/one": file("in a folder that becomes a link\n"),
    # Must not be reached through the link that the folder becomes.
    "usr/share/was-folder/copyright": same_file_as("usr/share/doc/other/copyright"),
    "usr/share/was-folder/deep": folder(),
    "usr/share/was-folder/deep/two": file("deeper\n"),
    "usr/share/folder-to-file": folder(),
    "usr/share/link-to-folder": link("doc/other"),
    "usr/share/file-to-folder": file("becomes a folder\n"),
    "usr/share/emptied": folder(0o711, 5, 6),
    "usr/share/emptied/x": file("x\n"),
    "usr/share/emptied/y": folder(0o700),
    "usr/share/emptied/y/z": link("../x"),
    "usr/share/stays": folder(),
    "usr/share/stays/removed": file("removed, the folder is somebody's\n"),
    "usr/share/stays/mine": file("put here by a person\n"),
    **{f"usr/share/doc/{number}": file(f"text {number}\n") for number in range(6)},
    "var/lib/status": file("tool 1\n"),
}

NEW: Files = {
    **COMMON,
    "usr/bin/tool": file("tool 2, longer\n", 0o755, mtime=1_700_000_000),
    "usr/bin/sudo": file("sudo 2\n", 0o4755, 0, 27),
    "usr/bin/a": file("one file, changed\n", 0o755),
    "usr/bin/b": same_file_as("usr/bin/a"),
    "usr/bin/c": same_file_as("usr/bin/a"),
    "usr/bin/alias": link("other-tool"),
    "usr/bin/was-link": file("a file now\n"),
    "usr/bin/was-file": link("tool", 1_700_000_000),
    "usr/bin/mode-only": file("content stays\n", 0o2755),
    "usr/bin/owner-only": file("content stays too\n", 0o644, 33, 34),
    "usr/lib/lib.so.1": link("lib.so.1.1"),
    "usr/lib/lib.so.1.1": file("library 1.1\n"),
    "etc/conf": file("as it is shipped now\n"),
    "etc/conf.kept": file("changed by a person\n", 0o640, 0, 4),
    "etc/conf.kept.new": file("as it is shipped now\n"),
    "etc/conf.d": folder(0o700),
    "etc/conf.d/empty": file(""),
    "usr/share/was-folder": link("doc/other"),
    "usr/share/folder-to-file": file("a file now\n"),
    "usr/share/link-to-folder": folder(0o2775, 0, 50),
    "usr/share/link-to-folder/copyright": file("in a folder of its own\n"),
    "usr/share/file-to-folder": folder(),
    "usr/share/file-to-folder/inside": link("/etc/passwd"),
    "usr/share/stays": folder(),
    "usr/share/stays/mine": file("put here by a person\n"),
    "usr/share/new": folder(0o751, 7, 8),
    "usr/share/new/deep": folder(0o1777),
    "usr/share/new/deep/deeper": folder(),
    "usr/share/new/deep/deeper/file": file("in a new tree\n", 0o600, 7, 8),
    **{f"usr/share/doc/{number}": file(f"text {number}, next\n") for number in range(3)},
    **{f"usr/share/doc/{number}": file(f"text {number}\n") for number in range(3, 6)},
    "usr/share/doc/line\nfeed \\ and space": file("odd name\n"),
    "var/lib/status": file("tool 2\n"),
}


def lay_down(tree: Tree, files: Files) -> None:
    """Make a system of them, durable."""
    for path, item in sorted(files.items(), key=lambda pair: (pair[1].kind == HARD_LINK, pair[0])):
        if item.kind == HARD_LINK:
            tree.hard_link(item.content.decode(), path)
            continue
        if item.kind == DIRECTORY:
            tree.make_directory(path)
        elif item.kind == LINK:
            tree.make_link(path, item.content.decode())
        else:
            tree.write(path, (item.content,))
        tree.set_attributes(path, item.mode, item.uid, item.gid, item.mtime)
    tree.sync()


def plan(old: Files, new: Files, staging: Staging) -> tuple[Operation, ...]:
    """Stage what is new, and say what to do: replace, remove, make, add; the database's file last."""
    changed = {path for path in {*old, *new} if old.get(path) != new.get(path) or _is_linked_to_changed(path, old, new)}
    put = sorted(path for path in changed if path in new and new[path].kind != DIRECTORY)
    staged: dict[str, int] = {}
    for path in sorted(put, key=lambda path: new[path].kind == HARD_LINK):
        staged[path] = _stage(path, new[path], staging, staged)
    in_place = [path for path in put if path in old and old[path].kind != DIRECTORY and path != "var/lib/status"]
    gone = sorted(
        (path for path in changed & old.keys() if path not in in_place and path != "var/lib/status"), reverse=True
    )
    operations = [Operation(PUT, path, staged=staged[path], kept=True) for path in in_place]
    for path in gone:
        if old[path].kind != DIRECTORY:
            operations.append(Operation(REMOVE, path))
        elif new.get(path, file("")).kind != DIRECTORY:
            operations.append(Operation(REMOVE_DIRECTORY, path))
    for path in sorted(changed & new.keys()):
        item = new[path]
        if item.kind == DIRECTORY:
            operations.append(
                Operation(MAKE_DIRECTORY, path, mode=item.mode, uid=item.uid, gid=item.gid, mtime=item.mtime)
            )
        elif path not in in_place and path != "var/lib/status":
            operations.append(Operation(PUT, path, staged=staged[path]))
    operations.append(Operation(PUT, "var/lib/status", staged=staged["var/lib/status"], kept=True))
    return tuple(operations)


def _is_linked_to_changed(path: str, old: Files, new: Files) -> bool:
    item = new.get(path)
    if item is None or item.kind != HARD_LINK:
        return False
    first = item.content.decode()
    return old.get(first) != new.get(first)


def _stage(path: str, item: Item, staging: Staging, staged: dict[str, int]) -> int:
    if item.kind == HARD_LINK:
        return staging.hard_link(item.entry(path), staged[item.content.decode()])
    if item.kind == LINK:
        return staging.link(item.entry(path))
    return staging.file(item.entry(path), [item.content[:5], item.content[5:]])
