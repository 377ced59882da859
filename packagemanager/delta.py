"""A package made from files that the device has and what a transaction brings: a source like `deb.Deb`.

Bytes: `packagemanager.recipe`. Old files are read below the root, never written. Whatever they hold, only files with
the new package's own digests come out of here. Memory: one group and the pieces it is made against, 16 MiB at most.
"""

from __future__ import annotations

from packagemanager import recipe as recipes
from packagemanager.entry import FILE, Content, Entry
from packagemanager.errors import TransactionError
from payload.codec import zstd_decompress
from payload.digest import digest, hasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from packagemanager.recipe import Base, Frame, Recipe
    from packagemanager.transaction_index import Part
    from packagemanager.tree import Reader, Stat
    from payload.bundle import Reader as ContentReader

    class Tree(Protocol):
        """What is read of a `packagemanager.tree.Tree`."""

        def look(self, path: str) -> Stat | None: ...

        def open(self, path: str) -> Reader: ...

    Sink = Callable[[Entry, Iterator[bytes]], None]

READ_BYTES = 256 << 10
_DAMAGED = "The transaction was made wrongly: ask the master for another one."


class Delta:
    """``part`` of ``content``, for the old version that is the ``base``-th of its bases and installed in ``tree``.

    Raises:
        TransactionError: the recipe is damaged or not of this format.
    """

    __slots__ = ("_base", "_content", "_part", "_recipe", "_tree")

    def __init__(self, content: ContentReader, part: Part, base: int, tree: Tree) -> None:
        self._content = content
        self._part = part
        self._tree = tree
        self._recipe: Recipe = recipes.decode_recipe(_plain(content, part), len(part.bases), content.size)
        self._base: Base = self._recipe.bases[base]

    def ranges(self) -> list[tuple[int, int]]:
        """(offset, length) of what :meth:`unpack` reads of the transaction, in order."""
        return [(frame.offset, frame.size) for frame in self._base.frames if frame.size]

    def changed_file(self) -> str | None:
        """The first file that is not as the old version shipped it, or None: then :meth:`unpack` will do."""
        for path, size, wanted in recipes.paths_of(self._base, self._recipe):
            if not _is_as_shipped(self._tree, path, size, wanted):
                return path
        return None

    def control(self) -> tuple[bytes, dict[str, bytes]]:
        files = dict(self._recipe.control_files)
        return files.pop("control"), files

    def unpack(self, sink: Sink) -> Content:
        """Call ``sink`` for every file, in order. Its entry has its digest already, and ``chunks`` may be left: a file
        that is there as it should be need not be read.

        Raises:
            TransactionError: an old file changed since it was compared, or the transaction cannot be read.
        """
        stream = _Stream(self._content, self._tree, self._recipe.groups, self._base)
        for entry in self._recipe.entries:
            if entry.kind == FILE:
                is_old = entry.path in self._recipe.as_before
                chunks = _as_before(self._tree, entry) if is_old else stream.chunks(entry.size)
                sink(entry, _verified(entry, chunks))
                if not is_old:
                    stream.pass_over()
        control, files = self.control()
        return Content(control, files, self._recipe.entries)


def _plain(content: ContentReader, part: Part) -> bytes:
    """The recipe, unpacked; its digest is compared before anything interprets it."""
    if not recipes.PLAIN_LENGTH.size < part.size <= recipes.STORED_BYTES_MAX:
        raise TransactionError(f"a delta whose recipe has {part.size} bytes", _DAMAGED)
    stored = content.read(part.offset, part.size)
    if digest(stored) != part.digest:
        raise TransactionError(f"the delta for {part.key} is not what the index says", _DAMAGED)
    (length,) = recipes.PLAIN_LENGTH.unpack_from(stored)
    if length > recipes.RECIPE_BYTES_MAX:
        raise TransactionError(f"a delta whose recipe has {length} bytes", _DAMAGED)
    try:
        return zstd_decompress(stored[recipes.PLAIN_LENGTH.size :], length)
    except ValueError as error:
        raise TransactionError(f"the delta for {part.key}: {error}", _DAMAGED) from error


