"""How large an image is: as it was built, without its kernel modules, and with the common set of them.

Every image is taken apart and put together again in the same way (sorted, no times, inodes numbered from 1)
and packed by the same compressors, so that neither a builder's settings nor a clock decide. What differs
is what is in it. xz has its default preset here: the extreme one takes minutes for 1 %.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from initramfs.compression import compress, settings
from initramfs.newc import TRAILER, Member
from payload.durable import atomic_replace

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": partial(compress, name="zstd"),
    "xz": partial(lzma.compress, check=lzma.CHECK_CRC32),
}
PROCESSES_MAX = 2
CACHE_ENTRIES_MAX = 512
MODULE_FOLDER = re.compile(r"^(usr/)?lib/modules/")


def parts(members: Sequence[Member], common_modules: Sequence[Member]) -> dict[str, list[Member]]:
    """The three versions of an image by the ending of their metrics' names."""
    without = [member for member in members if not MODULE_FOLDER.match(member.path)]
    return {"": list(members), "_without_modules": without, "_with_common_modules": [*without, *common_modules]}


def clean(members: Iterable[Member]) -> list[Member]:
    """Paths without a leading dot or slash; of several entries at one path the last one counts, as for the kernel."""
    by_path: dict[str, Member] = {}
    for member in members:
        path = member.path.removeprefix(".").lstrip("/")
        if path:
            by_path[path] = replace(member, path=path)
    return list(by_path.values())


def is_module(member: Member) -> bool:
    return bool(MODULE_FOLDER.match(member.path)) and re.search(r"\.ko(\.\w+)?$", member.path) is not None


def archive(members: Iterable[Member]) -> bytes:
    """A newc archive of ``members`` that depends on paths, modes and contents alone. To be measured, not booted.

    The content of a hard link is kept once, as builders do it.
    """
    chunks = []
    numbers: dict[int, int] = {}
    for count, member in enumerate(sorted(members, key=lambda member: member.path), start=1):
        linked = stat.S_ISREG(member.mode) and member.links > 1
        number = numbers.setdefault(member.inode, count) if linked else count
        chunks.append(_entry(member, number))
    chunks.append(_entry(Member(TRAILER, 0, 0, 0, 1, 0, 0, (0, 0), b""), 0))
    return b"".join(chunks)


def _entry(member: Member, number: int) -> bytes:
    name = member.path.encode("utf-8", "surrogateescape") + b"\0"
    fields = (number, member.mode, 0, 0, member.links, 0, len(member.data), 0, 0, *member.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _padded(header) + _padded(member.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class PackedSizes:
    """Compressed sizes of archives, kept by digest: minutes of xz is not repeated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, int] = dict(json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            self._known = {}

    def of(self, wanted: Mapping[tuple[str, str], bytes]) -> dict[tuple[str, str], int]:
        """Sizes by (name of an archive, name of a compression), two at a time."""
        keys = {name: _key(data, name[1]) for name, data in wanted.items()}
        unknown = {key: (wanted[name], name[1]) for name, key in keys.items() if key not in self._known}
        with ProcessPoolExecutor(PROCESSES_MAX) as pool:
            self._known |= dict(zip(unknown, pool.map(_packed_size, unknown.values()), strict=True))
        if unknown:
            self._keep()
        return {name: self._known[key] for name, key in keys.items()}

    def _keep(self) -> None:
        newest = dict(list(self._known.items())[-CACHE_ENTRIES_MAX:])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        atomic_replace(self._path, json.dumps(newest, indent=1).encode())


def _key(data: bytes, compression: str) -> str:
    """Names a result by all that decides it: the content, and how it is compressed."""
    how = settings(compression) if compression == "zstd" else f"{compression} preset {lzma.PRESET_DEFAULT}"
    return f"{hashlib.blake2b(data, digest_size=16).hexdigest()} {how}"


def _packed_size(work: tuple[bytes, str]) -> int:
    data, compression = work
    return len(PACKERS[compression](data))
