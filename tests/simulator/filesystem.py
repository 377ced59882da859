"""A simulated file system with the production interface (``packagemanager.tree.Tree``).

What a power cut leaves, and what must be survived; names in brackets are rows of the fault model.

* ``cut_at`` (S1): at this operation (they are counted from 0; looking is none) the power fails: `PowerCut`. The
  operation itself is one more thing that may be there or not. With a list as ``watch`` one run without any cut leaves
  there what a cut at each of its operations would have found.
* Everything since the last `sync` is a list of *changes*: a new name, a second name, a rename, a name that goes, a
  file's bytes, an owner, a mode, a time. Each survives or does not, by itself (S2, S3): `survivors` picks.
  - A change whose ground did not survive is lost with it: a name in a folder that did not, a second folder of a name
    that is still taken, the removal of a folder that something is left in.
  - A rename is one change: both names, or none. Into a folder that did not survive it did not happen. In a *torn* one
    the new name is there and the old one still is.
  - The bytes of a new file that did not survive are nothing, a piece of them, or zeroes (S4). Whole files are never
    overwritten in place, so there are no old ones.
* What `sync` returned for is durable. ``replace`` is what ``payload.durable.atomic_replace`` does, in five operations:
  its two flushes make durable the file's bytes (``after_all``: everything), and the names of that one folder with what
  they rest on.
* ``errors`` (S7, S8, S9, S10, S11): operation number → errno, once; ``error_from``: from that operation on, for ever.
  ``read_errors`` does the same for looks. A failed operation did nothing. A failed `sync` may be called again.
* ``blocks_max``, ``inodes_max`` (S10): names and folders take blocks as ext4's of 4 KiB do at their worst, half full;
  they never shrink. What is freed can be used after the next `sync`.

It does not play time, other processes (beside `edit`), or times and sizes of folders.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from packagemanager.entry import DIRECTORY, FILE, LINK
from packagemanager.tree import NAMES_MAX, Stat
from tests.simulator.disk import PowerCut
from tests.simulator.file_changes import (
    ROOT,
    Change,
    Data,
    Enter,
    Leave,
    Mode,
    Move,
    Node,
    Owner,
    State,
    Time,
    closure,
    survivors,
)

__all__ = ["BLOCK_BYTES", "FileSystem", "Moment", "after_cut", "survivors"]


class Moment(NamedTuple):
    """What a power cut at one operation finds: what was durable, and what may have survived. To be looked at only."""

    kind: str
    base: State
    pending: list[Change]


LINKS_MAX = 40
BLOCK_BYTES = 4096
DEVICE = 7
NEVER = 1 << 60


class FileSystem:
    """``base`` is what is durable, ``now`` what a running system sees, ``pending`` the changes between the two."""

    def __init__(self, base: State | None = None) -> None:
        self.base = base or State()
        self.now = self.base.copy()
        self.pending: list[Change] = []
        self.operations = 0
        self.looks = 0
        self.flushes = 0
        self.watch: list[Moment] | None = None
        self.cut_at = NEVER
        self.errors: dict[int, int] = {}
        self.error_from = (NEVER, 0)
        self.read_errors: dict[int, int] = {}
        self.blocks_max = self.inodes_max = NEVER
        self.labelled: set[str] = set()
        self._next_inode = max(self.base.nodes) + 1
        self._folder_blocks: dict[int, int] = {}
        self._locks: set[str] = set()
        self._canonicals: dict[str, str] = {"": ""}

    def restarted(self, left: Iterable[Change] | None = None) -> FileSystem:
        """The power is back: what was durable, and of the rest what is ``left`` (None: all). No locks, no faults."""
        return after_cut(self.base, self.pending if left is None else left)

    # Looking.

    def resolve(self, path: str) -> str:
        if path.count("/") >= NAMES_MAX:
            _fail(errno.ENAMETOOLONG, path)
        parent, _, name = path.rpartition("/")
        return f"{self._canonical(parent)}/{name}".lstrip("/")

    def look(self, path: str) -> Stat | None:
        self._look()
        inode = self._find(path)
        if inode is None:
            return None
        node = self.now.nodes[inode]
        return Stat(node.kind, node.mode, node.uid, node.gid, len(node.content), node.mtime, (DEVICE, inode))

    def read_link(self, path: str) -> str:
        self._look()
        return os.fsdecode(self._node(path, LINK).content)

    def list(self, path: str) -> list[str]:
        self._look()
        return sorted(self.now.folders[self._folder(path)])

    def open(self, path: str) -> io.BytesIO:
        self._look()
        return io.BytesIO(self._node(path, FILE).content)

    def is_plain(self, path: str) -> bool:
        return path not in self.labelled

    def ahead(self, path: str) -> None:
        pass

    def free(self) -> tuple[int, int]:
        blocks, inodes = self._used()
        return (self.blocks_max - blocks) * BLOCK_BYTES, self.inodes_max - inodes

    # Changing.

    def write(self, path: str, content: Iterable[bytes]) -> None:
        inode = self._create(path, Node(FILE))
        for chunk in content:
            whole = self.now.nodes[inode].content + chunk
            self._change("data", Data(inode, whole), blocks=-(-len(chunk) // BLOCK_BYTES))

    def set_attributes(self, path: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        inode = self._require(path)
        self._change("owner", Owner(inode, uid, gid))
        if self.now.nodes[inode].kind != LINK:
            self._change("mode", Mode(inode, mode))
        self._change("time", Time(inode, mtime))

    def make_directory(self, path: str) -> None:
        self._create(path, Node(DIRECTORY, 0o700))

    def make_link(self, path: str, target: str) -> None:
        self._create(path, Node(LINK, 0o777, content=os.fsencode(target)))

    def hard_link(self, old: str, new: str) -> None:
        inode = self._require(old)
        if inode in self.now.folders:
            _fail(errno.EPERM, old)
        folder, name = self._free_name(new)
        self._change("link", Enter(inode, folder, name))

    def rename(self, old: str, new: str) -> None:
        inode = self._require(old)
        folder, name = self._place(old)
        to_folder, to_name = self._place(new)
        there = self.now.folders[to_folder].get(to_name)
        if there in self.now.folders:
            _fail(errno.EISDIR, new)
        if there == inode:
            return  # two names of one file: rename(2) does nothing
        self._change("rename", Move(inode, folder, name, to_folder, to_name))

    def unlink(self, path: str) -> None:
        inode = self._require(path)
        if inode in self.now.folders:
            _fail(errno.EISDIR, path)
        self._change("unlink", Leave(inode, *self._place(path)))

    def remove_directory(self, path: str) -> None:
        inode = self._require(path)
        if inode not in self.now.folders:
            _fail(errno.ENOTDIR, path)
        if self.now.folders[inode]:
            _fail(errno.ENOTEMPTY, path)
        self._change("rmdir", Leave(inode, *self._place(path)))

    def replace(self, path: str, content: bytes, *, after_all: bool = False) -> None:
        parent, _, name = path.rpartition("/")
        temporary = f"{parent}/.{name}.new".lstrip("/")
        folder = self._place(path)[0]
        inode = self._find(temporary)
        if inode is None:
            inode = self._create(temporary, Node(FILE, 0o644))
        try:
            self._change("data", Data(inode, content), blocks=1)
            if after_all:
                self.sync()
            else:
                self._flush("flush file", lambda: self._settle(lambda one: not one.names and one.inode == inode))
            self.rename(temporary, path)
        except OSError:
            self.unlink(temporary)
            raise
        self._flush("flush folder", lambda: self._settle(lambda one: folder in dict(one.names)))

    def sync(self) -> None:
        self._flush("sync", self._settle_all)

    def lock(self, path: str) -> _Held:
        if self._find(path) is None:
            self._create(path, Node(FILE))
        if path in self._locks:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._locks.add(path)
        return _Held(self._locks, path)

    # The model.

    def _change(self, kind: str, change: Change, blocks: int = 0) -> None:
        self._begin(kind)
        self._require_room(change, blocks)
        if any(self._is_a_way(number) for number in (change.inode, self._at(change.names))):
            self._canonicals.clear()
        change.apply(self.now)
        self.pending.append(change)
        self._end(kind)

    def _flush(self, kind: str, settle: Callable[[], None]) -> None:
        self._begin(kind)
        self._end(kind)
        self.flushes += 1
        # Others may hold what was durable until now.
        self.base = self.base.copy()
        settle()

    def _begin(self, kind: str) -> None:
        number = self.operations
        self.operations += 1
        first, for_ever = self.error_from
        if number >= first:
            _fail(for_ever, kind)
        if number in self.errors:
            _fail(self.errors[number], kind)

    def _end(self, kind: str) -> None:
        if self.watch is not None:
            self.watch.append(Moment(kind, self.base, list(self.pending)))
        if self.operations > self.cut_at:
            raise PowerCut

    def _look(self) -> None:
        self.looks += 1
        if self.looks in self.read_errors:
            _fail(self.read_errors[self.looks], "look")

    def _settle_all(self) -> None:
        self.base = self.now.copy()
        self.pending.clear()

    def _settle(self, wanted: Callable[[Change], bool]) -> None:
        places = closure(self.pending, {place for place, one in enumerate(self.pending) if wanted(one)})
        for place in places:
            self.pending[place].apply(self.base)
        self.pending = [one for place, one in enumerate(self.pending) if place not in set(places)]

    def _create(self, path: str, node: Node) -> int:
        folder, name = self._free_name(path)
        inode = self._next_inode
        self.now.nodes[inode] = self.base.nodes[inode] = node
        self._change(node.kind, Enter(inode, folder, name), blocks=node.kind == DIRECTORY)
        self._next_inode += 1
        return inode

    # Room.

    def _require_room(self, change: Change, blocks: int) -> None:
        if self.blocks_max == self.inodes_max == NEVER:
            return
        used_blocks, used_inodes = self._used()
        grown = sum(self._growth(folder, name) for folder, name in change.names[-1:] if not isinstance(change, Leave))
        if grown + blocks and used_blocks + grown + blocks > self.blocks_max:
            _fail(errno.ENOSPC, "blocks")
        if isinstance(change, Enter) and used_inodes + (change.inode == self._next_inode) > self.inodes_max:
            _fail(errno.ENOSPC, "inodes")

    def _growth(self, folder: int, name: str) -> int:
        names = {*self.now.folders[folder], name}
        blocks = -(-sum(len(one) + 12 for one in names) // (BLOCK_BYTES // 2))
        growth = max(0, blocks - self._folder_blocks.get(folder, 1))
        self._folder_blocks[folder] = max(blocks, self._folder_blocks.get(folder, 1))
        return growth

    def _used(self) -> tuple[int, int]:
        """Blocks and inodes of everything that has a name, or had one at the last sync."""
        named = {inode for state in (self.base, self.now) for _path, inode in state.reachable()}
        blocks = sum(-(-len(self.now.nodes[inode].content) // BLOCK_BYTES) for inode in named)
        return blocks + sum(self._folder_blocks.get(inode, 1) for inode in named if inode in self.now.folders), len(
            named
        )

    # Walking.

    def _canonical(self, path: str) -> str:
        found = self._canonicals.get(path)
        if found is None:
            found = self._canonicals[path] = self._walk(path)
        return found

    def _is_a_way(self, inode: int | None) -> bool:
        return inode is not None and self.now.nodes[inode].kind != FILE

    def _at(self, names: tuple[tuple[int, str], ...]) -> int | None:
        """The inode at the last of these names."""
        return self.now.folders[names[-1][0]].get(names[-1][1]) if names else None

    def _walk(self, path: str) -> str:
        here: tuple[str, ...] = ()
        for part in filter(None, path.split("/")):
            here = self._entered((*here, part), LINKS_MAX)
        return "/".join(here)

    def _entered(self, place: tuple[str, ...], links_left: int) -> tuple[str, ...]:
        """The folder that ``place`` leads to; ``place`` itself where it is no link, or no folder is where it leads."""
        inode = self._literal(place)
        if inode is None or self.now.nodes[inode].kind != LINK:
            return place
        if not links_left:
            _fail(errno.ELOOP, "/".join(place))
        target = os.fsdecode(self.now.nodes[inode].content)
        here = () if target.startswith("/") else place[:-1]
        for part in target.split("/"):
            if part not in ("", "."):
                here = here[:-1] if part == ".." else self._entered((*here, part), links_left - 1)
        return here if self._literal(here) in self.now.folders else place

    def _literal(self, parts: Iterable[str]) -> int | None:
        inode: int | None = ROOT
        for part in parts:
            inode = self.now.folders.get(inode or 0, {}).get(part)
        return inode

    def _find(self, path: str) -> int | None:
        return self._literal(self.resolve(path).split("/")) if path else ROOT

    def _require(self, path: str) -> int:
        inode = self._find(path)
        return inode if inode is not None else _fail(errno.ENOENT, path)

    def _folder(self, path: str) -> int:
        inode = self._require(path) if path else ROOT
        return inode if inode in self.now.folders else _fail(errno.ENOTDIR, path)

    def _place(self, path: str) -> tuple[int, str]:
        parent, _, name = self.resolve(path).rpartition("/")
        return self._folder(parent), name

    def _free_name(self, path: str) -> tuple[int, str]:
        folder, name = self._place(path)
        if name in self.now.folders[folder]:
            _fail(errno.EEXIST, path)
        return folder, name

    def _node(self, path: str, kind: str) -> Node:
        node = self.now.nodes[self._require(path)]
        return node if node.kind == kind else _fail(errno.EINVAL, path)


class _Held(NamedTuple):
    locks: set[str]
    path: str

    def close(self) -> None:
        self.locks.discard(self.path)


def _fail(number: int, what: str) -> NoReturn:
    raise OSError(number, os.strerror(number), what)


def after_cut(base: State, left: Iterable[Change]) -> FileSystem:
    state = base.copy()
    for change in left:
        change.apply(state)
    return FileSystem(state)
