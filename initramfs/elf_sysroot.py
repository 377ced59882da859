"""Paths inside a sysroot: every symlink is followed as it would be with the sysroot as ``/``.

An absolute target, or one with too many ``..``, stays inside; nothing of the host is ever reached.
The links passed on the way are handed back, because an image needs them too.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from initramfs.errors import SysrootError

SYMLINKS_MAX = 40  # the kernel's own limit, path_resolution(7)
DIRECTORY_ENTRIES_MAX = 100_000


@dataclass(frozen=True)
class Found:
    """A path that exists. ``path`` is canonical: absolute in the sysroot, and no part is a symlink.

    ``source`` is the same file as the host sees it. ``links`` are the symlinks that were followed,
    in order, each as (canonical path of the link, its target as written).
    """

    path: str
    source: Path
    mode: int
    links: tuple[tuple[str, str], ...] = ()

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Sysroot:
    """A directory tree to be read as if it were ``/``. Assumes that nobody changes it meanwhile."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SysrootError(f"the sysroot {root} is not a directory", "check sysroot.path, or name packages instead")
        self.root = root
        self._modes: dict[str, int] = {}

    def find(self, path: str) -> Found | None:
        """What ``path`` leads to, or None where nothing is.

        Raises:
            SysrootError: more than 40 symlinks on the way.
        """
        remaining = _parts(path)
        place: list[str] = []
        links: list[tuple[str, str]] = []
        mode = self._mode("/")
        while remaining:
            part = remaining.pop()
            if part == "..":
                place = place[:-1]
                continue
            here = "/" + "/".join([*place, part])
            mode = self._mode(here)
            if stat.S_ISLNK(mode):
                target = os.readlink(self.host_path(here))  # noqa: PTH115 — pathlib would tidy the text
                links.append((here, target))
                if len(links) > SYMLINKS_MAX:
                    raise SysrootError(f"{path} is a loop of symlinks in {self.root}", "repair the sysroot")
                place = [] if target.startswith("/") else place
                remaining.extend(_parts(target))
            elif mode and (not remaining or stat.S_ISDIR(mode)):
                place.append(part)
            else:
                return None
        canonical = "/" + "/".join(place)
        return Found(canonical, self.host_path(canonical), self._mode(canonical), tuple(links))

    def find_file(self, path: str) -> Found | None:
        """As :meth:`find`, for regular files only."""
        found = self.find(path)
        return found if found and found.is_file else None

    def glob(self, pattern: str) -> list[str]:
        """The paths that match ``pattern``, sorted. Wildcards stand in the last component only."""
        directory = self.find(str(PurePosixPath(pattern).parent))
        if directory is None or not directory.is_directory:
            return []
        names = sorted(entry.name for entry in os.scandir(directory.source))[:DIRECTORY_ENTRIES_MAX]
        matching = fnmatch.filter(names, PurePosixPath(pattern).name)
        return [f"{directory.path.rstrip('/')}/{name}" for name in matching]

    def files_below(self, directory: str) -> list[str]:
        """The names of the files below ``directory``, as paths relative to it, sorted; through symlinks, too.

        Raises:
            SysrootError: there are more than 100,000, or links to above make it look so.
        """
        names: list[str] = []
        found = self.find(directory)
        pending = [("", found, frozenset[str]())] if found and found.is_directory else []
        while pending:
            name, place, above = pending.pop()
            if place.is_file:
                names.append(name)
            if place.is_directory and place.path not in above:
                inside = sorted(entry.name for entry in os.scandir(place.source))
                paths = [(f"{name}/{one}".lstrip("/"), self.find(f"{place.path}/{one}")) for one in inside]
                pending += [(path, below, above | {place.path}) for path, below in paths if below]
            if len(names) + len(pending) > DIRECTORY_ENTRIES_MAX:
                hint = "name the files without wildcards, or a folder before the first one"
                raise SysrootError(f"{directory} holds more than {DIRECTORY_ENTRIES_MAX} files", hint)
        return sorted(names)

    def host_path(self, path: str) -> Path:
        """Where the host sees ``path``, whose directories must be canonical. Follows nothing."""
        return self.root / path.lstrip("/")

    def _mode(self, path: str) -> int:
        """The mode bits of a path whose directories are canonical; 0 where nothing is."""
        if path not in self._modes:
            try:
                self._modes[path] = self.host_path(path).lstat().st_mode if path != "/" else stat.S_IFDIR
            except (FileNotFoundError, NotADirectoryError, ValueError):
                self._modes[path] = 0
            except OSError as error:
                raise SysrootError(f"{path} cannot be looked at: {error.strerror}", "repair the sysroot") from error
        return self._modes[path]


def _parts(path: str) -> list[str]:
    """The components that mean something, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
