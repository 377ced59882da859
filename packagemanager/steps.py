"""One operation of a plan, done or undone. Each may have been done already, or half: it looks at what is there.

A path of a plan is literal: where a *link* stands in the place of one of its folders, the path is not there. A plan
that turns a folder into a link would otherwise, done again, reach through it into a folder that is not meant.
"""

from __future__ import annotations

import errno

from packagemanager import operation as acts
from packagemanager import places
from packagemanager.entry import DIRECTORY
from packagemanager.errors import BlockedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.operation import Operation
    from packagemanager.tree import Stat, Tree

IN_THE_WAY = (
    errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV, errno.EPERM, errno.EACCES,
    errno.EBUSY, errno.ELOOP, errno.EMLINK, errno.ENAMETOOLONG, errno.EINVAL, errno.ETXTBSY,
)  # fmt: skip
"""What a path says, where every other error is the disk's."""


def forward(tree: Tree, number: int, operation: Operation) -> None:
    """Do operation ``number`` of a plan. Raises: BlockedError: it cannot be done here. OSError: the disk's."""
    try:
        _FORWARD[operation.act](tree, number, operation)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        raise BlockedError(f"/{operation.path}: {error.strerror}", "look what is there") from error


def back(tree: Tree, number: int, operation: Operation, inode: int) -> str:
    """Undo operation ``number``, which put the file with this inode number. Raises: OSError: the disk's.

    Returns: why the path could not be brought back; empty if it is as it was.
    """
    try:
        return _BACK[operation.act](tree, number, operation, inode)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        return error.strerror or str(error)


def look(tree: Tree, path: str) -> Stat | None:
    """What is at a literal path."""
    return tree.look(path) if tree.resolve(path) == path else None


def _put(tree: Tree, number: int, operation: Operation) -> None:
    source = places.new(operation.staged)
    if tree.look(source) is not None:
        _require_folder(tree, operation.path)
        tree.rename(source, operation.path)
    elif look(tree, operation.path) is None:
        raise BlockedError(f"/{operation.path}: what was staged for it is gone", "apply the transaction again")


def _put_back(tree: Tree, number: int, operation: Operation, inode: int) -> str:
    if operation.kept:
        return _restore(tree, number, operation, inode)
    found = look(tree, operation.path)
    staged = tree.look(places.new(operation.staged))
    if found is not None and found.kind != DIRECTORY and (staged is None or staged.inode == found.inode):
        tree.unlink(operation.path)
    return ""


def _restore(tree: Tree, number: int, operation: Operation, inode: int) -> str:
    kept = places.old(number)
    if tree.look(kept) is None:
        found = look(tree, operation.path)
        lost = found is None or (inode and found.inode[1] == inode)
        return "what was kept of it is gone" if lost else ""
    _require_folder(tree, operation.path)
    tree.rename(kept, operation.path)
    return ""


def _remove(tree: Tree, number: int, operation: Operation) -> None:
    if not _is_removed(tree, number, operation):
        tree.unlink(operation.path)


def _is_removed(tree: Tree, number: int, operation: Operation) -> bool:
    """Also where somebody made another file of that name since: that one is theirs."""
    found = look(tree, operation.path)
    kept = tree.look(places.old(number))
    return found is None or found.kind == DIRECTORY or (kept is not None and kept.inode != found.inode)


def is_done(tree: Tree, number: int, operation: Operation) -> bool:
    """Whether going forward has nothing to do here."""
    if operation.act == acts.PUT:
        staged = tree.look(places.new(operation.staged))
        found = look(tree, operation.path)
        return staged is None or (found is not None and found.inode == staged.inode)
    if operation.act == acts.REMOVE:
        return _is_removed(tree, number, operation)
    found = look(tree, operation.path)
    return operation.act == acts.REMOVE_DIRECTORY or (found is not None and found.kind == DIRECTORY)


def _make_directory(tree: Tree, number: int, operation: Operation) -> None:
    found = look(tree, operation.path)
    if found is None:
        _require_folder(tree, operation.path)
        tree.make_directory(operation.path)
    elif found.kind != DIRECTORY:
        raise FileExistsError(errno.EEXIST, "no folder is there")
    # Also where it is there: a cut may have come in between.
    tree.set_attributes(operation.path, operation.mode, operation.uid, operation.gid, operation.mtime)


def _make_directory_back(tree: Tree, number: int, operation: Operation, inode: int) -> str:
    found = look(tree, operation.path)
    if found is not None and found.kind == DIRECTORY:
        tree.remove_directory(operation.path)
    return ""


def _remove_directory(tree: Tree, number: int, operation: Operation) -> None:
    found = look(tree, operation.path)
    if found is None or found.kind != DIRECTORY:
        return
    try:
        tree.remove_directory(operation.path)
    except OSError as error:
        # Somebody's files are in it, or it is in use: it stays, as dpkg would leave it.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise


def _remove_directory_back(tree: Tree, number: int, operation: Operation, inode: int) -> str:
    _make_directory(tree, number, operation)
    return ""


def _require_folder(tree: Tree, path: str) -> None:
    if tree.resolve(path) != path:
        raise NotADirectoryError(errno.ENOTDIR, "a link is in the place of its folder")


_FORWARD = {
    acts.PUT: _put,
    acts.REMOVE: _remove,
    acts.MAKE_DIRECTORY: _make_directory,
    acts.REMOVE_DIRECTORY: _remove_directory,
}
_BACK = {
    acts.PUT: _put_back,
    acts.REMOVE: _restore,
    acts.MAKE_DIRECTORY: _make_directory_back,
    acts.REMOVE_DIRECTORY: _remove_directory_back,
}
