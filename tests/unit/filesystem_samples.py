"""Images with a superblock that says what it should, and anything behind it. They can be looked at, not mounted."""

from __future__ import annotations

from struct import pack_into

NEEDS_RECOVERY = 0x4
SQUASHFS_BYTES, EROFS_BYTES, EXT4_BYTES = 96, 4096, 4096


def squashfs(content: bytes, used: int | None = None) -> bytes:
    """``used`` is what it says that it has; all of it without."""
    image = bytearray(SQUASHFS_BYTES) + content
    image[:4] = b"hsqs"
    pack_into("<Q", image, 40, len(image) if used is None else used)
    return bytes(image)


def erofs(content: bytes, block_bits: int = 12) -> bytes:
    """``content`` is whole blocks."""
    image = bytearray(EROFS_BYTES) + content
    image[1024:1028] = b"\xe2\xe1\xf5\xe0"
    image[1024 + 12] = block_bits
    pack_into("<I", image, 1024 + 36, len(image) >> block_bits)
    return bytes(image)


def ext4(content: bytes, block_bits: int = 12, features: int = 0, blocks_high: int = 0) -> bytes:
    """``content`` is whole blocks; ``features`` are the incompatible ones."""
    image = bytearray(EXT4_BYTES) + content
    pack_into("<I", image, 1024 + 4, len(image) >> block_bits)
    pack_into("<I", image, 1024 + 24, block_bits - 10)
    image[1024 + 56 : 1024 + 58] = b"\x53\xef"
    pack_into("<I", image, 1024 + 96, features)
    pack_into("<I", image, 1024 + 336, blocks_high)
    return bytes(image)
