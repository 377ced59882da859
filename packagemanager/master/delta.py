"""Making a delta part: a new package against older versions of it. Bytes: `packagemanager.recipe`.

Files that are in every old version at the same path with the same content cost nothing. The others, one after the
other, are cut into groups, and every group is compressed once for each old version, with that version's counterparts
of its files as a dictionary: the file of the same path, else of the same or nearly the same name. Large files are cut;
a piece's counterpart is what lies at the same relative place of the old file, with room around it. Conffiles are
brought whole: on a device they may have been changed.

The same packages give the same bytes (with the same version of the zstd library).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import zstandard

from packagemanager.entry import Entry
from packagemanager.master.unpacked import Unpacked
from packagemanager.recipe import (
    GROUP_BYTES_MAX,
    PIECES_MAX,
    PLAIN_LENGTH,
    RECIPE_BYTES_MAX,
    REFERENCE_BYTES_MAX,
    STORED_BYTES_MAX,
    Base,
    Frame,
    OldFile,
    Recipe,
    encode_recipe,
)

LEVEL = 19
RECIPE_LEVEL = 19
WINDOW_LOG_MIN, WINDOW_LOG_MAX = 10, 27
AROUND_BYTES = 1 << 20  # in front of and behind the place where the counterpart of a cut file's piece should be
# What is compressed gains nothing from its neighbours; on its own it travels once, however many packages ship it, as
# all packages of one source do with their changelog.
PACKED = (".gz", ".xz", ".zst", ".bz2", ".png", ".jpg")
ALONE_BYTES_MIN = 4096
STATIC_IDS_MAX = 100  # Debian policy 9.2.2: those below are the same on every system

# Path, offset and bytes, of files of the old version.
Pieces = tuple[tuple[str, int, int], ...]
# Takes a stored frame and says where it lies; the same bytes lie there once.
Store = Callable[[bytes], int]


@dataclass(frozen=True)
class Slice:
    """A piece of a new file."""

    entry: Entry
    start: int
    length: int


@dataclass(frozen=True)
class _Work:
    """One group for one old version, with the content that it is compressed and against what."""

    plain: bytes
    reference: bytes
    pieces: Pieces


def can_be_delta(new: Unpacked) -> bool:
    """Whether the numbers of its owners are right everywhere; others go by name, which whole packages have."""
    return all(max(entry.uid, entry.gid) < STATIC_IDS_MAX for entry in new.content.entries)


def make_recipe(new: Unpacked, olds: Sequence[Unpacked], store: Store, pool: Executor) -> Recipe:
    """How to make ``new`` from each of ``olds``; what has to travel for it is given to ``store``."""
    as_before = frozenset(path for path in new.files if _is_everywhere(new, olds, path))
    groups = list(_groups(new, as_before))
    bases = []
    for old in olds:
        frames: list[tuple[int, int, Pieces]] = []
        counterparts = _Counterparts(old)
        # Read where it is compressed: what waits for a thread is in no memory.
        packed = partial(_packed, new, old, counterparts)
        for pieces, stored in pool.map(packed, groups):
            frames.append((store(stored) if stored else 0, len(stored), pieces))
        bases.append(_base(old, frames))
    lengths = tuple(sum(one.length for one in group) for group in groups)
    control_files = {"control": new.content.control, **dict(sorted(new.content.files.items()))}
    return Recipe(control_files, new.content.entries, as_before, lengths, tuple(bases))


def packed_recipe(recipe: Recipe, shift: int) -> bytes:
    """The part as it travels. ``shift`` is added to the offsets of its frames."""
    moved = tuple(
        Base(base.old_files, tuple(Frame(one.offset + shift if one.size else 0, one.size, one.pieces)
                                   for one in base.frames))
        for base in recipe.bases
    )  # fmt: skip
    plain = encode_recipe(Recipe(recipe.control_files, recipe.entries, recipe.as_before, recipe.groups, moved))
    return PLAIN_LENGTH.pack(len(plain)) + zstandard.ZstdCompressor(level=RECIPE_LEVEL).compress(plain)


def can_be_read(packed: bytes) -> bool:
    """Whether a device takes a part of this size. Other offsets may make it somewhat larger."""
    (plain_bytes,) = PLAIN_LENGTH.unpack_from(packed)
    return plain_bytes <= RECIPE_BYTES_MAX and len(packed) <= STORED_BYTES_MAX // 2


def _is_everywhere(new: Unpacked, olds: Sequence[Unpacked], path: str) -> bool:
    conffiles = new.conffiles.union(*(old.conffiles for old in olds))
    same = all(path in old.files and old.files[path].digest == new.files[path].digest for old in olds)
    return same and path not in conffiles and new.files[path].size > 0


def _groups(new: Unpacked, as_before: frozenset[str]) -> Iterator[list[Slice]]:
    """The files that travel, in order; small ones together, compressed ones alone, large ones cut."""
    group: list[Slice] = []
    room = GROUP_BYTES_MAX
    for entry in new.files.values():
        if entry.path in as_before or entry.size == 0:
            continue
        alone = entry.size >= ALONE_BYTES_MIN and entry.path.endswith(PACKED)
        if group and (alone or entry.size > room):
            yield group
            group, room = [], GROUP_BYTES_MAX
        for start in range(0, entry.size, GROUP_BYTES_MAX):
            length = min(GROUP_BYTES_MAX, entry.size - start)
            if length > room:
                yield group
                group, room = [], GROUP_BYTES_MAX
            group.append(Slice(entry, start, length))
            room -= length
        room = 0 if alone else room
    if group:
        yield group


class _Counterparts:
    """For each new file the old one that it most probably came from."""

    def __init__(self, old: Unpacked) -> None:
        self._old = {path: entry for path, entry in old.files.items() if path not in old.conffiles and entry.size}
        self._by_name: dict[str, Entry] = {}
        self._by_stem: dict[str, Entry] = {}
        for path, entry in self._old.items():
            self._by_name.setdefault(_name(path), entry)
            self._by_stem.setdefault(_stem(path), entry)

    def of(self, path: str) -> Entry | None:
        return self._old.get(path) or self._by_name.get(_name(path)) or self._by_stem.get(_stem(path))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    """What stays of a name from version to version: libxml2.so.2.9.14 and libxml2.so.2.9.15 are the same."""
    folder, _, name = path.rpartition("/")
    return f"{folder.strip('0123456789.-')}/{''.join(one for one in name if not one.isdigit())}"


def _work(new: Unpacked, old: Unpacked, group: list[Slice], counterparts: _Counterparts) -> _Work:
    pieces: list[tuple[str, int, int]] = []
    room = REFERENCE_BYTES_MAX
    for one in group:
        counterpart = counterparts.of(one.entry.path)
        if counterpart is None or room == 0 or len(pieces) == PIECES_MAX:
            continue
        start, length = _window(one, counterpart.size, room)
        pieces.append((counterpart.path, start, length))
        room -= length
    merged = tuple(dict.fromkeys(pieces))
    plain = b"".join(new.read(one.entry.path, one.start, one.length) for one in group)
    return _Work(plain, b"".join(old.read(*piece) for piece in merged), merged)


def _window(one: Slice, old_size: int, room: int) -> tuple[int, int]:
    """Where in a counterpart of ``old_size`` bytes to look for the content of a slice: offset and length."""
    if old_size <= min(room, one.entry.size + AROUND_BYTES) and one.entry.size == one.length:
        return 0, old_size
    begin = one.start * old_size // one.entry.size
    end = (one.start + one.length) * old_size // one.entry.size
    begin, end = max(0, begin - AROUND_BYTES), min(old_size, end + AROUND_BYTES)
    return begin, min(end - begin, room)


def _packed(new: Unpacked, old: Unpacked, counterparts: _Counterparts, group: list[Slice]) -> tuple[Pieces, bytes]:
    """What one group is made against, and the frame; nothing where the pieces are the group."""
    work = _work(new, old, group, counterparts)
    if work.reference == work.plain:
        return work.pieces, b""
    total = len(work.reference) + len(work.plain)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(work.plain),
        dict_size=len(work.reference),
        window_log=max(WINDOW_LOG_MIN, min(WINDOW_LOG_MAX, total.bit_length())),
        write_dict_id=False,
    )
    dictionary = zstandard.ZstdCompressionDict(work.reference, zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(
        dict_data=dictionary if work.reference else None, compression_params=parameters
    )
    return work.pieces, compressor.compress(work.plain)


def _base(old: Unpacked, frames: list[tuple[int, int, Pieces]]) -> Base:
    """Old files by number, each once."""
    numbers: dict[str, int] = {}
    made = []
    for offset, size, pieces in frames:
        numbered = [(numbers.setdefault(path, len(numbers)), start, length) for path, start, length in pieces]
        made.append(Frame(offset, size, tuple(numbered)))
    old_files = [OldFile(path, old.files[path].size, old.files[path].digest) for path in numbers]
    return Base(tuple(old_files), tuple(made))
