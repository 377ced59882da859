"""The OS runs well with the packages that were being tried: what they replaced is not kept any longer.

After the journal was told (`recovery.update.commit`): from then on nobody undoes them. A cut in between leaves the kept
files, and the next mark-good removes them, as it removes what is left of a staging or of an undo that was cut.
"""

from __future__ import annotations

import os
import sys

from packagemanager.errors import PackageError
from recovery.package_phase import ON_TRIAL, packages_phase
from recovery.update import UpdateError
from statemachine.decide import packages_unfinished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.engine import Engine
    from packagemanager.scripts import Run
    from packagemanager.tree import Tree
    from recovery.update import Ledger
    from statemachine.record import Record

# packagemanager's; it is not imported where neither of them is there.
_UNDER_WAY = ("var/lib/unbrick/packages/transaction", "var/lib/unbrick/packages/scripts")


def commit_packages(root: str) -> None:
    """Settle the transaction that is over in ``root``, if one is.

    Nothing that is confirmed depends on this: what fails now is told, and done by the next confirmation or command.
    """
    try:
        _commit(root)
    except (OSError, PackageError) as error:
        print(f"unbrick: what the packages replaced is still kept: {error}", file=sys.stderr)


def commit_confirmed(ledger: Ledger, root: str) -> None:
    """The same, where the journal calls good what is on trial in ``root``: a cut came in between, or the disk refused.

    Before anything else is done with packages: scripts that ran well are not run again for a set that is confirmed.
    """
    record = ledger.look()
    if packages_phase(root) == ON_TRIAL and _is_good(record):
        commit_packages(root)


def check_scripts(ledger: Ledger, root: str) -> None:
    """Raises ``UpdateError`` where packages are on trial in ``root`` whose scripts did not all run under this kernel.

    What the journal has called good is not asked again: only what is kept of it is left.
    """
    if packages_phase(root) != ON_TRIAL or _is_good(ledger.look()):
        return
    from packagemanager.root import Root
    from packagemanager.scripts import runner, waiting

    with Root(root) as tree:
        scripts = waiting(tree, runner(root))
        if scripts is not None and scripts.has_any():
            raise UpdateError("packages-scripts-left", "they are not confirmed before their scripts ran")


def _is_good(record: Record) -> bool:
    """Whether the journal calls good what is on trial in the root."""
    return record.state == "CONFIRMED" and not packages_unfinished(record, ON_TRIAL)


def _commit(root: str) -> None:
    if not any(os.path.isdir(os.path.join(root, folder)) for folder in _UNDER_WAY):
        return
    from packagemanager.scripts import runner
    from recovery.running_root import running_root

    tree = running_root(root)
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
        _make_sure(manager.engine)
        manager.settle()
    elif phase in (None, DONE, UNDONE):
        manager.resume()


def _make_sure(engine: Engine) -> None:
    """What a medium lost that had said it was durable is done again, while what that needs is still kept."""
    lock = engine.lock()
    try:
        engine.resume()
    finally:
        lock.close()
