"""What has no use any more and cannot be removed goes out of the way, and is removed later.

An immutable file (chattr), a sector that does not read: no reason to hold up what comes next, and none to call a set
damaged that is whole.
"""

from __future__ import annotations

from packagemanager import places, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.tree import Tree


def set_aside(tree: Tree, path: str, error: OSError) -> tuple[tuple[str, str], ...]:
    """Rename ``path``, which could not be removed. Never raises.

    Returns: what is to be said, as `engine.Resumed.left` has it.
    """
    said = f"/{path} cannot be removed: {error.strerror or error}"
    try:
        places.make_folders(tree, places.DISCARDED)
        names = places.beside(f"{places.DISCARDED}/{path.rpartition('/')[2]}")
        name = steps.take_free(tree, path, names)
    except OSError:
        return (("", f"{said}; it stays, and that is tried again"),)
    return (("", f"{said}; it is now /{name}, and that is tried again"),)


def remove(tree: Tree) -> None:
    """As far as it can be, and if there is anything. Never raises."""
    try:
        places.remove(tree, places.DISCARDED)
    except OSError:
        return
