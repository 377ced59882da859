"""Whether a bundle fits a device, as far as ``device.toml`` can say: room, kernel, floor, an image for its slots.

:func:`check_room` asks the device's own rule. :func:`check_wanted` says the same before anything is made. What a
device's journal knows beside it (a higher floor, a newer root) is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initramfs.errors import BuildError, MissingFile
from initramfs.kernel_modules import find_release
from payload import install
from payload.errors import PayloadError, PayloadTooLargeError, TargetTooSmallError
from payload.place import bundle_bytes
from recovery.disks import MissingRegion

if TYPE_CHECKING:
    from initramfs.config import Config
    from payload.bundle import Header
    from payload.manifest import Manifest

SLOT_CLASS = "rootfs"
_HINTS: dict[type[PayloadError], str] = {
    TargetTooSmallError: "Make the image smaller, or the slot's region in device.toml larger.",
    PayloadTooLargeError: "Make the regions in `headers` of device.toml larger, or the images smaller.",
}
_NO_IMAGE_HINT = "Name the image of the operating system with --image FILE, or --image rootfs=FILE."


def kernel_release(device: Config) -> str:
    """The kernel that the device boots: the configured one, or the only one in ``kernel.path``. Empty: nobody says."""
    path = device.kernel.path
    if device.kernel.release or path is None or not path.is_dir():
        return device.kernel.release
    try:
        return find_release(path)
    except MissingFile:
        return ""


def check_room(device: Config, header: Header, manifest: Manifest) -> None:
    """That every slot can hold the bundle's image, and its header regions the header.

    Raises:
        PayloadFormatError: there is no image for a slot.
        TargetTooSmallError, PayloadTooLargeError: it does not fit.
    """
    image = manifest.image(SLOT_CLASS)
    for slot in device.slot[SLOT_CLASS].values():
        header_regions = [MissingRegion(region.size) for region in slot.headers]
        install.check_room(MissingRegion(slot.region.size), header_regions, header, image)


def has_place(device: Config, header: Header, manifest: Manifest) -> bool:
    """Whether a payload region can keep the bundle. Repairs come from there, and by way of it one slot is updated."""
    places = [place for place in (device.payload.region, device.payload.spare) if place]
    return any(bundle_bytes(header, manifest) <= place.size for place in places)


def check_wanted(device: Config, root_floor: int, header: Header, manifest: Manifest) -> None:
    """That a bundle which is to be made would be taken; ``header`` counts by its length alone.

    Raises:
        BuildError: no device of this configuration would take it; and what to change.
    """
    floor, release = max(device.floor, root_floor), kernel_release(device)
    if manifest.version < floor:
        raise BuildError(f"version {manifest.version} is below the floor {floor}", "Give it a higher --version.")
    if release and manifest.kernel_release != release:
        problem = f"the bundle is for kernel {manifest.kernel_release}, the device has {release}"
        raise BuildError(problem, "Give --kernel-release as device.toml has it, or change [kernel] there.")
    try:
        check_room(device, header, manifest)
    except PayloadError as error:
        problem = f"no device of {device.source.file} takes this bundle: {error}"
        raise BuildError(problem, _HINTS.get(type(error), _NO_IMAGE_HINT)) from error
