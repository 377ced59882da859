"""The fuzz targets of a transaction: its index, and the recipe of a delta, which is then carried out.

Both are covered by signed digests; here any bytes are interpreted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

from packagemanager.delta import Delta
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Entry
from packagemanager.errors import TransactionError
from packagemanager.recipe import (
    GROUP_BYTES_MAX,
    REFERENCE_BYTES_MAX,
    Base,
    Frame,
    OldFile,
    Recipe,
    decode_recipe,
    encode_recipe,
)
from packagemanager.transaction_index import DEB, DELTA, START, Index, Part, decode_index, encode_index
from packagemanager.tree import Stat
from payload.codec import zstd_decompress
from payload.digest import digest
from tests.fuzz.bundle_mutations import mutate_bytes, mutate_json
from tests.fuzz.target import Target
from tests.unit.payload_samples import BytesReader

CONTENT_BYTES = 1 << 20
OLD = b"an old file " * 50
BASES = 2
MADE = {"packages": 0}  # how often all files of a fuzzed recipe came out


def check_index(data: bytes) -> None:
    try:
        index = decode_index(data, CONTENT_BYTES)
    except TransactionError:
        return
    assert encode_index(index)[START.size :] == data
    assert sorted(index.unpack_keys()) == sorted(index.wanted)
    for part in index.parts:
        assert part.key in index.wanted and START.size <= part.offset <= part.offset + part.size <= CONTENT_BYTES


class Old:
    """A root in which every file is the same one."""

    def look(self, path: str) -> Stat | None:
        assert not {"", ".", ".."}.intersection(path.split("/")) and "\0" not in path
        return Stat(FILE, 0o644, 0, 0, len(OLD), 0, (0, 0))

    def open(self, path: str) -> io.BytesIO:
        assert not {"", ".", ".."}.intersection(path.split("/")) and "\0" not in path
        return io.BytesIO(OLD)


def check_recipe(data: bytes) -> None:
    """A recipe; then the package is made by it, of which only files with their own digests may come out."""
    try:
        recipe = decode_recipe(data, BASES, CONTENT_BYTES)
    except TransactionError:
        return
    assert encode_recipe(recipe) == data
    assert all(0 < length <= GROUP_BYTES_MAX for length in recipe.groups)
    for base in recipe.bases:
        assert all(sum(size for _, _, size in frame.pieces) <= REFERENCE_BYTES_MAX for frame in base.frames)
        made = Delta.__new__(Delta)
        made._content, made._tree, made._recipe, made._base = BytesReader(OLD), Old(), recipe, base
        made.ranges()
        made.changed_file()
        with suppress(TransactionError):
            made.unpack(take)
            MADE["packages"] += 1


def take(entry: Entry, chunks: Iterator[bytes]) -> None:
    whole = b"".join(chunks)
    assert digest(whole) == entry.digest


def check_part(data: bytes) -> None:
    """A part of a transaction whose digest is right, as `Delta` opens it."""
    part = Part("sample:amd64", DELTA, 0, len(data), digest(data), ("1", "2"))
    with suppress(TransactionError):
        Delta(BytesReader(data), part, 1, Old()).control()


def index_seeds() -> list[bytes]:
    wanted = {"a:amd64": "1.0-1", "b:all": "2:1~rc1", "c:amd64": "1"}
    parts = (
        Part("a:amd64", DELTA, 4096, 100, bytes(32), ("0.9", "0.8")),
        Part("a:amd64", DEB, 8192, 1000, bytes(32)),
        Part("c:amd64", DEB, 9192, 1000, bytes(32)),
    )
    full = Index("amd64", wanted, (2, 0, 1), ("d:amd64",), (bytes(32),), parts, expendable=("d",), purge=True)
    return [encode_index(one)[START.size :] for one in (full, Index("amd64", {}, (), (), (), ()))]


def recipe_seeds() -> list[bytes]:
    new = OLD[100:] + OLD[:100]
    entries = (
        Entry("usr", DIRECTORY, mode=0o755),
        Entry("usr/new", FILE, size=len(new), digest=digest(new), mtime=-1),
        Entry("usr/same", FILE, size=len(OLD), digest=digest(OLD)),
        Entry("usr/nothing", FILE, digest=digest(b"")),
        Entry("usr/link", LINK, target="../new"),
        Entry("usr/again", HARD_LINK, target="usr/new"),
    )
    pieces = ((0, 100, len(OLD) - 100), (0, 0, 100))
    base = Base((OldFile("usr/old", len(OLD), digest(OLD)),), (Frame(0, 0, pieces),))
    stored = Base((), (Frame(0, 9, ()),))
    control_files = {"control": b"Package: sample\n", "postinst": b"#!/bin/sh\n"}
    as_before = frozenset({"usr/same"})
    return [encode_recipe(Recipe(control_files, entries, as_before, (len(new),), (base, other)))
            for other in (base, stored)]  # fmt: skip


def part_seeds() -> list[bytes]:
    import zstandard

    plain = recipe_seeds()[0]
    stored = zstandard.ZstdCompressor().compress(plain)
    assert zstd_decompress(stored, len(plain)) == plain
    return [len(plain).to_bytes(4, "little") + stored]


TARGETS = {
    "transaction-index": Target(check_index, index_seeds, mutate_json, 1_000_000),
    "transaction-recipe": Target(check_recipe, recipe_seeds, mutate_bytes, 1_000_000),
    "transaction-part": Target(check_part, part_seeds, mutate_bytes, 300_000),
}
