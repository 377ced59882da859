"""An image that a device could not mount is not signed: its superblock is held against the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from initramfs.errors import BuildError
from initramfs.filesystem_image import filesystem_of
from tests.unit.filesystem_samples import NEEDS_RECOVERY, erofs, ext4, squashfs

CONTENT = b"content " * 1024
SAMPLES = {"squashfs": squashfs(CONTENT), "erofs": erofs(CONTENT), "ext4": ext4(CONTENT)}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "rootfs.img"


def refusal(image: Path, content: bytes, named: str = "", kind: str = "immutable") -> BuildError:
    image.write_bytes(content)
    with pytest.raises(BuildError) as caught:
        filesystem_of(image, named, kind)
    assert str(image) in caught.value.message and caught.value.hint
    return caught.value


@pytest.mark.parametrize("name", SAMPLES)
def test_a_whole_image_is_found_by_its_magic_named_or_not(image: Path, name: str) -> None:
    image.write_bytes(SAMPLES[name] + bytes(4096))
    assert filesystem_of(image) == filesystem_of(image, name) == name


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_that_lacks_its_last_byte_is_refused(image: Path, name: str) -> None:
    content = SAMPLES[name]
    error = refusal(image, content[:-1])
    assert f"has {len(content) - 1} bytes, its {name} {len(content)}" in error.message


@pytest.mark.parametrize("sample", [ext4(CONTENT, block_bits=10), ext4(CONTENT, features=0x40), erofs(CONTENT, 9)])
def test_blocks_are_of_the_size_that_the_superblock_says(image: Path, sample: bytes) -> None:
    image.write_bytes(sample)
    filesystem_of(image)
    refusal(image, sample[:-1])


def test_block_numbers_of_64_bits_count_only_where_there_are_any(image: Path) -> None:
    assert str((1 << 44) + 12288) in refusal(image, ext4(CONTENT, features=0x80, blocks_high=1)).message
    image.write_bytes(ext4(CONTENT, blocks_high=1))
    assert filesystem_of(image) == "ext4"


def test_a_block_size_of_any_bytes_takes_no_memory(image: Path) -> None:
    refusal(image, SAMPLES["ext4"][: 1024 + 24] + b"\xff" * 4 + SAMPLES["ext4"][1024 + 28 :])


def test_a_journal_that_is_to_be_replayed_is_refused_where_nobody_may_write(image: Path) -> None:
    error = refusal(image, ext4(CONTENT, features=NEEDS_RECOVERY))
    assert "journal" in error.message and f"e2fsck -fy {image}" in error.hint
    assert filesystem_of(image, "ext4", "read-write") == "ext4"


@pytest.mark.parametrize(("content", "named", "says"), [
    (SAMPLES["squashfs"], "ext4", "holds no ext4, but squashfs"),
    (SAMPLES["ext4"], "erofs", "holds no erofs, but ext4"),
    (bytes(8192), "squashfs", "holds no squashfs, but none of them"),
    (b"hsq", "", "holds no squashfs, erofs, ext4, but none of them"),
])  # fmt: skip
def test_another_file_system_than_the_one_named_is_refused(image: Path, content: bytes, named: str, says: str) -> None:
    assert says in refusal(image, content, named).message


def test_of_two_magic_numbers_the_named_one_counts(image: Path) -> None:
    image.write_bytes(b"hsqs" + SAMPLES["ext4"][4:])
    assert filesystem_of(image, "ext4") == "ext4"


def test_what_cannot_be_read_is_named(image: Path) -> None:
    with pytest.raises(BuildError, match="No such file"):
        filesystem_of(image)
