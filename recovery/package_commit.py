"""The OS runs well with the packages that were being tried: what they replaced is not kept any longer.

After the journal was told (`recovery.update.commit`): from then on nobody undoes them. A cut in between leaves the kept
files, and the next mark-good removes them.
"""

from __future__ import annotations

from recovery.package_phase import packages_phase

_ON_TRIAL = b"trying"


def commit_packages(root: str = "/") -> None:
    """Settle the transaction on trial in ``root``, if one is. Raises ``PackageError`` where it stays on the disk."""
    if packages_phase(root) != _ON_TRIAL:
        return
    from packagemanager.engine import TRYING, Engine
    from packagemanager.root import Root

    tree = Root(root)
    try:
        engine = Engine(tree)
        lock = engine.lock()
        try:
            if engine.phase() == TRYING:
                engine.done()
        finally:
            lock.close()
    finally:
        tree.close()
