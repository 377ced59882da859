"""A file of a tree, read at once and within a bound. What its bytes mean is the caller's matter, and so are errors."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from packagemanager.tree import Reader

    class Files(Protocol):
        """What is read of a tree for the content of one file."""

        def open(self, path: str) -> Reader: ...


READ_BYTES = 1 << 20


def read_again(tree: Files, path: str, bytes_max: int) -> bytes | None:
    """As `read_whole`; a disk that refuses once (EIO) is asked again."""
    try:
        return read_whole(tree, path, bytes_max)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return read_whole(tree, path, bytes_max)


def read_whole(tree: Files, path: str, bytes_max: int) -> bytes | None:
    """None where there is no such file. Raises: ValueError: it has more than ``bytes_max`` bytes. OSError."""
    try:
        reader = tree.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    pieces = []
    left = bytes_max + 1
    try:
        while left > 0 and (piece := reader.read(min(left, READ_BYTES))):
            pieces.append(piece)
            left -= len(piece)
    finally:
        reader.close()
    if left <= 0:
        raise ValueError(f"more than {bytes_max} bytes")
    return b"".join(pieces)
