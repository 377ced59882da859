"""A region on a real medium: a run of bytes of a whole disk, or of a file.

On the device everything goes past the page cache (O_DIRECT, through the built-in module), so that
what is read is what the medium holds. On the build host, and where a file system refuses O_DIRECT,
plain calls are used and the cache is dropped before reading.

Does not find disks and takes no partition nodes: a partition has a page cache of its own, and what
is written through one is not seen through the other.
"""

import errno
import fcntl
import os
import sys

try:
    import _unbrick
except ImportError:
    _unbrick = None  # type: ignore[assignment]

SECTOR_BYTES = 512
TRANSFER_BYTES_MAX = 1 << 20
# <linux/fs.h>: logical and physical block size of a block device
BLKSSZGET = 0x1268
BLKPBSZGET = 0x127B
BLOCK_DEVICE, TYPE_MASK = 0o060000, 0o170000


class DeviceRegion:
    """Bytes ``offset`` … ``offset + size`` of ``path``. Follows ``statemachine.region.Region``.

    ``write_unit`` is the logical block, ``erase_unit`` the physical one. Offsets and lengths of
    writes must be multiples of ``write_unit`` (ValueError); reads may be any. Nothing outside the
    region is ever touched (ValueError).

    Raises:
        OSError: the medium is not there, too small, a partition, or says no.
    """

    __slots__ = ("_descriptor", "_direct", "_offset", "erase_unit", "size", "write_unit")

    # Every call costs a wait: few large ones are better, and while nobody writes several threads may read.
    prefers_large = True

    def __init__(self, path: str, offset: int, size: int, *, writable: bool = True) -> None:
        self._descriptor, self._direct = _open(path, os.O_RDWR if writable else os.O_RDONLY)
        self._offset = offset
        self.size = size
        try:
            self.write_unit, self.erase_unit = _units(self._descriptor)
            if offset < 0 or size < 0 or offset % self.write_unit or size % self.write_unit:
                raise ValueError(f"a region of {size} bytes at {offset} is not made of whole blocks")
            if offset + size > os.lseek(self._descriptor, 0, os.SEEK_END):
                raise OSError(errno.ENXIO, f"{path} ends before byte {offset + size}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the descriptor back. The region is of no use afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, as the medium holds them. Raises ``OSError``."""
        self._check(offset, length)
        if not self._direct:
            os.posix_fadvise(self._descriptor, self._offset + offset, length, os.POSIX_FADV_DONTNEED)
            return self._read(self._offset + offset, length)
        before = offset % self.write_unit
        after = -(offset + length) % self.write_unit
        data = self._read(self._offset + offset - before, before + length + after)
        return data[before : before + length] if before or after else data

    def write(self, offset: int, data: bytes) -> None:
        """Hand over ``data``; durable after the next :meth:`flush`. Raises ``OSError``."""
        self._check(offset, len(data))
        if offset % self.write_unit or len(data) % self.write_unit:
            raise ValueError(f"{len(data)} bytes at {offset} are not whole blocks of {self.write_unit}")
        rest: bytes | memoryview = data
        done = 0
        while done < len(data):
            written = self._transfer_out(rest[:TRANSFER_BYTES_MAX], self._offset + offset + done)
            if written <= 0:
                raise OSError(errno.EIO, "the medium took nothing")
            done += written
            rest = memoryview(data)[done:]

    def flush(self) -> None:
        """Return when every write so far is durable. Raises ``OSError``."""
        os.fsync(self._descriptor)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} are outside the region of {self.size} bytes")

    def _read(self, position: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            piece = self._transfer_in(position, min(length, TRANSFER_BYTES_MAX))
            if not piece:
                raise OSError(errno.EIO, "the medium ends inside the region")
            pieces.append(piece)
            position += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _transfer_in(self, position: int, length: int) -> bytes:
        if self._direct:
            piece: bytes = _unbrick.pread_direct(self._descriptor, length, position)
            return piece
        return os.pread(self._descriptor, length, position)

    def _transfer_out(self, data: bytes | memoryview, position: int) -> int:
        if self._direct:
            written: int = _unbrick.pwrite_direct(self._descriptor, data, position)
            return written
        return os.pwrite(self._descriptor, data, position)


def _open(path: str, access: int) -> tuple[int, bool]:
    """A descriptor, and whether it goes past the page cache."""
    if _unbrick is not None:
        try:
            return os.open(path, access | os.O_CLOEXEC | os.O_DIRECT), True
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without O_DIRECT says this
                raise
    return os.open(path, access | os.O_CLOEXEC), False


def _units(descriptor: int) -> tuple[int, int]:
    """Logical and physical block size in bytes. Raises ``OSError`` for a partition."""
    status = os.fstat(descriptor)
    if status.st_mode & TYPE_MASK != BLOCK_DEVICE:
        return SECTOR_BYTES, SECTOR_BYTES
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if os.access(f"/sys/dev/block/{major}:{minor}/partition", os.F_OK):
        raise OSError(errno.EINVAL, "a partition, not a whole disk")
    return _block_size(descriptor, BLKSSZGET), _block_size(descriptor, BLKPBSZGET)


def _block_size(descriptor: int, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, request, bytes(4)), sys.byteorder)
