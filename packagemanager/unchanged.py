"""Whether a system that ran on is still as a plan found it: looked at before a transaction that waited is carried out.

What is kept is a second name of the file itself, so an edit in place changes both: the plan notes what the file was.
"""

from __future__ import annotations

from packagemanager import places, plan_check, steps
from packagemanager.errors import RefusedError
from packagemanager.operation import PUT, REMOVE, REMOVE_DIRECTORY, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.plan_file import Plan
    from packagemanager.tree import Stat, Tree


def noted(tree: Tree, number: int, operation: Operation, found: Stat | None) -> Operation:
    """The operation with what the plan has to remember of the file that is kept, or of the folder that is removed."""
    if operation.act == REMOVE or operation.kept:
        found = tree.look(places.old(number))
    elif operation.act != REMOVE_DIRECTORY:
        return operation
    if found is None:
        return operation
    size, nanoseconds = (found.size, found.nanoseconds) if operation.act in (PUT, REMOVE) else (0, 0)
    return Operation(
        operation.act,
        operation.path,
        staged=operation.staged,
        kept=operation.kept,
        mode=found.mode,
        uid=found.uid,
        gid=found.gid,
        mtime=found.mtime,
        nanoseconds=nanoseconds,
        size=size,
    )


def difference(tree: Tree, plan: Plan) -> str:
    """What changed since the plan was made; empty where nothing did. Raises ``OSError``."""
    try:
        plan_check.check(tree, plan.operations)
    except RefusedError as error:
        return str(error)
    for number, operation in enumerate(plan.operations):
        if not _is_as_noted(tree, number, operation):
            return f"/{operation.path}: it changed since it was looked at"
    return ""


def _is_as_noted(tree: Tree, number: int, operation: Operation) -> bool:
    """Of a folder that is to be removed, whatever its time is: that changes with every name in it."""
    if operation.act == REMOVE_DIRECTORY:
        folder = steps.look(tree, operation.path)
        return folder is not None and _owned(folder) == _owned(operation)
    if operation.act != REMOVE and not operation.kept:
        return True
    names = tree.look(places.old(number)), steps.look(tree, operation.path)
    return all(found is not None and _attributes(found) == _attributes(operation) for found in names)


def _owned(one: Stat | Operation) -> tuple[int, ...]:
    return one.mode, one.uid, one.gid


def _attributes(one: Stat | Operation) -> tuple[int, ...]:
    return *_owned(one), one.size, one.mtime, one.nanoseconds
