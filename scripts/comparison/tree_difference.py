"""Two roots, entry by entry: what is there, its mode, owner, links, content, attributes and time. Reads only."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
PYC_HEADER_BYTES = 16
# "names" are those of one inode, whatever its number; "attributes" the extended ones.
ASPECTS = ("kind", "mode", "owner", "content", "names", "attributes", "time")


@dataclass(frozen=True, order=True)
class Difference:
    """``aspect`` is "absent", one of ASPECTS, or a field of the database; ``dpkg`` and ``ours`` are what there is."""

    path: str
    aspect: str
    dpkg: str = ""
    ours: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.aspect}: {self.dpkg or '-'} | {self.ours or '-'}"


def differences(dpkg: Path, ours: Path) -> list[Difference]:
    """Everything that is not the same in two folders. The time of a folder is that of its last change: left out."""
    theirs, mine = dict(entries(dpkg)), dict(entries(ours))
    found = []
    for path in sorted(theirs.keys() | mine.keys()):
        left, right = theirs.get(path), mine.get(path)
        if left is None or right is None:
            found.append(Difference(path, "absent", left["kind"] if left else "", right["kind"] if right else ""))
            continue
        found += [Difference(path, one, left[one], right[one]) for one in ASPECTS if left[one] != right[one]]
    return found


def entries(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """By relative path what can be said of everything below ``root``, which may be large: content as a digest."""
    names: dict[tuple[int, int], list[str]] = {}
    found: dict[str, tuple[dict[str, str], tuple[int, int]]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            relative = str(path.relative_to(root))
            inode = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode):
                names.setdefault(inode, []).append(relative)
            found[relative] = _facts(path, status), inode
    for relative, (facts, inode) in found.items():
        yield relative, facts | {"names": " ".join(sorted(names.get(inode, [])))}


def _facts(path: Path, status: os.stat_result) -> dict[str, str]:
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "other")
    attributes = (f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in _attribute_names(path))
    return {
        "kind": kind,
        "mode": "" if kind == "link" else f"{stat.S_IMODE(status.st_mode):o}",
        "owner": f"{status.st_uid}:{status.st_gid}",
        "content": CONTENTS[kind](path),
        "attributes": " ".join(attributes),
        "time": "" if kind == "folder" else str(int(status.st_mtime)),
    }


def _attribute_names(path: Path) -> list[str]:
    """None where the file system knows no attributes, as a squashfs that has none."""
    try:
        return sorted(os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def _digest(path: Path) -> str:
    """Of compiled Python without its header, which holds the time of the source."""
    with path.open("rb") as file:
        if path.suffix == ".pyc":
            file.seek(PYC_HEADER_BYTES)
            return hashlib.blake2b(file.read()).hexdigest()[:16]
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


CONTENTS: dict[str, Callable[[Path], str]] = {
    "file": _digest,
    "link": lambda path: str(path.readlink()),
    "folder": lambda path: "",
    "other": lambda path: str(path.lstat().st_rdev),
}
