"""What has no use any more and cannot be removed goes out of the way, and is removed later.

An immutable file (chattr), a sector that does not read: no reason to hold up what comes next, and none to call a set
damaged that is whole.
"""

from __future__ import annotations

from packagemanager import places, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packagemanager.tree import Tree

TRIES = 2


def remove(tree: Tree, path: str, how: Callable[[Tree, str], None] = places.remove) -> tuple[tuple[str, str], ...]:
    """``how`` removes ``path``. Where it cannot, ``path`` gets another name. Never raises ``OSError``.

    Returns: what is to be said, as `engine.Resumed.left` has it.
    """
    said = ""
    for _try in range(TRIES):
        try:
            how(tree, path)
        except OSError as error:
            said = f"/{path} cannot be removed: {error.strerror or error}"
        else:
            return ()
    try:
        places.make_folders(tree, places.DISCARDED)
        name = steps.take_free(tree, path, places.beside(f"{places.DISCARDED}/{path.rpartition('/')[2]}"))
    except OSError:
        return (("", f"{said}; it stays, and that is tried again"),)
    return (("", f"{said}; it is now /{name}, and that is tried again"),)


def try_again(tree: Tree, path: str = places.DISCARDED) -> None:
    """Remove what could not be removed before, as far as it can be now. Never raises ``OSError``."""
    try:
        for name in places.names(tree, path):
            try_again(tree, f"{path}/{name}")
        places.remove(tree, path)
    except OSError:
        return
