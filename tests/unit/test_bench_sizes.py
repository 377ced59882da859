"""Weighing images: what counts as a module, and archives that depend on contents alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from initramfs.newc import Member, read
from scripts.benchmarks.sizes import PackedSizes, archive, clean, is_module, parts

PROGRAM = Member("init", 0o100755, 0, 0, 1, 0, 1, (0, 0), b"program")
MODULE = Member("usr/lib/modules/6.1/kernel/fs/ext4.ko", 0o100644, 0, 0, 1, 0, 2, (0, 0), b"module")
INDEX = Member("lib/modules/6.1/modules.dep", 0o100644, 0, 0, 1, 0, 3, (0, 0), b"index")
CONSOLE = Member("dev/console", 0o020600, 0, 0, 1, 0, 4, (5, 1), b"")


def test_an_archive_can_be_read_back() -> None:
    members = (CONSOLE, replace(INDEX, inode=2), replace(MODULE, inode=4), replace(PROGRAM, inode=3))
    found = read(archive([PROGRAM, MODULE, INDEX, CONSOLE])).members
    assert {member.path: (member.mode, member.data, member.device) for member in found} == {
        member.path: (member.mode, member.data, member.device) for member in members
    }
    assert [member.path for member in found] == sorted(member.path for member in members)


def test_an_archive_depends_on_contents_alone() -> None:
    other = [replace(member, time_seconds=77, inode=member.inode + 9, uid=5) for member in (CONSOLE, MODULE, PROGRAM)]
    assert archive(other) == archive([PROGRAM, MODULE, CONSOLE])
    assert archive([replace(PROGRAM, data=b"changed"), MODULE, CONSOLE]) != archive(other)


def test_hard_links_stay_one_file() -> None:
    first = Member("bin/a", 0o100755, 0, 0, 2, 0, 7, (0, 0), b"")
    second = replace(first, path="bin/b", data=b"content")
    found = read(archive([first, second])).members
    assert found[0].inode == found[1].inode
    assert [member.data for member in found] == [b"", b"content"]


def test_the_last_of_two_entries_counts() -> None:
    found = clean([replace(PROGRAM, path="./init"), replace(PROGRAM, path="/init", data=b"later"), Member(
        ".", 0o040755, 0, 0, 2, 0, 1, (0, 0), b"")])  # fmt: skip
    assert found == [replace(PROGRAM, data=b"later")]


def test_modules_are_taken_out_and_the_common_ones_put_in() -> None:
    common = replace(MODULE, path="lib/modules/6.1/common.ko")
    made = parts([PROGRAM, MODULE, INDEX, CONSOLE], [common])
    assert made == {
        "": [PROGRAM, MODULE, INDEX, CONSOLE],
        "_without_modules": [PROGRAM, CONSOLE],
        "_with_common_modules": [PROGRAM, CONSOLE, common],
    }


def test_only_module_files_are_counted() -> None:
    packed = replace(MODULE, path="lib/modules/6.1/ext4.ko.xz")
    elsewhere = replace(MODULE, path="opt/ext4.ko")
    assert [is_module(member) for member in (MODULE, packed, INDEX, elsewhere)] == [True, True, False, False]


def test_packed_sizes_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "sizes.json"
    wanted = {("small", "zstd"): b"a" * 1000, ("small", "xz"): b"a" * 1000}
    first = PackedSizes(kept).of(wanted)
    assert 0 < first["small", "zstd"] < 100
    assert first["small", "zstd"] != first["small", "xz"]
    kept.write_text(kept.read_text().replace(str(first["small", "xz"]), "4242"))
    assert PackedSizes(kept).of(wanted) == first | {("small", "xz"): 4242}
    other = {("small", "zstd"): bytes(range(250)) * 4}
    assert PackedSizes(kept).of(other)["small", "zstd"] > first["small", "zstd"]


def test_sizes_of_another_compression_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "sizes.json"
    wanted = {("small", "zstd"): b"a" * 1000}
    first = PackedSizes(kept).of(wanted)
    kept.write_text(kept.read_text().replace(f": {first['small', 'zstd']}", ": 4242"))
    assert PackedSizes(kept).of(wanted) == {("small", "zstd"): 4242}
    monkeypatch.setattr("initramfs.compression.ZSTD_LEVEL", 3)
    assert PackedSizes(kept).of(wanted) != {("small", "zstd"): 4242}