class _Stream:
    """What the groups are, one after the other, handed out file by file."""

    __slots__ = ("_at", "_base", "_content", "_groups", "_left", "_number", "_plain", "_tree")

    def __init__(self, content: ContentReader, tree: Tree, groups: tuple[int, ...], base: Base) -> None:
        self._content = content
        self._tree = tree
        self._groups = groups
        self._base = base
        self._number = -1
        self._plain = b""
        self._at = 0
        self._left = 0

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes. What of them is not taken is passed over by :meth:`pass_over`."""
        self._left = size
        return self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        while self._left:
            self._reach()
            if not self._plain:
                self._plain = self._group(self._base.frames[self._number])
            taken = self._plain[self._at : self._at + min(self._left, READ_BYTES)]
            self._at += len(taken)
            self._left -= len(taken)
            yield taken

    def pass_over(self) -> None:
        """Go to the end of the file. A group that nobody wanted a byte of is not made."""
        while self._left:
            self._reach()
            taken = min(self._left, self._groups[self._number] - self._at)
            self._at += taken
            self._left -= taken

    def _reach(self) -> None:
        """Stand in a group that has bytes left."""
        if self._number < 0 or self._at == self._groups[self._number]:
            self._plain = b""  # before the next one is made: there is memory for one
            self._number += 1
            self._at = 0

    def _group(self, frame: Frame) -> bytes:
        length = self._groups[self._number]
        pieces = bytearray()
        for number, start, size in frame.pieces:
            _add_piece(pieces, self._tree, self._base.old_files[number].path, start, size)
        if frame.size == 0 and len(pieces) == length:
            return bytes(pieces)
        try:
            return zstd_decompress(self._content.read(frame.offset, frame.size), length, pieces)
        except ValueError as error:
            raise _changed("a group of files", str(error)) from error


def _verified(entry: Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """``chunks``; at their end an error, if they are not the file. What was made of them is to be thrown away then."""
    state = hasher()
    for chunk in chunks:
        state.update(chunk)
        yield chunk
    if state.digest() != entry.digest:
        raise _changed(f"/{entry.path}", "it has another digest")


def _changed(what: str, detail: str) -> TransactionError:
    return TransactionError(
        f"{what} does not come out as it should from the old files ({detail})",
        "An old file changed while it was read: apply the transaction again, or ask the master for a full one.",
    )


def _as_before(tree: Tree, entry: Entry) -> Iterator[bytes]:
    file = _opened(tree, entry.path)
    try:
        left = entry.size
        while left and (chunk := file.read(min(left, READ_BYTES))):
            left -= len(chunk)
            yield chunk
    finally:
        file.close()


def _add_piece(pieces: bytearray, tree: Tree, path: str, start: int, size: int) -> None:
    """What is there, fewer bytes where the file became shorter: then nothing that is made of it will be right."""
    file = _opened(tree, path)
    try:
        file.seek(start)
        while size and (piece := file.read(min(size, READ_BYTES))):
            pieces += piece
            size -= len(piece)
    finally:
        file.close()


def _opened(tree: Tree, path: str) -> Reader:
    try:
        return tree.open(path)
    except OSError as error:
        raise _changed(f"/{path}", str(error)) from error


def _is_as_shipped(tree: Tree, path: str, size: int, wanted: bytes) -> bool:
    try:
        found = tree.look(path)
        if found is None or found.kind != FILE or found.size != size:
            return False
        file = tree.open(path)
    except OSError:
        return False
    try:
        state = hasher()
        while chunk := file.read(READ_BYTES):
            state.update(chunk)
    except OSError:
        return False
    finally:
        file.close()
    return state.digest() == wanted
