"""The file system below a folder of this machine: the real :class:`packagemanager.tree.Tree`.

Every path is walked from the root's own descriptor, one component at a time, and no link is ever followed by the
kernel: a link in a folder's place is read and walked *inside* the root, as after chroot(2). So a link to ``/etc`` or
``../../..`` cannot lead out, whoever put it there and whenever.

Descriptors of folders are kept and used again, until a link or folder on the way to one of them changes by our own
doing, and at the latest until the next :meth:`Root.sync`. What others change meanwhile can make a write land in the
folder that had the name before, never outside of the root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from packagemanager.entry import DIRECTORY, FILE, LINK
from packagemanager.tree import NAMES_MAX, Stat
from payload.durable import atomic_replace, flush_file_system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

LINKS_MAX = 40  # as the kernel's
FOLDERS_KEPT_MAX = 128
AHEAD_BYTES_MAX = 1 << 20
INODES_UNLIMITED = 1 << 40
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLUSHED_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}
_ABSENT = (FileNotFoundError, NotADirectoryError)


class Held:
    """A lock that is held until it is closed, or its holder ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Root:
    """The :class:`Tree` below ``folder``. Not for several threads at once.

    ``changes``: where ``folder`` is an overlay, a folder of the file system that its upper layer is on. An overlay does
    not pass on that a write failed there in the background; without it, such a write would count as durable.

    Raises:
        OSError: of every method, as the kernel's. ELOOP: more than ``LINKS_MAX`` links; EINVAL: a path that is not
            canonical (absolute, or with an empty, ``.`` or ``..`` component).
    """

    def __init__(self, folder: str, changes: str = "") -> None:
        self.folder = os.path.realpath(folder)
        self._folders: dict[str, tuple[int, str]] = {}
        self._flushed: list[int] = []
        # Opened before anything is written, so that sync tells of every write that fails from here on.
        self._root = os.open(self.folder, _FLUSHED_FLAGS)
        self._flushed.append(self._root)
        if changes:
            self._flushed.append(os.open(changes, _FLUSHED_FLAGS))
        self._links_walked: set[str] = set()

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._forget()
        while self._flushed:
            os.close(self._flushed.pop())

    def __del__(self) -> None:
        self.close()

    # Looking.

    def resolve(self, path: str) -> str:
        parent, name = _split(path)
        if not name:
            return ""
        if len(self._folders) > FOLDERS_KEPT_MAX:
            self._forget()
        return _join(self._canonical(parent), name)

    def look(self, path: str) -> Stat | None:
        try:
            ((folder, name),) = self._at(path)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except _ABSENT:
            return None
        return Stat(
            _KINDS.get(stat.S_IFMT(found.st_mode), "other"),
            stat.S_IMODE(found.st_mode),
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_mtime_ns // 10**9,
            (found.st_dev, found.st_ino),
            found.st_mtime_ns % 10**9,
        )

    def read_link(self, path: str) -> str:
        ((folder, name),) = self._at(path)
        return os.readlink(name, dir_fd=folder)

    def list(self, path: str) -> list[str]:
        descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def open(self, path: str) -> BinaryIO:
        # Never waits for the other end of a pipe that somebody put there.
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a file", path)
        return os.fdopen(descriptor, "rb", buffering=0)

    def is_plain(self, path: str) -> bool:
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return not os.listxattr(descriptor)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            return True
        finally:
            os.close(descriptor)

    def ahead(self, path: str) -> None:
        try:
            descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return
        try:
            os.posix_fadvise(descriptor, 0, AHEAD_BYTES_MAX, os.POSIX_FADV_WILLNEED)
        except OSError:
            return  # not a file
        finally:
            os.close(descriptor)

    def free(self) -> tuple[int, int]:
        found = os.fstatvfs(self._root)
        inodes = found.f_favail if found.f_files else INODES_UNLIMITED
        return found.f_bavail * found.f_frsize, inodes

    # Changing.

    def write(self, path: str, content: Iterable[bytes]) -> None:
        descriptor = self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            for chunk in content:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def set_attributes(self, path: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        ((folder, name),) = self._at(path)
        times = (mtime * 10**9, mtime * 10**9)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
            return
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=times)
        finally:
            os.close(descriptor)

    def make_directory(self, path: str) -> None:
        ((folder, name),) = self._at(path)
        os.mkdir(name, 0o700, dir_fd=folder)

    def make_link(self, path: str, target: str) -> None:
        ((folder, name),) = self._at(path)
        os.symlink(target, name, dir_fd=folder)

    def hard_link(self, old: str, new: str) -> None:
        (source, old_name), (target, new_name) = self._at(old, new)
        os.link(old_name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def rename(self, old: str, new: str) -> None:
        (source, old_name), (target, new_name) = self._at(old, new)
        os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)
        self._changed(old, new)
        if old in self._folders:  # a folder that was walked: what is below it is elsewhere now
            self._forget()

    def unlink(self, path: str) -> None:
        ((folder, name),) = self._at(path)
        os.unlink(name, dir_fd=folder)
        self._changed(path)

    def remove_directory(self, path: str) -> None:
        ((folder, name),) = self._at(path)
        os.rmdir(name, dir_fd=folder)
        self._forget()

    def replace(self, path: str, content: bytes, *, after_all: bool = False) -> None:
        parent, name = _split(path)
        # Walked, not resolved: a link that leads nowhere inside of the root must not be followed out of it.
        place = os.path.join(self.folder, self._walk(parent, LINKS_MAX)[1], name)
        flush = (lambda _new: self._flush()) if after_all else None
        atomic_replace(place, content, flush=flush)
        self._forget()

    def sync(self) -> None:
        self._forget()
        self._flush()

    def _flush(self) -> None:
        for descriptor in self._flushed:
            flush_file_system(descriptor)

    def lock(self, path: str) -> Held:
        descriptor = self._open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return Held(descriptor)

    # Walking.

    def _open(self, path: str, flags: int) -> int:
        ((folder, name),) = self._at(path)
        return os.open(name, flags | _NO_LINK, 0o600, dir_fd=folder)

    def _at(self, *paths: str) -> tuple[tuple[int, str], ...]:
        """For each of an act's paths: the descriptor of the folder that it is in, and its name there.

        They are valid until this is called again: so an act calls it once, for all of its paths.
        """
        if len(self._folders) > FOLDERS_KEPT_MAX:
            self._forget()
        split = [_split(path) for path in paths]
        return tuple((self._walk(parent, LINKS_MAX)[0], name or ".") for parent, name in split)

    def _walk(self, path: str, links_left: int) -> tuple[int, str]:
        """The descriptor of a folder, which stays ours, and its canonical path."""
        if not path:
            return self._root, ""
        found = self._folders.get(path)
        if found is None:
            parent, _, name = path.rpartition("/")
            folder, canonical = self._walk(parent, links_left)
            found = self._step(folder, _join(canonical, name), name, links_left)
            known = self._folders.setdefault(path, found)
            if known is not found and known[0] != found[0]:
                os.close(found[0])
                found = known
        return found

    def _step(self, folder: int, canonical: str, name: str, links_left: int) -> tuple[int, str]:
        try:
            return os.open(name, _FOLDER_FLAGS, dir_fd=folder), canonical
        except NotADirectoryError:
            target = _read_folder_link(name, folder)
        if links_left <= 0:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), canonical)
        self._links_walked.add(canonical)
        here = "" if target.startswith("/") else canonical.rpartition("/")[0]
        for part in target.split("/"):
            if part == "..":
                here = here.rpartition("/")[0]
            elif part not in ("", "."):
                here = self._walk(_join(here, part), links_left - 1)[1]
        return os.dup(self._walk(here, links_left - 1)[0]), here

    def _canonical(self, path: str) -> str:
        """As `_walk` says it; below a folder that is not there, names stay as they are."""
        here = canonical = ""
        for name in path.split("/") if path else ():
            here = _join(here, name)
            try:
                canonical = self._walk(here, LINKS_MAX)[1]
            except _ABSENT:
                return _join(canonical, path[len(here) - len(name) :])
        return canonical

    def _changed(self, *paths: str) -> None:
        """What is at these paths is another thing now: no folder may be remembered by way of it."""
        for path in paths:
            if self._links_walked and self.resolve(path) in self._links_walked:
                self._forget()

    def _forget(self) -> None:
        for descriptor, _canonical in self._folders.values():
            os.close(descriptor)
        self._folders.clear()
        self._links_walked.clear()


def _read_folder_link(name: str, folder: int) -> str:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _split(path: str) -> tuple[str, str]:
    """The folder and the name; both are empty for the root itself."""
    if not path:
        return "", ""
    names = path.split("/")
    if not {"", ".", ".."}.isdisjoint(names):
        raise OSError(errno.EINVAL, "not a canonical path", path)
    if len(names) > NAMES_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    parent, _, name = path.rpartition("/")
    return parent, name
