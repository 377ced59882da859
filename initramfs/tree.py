"""The image as a value: what is in it, sorted by path, and why each thing is there.

A tree does not know where it will be written and reads no disk; files carry their bytes. Everything
belongs to user 0 and group 0. Modes are given, never taken from the umask. :func:`merge` is the only
way to make one: it adds the directories that are implied and refuses two different things at one path.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from initramfs.errors import BuildError

ENTRIES_MAX = 65_536
PATH_BYTES_MAX = 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
REASONS_MAX = 64
SYMLINKS_MAX = 40  # the kernel's own limit, path_resolution(7)


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    DEVICE = "device"


FORMAT_BITS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.DEVICE: stat.S_IFCHR,
}


@dataclass(frozen=True)
class Reason:
    """Why an entry is here. ``parent`` is the path that needs it; empty where the chain ends."""

    text: str
    parent: str = ""


@dataclass(frozen=True)
class Entry:
    """One path of the image, without a leading slash. ``source`` says where the bytes came from."""

    path: str
    kind: Kind
    mode: int
    reasons: tuple[Reason, ...]
    data: bytes = b""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    source: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, so that `sha256sum` on the device gives the same. Files only."""
        return hashlib.sha256(self.data).hexdigest() if self.kind is Kind.FILE else ""

    @property
    def identity(self) -> tuple[object, ...]:
        """What the archive will hold: equal for entries that may be merged."""
        return (self.path, self.kind, self.mode, self.digest, self.target, self.device)


class TreeConflict(BuildError):  # noqa: N818 - a conflict is what it is, as in a merge
    """Two sources want different things at one path, or something below a file."""


def file(path: str, data: bytes, reason: Reason, *, executable: bool = False, source: str = "") -> Entry:
    return Entry(clean(path), Kind.FILE, 0o755 if executable else 0o644, (reason,), data=data, source=source)


def directory(path: str, reason: Reason, *, mode: int = 0o755) -> Entry:
    return Entry(clean(path), Kind.DIRECTORY, mode, (reason,))


def symlink(path: str, target: str, reason: Reason, *, source: str = "") -> Entry:
    return Entry(clean(path), Kind.SYMLINK, 0o777, (reason,), target=target, source=source)


def character_device(path: str, major: int, minor: int, reason: Reason, *, mode: int = 0o600) -> Entry:
    return Entry(clean(path), Kind.DEVICE, mode, (reason,), device=(major, minor))


def clean(path: str) -> str:
    """``path`` without leading slash. Raises ``TreeConflict`` where it is empty, climbs or is too long."""
    parts = path.strip("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise TreeConflict(f"{path!r} is not a path inside an image")
    joined = "/".join(parts)
    if len(joined.encode()) > PATH_BYTES_MAX:
        raise TreeConflict(f"{joined[:60]}… is longer than {PATH_BYTES_MAX} bytes")
    return joined


def canonical(path: str, links: Mapping[str, str]) -> str:
    """``path`` with the symbolic links above it followed; a link itself stays. No leading slash.

    Raises:
        TreeConflict: more than 40 links on the way.
    """
    done: list[str] = []
    ahead = path.strip("/").split("/")
    for _follow in range(SYMLINKS_MAX):
        while len(ahead) > 1:
            done.append(ahead.pop(0))
            target = links.get("/".join(done))
            if target is not None:
                break
        else:
            return "/".join((*done, *ahead))
        base = [] if target.startswith("/") else done[:-1]
        done, ahead = [], [*_normal(base, target), *ahead]
    raise TreeConflict(f"the symbolic links above {path} are a loop")


def _normal(base: Sequence[str], target: str) -> list[str]:
    parts = list(base)
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return parts


@dataclass(frozen=True)
class Tree:
    """Entries sorted by path: a parent always precedes what it holds."""

    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.entries}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything the archive will hold; reasons and sources do not count."""
        total = hashlib.sha256()
        for entry in self.entries:
            total.update(repr(entry.identity).encode() + b"\n")
        return total.hexdigest()


def merge(entries: Iterable[Entry]) -> Tree:
    """One tree of all ``entries``; the same thing given twice keeps both reasons.

    Raises:
        TreeConflict: two different things at one path, something below a file, or a bound exceeded.
    """
    merged: dict[str, Entry] = {}
    for entry in entries:
        for holder in (*_parents(entry), entry):
            known = merged.get(holder.path)
            merged[holder.path] = _together(known, holder) if known else holder
    if len(merged) > ENTRIES_MAX:
        raise TreeConflict(f"the image has {len(merged)} entries; at most {ENTRIES_MAX} are written")
    for entry in merged.values():
        if len(entry.data) > FILE_BYTES_MAX:
            raise TreeConflict(f"/{entry.path} has {len(entry.data)} bytes; at most {FILE_BYTES_MAX} are written")
    return Tree(tuple(merged[path] for path in sorted(merged)))


def _parents(entry: Entry) -> Iterator[Entry]:
    parts = entry.path.split("/")[:-1]
    for length in range(1, len(parts) + 1):
        yield directory("/".join(parts[:length]), Reason(f"holds {entry.path}", entry.path))


def _together(first: Entry, second: Entry) -> Entry:
    if first.kind is Kind.DIRECTORY and second.kind is Kind.DIRECTORY:
        return _same_directory(first, second)
    if first.identity != second.identity:
        raise TreeConflict(
            f"two different things want to be /{first.path}: {_described(first)} and {_described(second)}",
            "Take one of them out of the configuration.",
        )
    return replace(first, reasons=_joined(first.reasons, second.reasons))


def _same_directory(first: Entry, second: Entry) -> Entry:
    """A directory asked for by name wins over one that is only implied by what it holds."""
    implied = [entry for entry in (first, second) if entry.reasons[0].text.startswith("holds ")]
    if len(implied) == 1:
        return second if first is implied[0] else first
    if implied or first.mode == second.mode:
        return first if implied else replace(first, reasons=_joined(first.reasons, second.reasons))
    raise TreeConflict(f"/{first.path} is wanted with modes {first.mode:o} and {second.mode:o}")


def _joined(first: tuple[Reason, ...], second: tuple[Reason, ...]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(first + second))[:REASONS_MAX]


def _described(entry: Entry) -> str:
    what = f"a {entry.kind} of mode {entry.mode:o}"
    return f"{what} ({entry.source or entry.reasons[0].text})"
