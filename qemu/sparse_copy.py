"""Copies of disk images that cost as little room and time as the file system allows."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

CHUNK_BYTES = 1024 * 1024
_FICLONE = 0x40049409  # <linux/fs.h>: share the blocks, copy on write
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM}


def copy_image(source: Path, target: Path) -> None:
    """Make ``target`` a copy of the regular file ``source``: shared blocks if possible, else holes kept.

    Memory is bounded by one chunk. Raises: OSError.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        if _clone(reader.fileno(), writer.fileno()):
            return
        writer.truncate(os.fstat(reader.fileno()).st_size)
        offset = 0
        while (found := _next_data(reader.fileno(), offset)) is not None:
            start, offset = found
            _copy_range(reader.fileno(), writer.fileno(), start, offset)


def write_all(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of ``content`` at ``offset``. Raises: OSError."""
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Whether the file surely has no data in these bytes, so that they read as zeros."""
    found = _next_data(descriptor, offset)
    return found is None or found[0] >= offset + length


def _clone(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _next_data(descriptor: int, offset: int) -> tuple[int, int] | None:
    """The next range with data at or after ``offset``; None behind the last one."""
    try:
        start = os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return start, os.lseek(descriptor, start, os.SEEK_HOLE)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        chunk = os.pread(reader, min(CHUNK_BYTES, end - start), start)
        if not chunk:
            raise OSError(errno.EIO, "the image shrank while it was copied")
        write_all(writer, chunk, start)
        start += len(chunk)
