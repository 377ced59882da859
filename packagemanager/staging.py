"""What a transaction brings, put down beside the system: ``transaction/new/<n>``, with its final attributes.

Nothing here is durable before `engine.Engine.prepare`, and nothing of the system changes. What is left of a staging
that nobody went on with is removed by the next `engine.Engine.resume`.
"""

from __future__ import annotations

import time

from packagemanager import places
from packagemanager.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from packagemanager.entry import Entry
    from packagemanager.tree import Tree


class Staging:
    """Makes ``transaction/`` with ``new/`` and ``old/``, and the folders above it.

    Numbers count from 0; they are what `operation.Operation.staged` means.

    Raises:
        RefusedError: a transaction is under way: `engine.Engine.resume` first.
        OSError: of every method; then the caller gives up with :meth:`abandon`.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.count = 0
        if tree.look(places.TRANSACTION) is not None:
            raise RefusedError(
                "a transaction is under way", "finish it first: unbrick packages apply without arguments"
            )
        places.make_folders(tree, places.NEW, places.OLD)

    def file(self, entry: Entry, chunks: Iterable[bytes]) -> int:
        """A file with this content and the entry's mode, owner and time; size and digest are not looked at."""
        place = self._next()
        self._tree.write(place, chunks)
        self._tree.set_attributes(place, entry.mode, entry.uid, entry.gid, entry.mtime)
        return self._taken()

    def link(self, entry: Entry) -> int:
        """A symbolic link to ``entry.target``."""
        place = self._next()
        self._tree.make_link(place, entry.target)
        self._tree.set_attributes(place, entry.mode, entry.uid, entry.gid, entry.mtime)
        return self._taken()

    def hard_link(self, entry: Entry, of: int) -> int:
        """Another name of the file number ``of``."""
        self._tree.hard_link(self.place(of), self._next())
        return self._taken()

    def text(self, path: str, content: bytes, mode: int = 0o644) -> int:
        """A file of our own (the database's) for ``path``: root's, changed now."""
        place = self._next()
        self._tree.write(place, (content,))
        self._tree.set_attributes(place, mode, 0, 0, int(time.time()))
        return self._taken()

    def drop(self, number: int) -> None:
        """What was staged is not needed after all; its number is not given again."""
        self._tree.unlink(self.place(number))

    def place(self, number: int) -> str:
        """Where number ``number`` is until it is renamed: for reading it again."""
        return places.new(number)

    def abandon(self) -> None:
        """Remove all of it. The system is as it was."""
        places.remove_transaction(self._tree)

    def _next(self) -> str:
        return places.new(self.count)

    def _taken(self) -> int:
        self.count += 1
        return self.count - 1
