"""What a transaction brings, put down beside the system: ``transaction/new/<n>``, with its final attributes.

Nothing here is durable before `engine.Engine.prepare`, and nothing of the system changes. What is left of a staging
that nobody went on with is removed by the next `engine.Engine.resume`.
"""

from __future__ import annotations

import time

from packagemanager import places
from packagemanager.entry import FILE, Entry
from packagemanager.errors import UNCHANGED, PackageError, RefusedError, disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ParamSpec, TypeVar

    from packagemanager.tree import Tree

    Arguments = ParamSpec("Arguments")
    Content = TypeVar("Content")


class Staging:
    """Makes ``transaction/`` with ``new/`` and ``old/``, and the folders above it.

    Numbers count from 0; they are what `operation.Operation.staged` means.

    Raises:
        RefusedError: a transaction is under way: `engine.Engine.resume` first. Or, of every method, there is no room.
        DiskError: of every method. After either, the caller gives up with :meth:`abandon`.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.count = 0
        if tree.look(places.TRANSACTION) is not None:
            raise RefusedError(
                "a transaction is under way", "finish it first: unbrick packages apply without arguments"
            )
        try:
            self._act(places.make_folders, tree, places.NEW, places.OLD)
        except PackageError:
            self.abandon()
            raise

    def file(self, entry: Entry, chunks: Iterable[bytes]) -> int:
        """A file with this content and the entry's mode, owner and time; size and digest are not looked at."""
        return self._add(entry, self._tree.write, chunks)

    def link(self, entry: Entry) -> int:
        """A symbolic link to ``entry.target``."""
        return self._add(entry, self._tree.make_link, entry.target)

    def hard_link(self, entry: Entry, of: int) -> int:
        """Another name of the file number ``of``."""
        self._act(self._tree.hard_link, self.place(of), places.new(self.count))
        self.count += 1
        return self.count - 1

    def text(self, path: str, content: bytes, mode: int = 0o644) -> int:
        """A file of our own (the database's) for ``path``: root's, changed now."""
        return self._add(Entry(path, FILE, mode=mode, mtime=int(time.time())), self._tree.write, (content,))

    def attributes(self, number: int, entry: Entry) -> None:
        """What was staged gets the entry's mode, owner and time after all."""
        self._act(self._tree.set_attributes, self.place(number), entry.mode, entry.uid, entry.gid, entry.mtime)

    def drop(self, number: int) -> None:
        """What was staged is not needed after all; its number is not given again."""
        self._act(self._tree.unlink, self.place(number))

    def place(self, number: int) -> str:
        """Where number ``number`` is until it is renamed: for reading it again."""
        return places.new(number)

    def abandon(self) -> None:
        """Remove all of it, as far as the disk lets us; the next resume removes the rest. The system is as it was."""
        try:
            places.remove_transaction(self._tree)
        except OSError:
            return

    def _add(self, entry: Entry, make: Callable[[str, Content], None], content: Content) -> int:
        self._act(make, self.place(self.count), content)
        self.attributes(self.count, entry)
        self.count += 1
        return self.count - 1

    def _act(self, act: Callable[Arguments, None], *arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        try:
            act(*arguments, **named)
        except OSError as error:
            raise disk_error("staging a transaction", error, UNCHANGED) from error
