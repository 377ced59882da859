"""Keeps dpkg and apt out while a transaction works, by the locks that they take themselves; the same keep us out.

The kernel's record locks die with their holder. Only for a folder of this machine: elsewhere nobody else is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from packagemanager.entry import DIRECTORY
from packagemanager.errors import BusyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packagemanager.tree import Lock, Tree

# dpkg's order; apt holds the first one longer.
NAMES = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock")
MODE = 0o640
# Of what has to be done before a start is complete: apt may have begun first, and a restart would only cost an attempt.
WAIT_SECONDS_MAX = 600.0
POLL_SECONDS = 1.0


class DpkgLock:
    """Held until it is closed or its `with` ends, as well as ``inner``.

    Others may hold it for ``seconds_max`` yet; ``alive`` is called while that is waited for.

    Raises:
        BusyError: dpkg or apt is at work. Then ``inner`` is closed.
        OSError: as the disk does.
    """

    __slots__ = ("_alive", "_deadline", "_descriptors", "_inner")

    def __init__(
        self, tree: Tree, inner: Lock, seconds_max: float = 0.0, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._inner = inner
        self._deadline = time.monotonic() + seconds_max
        self._alive = alive
        self._descriptors: list[int] = []
        folder: str = getattr(tree, "folder", "")
        try:
            for path in NAMES if folder else ():
                if (place := _place(tree, path)) is not None:
                    self._take(os.path.join(folder, place))
        except BaseException:
            self.close()
            raise

    def _take(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptors.append(os.open(path, flags, MODE))
        except IsADirectoryError:
            return  # a damaged file system: nobody else can hold it either, and a repair must not need it
        while not _is_locked(self._descriptors[-1]):
            if time.monotonic() >= self._deadline:
                raise BusyError("dpkg or apt works on the packages", "Wait for it to end.")
            self._alive()
            time.sleep(POLL_SECONDS)

    def __enter__(self) -> DpkgLock:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._inner.close()


def _is_locked(descriptor: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _place(tree: Tree, path: str) -> str | None:
    """Where the lock is once links are followed as dpkg does it in this root; None where its folder is not there."""
    try:
        place = tree.resolve(path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return None  # a damaged file system, as above
    folder = tree.look(os.path.dirname(place))
    return place if folder is not None and folder.kind == DIRECTORY else None
