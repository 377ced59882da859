"""What a file system is made of, and what changes it: the small pieces that a power cut takes or leaves.

Used by ``tests/simulator/filesystem.py``, which says what the model is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from packagemanager.entry import DIRECTORY

ROOT = 1
NEVER = 1 << 60


class Node(NamedTuple):
    """An inode. ``content`` is a file's bytes, or the text that a link leads to."""

    kind: str
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    content: bytes = b""


class State:
    """Inodes by number, and the names in each folder. An inode may be there without any name."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {ROOT: Node(DIRECTORY, 0o755)}
        self.folders: dict[int, dict[str, int]] = {ROOT: {}}

    def copy(self) -> State:
        other = State.__new__(State)
        other.nodes = dict(self.nodes)
        other.folders = {number: dict(names) for number, names in self.folders.items()}
        return other

    def reachable(self) -> Iterator[tuple[str, int]]:
        """Every path below the root with its inode."""
        waiting = [("", ROOT)]
        while waiting:
            folder, number = waiting.pop()
            for name, inode in self.folders[number].items():
                path = f"{folder}/{name}" if folder else name
                yield path, inode
                if inode in self.folders:
                    waiting.append((path, inode))


class Change:
    """One piece. ``apply`` does nothing where what it needs did not survive."""

    inode: int

    def apply(self, state: State) -> None:
        raise NotImplementedError

    @property
    def names(self) -> tuple[tuple[int, str], ...]:
        """The names (folder, name) that it touches."""
        return ()


@dataclass(frozen=True)
class Data(Change):
    inode: int
    content: bytes

    def apply(self, state: State) -> None:
        state.nodes[self.inode] = state.nodes[self.inode]._replace(content=self.content)


@dataclass(frozen=True)
class Owner(Change):
    """As the kernel does it, the owner of a file takes its setuid and setgid bits away."""

    inode: int
    uid: int
    gid: int

    def apply(self, state: State) -> None:
        node = state.nodes[self.inode]
        mode = node.mode if node.kind == DIRECTORY else node.mode & ~0o6000
        state.nodes[self.inode] = node._replace(uid=self.uid, gid=self.gid, mode=mode)


@dataclass(frozen=True)
class Mode(Change):
    inode: int
    mode: int

    def apply(self, state: State) -> None:
        state.nodes[self.inode] = state.nodes[self.inode]._replace(mode=self.mode)


@dataclass(frozen=True)
class Time(Change):
    inode: int
    mtime: int

    def apply(self, state: State) -> None:
        state.nodes[self.inode] = state.nodes[self.inode]._replace(mtime=self.mtime)


@dataclass(frozen=True)
class Enter(Change):
    """A name for an inode: a new file's, link's or folder's first, or a file's second."""

    inode: int
    folder: int
    name: str

    def apply(self, state: State) -> None:
        names = state.folders.get(self.folder)
        if names is None or self.name in names:
            return
        names[self.name] = self.inode
        if state.nodes[self.inode].kind == DIRECTORY:
            state.folders[self.inode] = {}

    @property
    def names(self) -> tuple[tuple[int, str], ...]:
        return ((self.folder, self.name),)


@dataclass(frozen=True)
class Move(Change):
    """A rename. ``torn``: the new name is there, and the old one still is."""

    inode: int
    folder: int
    name: str
    to_folder: int
    to_name: str
    torn: bool = False

    def apply(self, state: State) -> None:
        target = state.folders.get(self.to_folder)
        if target is None or target.get(self.to_name) in state.folders:
            return
        target[self.to_name] = self.inode
        source = state.folders.get(self.folder, {})
        if source.get(self.name) == self.inode and not self.torn:
            del source[self.name]

    @property
    def names(self) -> tuple[tuple[int, str], ...]:
        return ((self.folder, self.name), (self.to_folder, self.to_name))


@dataclass(frozen=True)
class Leave(Change):
    """A name goes: of a file, a link, or an empty folder."""

    inode: int
    folder: int
    name: str

    def apply(self, state: State) -> None:
        names = state.folders.get(self.folder, {})
        if names.get(self.name) != self.inode or state.folders.get(self.inode):
            return
        del names[self.name]
        state.folders.pop(self.inode, None)

    @property
    def names(self) -> tuple[tuple[int, str], ...]:
        return ((self.folder, self.name),)


def closure(changes: list[Change], wanted: set[int]) -> list[int]:
    """The places in ``changes`` of those wanted and of what they need: earlier ones of the same names or folders."""
    needed: set[int] = set()
    waiting = sorted(wanted)
    while waiting:
        place = waiting.pop()
        if place in needed:
            continue
        needed.add(place)
        names = set(changes[place].names)
        folders = {folder for folder, _name in names}
        for earlier in range(place):
            other = changes[earlier]
            if names.intersection(other.names) or (isinstance(other, Enter) and other.inode in folders):
                waiting.append(earlier)
    return sorted(needed)


def survivors(pending: list[Change], seeds: int, singles_max: int = NEVER) -> Iterator[list[Change]]:
    """Lists of changes, each of which may be what is left of ``pending``.

    All, none; each single one lost (of more than ``singles_max``, that many spread over them); and ``seeds`` random
    subsets, in which renames may be torn. The same arguments give the same lists.
    """
    yield list(pending)
    if not pending:
        return
    yield []
    step = max(1, -(-len(pending) // singles_max)) if singles_max else len(pending) + 1
    for lost in range(len(pending) % step if singles_max else len(pending), len(pending), step):
        yield _without(pending, {lost}, random.Random(lost))
    for seed in range(seeds):
        chance = random.Random(seed * 7919 + len(pending))
        share = chance.random()
        yield _without(pending, {place for place in range(len(pending)) if chance.random() < share}, chance)


def _without(pending: list[Change], lost: set[int], chance: random.Random) -> list[Change]:
    left = []
    for place, change in enumerate(pending):
        if place not in lost:
            torn = isinstance(change, Move) and chance.random() < 0.1
            left.append(replace(change, torn=True) if isinstance(change, Move) and torn else change)
        elif isinstance(change, Data):
            left.append(Data(change.inode, _spoiled(change.content, chance)))
    return left


def _spoiled(content: bytes, chance: random.Random) -> bytes:
    piece = content[: chance.randrange(len(content) + 1)]
    return chance.choice((b"", piece, bytes(len(content)), piece.ljust(len(content), b"\0")))
