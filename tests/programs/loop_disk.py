"""An ext4 in a file, mounted by this machine's own kernel; and one whose writes and flushes are logged.

The logged disk needs no guest: `qemu-storage-daemon` gives a file (by FUSE) whose every request goes through QEMU's
``blklogwrites`` (see ``qemu/write_log.py``), and the loop device lies on that file. The daemon takes one request at a
time, so a flush in the log covers exactly what stands before it.

Needs root, loop devices, and for the log /dev/fuse. System calls go by ctypes: thousands of mounts need no processes.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 1 << 14, 1 << 18, 2
READ_ONLY = ("squashfs", "erofs")
BUSY_TRIES_MAX = 100
E2FSCK_MENDED_MAX = 3
STARTS_SECONDS_MAX = 10.0
LOG_BYTES = 256 << 20
SUPERBLOCK = struct.Struct("<QQQI")
# Small blocks, so that even a small one has a second superblock.
BLOCK_BYTES = 1024
MKFS = ("mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), "-E", "lazy_itable_init=0,lazy_journal_init=0")
_LIBC = ctypes.CDLL(None, use_errno=True)


def is_possible() -> bool:
    """Whether this machine and user may do it."""
    devices = ("/dev/loop-control", "/dev/fuse")
    programs = ("qemu-storage-daemon", "mksquashfs")
    return os.geteuid() == 0 and all(map(os.path.exists, devices)) and all(map(shutil.which, programs))


def make_ext4(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*MKFS, image], check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})


@contextmanager
def mounted(image: Path, point: Path, kind: str = "ext4") -> Iterator[Path]:
    """``point`` shows what is in ``image``; the file system's own journal is replayed first."""
    point.mkdir(exist_ok=True)
    loop = _attach(image)
    try:
        flags = MS_RDONLY if kind in READ_ONLY else 0
        _call("mount", os.fsencode(loop.path), os.fsencode(point), kind.encode(), flags, None)
        try:
            yield point
        finally:
            _call("umount2", os.fsencode(point), 0)
    finally:
        loop.close()


@contextmanager
def mended_and_mounted(image: Path, point: Path) -> Iterator[Path]:
    """As recovery does it where the kernel refuses an ext4: e2fsck answers every question with yes.

    A superblock is two sectors: where one of them alone arrived, its checksum is wrong, and the second is taken.
    """
    try:
        with mounted(image, point):
            pass
    except OSError:
        ended = subprocess.run(["/usr/sbin/e2fsck", "-f", "-y", image], capture_output=True, check=False)
        assert ended.returncode <= E2FSCK_MENDED_MAX, ended.stdout
    with mounted(image, point):
        yield point


@contextmanager
def mounted_overlay(point: Path, lower: Path, upper: Path, work: Path, options: str) -> Iterator[Path]:
    for folder in (point, upper, work):
        folder.mkdir(exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work},{options}"
    _call("mount", b"overlay", os.fsencode(point), b"overlay", 0, options.encode())
    try:
        yield point
    finally:
        _call("umount2", os.fsencode(point), 0)


@contextmanager
def private_mounts() -> Iterator[None]:
    """What this thread mounts is seen by it and its children alone.

    Else any process that gets a namespace of its own meanwhile (a container, a service that starts) takes our mounts
    along, and keeps the file system at work on a file that we believe to be unmounted. For the same reason we let go
    of what others have mounted by loop devices.
    """
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    _call("unshare", CLONE_NEWNS)
    try:
        _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        for line in reversed(Path("/proc/thread-self/mounts").read_text().splitlines()):
            device, point, kind = line.split(" ")[:3]
            if device.startswith("/dev/loop") or kind == "overlay":
                with suppress(OSError):
                    _call("umount2", os.fsencode(point), MNT_DETACH)
        yield
    finally:
        _call("setns", before, CLONE_NEWNS)
        os.close(before)


class _Loop:
    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        fcntl.ioctl(self._descriptor, LOOP_CLR_FD)
        os.close(self._descriptor)


@contextmanager
def tmpfs(folder: Path, mebibytes: int) -> Iterator[Path]:
    folder.mkdir()
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={mebibytes}m".encode())
    try:
        yield folder
    finally:
        _call("umount2", os.fsencode(folder), 0)


def give_all_blocks(image: Path) -> None:
    """No write to the image needs room below it."""
    with image.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, image.stat().st_size)


def break_free_blocks(image: Path, first: int, last: int) -> None:
    """Of the mounted ext4 in ``image``, the free ones between two block numbers: who writes there gets an error.

    They become a hole, and others take all room that is left in the file system that the image is a file of.
    """
    told = subprocess.run(
        ["/usr/sbin/dumpe2fs", image], check=True, capture_output=True, text=True, errors="replace"
    ).stdout
    for line in told.splitlines():
        name, _, ranges = line.strip().partition(": ")
        for one in ranges.split(", ") if name == "Free blocks" and ranges else ():
            start, _, end = one.partition("-")
            low, high = max(int(start), first), min(int(end or start), last)
            if low <= high:
                where = ("-o", str(low * BLOCK_BYTES), "-l", str((high + 1 - low) * BLOCK_BYTES))
                subprocess.run(["fallocate", "-p", *where, image], check=True)
    with image.with_name("filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(BLOCK_BYTES * 4)):
            pass


def _attach(image: Path) -> _Loop:
    """A free loop device; others on this machine look for one too."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _try in range(BUSY_TRIES_MAX):
            path = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, LOOP_SET_FD, backing)
                return _Loop(path, descriptor)
            except OSError:
                os.close(descriptor)
                time.sleep(0.01)
    finally:
        os.close(control)
        os.close(backing)
    raise OSError("no loop device is free")


def _call(name: str, *arguments: bytes | int | None) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


class LoggedDisk:
    """A file ``path`` that is the disk ``image``, whose requests are in ``log``."""

    def __init__(self, image: Path, log: Path) -> None:
        self.path = image.with_suffix(".logged")
        self.log = log
        self.path.touch()
        with log.open("wb") as file:
            file.truncate(LOG_BYTES)
        block = {
            "driver": "blklogwrites", "node-name": "disk", "log-sector-size": 512, "log-super-update-interval": 1,
            "file": {"driver": "file", "filename": str(image)}, "log": {"driver": "file", "filename": str(log)},
        }  # fmt: skip
        export = f"type=fuse,id=export,node-name=disk,mountpoint={self.path},writable=on"
        self._daemon = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", json.dumps(block), "--export", export], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + STARTS_SECONDS_MAX
        while self.path.stat().st_size != image.stat().st_size:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise OSError("qemu-storage-daemon does not serve the disk")
            time.sleep(0.01)

    @property
    def entries(self) -> int:
        """How many requests are in the log by now."""
        with self.log.open("rb") as file:
            return int(SUPERBLOCK.unpack(file.read(SUPERBLOCK.size))[2])

    def close(self) -> None:
        self._daemon.terminate()
        try:
            self._daemon.wait(STARTS_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()

    def __enter__(self) -> LoggedDisk:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
