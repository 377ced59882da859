"""What a transaction does to the file system, one small act each; every act can be done again.

A plan is a tuple of operations in the order they are done. What an operation replaces or removes is kept as
``old/<n>``, n being the operation's place in the plan; what it puts was staged as ``new/<staged>`` before.
"""

from __future__ import annotations

# Rename new/<staged> over the path. `kept` says whether something was there, whose other name is old/<n>.
PUT = "put"
# Unlink a file or a link whose other name is old/<n>.
REMOVE = "remove"
# Make a folder with these attributes, where there is none.
MAKE_DIRECTORY = "make-directory"
# Remove a folder if nothing is in it; its attributes are remembered to make it again.
REMOVE_DIRECTORY = "remove-directory"
# Nothing, to a folder that something is kept of: undone, it is made again if it went meanwhile.
KEEP_DIRECTORY = "keep-directory"
ACTS = (PUT, REMOVE, MAKE_DIRECTORY, REMOVE_DIRECTORY, KEEP_DIRECTORY)


class Operation:
    """``path`` is resolved. ``mode``, ``uid``, ``gid`` and ``mtime`` are those of a folder that is to be made.

    Of a folder that is to be removed or kept, the engine reads them itself; and of a file or link that is to be kept,
    with its ``size`` and the ``nanoseconds`` of its time.
    """

    __slots__ = ("act", "gid", "kept", "mode", "mtime", "nanoseconds", "path", "size", "staged", "uid")

    def __init__(
        self,
        act: str,
        path: str,
        *,
        staged: int = 0,
        kept: bool = False,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        nanoseconds: int = 0,
        size: int = 0,
    ) -> None:
        self.act = act
        self.path = path
        self.staged = staged
        self.kept = kept
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.nanoseconds = nanoseconds
        self.size = size

    def __repr__(self) -> str:
        return f"Operation({self.act} {self.path!r})"
