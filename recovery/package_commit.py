"""The OS runs well with the packages that were being tried: what they replaced is not kept any longer.

After the journal was told (`recovery.update.commit`): from then on nobody undoes them. A cut in between leaves the kept
files, and the next mark-good removes them, as it removes what is left of a staging or of an undo that was cut.
"""

from __future__ import annotations

import os

from recovery.package_phase import PHASE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.tree import Tree


def commit_packages(root: str = "/") -> None:
    """Settle the transaction that is over in ``root``, if one is. Raises ``PackageError`` where it stays there."""
    if not os.path.isdir(os.path.join(root, os.path.dirname(PHASE))):
        return
    from packagemanager.root import Root

    tree = Root(root)
    try:
        settle(tree)
    finally:
        tree.close()


def settle(tree: Tree) -> None:
    """The same for a tree. One that is still to be finished or undone stays. Raises ``PackageError``."""
    from packagemanager.engine import Engine
    from packagemanager.phases import DONE, TRYING, UNDONE

    engine = Engine(tree)
    lock = engine.lock()
    try:
        phase = engine.phase()
        if phase == TRYING:
            engine.done()
        elif phase in (None, DONE, UNDONE):
            engine.resume()
    finally:
        lock.close()
