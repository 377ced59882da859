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
    from collections.abc import Iterator

    from packagemanager.operation import Operation
    from packagemanager.tree import Stat, Tree

IN_THE_WAY = (
    errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV, errno.EPERM, errno.EACCES,
    errno.EBUSY, errno.ELOOP, errno.EMLINK, errno.ENAMETOOLONG, errno.EINVAL, errno.ETXTBSY,
)  # fmt: skip
"""What a path says, where every other error is the disk's."""
NAME_CHARACTERS_MAX = 50


def forward(tree: Tree, number: int, operation: Operation) -> None:
    """Do operation ``number`` of a plan. Raises: BlockedError: it cannot be done here. OSError: the disk's."""
    try:
        _FORWARD[operation.act](tree, number, operation)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        raise BlockedError(f"/{operation.path}: {error.strerror}", "look what is there") from error


def back(tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> str:
    """Undo operation ``number``, which put the file that has this device and inode number. Raises: OSError: the disk's.

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
    staged = tree.look(source)
    if staged is not None:
        require_folder(tree, operation.path)
        if not _has_both_names(tree, number, operation, staged):
            tree.rename(source, operation.path)
    elif not _is_put(tree, number, operation):
        raise BlockedError(f"/{operation.path}: what was staged for it is gone", "apply the transaction again")


def _is_put(tree: Tree, number: int, operation: Operation) -> bool:
    """Of what is not staged any more: it was renamed, whatever others made of it since; or it was lost."""
    found = look(tree, operation.path)
    kept = tree.look(places.old(number))
    return found is not None and (kept is None or kept.inode != found.inode)


def _has_both_names(tree: Tree, number: int, operation: Operation, staged: Stat) -> bool:
    """Whether a cut tore the rename, on a file system that allows it: then the staged name goes.

    Raises: BlockedError: the system ran on, and what it made at the path meanwhile has no second name.
    """
    found = tree.look(operation.path)
    if found is None or found.kind == DIRECTORY:
        return False
    if found.inode == staged.inode:
        tree.unlink(places.new(operation.staged))
        return True
    kept = tree.look(places.old(number)) if operation.kept else None
    if kept is None or not is_same(kept, found):
        raise BlockedError(f"/{operation.path}: it changed since the transaction was prepared", "apply it again")
    return False


def _put_back(tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> str:
    found = look(tree, operation.path)
    staged = tree.look(places.new(operation.staged))
    if staged is not None and (found is None or found.inode != staged.inode):
        return ""  # it was never put: what is there is not ours
    if operation.kept:
        return _restore(tree, number, operation, inode)
    if found is None or found.kind == DIRECTORY:
        return ""
    if found.inode != inode:
        return put_aside(tree, operation.path)
    tree.unlink(operation.path)
    return ""


def _restore(tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> str:
    kept = tree.look(places.old(number))
    found = look(tree, operation.path)
    if kept is None:
        lost = found is None or found.inode == inode
        return "what was kept of it is gone" if lost else ""
    said = ""
    try:
        require_folder(tree, operation.path)
        if found is not None and found.inode != inode and (found.kind == DIRECTORY or not is_same(kept, found)):
            said = put_aside(tree, operation.path)
            require_folder(tree, operation.path)
        tree.rename(places.old(number), operation.path)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        return f"{error.strerror}; it is now /{saved(tree, places.old(number), operation.path)}"
    return said


def put_aside(tree: Tree, path: str) -> str:
    """Somebody else's, where something comes back: it gets another name, durably, and that is said.

    A folder of an overlay's lower layer cannot be renamed; one that is there and was not is of the upper one. The flush
    takes time, and the folder's owner may use it: who goes on with ``path`` calls `require_folder` again.
    """
    name = take_free(tree, path, places.beside(path))
    tree.sync()
    return f"what was there since is now /{name}"


def saved(tree: Tree, kept: str, path: str) -> str:
    """What cannot come back to its place is not thrown away. Returns: where it is."""
    places.make_folders(tree, places.LOST)
    names = places.beside(f"{places.LOST}/{path.rpartition('/')[2][:NAME_CHARACTERS_MAX]}")
    return take_free(tree, kept, names)


def take_free(tree: Tree, path: str, names: Iterator[str]) -> str:
    """Rename it to the first name that is free. Of a rename that a cut tore, the old name goes."""
    mine = tree.look(path)
    for name in names:
        found = tree.look(name)
        if found is None:
            tree.rename(path, name)
            return name
        if mine is not None and mine.kind != DIRECTORY and found.inode == mine.inode:
            tree.unlink(path)
            return name
    raise FileExistsError(errno.EEXIST, "too many names that begin like that")


def _remove(tree: Tree, number: int, operation: Operation) -> None:
    if not _is_removed(tree, number, operation):
        tree.unlink(operation.path)


def _is_removed(tree: Tree, number: int, operation: Operation) -> bool:
    """Also where somebody made another file of that name since: that one is theirs."""
    found = look(tree, operation.path)
    kept = tree.look(places.old(number))
    return found is None or found.kind == DIRECTORY or (kept is not None and not is_same(kept, found))


def is_same(kept: Stat, found: Stat) -> bool:
    """Two names of one file. An overlay can give them different inodes, until it is mounted again."""
    return kept.inode == found.inode or _attributes(kept) == _attributes(found)


def _attributes(stat: Stat) -> tuple[object, ...]:
    return stat.kind, stat.mode, stat.uid, stat.gid, stat.size, stat.mtime, stat.nanoseconds


def was_lost(tree: Tree, number: int, operation: Operation) -> bool:
    """Whether a medium lost this operation after all of them were done, and durable as it had said.

    What the system or a script did since to what was put (removed it, gave it to a user) is not that: only a staged
    file that is there again tells, and a removed one whose kept name is the same file.
    """
    found = look(tree, operation.path)
    if operation.act == acts.PUT:
        staged = tree.look(places.new(operation.staged))
        return staged is not None and (found is None or found.inode != staged.inode)
    if operation.act == acts.REMOVE:
        kept = tree.look(places.old(number))
        return found is not None and kept is not None and found.inode == kept.inode
    return False


def _make_directory(tree: Tree, number: int, operation: Operation) -> None:
    found = look(tree, operation.path)
    if found is None:
        require_folder(tree, operation.path)
        tree.make_directory(operation.path)
    elif found.kind != DIRECTORY:
        raise FileExistsError(errno.EEXIST, "no folder is there")
    # Also where it is there: a cut may have come in between.
    tree.set_attributes(operation.path, operation.mode, operation.uid, operation.gid, operation.mtime)


def _make_directory_back(tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> str:
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


def _remove_directory_back(tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> str:
    said = _clear(tree, operation.path)
    _make_directory(tree, number, operation)
    return said


def _clear(tree: Tree, path: str) -> str:
    """Where a folder comes back: what is there and is none goes aside."""
    found = look(tree, path)
    return "" if found is None or found.kind == DIRECTORY else put_aside(tree, path)


def _keep_directory(tree: Tree, number: int, operation: Operation) -> None:
    return


def _keep_directory_back(tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> str:
    """What is there instead stays, a link to where the folder is now above all: `/lib` may have become one."""
    if tree.look(operation.path) is None:
        _return_directory(tree, operation)
    return ""


def replaced_directory_back(tree: Tree, operation: Operation) -> str:
    """A folder that is known to be replaced: what is in its place goes aside. As `back`."""
    try:
        said = _clear(tree, operation.path)
        if look(tree, operation.path) is None:
            _return_directory(tree, operation)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        return error.strerror or str(error)
    return said


def _return_directory(tree: Tree, operation: Operation) -> None:
    """One that is there keeps its attributes: so it gets them, durably, before it is there; and nothing is put into it
    before it is.
    """
    require_folder(tree, operation.path)
    places.remove(tree, places.RETURNING)
    tree.make_directory(places.RETURNING)
    try:
        tree.set_attributes(places.RETURNING, operation.mode, operation.uid, operation.gid, operation.mtime)
        tree.sync()
        require_folder(tree, operation.path)
        tree.rename(places.RETURNING, operation.path)
    except OSError:
        places.remove(tree, places.RETURNING)
        raise
    tree.sync()


def require_folder(tree: Tree, path: str) -> None:
    if tree.resolve(path) != path:
        raise NotADirectoryError(errno.ENOTDIR, "a link is in the place of its folder")


_FORWARD = {
    acts.PUT: _put,
    acts.REMOVE: _remove,
    acts.MAKE_DIRECTORY: _make_directory,
    acts.REMOVE_DIRECTORY: _remove_directory,
    acts.KEEP_DIRECTORY: _keep_directory,
}
_BACK = {
    acts.PUT: _put_back,
    acts.REMOVE: _restore,
    acts.MAKE_DIRECTORY: _make_directory_back,
    acts.REMOVE_DIRECTORY: _remove_directory_back,
    acts.KEEP_DIRECTORY: _keep_directory_back,
}
