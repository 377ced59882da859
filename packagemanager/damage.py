"""Which phase a transaction is in, told by what is there: for one whose phase was lost or does not read.

No cut leaves such a disk; rot, or a repaired file system, can. It is never guessed: a file that the plan puts is known
by its inode number, and what decides is which pieces are still there.
"""

from __future__ import annotations

from packagemanager import places, steps
from packagemanager.entry import DIRECTORY
from packagemanager.operation import KEEP_DIRECTORY, MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY
from packagemanager.phases import BACK, DAMAGED, DONE, FORWARD, TRYING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.operation import Operation
    from packagemanager.plan_file import Plan
    from packagemanager.tree import Tree


class Evidence:
    """``done`` and ``not_done``: whether there are operations of either kind.

    ``can_go_on``: what was staged is there for each that is not done. ``can_go_back``: what was kept is there for each
    that is done. ``keeps_all``: everything that was kept is still there. ``has_put``: a file is where only the
    transaction can have put it.
    """

    __slots__ = ("can_go_back", "can_go_on", "done", "has_put", "keeps_all", "not_done")

    def __init__(self, tree: Tree, plan: Plan) -> None:
        self.done = self.not_done = self.has_put = False
        self.can_go_on = self.can_go_back = self.keeps_all = True
        device = places.device(tree)
        for number, (operation, inode) in enumerate(zip(plan.operations, plan.inodes, strict=True)):
            if operation.act != KEEP_DIRECTORY:
                self._add(tree, number, operation, (device, inode))

    def _add(self, tree: Tree, number: int, operation: Operation, inode: tuple[int, int]) -> None:
        done = is_done(tree, operation, inode)
        is_kept = operation.act == REMOVE or operation.kept
        has_old = not is_kept or tree.look(places.old(number)) is not None
        has_new = operation.act != PUT or tree.look(places.new(operation.staged)) is not None
        self.done |= done
        self.has_put |= done and operation.act == PUT
        # A folder that somebody put something into is not removed: that says nothing.
        self.not_done |= not done and operation.act != REMOVE_DIRECTORY
        self.keeps_all &= has_old
        self.can_go_on &= done or has_new
        self.can_go_back &= not done or has_old


def is_done(tree: Tree, operation: Operation, inode: tuple[int, int]) -> bool:
    """Whether the path is as the operation leaves it."""
    found = steps.look(tree, operation.path)
    is_folder = found is not None and found.kind == DIRECTORY
    if operation.act == PUT:
        return found is not None and found.inode == inode
    if operation.act == REMOVE:
        return found is None or is_folder
    return is_folder == (operation.act == MAKE_DIRECTORY)


def judge(evidence: Evidence, *, has_phase: bool = True) -> str | None:
    """The phase to go on from. ``has_phase``: there is one, and it does not read.

    Without one, a plan alone says nothing: a cut may have come before the intent, and anybody removes files and makes
    folders in a system that ran on since. Only a file that the plan put tells that it was begun.

    Nothing done: the old set (None). All of it: the new one, in "trying" while everything that was kept is there. A
    mixture goes back if it can: that needs nothing but what was durable before the intent.
    """
    if not evidence.done or not (has_phase or evidence.has_put):
        return None
    if not evidence.not_done:
        return TRYING if evidence.keeps_all else DONE
    if evidence.can_go_back:
        return BACK
    return FORWARD if evidence.can_go_on else DAMAGED
