"""Read a file that a distribution may have compressed: kernel modules, firmware. The suffix says so.

Bounded: a small file that unpacks to more than the limit is an error, not an exhausted host.
"""

from __future__ import annotations

from pathlib import Path

from initramfs.compression import DamagedImage, decompress
from initramfs.errors import SysrootError

STORED_BYTES_MAX = 256 << 20
COMPRESSED_SUFFIXES = (".xz", ".zst", ".gz")


def read_decompressed(path: Path) -> bytes:
    """The plain content of ``path``.

    Raises:
        SysrootError: the file cannot be read, is cut short, damaged, or too large.
    """
    try:
        with path.open("rb") as stream:
            stored = stream.read(STORED_BYTES_MAX + 1)
    except OSError as error:
        raise SysrootError(f"{path} cannot be read: {error.strerror}", "unpack its package again") from error
    if len(stored) > STORED_BYTES_MAX:
        raise SysrootError(f"{path} is larger than {STORED_BYTES_MAX} bytes", "it does not belong in an image")
    if path.suffix not in COMPRESSED_SUFFIXES:
        return stored
    try:
        plain, rest, _ = decompress(stored)
    except DamagedImage as error:
        raise SysrootError(f"{path}: {error.message}", "unpack its package again") from error
    if rest:
        raise SysrootError(f"{path}: {len(rest)} bytes follow the compressed content", "unpack its package again")
    return plain
