"""The file system that packages live in, as a protocol: the real one below a folder, or a simulated one.

Every path is relative to the root, in one canonical form (`Entry.path`). The last component is never followed; links
in the folders above it are followed inside the root, as `/lib` is on a merged Debian, and never out of it.
"""

from __future__ import annotations

# Folders are walked one below the other. Twice what a path of a package may have: links on its way make it longer.
NAMES_MAX = 256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Reader(Protocol):
        """An open file."""

        def read(self, size: int) -> bytes: ...

        def seek(self, offset: int) -> object:
            """Read from there on."""

        def close(self) -> None: ...

    class Lock(Protocol):
        """The kernel's advisory lock, held. It dies with its holder, and its file never has to be deleted."""

        def close(self) -> None: ...

    class Tree(Protocol):
        """What the package manager does to a file system. Nothing is durable before :meth:`sync`.

        Every method raises ``OSError`` as the kernel would: ENOENT, EEXIST, ENOSPC, EIO, EXDEV … And ENAMETOOLONG where
        a path has more than `NAMES_MAX` names.
        """

        def resolve(self, path: str) -> str:
            """``path`` with the links of its folders followed: the form that names one thing once.

            What is below a folder that is not there (yet) keeps its name.
            """

        def look(self, path: str) -> Stat | None:
            """What is there, or None."""

        def read_link(self, path: str) -> str: ...

        def list(self, path: str) -> list[str]:
            """The names in a folder, sorted."""

        def open(self, path: str) -> Reader: ...

        def is_plain(self, path: str) -> bool:
            """Whether a file has no extended attributes (xattr(7)): no access control list, no capability, no label."""

        def ahead(self, path: str) -> None:
            """A file's content will be asked for soon, if there is a file. A hint: never an error, nothing changes."""

        def write(self, path: str, content: Iterable[bytes]) -> None:
            """A new file of mode 0600. What exists there already is an error."""

        def set_attributes(self, path: str, mode: int, uid: int, gid: int, mtime: int) -> None:
            """Owner first, then mode, then time; a link has no mode."""

        def make_directory(self, path: str) -> None:
            """Mode 0700."""

        def make_link(self, path: str, target: str) -> None: ...

        def hard_link(self, old: str, new: str) -> None: ...

        def rename(self, old: str, new: str) -> None:
            """A directory that comes from an overlay's lower layer cannot be renamed (EXDEV): only a new one is."""

        def unlink(self, path: str) -> None: ...

        def remove_directory(self, path: str) -> None: ...

        def replace(self, path: str, content: bytes, *, after_all: bool = False) -> None:
            """The content of a small file, replaced and durable when this returns (`payload.durable`).

            ``after_all``: not before everything else that was done is durable, at the same price.
            """

        def sync(self) -> None:
            """Everything that was done is durable when this returns (syncfs)."""

        def lock(self, path: str) -> Lock:
            """Hold the lock of this (empty, kept) file. Raises ``BlockingIOError`` where somebody else holds it."""

        def free(self) -> tuple[int, int]:
            """Bytes and inodes that can still be used."""


class Stat:
    """``kind`` is one of `entry.FILE`, `DIRECTORY`, `LINK`, or "other" for what no package has (devices, pipes).

    ``mtime`` is in seconds; ``nanoseconds`` is what the file system knows beyond them.
    """

    __slots__ = ("gid", "inode", "kind", "mode", "mtime", "nanoseconds", "size", "uid")

    def __init__(
        self,
        kind: str,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime: int,
        inode: tuple[int, int],
        nanoseconds: int = 0,
    ) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime = mtime
        self.inode = inode
        self.nanoseconds = nanoseconds
