"""Which bundles this device takes. Rules only: nothing is read or written here.

The order is the point: the signature first, over bytes nobody has interpreted; then the manifest;
then the frame tables it vouches for; then whether it is meant for this device, now. One root key,
pinned in the image; the list of signatures leaves room for more.
"""

from __future__ import annotations

from payload.codec import ed25519_verify
from payload.digest import digest
from payload.errors import (
    PayloadBelowFloorError,
    PayloadCorruptError,
    PayloadForgedError,
    PayloadFormatError,
    PayloadKernelMismatchError,
    PayloadUnsignedError,
    PayloadWrongCompatibleError,
    PayloadWrongKeyError,
)
from payload.manifest import decode
from payload.table import ENTRY, FrameTable, frame_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from payload.bundle import Header
    from payload.manifest import Image, Manifest

# What is signed begins with its purpose: no signature of one thing ever passes for another.
SIGNED_PURPOSE = b"unbrick bundle manifest 1\n"


def key_id(public_key: bytes) -> bytes:
    """The 32 bytes that name ``public_key`` in a list of signatures."""
    return digest(public_key)


def signed_message(manifest_bytes: bytes) -> bytes:
    """What is signed for a manifest."""
    return SIGNED_PURPOSE + manifest_bytes


def verify(header: Header, root_key: bytes, compatible: str | None, floor: int, kernel_release: str | None) -> Manifest:
    """The manifest of ``header``, with the frame tables of its images, if this device takes it.

    ``compatible`` and ``kernel_release`` are left out (None) where no particular device is meant, as
    on the build host; ``floor`` is the lowest version allowed.

    Raises:
        TrustError: intact, but not for this device.
        BundleError: signed, and yet not a bundle of this format.
    """
    _check_signature(header, root_key)
    manifest = decode(header.manifest_bytes)
    attach_tables(manifest, header.tables)
    if compatible is not None and manifest.compatible != compatible:
        raise PayloadWrongCompatibleError(f"the bundle is for {manifest.compatible!r}, this device is {compatible!r}")
    if manifest.version < floor:
        raise PayloadBelowFloorError(f"version {manifest.version} is below the floor {floor}")
    if kernel_release is not None and manifest.kernel_release != kernel_release:
        raise PayloadKernelMismatchError(
            f"the bundle is for kernel {manifest.kernel_release}, {kernel_release:.80} runs"
        )
    return manifest


def _check_signature(header: Header, root_key: bytes) -> None:
    if not header.signatures:
        raise PayloadUnsignedError("the bundle is not signed")
    ours = [signature for name, signature in header.signatures if name == key_id(root_key)]
    if not ours:
        raise PayloadWrongKeyError("the bundle is signed, but not by the key of this device")
    message = signed_message(header.manifest_bytes)
    if not any(ed25519_verify(signature, message, root_key) for signature in ours):
        raise PayloadForgedError("the signature is not of this manifest")


def attach_tables(manifest: Manifest, tables: bytes) -> None:
    """Give each image its frame table, compared with the digest in the manifest. Raises ``BundleError``."""
    start = 0
    for image in manifest.images:
        end = start + frame_count(image.size, image.frame_size) * ENTRY.size
        image.table = _verified_table(image, tables[start:end])
        start = end
    if start != len(tables):
        raise PayloadFormatError("the header has more frame tables than the manifest has images")


def _verified_table(image: Image, entries: bytes) -> FrameTable:
    if digest(entries) != image.table_digest:
        raise PayloadCorruptError(f"the frame table of {image.slot_class!r} is not the signed one")
    return FrameTable(image.size, image.frame_size, entries)
