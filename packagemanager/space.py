"""Whether there is room for a transaction, before anything of the system changes.

Before anything is unpacked it is what packages say of their size, which is about right. Once it is unpacked, what is
left is to keep what will be replaced: a second name, which costs nothing, but on an overlay a copy. Whatever is
overlooked here shows as a full disk while that is done, and nothing changed then either.
"""

from __future__ import annotations

import os

from packagemanager.errors import RefusedError
from packagemanager.operation import REMOVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from packagemanager.changes import Changes
    from packagemanager.operation import Operation
    from packagemanager.tree import Tree

KIBIBYTE = 1024
BLOCK_BYTES = 4096  # what a file takes, at least, of most file systems
DIGITS_MAX = 18
MOUNTS = "/proc/thread-self/mountinfo"
MAKE_ROOM = "Free some space, or ask the master for a smaller transaction."


def check_room(tree: Tree, changes: Changes) -> None:
    """By what packages say of their size. Raises ``RefusedError``."""
    sizes = [change.new.get("Installed-Size", "0") for change in changes.unpacked if change.new]
    needed = sum(map(_number, sizes)) * KIBIBYTE
    free, _inodes = tree.free()
    if needed > free:
        raise RefusedError(
            f"the packages need about {needed >> 20} MiB beside what is there, and {free >> 20} MiB are free",
            MAKE_ROOM,
        )


def _number(text: str) -> int:
    """0 for what is none. Of one with more digits than any disk has room for, the first ones."""
    digits = text.lstrip("0")[:DIGITS_MAX]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def check_kept(tree: Tree, operations: Iterable[Operation]) -> None:
    """What is replaced or removed has to be kept beside the new. Raises ``RefusedError``."""
    if not _is_overlay(tree):
        return
    looks = [tree.look(one.path) for one in operations if one.kept or one.act == REMOVE]
    needed = sum(-(-found.size // BLOCK_BYTES) * BLOCK_BYTES for found in looks if found is not None)
    free, inodes = tree.free()
    if needed > free or len(looks) > inodes:
        raise RefusedError(
            f"what is replaced is kept as a copy here, as the root is an overlay: that needs {needed >> 10} KiB and "
            f"{len(looks)} files, and there is room for {free >> 10} KiB and {inodes}; nothing changed",
            MAKE_ROOM,
        )


def _is_overlay(tree: Tree) -> bool:
    """By the kernel's list of mounts (proc(5), mountinfo); of a tree that is no folder of this machine: no."""
    folder: str = getattr(tree, "folder", "")
    if not folder:
        return False
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ") for line in file]
    except OSError:
        return False
    return any(words[2] == wanted and words[words.index("-") + 1] == "overlay" for words in lines if "-" in words)
