"""A tree that is a folder, as plainly as can be: for tests of what runs programs below one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from packagemanager import entry
from packagemanager.tree import Stat


class FolderTree:
    """Nothing is durable, and links are followed wherever they lead."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resolve(self, path: str) -> str:
        return path

    def look(self, path: str) -> Stat | None:
        try:
            found = (self.root / path).lstat()
        except FileNotFoundError:
            return None
        kind = entry.DIRECTORY if stat.S_ISDIR(found.st_mode) else entry.FILE
        inode = (found.st_dev, found.st_ino)
        return Stat(kind, found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_size, int(found.st_mtime), inode)

    def read_link(self, path: str) -> str:
        return str((self.root / path).readlink())

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(self.root / path))  # noqa: PTH208

    def open(self, path: str) -> BinaryIO:
        return (self.root / path).open("rb")

    def write(self, path: str, content: Iterable[bytes]) -> None:
        with (self.root / path).open("xb") as file:
            file.writelines(content)

    def set_attributes(self, path: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        (self.root / path).chmod(mode)

    def make_directory(self, path: str) -> None:
        (self.root / path).mkdir()

    def make_link(self, path: str, target: str) -> None:
        (self.root / path).symlink_to(target)

    def hard_link(self, old: str, new: str) -> None:
        (self.root / new).hardlink_to(self.root / old)

    def rename(self, old: str, new: str) -> None:
        (self.root / old).rename(self.root / new)

    def unlink(self, path: str) -> None:
        (self.root / path).unlink()

    def remove_directory(self, path: str) -> None:
        (self.root / path).rmdir()

    def replace(self, path: str, content: bytes) -> None:
        (self.root / path).write_bytes(content)

    def sync(self) -> None:
        pass

    def free(self) -> tuple[int, int]:
        return (1 << 40, 1 << 20)
