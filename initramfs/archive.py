"""A tree to the bytes of an uncompressed initramfs: cpio "newc", written by libarchive.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. The bytes depend on
the tree and the given time alone. Entries are written from memory: reading them from a disk leaks
devices, inode numbers and the order of directories. What the binding would get wrong is set by hand:
targets of symbolic links (lost silently), inode numbers (truncated to 32 bits, so numbered from 1),
link counts, devices. Compression is :mod:`initramfs.compression`; reading back is
:mod:`initramfs.newc`, which shares no code with this.
"""

from __future__ import annotations

from ctypes import c_char_p, c_int64, c_uint, c_void_p
from typing import Any

from libarchive import custom_writer
from libarchive.entry import ArchiveEntry
from libarchive.ffi import entry_copy_pathname, libarchive, write_data, write_finish_entry, write_header

from initramfs.tree import FORMAT_BITS, Entry, Kind, Tree

BLOCK_BYTES = 1024 * 1024
TIME_SECONDS_MAX = 2**32 - 1


def newc(tree: Tree, time_seconds: int = 0) -> bytes:
    """The archive; every entry has the modification time ``time_seconds`` since 1970."""
    assert 0 <= time_seconds <= TIME_SECONDS_MAX
    chunks: list[bytes] = []

    def collect(block: Any) -> int:
        chunks.append(bytes(block))
        return len(block)

    with custom_writer(collect, "cpio_newc", block_size=BLOCK_BYTES) as writer:
        for number, entry in enumerate(tree, start=1):
            _write(writer._pointer, entry, number, time_seconds)
    return b"".join(chunks)


def _write(archive: Any, entry: Entry, number: int, time_seconds: int) -> None:
    header = ArchiveEntry(
        filetype=FORMAT_BITS[entry.kind],
        perm=entry.mode,
        size=len(entry.data),
        mtime=time_seconds,
        uid=0,
        gid=0,
    )
    entry_copy_pathname(header._entry_p, entry.path.encode())  # bytes: a text goes through the host's locale
    _set("ino64", c_int64, header, number)
    _set("nlink", c_uint, header, 2 if entry.kind is Kind.DIRECTORY else 1)
    _set("dev", c_int64, header, 0)
    _set("rdevmajor", c_int64, header, entry.device[0])
    _set("rdevminor", c_int64, header, entry.device[1])
    if entry.kind is Kind.SYMLINK:
        _set("symlink", c_char_p, header, entry.target.encode())
    write_header(archive, header._entry_p)
    if entry.data:
        write_data(archive, entry.data, len(entry.data))
    write_finish_entry(archive)


def _set(field: str, kind: Any, header: Any, value: object) -> None:
    """One of libarchive's setters that the binding does not declare."""
    setter = libarchive[f"archive_entry_set_{field}"]
    setter.argtypes, setter.restype = [c_void_p, kind], None
    setter(header._entry_p, value)
