"""What a plan replaces or removes gets a second name, and the plan notes what it was: all before anything changes."""

from __future__ import annotations

from packagemanager import places, steps, unchanged
from packagemanager.errors import RefusedError
from packagemanager.operation import KEEP_DIRECTORY, MAKE_DIRECTORY, REMOVE, REMOVE_DIRECTORY, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from packagemanager.tree import Stat, Tree


def keep(
    tree: Tree, operations: Sequence[Operation], found: Sequence[Stat | None], alive: Callable[[], None]
) -> list[Operation]:
    """``found`` is what is at each path (`plan_check.check`). Raises: RefusedError: by path. OSError: the disk's.

    Returns: the operations with what the plan has to remember, and behind them the folders that come back when they
    are gone at an undo, the deepest first: scripts remove folders that the plan leaves.
    """
    planned: list[Operation] = []
    firsts: dict[tuple[int, int], str] = {}
    for number, (operation, stat) in enumerate(zip(operations, found, strict=True)):
        alive()
        if is_kept(operation):
            # An overlay copies each name of its lower layer for itself; the copies shall be one file again.
            source = firsts.get(stat.inode, operation.path) if stat is not None else operation.path
            _keep(tree, operation.path, source, places.old(number))
            if stat is not None:
                firsts.setdefault(stat.inode, places.old(number))
        planned.append(unchanged.noted(tree, number, operation, stat))
    return [*planned, *_folders(tree, operations)]


def is_kept(operation: Operation) -> bool:
    return operation.act == REMOVE or operation.kept


def _keep(tree: Tree, path: str, source: str, name: str) -> None:
    try:
        tree.hard_link(source, name)
    except OSError as error:
        if error.errno not in steps.IN_THE_WAY:
            raise
        raise RefusedError(
            f"/{path} cannot be kept beside the new one: {error.strerror}",
            "it may be immutable (chattr), or on a file system of its own",
        ) from error


def _folders(tree: Tree, operations: Sequence[Operation]) -> list[Operation]:
    of_the_plan = {one.path for one in operations if one.act in (MAKE_DIRECTORY, REMOVE_DIRECTORY)}
    coming_back = [one.path for one in operations if is_kept(one) or one.act == REMOVE_DIRECTORY]
    return kept_folders(tree, places.above(coming_back) - of_the_plan)


def kept_folders(tree: Tree, folders: Iterable[str]) -> list[Operation]:
    """Operations that keep the attributes of folders, the deepest first."""
    found = ((path, tree.look(path)) for path in sorted(folders, key=lambda path: (-path.count("/"), path)))
    return [
        Operation(KEEP_DIRECTORY, path, mode=stat.mode, uid=stat.uid, gid=stat.gid, mtime=stat.mtime)
        for path, stat in found
        if stat is not None
    ]


def let_go(tree: Tree, operations: Sequence[Operation]) -> None:
    """What was kept is given up, and nothing has changed: names of one file that an overlay made two are one again,
    where they still are the same. What cannot be looked at is left. Raises ``OSError``: the disk's.
    """
    firsts: set[tuple[int, int]] = set()
    for number, operation in enumerate(operations):
        if not is_kept(operation):
            continue
        try:
            kept, found = tree.look(places.old(number)), steps.look(tree, operation.path)
            if kept is None or found is None:
                continue
            if kept.inode in firsts and found.inode != kept.inode and steps.is_same(kept, found):
                tree.rename(places.old(number), operation.path)
            firsts.add(kept.inode)
        except OSError as error:
            if error.errno not in steps.IN_THE_WAY:
                raise
