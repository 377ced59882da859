"""Whether there is room for a transaction, by what packages say of their size, before anything is unpacked.

What they say is about right. What it takes exactly shows when it is staged, kept and written down: a disk that is full
then is found before anything of the system changed.
"""

from __future__ import annotations

from packagemanager.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.changes import Changes
    from packagemanager.tree import Tree

KIBIBYTE = 1024
MAKE_ROOM = "Free some space, or ask the master for a smaller transaction."


def check_room(tree: Tree, changes: Changes) -> None:
    """By what packages say of their size. Raises ``RefusedError``."""
    sizes = [change.new.get("Installed-Size", "0") for change in changes.unpacked if change.new]
    needed = sum(int(size) for size in sizes if size.isascii() and size.isdigit()) * KIBIBYTE
    free, _inodes = tree.free()
    if needed > free:
        raise RefusedError(
            f"the packages need about {needed >> 20} MiB beside what is there, and {free >> 20} MiB are free",
            MAKE_ROOM,
        )
