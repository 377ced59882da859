"""Whether a device can mount an image: which file system its superblock says it holds, and whether all of it is there.

Looks at the first bytes alone; whether the rest is in order is for `fsck`. Sources, all of the kernel:
fs/squashfs/squashfs_fs.h, fs/erofs/erofs_fs.h, Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from

from initramfs.errors import BuildError

FIRST_BYTES = 4096
SUPERBLOCK = 1024  # where it begins in erofs and ext4
BLOCK_BITS_MAX = 16
EXT4_SMALLEST_BLOCK_BITS = 10
EXT4_NEEDS_RECOVERY, EXT4_64_BIT = 0x4, 0x80  # of its incompatible features


@dataclass(frozen=True)
class Superblock:
    """What a file system says of itself. ``size`` is in bytes; ``has_open_journal``: its journal is to be replayed."""

    size: int
    has_open_journal: bool = False


def filesystem_of(image: Path, named: str = "", kind: str = "immutable") -> str:
    """The file system in ``image``, by its magic number, if a slot of this ``kind`` can be mounted with it.

    Raises:
        BuildError: there is none that can be in a slot, another one than ``named``, not all of it, or one that has to
            be written before it can be read.
    """
    try:
        with image.open("rb") as stream:
            start = stream.read(FIRST_BYTES).ljust(FIRST_BYTES, b"\0")
        size = image.stat().st_size
    except OSError as error:
        raise BuildError(f"{image}: {error.strerror}") from error
    found = [name for name, (offset, magic, _read) in _FORMATS.items() if start.startswith(magic, offset)]
    if not found or (named and named not in found):
        holds = " and ".join(found) or "none of them"
        hint = f"A slot takes {', '.join(_FORMATS)}, found by the magic number: leave --filesystem out."
        raise BuildError(f"{image} holds no {named or ', '.join(_FORMATS)}, but {holds}", hint)
    name = named or found[0]
    _check(image, size, name, kind, _FORMATS[name][2](start))
    return name


def _check(image: Path, size: int, name: str, kind: str, superblock: Superblock) -> None:
    if superblock.size > size:
        hint = "Copy it again, or make it again: the device would mount it, and not find its files, or not at all."
        raise BuildError(f"{image} is cut short: it has {size} bytes, its {name} {superblock.size}", hint)
    if superblock.has_open_journal and kind == "immutable":
        hint = f"Run `e2fsck -fy {image}`, or mount it once and unmount it; or give it --kind read-write."
        raise BuildError(
            f"{image} has a journal that is to be replayed, which nobody can who mounts it read-only", hint
        )


def _squashfs(start: bytes) -> Superblock:
    (used,) = unpack_from("<Q", start, 40)
    return Superblock(used)


def _erofs(start: bytes) -> Superblock:
    (block_bits,) = unpack_from("<B", start, SUPERBLOCK + 12)
    (blocks,) = unpack_from("<I", start, SUPERBLOCK + 36)
    return Superblock(blocks << min(block_bits, BLOCK_BITS_MAX))


def _ext4(start: bytes) -> Superblock:
    (blocks,) = unpack_from("<I", start, SUPERBLOCK + 4)
    (block_bits,) = unpack_from("<I", start, SUPERBLOCK + 24)
    (features,) = unpack_from("<I", start, SUPERBLOCK + 96)
    if features & EXT4_64_BIT:
        blocks += unpack_from("<I", start, SUPERBLOCK + 336)[0] << 32
    size = blocks << min(EXT4_SMALLEST_BLOCK_BITS + block_bits, BLOCK_BITS_MAX)
    return Superblock(size, bool(features & EXT4_NEEDS_RECOVERY))


_FORMATS: dict[str, tuple[int, bytes, Callable[[bytes], Superblock]]] = {
    "squashfs": (0, b"hsqs", _squashfs),
    "erofs": (SUPERBLOCK, b"\xe2\xe1\xf5\xe0", _erofs),
    "ext4": (SUPERBLOCK + 56, b"\x53\xef", _ext4),
}
FILESYSTEMS = tuple(_FORMATS)
