"""Whether a plan can be carried out on what is there: looked at before anything changes.

What changes after this look, in a running system, shows when the plan is carried out: `errors.BlockedError`.
"""

from __future__ import annotations

from packagemanager import places, steps
from packagemanager.entry import DIRECTORY
from packagemanager.errors import RefusedError
from packagemanager.operation import KEEP_DIRECTORY, MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packagemanager.operation import Operation
    from packagemanager.tree import Stat, Tree

TWICE = ((REMOVE, MAKE_DIRECTORY), (REMOVE_DIRECTORY, PUT))
"""A path comes once in a plan; or as a link that becomes a folder, or a folder that becomes something else."""
_AGAIN = "read the system and plan again"


def check(tree: Tree, operations: Sequence[Operation]) -> list[Stat | None]:
    """What is at each operation's path now (None: nothing, or what an earlier operation of the plan left there).

    Raises: RefusedError: an operation does not fit what is there. OSError.
    """
    looked = _Checked(tree)
    return [looked.operation(one) for one in operations]


class _Checked:
    """The tree as it will be after the operations so far."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._device = _device(tree, places.NEW)
        self._acts: dict[str, str] = {}
        self._staged: set[int] = set()
        self._folders: dict[str, bool] = {}

    def operation(self, one: Operation) -> Stat | None:
        before = self._acts.get(one.path)
        if before is not None and (before, one.act) not in TWICE:
            raise RefusedError(f"/{one.path}: the plan says two things about it: {before}, {one.act}", _AGAIN)
        if one.path == places.LOCK or f"{one.path}/".startswith(f"{places.TRANSACTION}/"):
            raise RefusedError(f"/{one.path}: it is the package manager's own", "leave it out of the package")
        folder = one.path.rpartition("/")[0]
        self._check_folder(folder, one.path)
        found = None
        if before is None and not self._is_new(folder):
            found = steps.look(self._tree, one.path)
        _CHECKS[one.act](self, one, found)
        self._acts[one.path] = one.act
        return found

    def _is_new(self, folder: str) -> bool:
        """Whether an operation of the plan makes the folder: nothing is in it but what the plan puts there."""
        return self._acts.get(folder) == MAKE_DIRECTORY

    def _check_folder(self, folder: str, path: str) -> None:
        if self._is_new(folder) or not folder:
            return
        if folder not in self._folders:
            found = steps.look(self._tree, folder)
            if found is not None and found.kind == DIRECTORY and found.inode[0] != self._device:
                raise RefusedError(
                    f"/{folder} is on another file system than /{places.FOLDER}", "nothing can be renamed to there"
                )
            self._folders[folder] = found is not None and found.kind == DIRECTORY
        if not self._folders[folder] or self._acts.get(folder) == REMOVE_DIRECTORY:
            raise RefusedError(f"/{path}: its folder is not there, or is a link", _AGAIN)

    def put(self, one: Operation, found: Stat | None) -> None:
        staged = self._tree.look(places.new(one.staged))
        if staged is None or staged.kind == DIRECTORY or one.staged in self._staged:
            raise RefusedError(f"/{one.path}: number {one.staged} is not staged for it", _AGAIN)
        self._staged.add(one.staged)
        if one.kept != (found is not None):
            raise RefusedError(f"/{one.path}: it changed since it was looked at", _AGAIN)
        if found is not None and found.kind == DIRECTORY:
            raise RefusedError(f"/{one.path}: a folder is there", "it must be empty, and removed by the plan")

    def remove(self, one: Operation, found: Stat | None) -> None:
        if found is None or found.kind == DIRECTORY:
            raise RefusedError(f"/{one.path}: there is no file or link to remove", _AGAIN)

    def make_directory(self, one: Operation, found: Stat | None) -> None:
        if found is not None:
            raise RefusedError(f"/{one.path}: something is there already", _AGAIN)

    def folder(self, one: Operation, found: Stat | None) -> None:
        if found is None or found.kind != DIRECTORY:
            raise RefusedError(f"/{one.path}: there is no folder", _AGAIN)


_CHECKS = {
    PUT: _Checked.put,
    REMOVE: _Checked.remove,
    MAKE_DIRECTORY: _Checked.make_directory,
    REMOVE_DIRECTORY: _Checked.folder,
    KEEP_DIRECTORY: _Checked.folder,
}


def _device(tree: Tree, path: str) -> int:
    found = tree.look(path)
    if found is None:
        raise RefusedError("nothing was staged", "stage the transaction first")
    return found.inode[0]
