"""Where the package manager keeps its own, relative to the root: docs/packages.md."""

from __future__ import annotations

from packagemanager.entry import DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packagemanager.tree import Tree

FOLDER = "var/lib/unbrick/packages"
LOCK = f"{FOLDER}/lock"
TRANSACTION = f"{FOLDER}/transaction"
NEW = f"{TRANSACTION}/new"
OLD = f"{TRANSACTION}/old"
ROOM = f"{TRANSACTION}/room"
PLANS = (f"{TRANSACTION}/plan", f"{TRANSACTION}/plan.copy")
PHASE = f"{TRANSACTION}/phase"
SCRIPTS = f"{FOLDER}/scripts"
SCRIPTS_BEGUN = f"{SCRIPTS}/begun"
LOST = f"{FOLDER}/lost"
DISCARDED = f"{FOLDER}/discarded"
RETURNING = f"{FOLDER}/returning"
# What is in them was protected by the folder that it comes from.
_CLOSED = (TRANSACTION, LOST, DISCARDED)
UNDONE_NAME = ".unbrick-undone"
NAMES_MAX = 1000


def new(number: int) -> str:
    return f"{NEW}/{number}"


def old(number: int) -> str:
    return f"{OLD}/{number}"


def beside(path: str) -> Iterator[str]:
    """The names that something gets which is in the way of what comes back: the first that is free."""
    yield f"{path}{UNDONE_NAME}"
    yield from (f"{path}{UNDONE_NAME}.{number}" for number in range(2, NAMES_MAX))


def above(paths: Iterable[str]) -> set[str]:
    """Every folder that one of ``paths`` is in."""
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def device(tree: Tree) -> int:
    """The number of the device that the transaction's files are on, since it was mounted: an overlay has several."""
    for path in PLANS:
        found = tree.look(path)
        if found is not None:
            return found.inode[0]
    return 0


def make_folders(tree: Tree, *paths: str) -> None:
    """Each folder, with those above it that are not there."""
    for path in paths:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            if tree.look(folder) is None:
                tree.make_directory(folder)
                tree.set_attributes(folder, 0o700 if folder.startswith(_CLOSED) else 0o755, 0, 0, 0)


def remove_transaction(tree: Tree, keep: tuple[str, ...] = ()) -> None:
    """Remove everything below ``transaction/`` but ``keep``, and the folder itself where nothing was kept."""
    for name in names(tree, TRANSACTION):
        path = f"{TRANSACTION}/{name}"
        if path not in keep:
            remove(tree, path)
    if not keep and tree.look(TRANSACTION) is not None:
        tree.remove_directory(TRANSACTION)


def names(tree: Tree, path: str) -> list[str]:
    """What is in a folder, if one is there."""
    found = tree.look(path)
    return tree.list(path) if found is not None and found.kind == DIRECTORY else []


def remove(tree: Tree, path: str) -> None:
    """A file, a link, or a folder with all that is in it, if it is there."""
    found = tree.look(path)
    if found is None:
        return
    if found.kind != DIRECTORY:
        tree.unlink(path)
        return
    for name in tree.list(path):
        remove(tree, f"{path}/{name}")
    tree.remove_directory(path)
