"""The bytes of a delta part: what cannot be is refused, whatever the signature says."""

from __future__ import annotations

import pytest

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

CONTENT_BYTES = 10_000
DIGEST = bytes(range(32))
CONTROL = {"control": b"Package: sample\n", "postinst": b"#!/bin/sh\n"}
FOLDER = Entry("usr", DIRECTORY, mode=0o755)
NEW = Entry("usr/new", FILE, size=500, digest=DIGEST, mode=0o4755, uid=1, gid=2, mtime=-3)
SAME = Entry("usr/same", FILE, size=70, digest=DIGEST)
OLD_FILE = OldFile("usr/old", 600, DIGEST)
MADE = Frame(5000, 90, ((0, 100, 500), (0, 0, 600)))
COPIED = Frame(0, 0, ((0, 50, 500),))
LINKS = (Entry("usr/link", LINK, target="../new"), Entry("usr/again", HARD_LINK, target="usr/new"))


def recipe(
    entries: tuple[Entry, ...] = (FOLDER, NEW, SAME, *LINKS),
    groups: tuple[int, ...] = (500,),
    frames: tuple[Frame, ...] = (MADE,),
    old_files: tuple[OldFile, ...] = (OLD_FILE,),
    control_files: dict[str, bytes] | None = None,
) -> bytes:
    base = Base(old_files, frames)
    given = CONTROL if control_files is None else control_files
    return encode_recipe(Recipe(given, entries, frozenset({"usr/same"}), groups, (base,)))


def test_what_was_written_is_read() -> None:
    for raw in (recipe(), recipe(frames=(COPIED,)), recipe(entries=(FOLDER,), groups=(), frames=())):
        assert encode_recipe(decode_recipe(raw, 1, CONTENT_BYTES)) == raw
    found = decode_recipe(recipe(), 1, CONTENT_BYTES)
    assert found.entries == (FOLDER, NEW, SAME, *LINKS) and found.control_files == CONTROL


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../etc/passwd", "usr/../../etc", "usr//x", "usr/./x", "usr/x/", "", ".", "..", "usr/\0x", "a\nb"],
)
def test_no_path_leads_out(path: str) -> None:
    for raw in (
        recipe(entries=(Entry(path, DIRECTORY), NEW, SAME)),
        recipe(entries=(NEW, SAME, Entry("usr/again", HARD_LINK, target=path))),
        recipe(old_files=(OldFile(path, 600, DIGEST),)),
    ):
        with pytest.raises(TransactionError):
            decode_recipe(raw, 1, CONTENT_BYTES)


LARGE = OldFile("usr/old", 2 * REFERENCE_BYTES_MAX, DIGEST)


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": (499,)},
        {"groups": (500, 1), "frames": (MADE, COPIED)},
        {"groups": (500, 0), "frames": (MADE, COPIED)},
        {"entries": (Entry("a", FILE, size=GROUP_BYTES_MAX + 1, digest=DIGEST),), "groups": (GROUP_BYTES_MAX + 1,)},
        {"frames": (Frame(5000, 90, ((0, 101, 500),)),)},
        {"frames": (Frame(5000, 90, ((1, 0, 1),)),)},
        {"frames": (Frame(CONTENT_BYTES - 89, 90, ()),)},
        {"frames": (Frame(0, 0, ((0, 0, 499),)),)},
        {"frames": (Frame(0, 90, ((0, 0, REFERENCE_BYTES_MAX), (0, 0, 1))),), "old_files": (LARGE,)},
        {"entries": (NEW, SAME, Entry("l", LINK))},
        {"entries": (NEW, SAME, Entry("l", LINK, target="a\0b"))},
        {"entries": (NEW, SAME, Entry("d", DIRECTORY, target="a"))},
        {"entries": (NEW, SAME, Entry("d", DIRECTORY, mode=0o10000))},
        {"entries": (NEW, SAME, Entry("d", DIRECTORY, uid=2**32 - 1))},
        {"entries": (NEW, SAME, Entry("d", DIRECTORY, gid=2**32 - 1))},
        {"entries": (NEW, SAME, Entry("d", DIRECTORY, mtime=2**34))},
        {"entries": (NEW, SAME, Entry("d", DIRECTORY, mtime=-(2**34)))},
        {"entries": (NEW, SAME, Entry("usr/new", DIRECTORY))},
        {"entries": (NEW, SAME, Entry("usr", LINK, target="etc"))},
        {"entries": (NEW, SAME, Entry("usr/new/x", DIRECTORY))},
        {"entries": (NEW, SAME, Entry("usr/again", HARD_LINK, target="usr/nothing"))},
        {"entries": (NEW, SAME, Entry("l", LINK, target="a\nb"))},
        {"control_files": {"postinst": b""}},
        {"control_files": {"control": b"", "a/b": b""}},
        {"control_files": {"control": b"", "..": b""}},
        {"control_files": {"control": b"", "": b""}},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TransactionError):
        decode_recipe(recipe(**wrong), 1, CONTENT_BYTES)  # type: ignore[arg-type]


def test_a_control_file_that_is_there_twice_is_refused() -> None:
    raw = recipe(control_files={"control": b"a", "contro2": b"b"}).replace(b"contro2", b"control")
    with pytest.raises(TransactionError):
        decode_recipe(raw, 1, CONTENT_BYTES)


def test_it_is_for_as_many_versions_as_the_index_says() -> None:
    for bases in (0, 2):
        with pytest.raises(TransactionError, match="another number"):
            decode_recipe(recipe(), bases, CONTENT_BYTES)


@pytest.mark.fault("N3", "N4")
def test_every_truncation_and_every_bit_is_refused_or_means_itself() -> None:
    raw = recipe()
    damaged = [raw[:end] for end in range(len(raw))] + [raw + b"\0"]
    damaged += [
        raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :] for bit in range(8 * len(raw))
    ]
    refused = 0
    for one in damaged:
        try:
            assert encode_recipe(decode_recipe(one, 1, CONTENT_BYTES)) == one
        except TransactionError:
            refused += 1
    assert refused > len(raw)
