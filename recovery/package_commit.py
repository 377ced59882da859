"""The OS runs well with the packages that were being tried: what they replaced is not kept any longer.

After the journal was told (`recovery.update.commit`): from then on nobody undoes them. A cut in between leaves the kept
files, and the next mark-good removes them, as it removes what is left of a staging or of an undo that was cut.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.scripts import Run
    from packagemanager.tree import Tree

# packagemanager's; it is not imported where neither of them is there.
_UNDER_WAY = ("var/lib/unbrick/packages/transaction", "var/lib/unbrick/packages/scripts")


def commit_packages(root: str) -> None:
    """Settle the transaction that is over in ``root``, if one is. Raises ``PackageError`` where it stays there."""
    if not any(os.path.isdir(os.path.join(root, folder)) for folder in _UNDER_WAY):
        return
    from packagemanager.root import Root
    from packagemanager.scripts import runner

    tree = Root(root)
    try:
        settle(tree, runner(root))
    finally:
        tree.close()


def settle(tree: Tree, run: Run | None = None) -> None:
    """The same for a tree. One that is still to be finished or undone stays. ``run`` is for the scripts of one that
    recovery has undone: they are told so. Raises ``PackageError``.
    """
    from packagemanager.phases import DONE, TRYING, UNDONE
    from packagemanager.transact import Manager

    manager = Manager(tree, run=run)
    phase = manager.engine.phase()
    if phase == TRYING:
        manager.settle()
    elif phase in (None, DONE, UNDONE):
        manager.resume()
