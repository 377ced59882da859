"""What is asked for: a wish, and who brings the packages that it needs."""

from __future__ import annotations

from packagemanager.changes import Wish
from packagemanager.database import Database
from packagemanager.wanted import Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packagemanager.incoming import Source
    from packagemanager.transaction import Transaction
    from packagemanager.tree import Tree

    Bring = Callable[[Sequence[str]], Mapping[str, Source]]


class Order:
    """``bring`` gives the sources of packages by key, for the keys that it is asked for.

    ``again``: a set that ran well is brought back into a root that lost it.
    """

    __slots__ = ("again", "bring", "serial", "transaction", "wish")

    def __init__(self, wish: Wish, bring: Bring, serial: int, transaction: bytes, again: bool = False) -> None:
        self.wish = wish
        self.bring = bring
        self.serial = serial
        self.transaction = transaction
        self.again = again

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.serial, self.transaction, self.wish.wanted)


def order_of(transaction: Transaction, tree: Tree, again: bool = False) -> Order:
    """What a transaction that is believed asks of the device whose root is ``tree``."""
    index = transaction.index

    def bring(keys: Sequence[str]) -> Mapping[str, Source]:
        there = {package.key: package.version for package in Database(tree).present()}
        sources = transaction.sources(there, tree, keys)
        transaction.announce(keys)
        return sources

    wish = Wish(
        index.wanted,
        unpack=index.unpack_keys(),
        removals=index.removals,
        expendable=index.expendable,
        purge=index.purge,
    )
    return Order(wish, bring, transaction.serial, transaction.manifest.digest, again)
