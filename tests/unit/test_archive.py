"""cpio written by one library and read by our own reader, by GNU cpio, and after damage."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from initramfs import compression, newc
from initramfs.archive import newc as write
from initramfs.compression import DamagedImage
from initramfs.tree import Reason, Tree, character_device, directory, file, merge, symlink

WHY = Reason("a test")
TREE = merge(
    [
        file("init", b"\x7fELF" + bytes(5000), WHY, executable=True),
        file("etc/empty", b"", WHY),
        file("etc/odd", b"12345", WHY),
        symlink("lib64/ld.so", "../lib/ld-2.36.so", WHY),
        symlink("lib64/é", "ü", WHY),
        directory("tmp", WHY, mode=0o1777),
        character_device("dev/console", 5, 1, WHY),
    ]
)


def paths(members: tuple[newc.Member, ...]) -> list[str]:
    return [member.path for member in members]


def test_everything_comes_back_as_it_was() -> None:
    members = newc.read(write(TREE, time_seconds=7)).members
    assert paths(members) == [entry.path for entry in TREE]
    by_path = {member.path: member for member in members}
    assert by_path["init"].data == TREE.by_path["init"].data
    assert by_path["init"].mode == stat.S_IFREG | 0o755
    assert by_path["etc/empty"].data == b""
    assert by_path["etc/odd"].data == b"12345"
    assert by_path["lib64/ld.so"].data == b"../lib/ld-2.36.so"
    assert by_path["lib64/é"].data == "ü".encode()
    assert by_path["tmp"].mode == stat.S_IFDIR | 0o1777
    assert by_path["dev/console"].device == (5, 1)
    assert by_path["dev/console"].mode == stat.S_IFCHR | 0o600


def test_nothing_of_the_host_is_in_a_header() -> None:
    for number, member in enumerate(newc.read(write(TREE, time_seconds=7)).members, start=1):
        assert (member.uid, member.gid, member.time_seconds, member.inode) == (0, 0, 7, number)
        assert member.links == (2 if member.format_bits == stat.S_IFDIR else 1)


def test_gnu_cpio_reads_the_same() -> None:
    listed = subprocess.run(["cpio", "-it", "--quiet"], input=write(TREE), capture_output=True, check=True, timeout=10)
    assert listed.stdout.decode().split() == [entry.path for entry in TREE]


def test_the_bytes_do_not_depend_on_the_locale_the_zone_or_the_umask() -> None:
    script = "import sys; from tests.unit.test_archive import TREE, write; sys.stdout.buffer.write(write(TREE))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PATH": os.environ["PATH"], "LC_ALL": locale, "TZ": zone},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            umask=umask,
            timeout=30,
        ).stdout
        for locale, zone, umask in (("C", "UTC", 0o22), ("C.UTF-8", "Asia/Tokyo", 0o77))
    }
    assert outputs == {write(TREE)}


@pytest.mark.parametrize("name", sorted(compression.BY_NAME))
def test_each_compression_comes_back_and_says_its_name(name: str) -> None:
    plain = write(TREE)
    packed = compression.compress(plain, name)
    assert packed == compression.compress(plain, name)
    contents = newc.read(packed)
    assert (contents.compression, contents.unpacked_bytes) == (name, len(plain))
    assert len(contents.members) == len(TREE)


@pytest.mark.parametrize("name", sorted(set(compression.BY_NAME) - {"none"}))
def test_every_truncation_of_a_compressed_image_is_named(name: str) -> None:
    packed = compression.compress(write(TREE), name)
    for length in range(len(packed)):
        with pytest.raises(DamagedImage):
            newc.read(packed[:length])


def test_what_the_kernel_can_undo_is_what_we_write() -> None:
    """xz with CRC64 makes the kernel panic; a gzip header must not hold the time; zstd's window is bounded."""
    plain = write(TREE) + os.urandom(64)
    assert compression.compress(plain, "xz")[6:8] == b"\x00\x01"  # stream flags: CRC32
    assert compression.compress(plain, "gz")[4:8] == bytes(4)
    large = compression.compress(bytes(range(256)) * 40_000, "zstd")
    parameters = zstandard.get_frame_parameters(large)
    assert parameters.window_size <= 2**compression.ZSTD_WINDOW_LOG_MAX
    assert parameters.has_checksum


def test_concatenated_archives_are_read_like_the_kernel_does() -> None:
    plain = write(TREE)
    image = plain + bytes(64) + compression.compress(plain, "gz") + compression.compress(plain, "zstd")
    contents = newc.read(image)
    assert contents.compression == "none+gz+zstd"
    assert paths(contents.members) == [entry.path for entry in TREE] * 3


def test_a_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "UNPACKED_BYTES_MAX", 1000)
    for name in ("zstd", "xz", "gz"):
        with pytest.raises(DamagedImage, match="more than 1000 bytes"):
            newc.read(compression.compress(bytes(2_000_000), name))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "is empty"),
        (bytes(100), "is empty"),
        (b"\x7fELF", "no archive and no known compression"),
        (b"070701" + b"z" * 104, "no entry where one should begin, at byte 0"),
        (b"070701" + b"00000000" * 11 + b"ffffffff" + bytes(8), "no entry"),
    ],
)
def test_what_is_no_image_is_named(image: bytes, says: str) -> None:
    with pytest.raises(DamagedImage, match=says):
        newc.read(image)


def test_every_truncation_of_a_plain_archive_is_named() -> None:
    plain = write(merge([file("a", b"1234567", WHY), symlink("b", "a", WHY)])).rstrip(b"\0")
    for length in range(len(plain)):
        with pytest.raises(DamagedImage):
            newc.read(plain[:length])


def header(size: int, name_size: int) -> bytes:
    numbers = (1, 0o100644, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0)
    return b"070701" + b"".join(b"%08x" % number for number in numbers)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (header(5, 2) + b"a\0" + b"1234", "b'a' should have 5 bytes, and the archive ends before"),
        (header(2**32 - 1, 2) + b"a\0", "should have 4294967295 bytes"),
        (header(0, 1) + b"\0\0", "an entry's name is damaged, at byte 0"),
        (header(0, 5000) + b"a" * 4999 + b"\0\0\0", "an entry's name is damaged, at byte 0"),
        (header(0, 2) + b"ab", "an entry's name is damaged, at byte 0"),
    ],
)
def test_a_length_that_lies_is_named(image: bytes, says: str) -> None:
    with pytest.raises(DamagedImage, match=says):
        newc.read(image)


def test_every_bit_flip_gives_members_or_a_named_damage() -> None:
    plain = write(merge([file("a", b"1234567", WHY), symlink("b", "a", WHY)]))
    for bit in range(len(plain) * 8):
        changed = bytearray(plain)
        changed[bit // 8] ^= 1 << bit % 8
        survives(bytes(changed))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_give_members_or_a_named_damage(data: bytes) -> None:
    survives(b"070701" + data)


def test_random_damage_of_compressed_images_is_named() -> None:
    generator = random.Random(1)
    for name in ("zstd", "xz", "gz"):
        packed = compression.compress(write(TREE), name)
        for _ in range(300):
            changed = bytearray(packed)
            changed[generator.randrange(6, len(packed))] ^= 1 << generator.randrange(8)
            survives(bytes(changed))


def survives(image: bytes) -> None:
    """Reading ends with a value or with the one error that a reader may raise."""
    try:
        contents = newc.read(image)
    except DamagedImage:
        return
    assert sum(len(member.data) for member in contents.members) <= contents.unpacked_bytes


def test_an_empty_tree_is_an_archive() -> None:
    assert newc.read(write(Tree(()))).members == ()
