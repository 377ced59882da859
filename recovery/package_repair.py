"""A read-write slot whose OS does not run well: files that are not as their packages put them are brought back.

Its file system is in order before this. Contents come from signed transactions on media that are plugged in; where
those lack a package, the rest is repaired all the same, and what is left is named. Runs no scripts, never fails.
"""

from __future__ import annotations

from packagemanager import files, places
from packagemanager.database import Database
from packagemanager.errors import PackageError
from packagemanager.repair import repair
from packagemanager.transaction import Transaction
from recovery.console import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packagemanager.incoming import Source
    from packagemanager.tree import Tree
    from recovery.workshop import Workshop
    from statemachine.record import Record

TOLD_MAX = 32


def mend_packages(workshop: Workshop, record: Record) -> int:
    """How many files, links and folders of the primary slot were repaired; what cannot be repaired is said."""
    try:
        root = workshop.open_root(record)
    except OSError as error:
        note(f"packages: the root cannot be mounted: {error}")
        return 0
    try:
        return _mend(workshop, root.tree) if _has_records(root.tree) else 0
    except (PackageError, OSError) as error:
        note(f"packages: {error}")
        return 0
    finally:
        root.close()


def _has_records(tree: Tree) -> bool:
    """A system whose packages nobody recorded has nothing to be compared with."""
    folder = tree.look(files.FOLDER)
    return folder is not None and bool(tree.list(files.FOLDER)) and tree.look(places.FOLDER) is not None


def _mend(workshop: Workshop, tree: Tree) -> int:
    def bring(keys: Sequence[str]) -> Mapping[str, Source]:
        installed = {package.key: package.version for package in Database(tree).present()}
        found: dict[str, Source] = {}
        for candidate in plugged_in:
            try:
                transaction = Transaction(candidate.source, candidate.header, candidate.manifest)
            except PackageError as error:
                note(f"packages: {candidate.source.name}: {error}")
                continue
            for key in keys:
                if key not in found and (source := _source(transaction, installed, tree, key)) is not None:
                    found[key] = source
        return found

    plugged_in = workshop.transactions()
    try:
        outcome = repair(tree, bring, workshop.alive, partial=True)
    finally:
        workshop.close(plugged_in)
    for finding, why in outcome.left[:TOLD_MAX]:
        note(f"packages: {finding}: {why}")
    note(f"packages: {len(outcome.repaired)} things repaired, {len(outcome.left)} left")
    return len(outcome.repaired)


def _source(transaction: Transaction, installed: Mapping[str, str], tree: Tree, key: str) -> Source | None:
    """The package from this transaction, if it has it in the version that is installed."""
    if transaction.index.wanted.get(key) != installed.get(key):
        return None
    try:
        return transaction.sources(installed, tree, [key])[key]
    except PackageError:
        return None
