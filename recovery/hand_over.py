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
from recovery.package_phase import packages_phase
from statemachine.decide import packages_unfinished
from statemachine.reasons import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from statemachine.record import Record

ROOT = "/newroot"
HOME = "/run/unbrick"
LOWER = f"{HOME}/lower"
DATA = f"{HOME}/data"
SCRATCH = f"{HOME}/scratch"
_BLKROSET, _BLKFLSBUF = 0x125D, 0x1261
_READ_ONLY, _NO_SUID, _NO_DEVICES, _BIND = 1, 2, 4, 4096


class BootFailedError(Exception):
    """The slot cannot be handed over to. ``reason`` is a reason code, ``event`` one of the table."""

    def __init__(self, reason: int, detail: str, event: str = "boot_failed") -> None:
        super().__init__(detail)
        self.reason = reason
        self.event = event


def mount_root(record: Record, config: dict[str, Any], disk: str, pristine: bool, alive: Callable[[], None]) -> str:
    """Mount everything the OS needs below :data:`ROOT` and return it. ``alive`` is called while that takes long.

    Raises :class:`BootFailedError`, and then nothing is mounted any more.
    """
    image = record.installed
    if image.kernel_release and image.kernel_release != os.uname().release:
        detail = f"image {image.version} is for {image.kernel_release}, this is {os.uname().release}"
        raise BootFailedError(CODES["kernel-mismatch"], detail)
    mount_system(record, config, disk, pristine, alive)
    if packages_unfinished(record, packages_phase(ROOT)):
        release_root()
        detail = "the root is not handed over before its package transaction is finished or undone"
        raise BootFailedError(CODES["packages-found"], detail, "packages_found")
    if not _runnable(ROOT, image.init):
        release_root()
        raise BootFailedError(CODES["boot-failed"], f"{image.init} is not in the image or cannot be run")
    return ROOT


def mount_system(record: Record, config: dict[str, Any], disk: str, pristine: bool, alive: Callable[[], None]) -> str:
    """Mount the slot and its system state below :data:`ROOT` and return it. Nothing in it is looked at.

    Raises :class:`BootFailedError`, and then nothing is mounted any more.
    """
    image = record.installed
    try:
        slot = node_of(disk, config["slot"]["rootfs"][str(record.primary)]["region"])
        if image.kind == "read-write":
            _mount_read_write(slot, image.filesystem)
        else:
            _mount_immutable(record, slot, not pristine and _mount_data(config, disk, alive))
    except OSError as error:
        release_root()
        raise BootFailedError(CODES["boot-failed"], str(error)) from error
    return ROOT


def release_root() -> None:
    """Unmount whatever is mounted, innermost first."""
    for place in (f"{ROOT}/data", ROOT, SCRATCH, DATA, LOWER):
        while True:
            try:
                _unbrick.umount(place, 0)
            except OSError:
                break


def _mount_read_write(slot: str, filesystem: str) -> None:
    _forget_cached(slot)
    _unbrick.mount(slot, ROOT, filesystem, 0, "")


def _mount_immutable(record: Record, slot: str, with_data: bool) -> None:
    _forget_cached(slot, read_only=True)
    _make(LOWER)
    _unbrick.mount(slot, LOWER, record.installed.filesystem, _READ_ONLY, "")
    upper = _upper_of(record) if with_data else _scratch()
    _make(f"{upper}/upper")
    _make(f"{upper}/work")
    layers = f"lowerdir={LOWER},upperdir={upper}/upper,workdir={upper}/work"
    _unbrick.mount("unbrick", ROOT, "overlay", 0, layers)
    if with_data:
        _make(f"{DATA}/user")
        _make(f"{ROOT}/data")
        _unbrick.mount(f"{DATA}/user", f"{ROOT}/data", "", _BIND, "")


def _mount_data(config: dict[str, Any], disk: str, alive: Callable[[], None]) -> bool:
    """Mount the data partition, preened where it does not mount. Without it the OS still starts.

    Nothing on it is ever guessed at: what cannot be mounted stays as it is.
    """
    if not config.get("data"):
        return False
    try:
        node = node_of(disk, config["data"]["region"])
        _make(DATA)
        try:
            _unbrick.mount(node, DATA, "ext4", _NO_DEVICES, "")
        except OSError:
            from recovery.filesystem import preen

            if not preen(node, alive):
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


def _forget_cached(node: str, read_only: bool = False) -> None:
    """Have the kernel forget what it cached of the partition: recovery writes past it. And refuse writes."""
    import fcntl

    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _BLKFLSBUF)
        if read_only:
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
