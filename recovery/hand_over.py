"""Mount the slot and its system state, and hand over to the OS. On the path of the ordinary boot.

An immutable slot is set read-only in the kernel (``mount -o ro`` alone lets ext4 write) and becomes the
lower layer of an overlay whose upper is keyed by the image's digest and a generation: a new image, or a
state that was set aside, starts with an empty upper. User data lies apart, in ``user/``, and is mounted
at ``/data``. A pristine boot has a temporary upper and no user data. What the OS needs mounted lives
below /run/unbrick, which PID 1 moves into the new root.
"""

from __future__ import annotations

import os

import _unbrick

from recovery.console import say
from recovery.disks import node_of
from statemachine.reasons import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from statemachine.record import Record

ROOT = "/newroot"
HOME = "/run/unbrick"
LOWER = f"{HOME}/lower"
DATA = f"{HOME}/data"
SCRATCH = f"{HOME}/scratch"
_BLKROSET, _BLKFLSBUF = 0x125D, 0x1261
_READ_ONLY, _NO_SUID, _NO_DEVICES, _BIND = 1, 2, 4, 4096
_E2FSCK = "/usr/sbin/e2fsck"
_E2FSCK_MENDED = 1


class BootFailedError(Exception):
    """The slot cannot be handed over to. ``reason`` is a reason code."""

    def __init__(self, reason: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def mount_root(record: Record, config: dict[str, Any], disk: str, pristine: bool) -> str:
    """Mount everything the OS needs below :data:`ROOT` and return it. Raises :class:`BootFailedError`."""
    image = record.installed
    if image.kernel_release and image.kernel_release != os.uname().release:
        detail = f"image {image.version} is for {image.kernel_release}, this is {os.uname().release}"
        raise BootFailedError(CODES["kernel-mismatch"], detail)
    try:
        slot = node_of(disk, config["slot"]["rootfs"]["0"]["region"])
        if image.kind == "read-write":
            _mount_read_write(slot, image.filesystem)
        else:
            _mount_immutable(record, config, disk, slot, pristine)
    except OSError as error:
        raise BootFailedError(CODES["boot-failed"], str(error)) from error
    if not _runnable(ROOT, image.init):
        raise BootFailedError(CODES["boot-failed"], f"{image.init} is not in the image or cannot be run")
    return ROOT


def release_root() -> None:
    """Unmount whatever a failed or superseded :func:`mount_root` left, innermost first."""
    for place in (f"{ROOT}/data", ROOT, SCRATCH, DATA, LOWER):
        while True:
            try:
                _unbrick.umount(place, 0)
            except OSError:
                break


def check_filesystem(node: str) -> bool:
    """Put an ext4 in order with e2fsck. Whether it may be mounted now."""
    try:
        process = os.posix_spawn(_E2FSCK, [_E2FSCK, "-p", "-E", "journal_only", node], {})
        _, status = os.waitpid(process, 0)
        process = os.posix_spawn(_E2FSCK, [_E2FSCK, "-y", node], {})
        _, status = os.waitpid(process, 0)
    except OSError:
        return False
    return os.waitstatus_to_exitcode(status) in (0, _E2FSCK_MENDED)


def _mount_read_write(slot: str, filesystem: str) -> None:
    _unbrick.mount(slot, ROOT, filesystem, 0, "")


def _mount_immutable(record: Record, config: dict[str, Any], disk: str, slot: str, pristine: bool) -> None:
    _set_read_only(slot)
    _make(LOWER)
    _unbrick.mount(slot, LOWER, record.installed.filesystem, _READ_ONLY, "")
    with_data = not pristine and _mount_data(config, disk)
    upper = _upper_of(record) if with_data else _scratch()
    _make(f"{upper}/upper")
    _make(f"{upper}/work")
    layers = f"lowerdir={LOWER},upperdir={upper}/upper,workdir={upper}/work"
    _unbrick.mount("unbrick", ROOT, "overlay", 0, layers)
    if with_data:
        _make(f"{DATA}/user")
        _make(f"{ROOT}/data")
        _unbrick.mount(f"{DATA}/user", f"{ROOT}/data", "", _BIND, "")


def _mount_data(config: dict[str, Any], disk: str) -> bool:
    """Mount the data partition, checked first where it does not mount. Without it the OS still starts."""
    if not config.get("data"):
        return False
    try:
        node = node_of(disk, config["data"]["region"])
        _make(DATA)
        try:
            _unbrick.mount(node, DATA, "ext4", _NO_DEVICES, "")
        except OSError:
            if not check_filesystem(node):
                raise
            _unbrick.mount(node, DATA, "ext4", _NO_DEVICES, "")
    except OSError as error:
        say(CODES["data-unmountable"], str(error), with_advice=True)
        return False
    return True


def _upper_of(record: Record) -> str:
    """Where this image's system state lives: a new image or generation starts with an empty one."""
    return f"{DATA}/system/{record.installed.digest[:16].hex()}-{record.upper_generation}"


def _scratch() -> str:
    _make(SCRATCH)
    _unbrick.mount("unbrick", SCRATCH, "tmpfs", 0, "mode=0755")
    return SCRATCH


def _set_read_only(node: str) -> None:
    """Let the kernel refuse writes, and forget what it cached of the partition: recovery writes past it."""
    import fcntl

    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _BLKFLSBUF)
        fcntl.ioctl(descriptor, _BLKROSET, b"\1\0\0\0")
    finally:
        os.close(descriptor)


def _runnable(root: str, init: str) -> bool:
    """Whether the OS's init is there. Links are followed inside the new root, a bounded number of times."""
    path = init
    for _ in range(8):
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(root + path)))
        except OSError:
            break
    return os.access(root + path, os.X_OK)


def _make(directory: str) -> None:
    os.makedirs(directory, exist_ok=True)
