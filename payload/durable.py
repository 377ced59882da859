"""Replacing a file so that a power cut leaves either the old content or the new, never a mixture.

The only place of the project that renames, beside the package manager's tree. Knows nothing of raw
disks (see ``payload.device_region``) and does not create directories. Runs on the device and on the build host.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    Path = str | os.PathLike[str]
    Content = bytes | Callable[[BinaryIO], None]

LOCK_ROUNDS_MAX = 1000


def atomic_replace(path: Path, content: Content, mode: int = 0o644, flush: Callable[[int], None] | None = None) -> None:
    """Give ``path`` the content ``content``, durable when this returns.

    ``content`` is the bytes, or a function that writes them into the (seekable, empty) binary file it
    gets. ``mode`` holds whatever the umask says. A symbolic link at ``path`` is replaced, not followed.
    ``flush`` gets the descriptor of the new content and makes it durable, perhaps more with it; fsync(2) if none.

    The temporary file has one fixed name beside ``path``: what a cut left behind is used again, so
    nothing piles up and nobody has to delete anything. Writers of the same path take turns by a
    kernel lock, which dies with its holder.

    Raises:
        OSError: nothing changed at ``path``, except where only the last step (flushing the
            directory) failed: then the new content is in place but a cut may bring the old back.
    """
    target = os.fspath(path)
    directory, name = os.path.split(target)
    temporary = os.path.join(directory, f".{name}.new")
    with os.fdopen(_open_locked(temporary), "r+b") as file:
        try:
            _fill(file, content, mode)
            (flush or os.fsync)(file.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    flush_directory(directory or ".")


def flush_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable. Raises ``OSError``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file_system(descriptor: int) -> None:
    """Make everything that was done to the file system of ``descriptor`` durable (syncfs(2)).

    A write that failed in the background since ``descriptor`` was opened is told once (Linux 5.8): so open it
    before the writing begins. An overlay tells nothing of what failed below its upper layer: there, flush a descriptor
    of the upper layer's own file system as well. Where there is no syncfs, all file systems are flushed, and such a
    failure is not told.

    Raises ``OSError``.
    """
    try:
        from _unbrick import syncfs  # what stands below is for hosts: freezing leaves it out
    except ImportError:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number)) from None
    else:
        syncfs(descriptor)


def _fill(file: BinaryIO, content: Content, mode: int) -> None:
    file.truncate(0)
    os.fchmod(file.fileno(), mode)
    if isinstance(content, bytes):
        file.write(content)
    else:
        content(file)
    file.flush()


def _open_locked(temporary: str) -> int:
    """A descriptor of the file that ``temporary`` names, held alone.

    While we waited, the last holder may have renamed that file away: then the lock we got is on
    another file than the name says, and the round starts again.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    for _round in range(LOCK_ROUNDS_MAX):
        descriptor = os.open(temporary, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _names(temporary, descriptor):
            return descriptor
        os.close(descriptor)
    raise OSError(f"{temporary}: other writers never gave way")


def _names(path: str, descriptor: int) -> bool:
    held = os.fstat(descriptor)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)
