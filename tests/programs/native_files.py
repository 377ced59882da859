"""What is in a real tree, in the form in which the simulated file system says it; and what others do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from packagemanager import places
from packagemanager.entry import DIRECTORY, FILE, LINK

if TYPE_CHECKING:
    from pathlib import Path

    from packagemanager.root import Root
    from tests.simulator.package_sweep import Snapshot

NOT_COMPARED = ("lost+found", places.LOCK, places.TRANSACTION)


def native_snapshot(root: Root) -> Snapshot:
    """As `tests.simulator.package_sweep.snapshot` gives it of a simulated file system."""
    first: dict[tuple[int, int], str] = {}
    found: Snapshot = {}
    for path in sorted(_paths(root, "")):
        stat = root.look(path)
        assert stat is not None
        content = b""
        if stat.kind == FILE:
            with root.open(path) as reader:
                content = reader.read(-1)
        elif stat.kind == LINK:
            content = os.fsencode(root.read_link(path))
        is_folder = stat.kind == DIRECTORY
        name = path if is_folder else first.setdefault(stat.inode, path)
        found[path] = (stat.kind, stat.mode, stat.uid, stat.gid, 0 if is_folder else stat.mtime, content, name)
    return found


def _paths(root: Root, folder: str) -> Iterator[str]:
    for name in root.list(folder):
        path = f"{folder}/{name}" if folder else name
        if path not in NOT_COMPARED:
            yield path
            stat = root.look(path)
            if stat is not None and stat.kind == DIRECTORY:
                yield from _paths(root, path)


def fill(folder: Path) -> int:
    """Take all inodes, then all blocks, whoever they are kept for. Returns: how many were to be had, of both."""
    count = 0
    with suppress(OSError):
        folder.mkdir()
        while True:
            (folder / str(count)).touch()
            count += 1
    for size in (1 << 16, 1 << 10):
        with suppress(OSError), (folder / "0").open("ab", buffering=0) as file:
            while file.write(b"x" * size) == size:
                os.fsync(file.fileno())
                count += 1
    return count


def without(found: Snapshot, *folders: str) -> Snapshot:
    return {path: what for path, what in found.items() if path.split("/")[0] not in folders}
