"""The manifest: what a bundle holds and for whom. The signed part, as one JSON text.

Knows nothing of signatures or disks. :func:`decode` is only for bytes whose signature holds
(``payload.trust``); it is strict all the same (``payload.strict_json`` says why), and the keys are
exactly the known ones.
"""

from __future__ import annotations

from payload.digest import DIGEST_BYTES, digest
from payload.errors import PayloadFormatError
from payload.strict_json import (
    TIME_MAX,
    between,
    check_fields,
    dump,
    is_digest,
    is_name,
    is_path,
    is_text,
    is_time,
    load,
    one_of,
)
from payload.table import FRAME_BYTES_MAX, FRAME_BYTES_MIN, IMAGE_UNIT_BYTES
from statemachine.limits import TEXT_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from payload.strict_json import Check
    from payload.table import FrameTable

MANIFEST_BYTES_MAX = 64 << 10
IMAGES_MAX = 16
VERSION_MAX = (1 << 64) - 1
IMAGE_BYTES_MAX = 1 << 50
# A transaction of packages travels as the one image of a bundle that boots nothing: docs/SPEC.md, "The transaction".
PACKAGES = "packages"
NOTHING = "none"


class Image:
    """One image of a bundle. ``table`` is there once ``payload.trust`` has verified it."""

    __slots__ = (
        "delta_digest",
        "filesystem",
        "frame_size",
        "init",
        "kind",
        "size",
        "slot_class",
        "table",
        "table_digest",
        "watchdog_owner",
    )

    def __init__(
        self,
        *,
        slot_class: str,
        kind: str,
        filesystem: str,
        size: int,
        frame_size: int,
        table_digest: bytes,
        watchdog_owner: str,
        init: str,
        delta_digest: bytes = bytes(DIGEST_BYTES),
    ) -> None:
        self.delta_digest = delta_digest
        self.slot_class = slot_class
        self.kind = kind
        self.filesystem = filesystem
        self.size = size
        self.frame_size = frame_size
        self.table_digest = table_digest
        self.watchdog_owner = watchdog_owner
        self.init = init
        self.table: FrameTable | None = None

    def frames(self) -> FrameTable:
        """The verified frame table."""
        assert self.table is not None, "only payload.trust.verify makes images that can be used"
        return self.table


class Manifest:
    """What a bundle says of itself. ``digest`` is over its bytes: the identity of a version.

    ``signed_at`` and ``expires_at`` are seconds since 1970; what they do is ``payload.trust``'s matter.
    """

    __slots__ = (
        "compatible",
        "digest",
        "expires_at",
        "images",
        "kernel_release",
        "signed_at",
        "version",
        "version_name",
    )

    def __init__(
        self,
        *,
        compatible: str,
        version: int,
        version_name: str,
        kernel_release: str,
        images: tuple[Image, ...],
        signed_at: int = 0,
        expires_at: int = TIME_MAX,
    ) -> None:
        self.compatible = compatible
        self.version = version
        self.version_name = version_name
        self.kernel_release = kernel_release
        self.images = images
        self.signed_at = signed_at
        self.expires_at = expires_at
        self.digest = digest(encode(self))

    @property
    def is_transaction(self) -> bool:
        """Whether it holds packages, and nothing that could be put into a slot."""
        return self.images[0].kind == PACKAGES

    def image(self, slot_class: str) -> Image:
        """The image for ``slot_class``.

        Raises:
            PayloadFormatError: there is none.
        """
        for image in self.images:
            if image.slot_class == slot_class:
                return image
        raise PayloadFormatError(f"the bundle has no image for slot class {slot_class!r}")


def encode(manifest: Manifest) -> bytes:
    """The one encoding: ASCII JSON, keys sorted, no white space."""
    return dump(
        {
            "compatible": manifest.compatible,
            "expires-at": manifest.expires_at,
            "images": [_image_fields(image) for image in manifest.images],
            "kernel-release": manifest.kernel_release,
            "signed-at": manifest.signed_at,
            "version": manifest.version,
            "version-name": manifest.version_name,
        }
    )


def decode(text: bytes) -> Manifest:
    """The manifest in ``text``.

    Raises:
        PayloadFormatError: it is not the one encoding of a manifest of this format.
    """
    fields = load(text, MANIFEST_BYTES_MAX, "manifest")
    check_fields(fields, _MANIFEST_FIELDS, "manifest")
    images = tuple(_decode_image(image) for image in fields["images"])
    if len({image.slot_class for image in images}) != len(images):
        raise PayloadFormatError("two images of the manifest are for the same slot class")
    if fields["expires-at"] < fields["signed-at"]:
        raise PayloadFormatError("the manifest expires before it is signed")
    _check_packages(images, fields["kernel-release"])
    return Manifest(
        compatible=fields["compatible"],
        version=fields["version"],
        version_name=fields["version-name"],
        kernel_release=fields["kernel-release"],
        images=images,
        signed_at=fields["signed-at"],
        expires_at=fields["expires-at"],
    )


def _image_fields(image: Image) -> dict[str, Any]:
    return {
        "delta-digest": image.delta_digest.hex(),
        "filesystem": image.filesystem,
        "frame-size": image.frame_size,
        "init": image.init,
        "kind": image.kind,
        "size": image.size,
        "slot-class": image.slot_class,
        "table-digest": image.table_digest.hex(),
        "watchdog-owner": image.watchdog_owner,
    }


def _decode_image(fields: Any) -> Image:
    check_fields(fields, _IMAGE_FIELDS, "image")
    values = {key.replace("-", "_"): value for key, value in fields.items()}
    values["delta_digest"] = bytes.fromhex(fields["delta-digest"])
    values["table_digest"] = bytes.fromhex(fields["table-digest"])
    return Image(**values)


def _check_packages(images: tuple[Image, ...], kernel_release: str) -> None:
    """Packages travel alone and claim nothing that boots; so no slot ever takes them, and no packages an image."""
    for image in images:
        if PACKAGES not in (image.slot_class, image.kind) and image.filesystem != NOTHING:
            continue
        values = (image.slot_class, image.kind, image.filesystem, image.watchdog_owner, image.init)
        if values != (PACKAGES, PACKAGES, NOTHING, NOTHING, "/") or (kernel_release, len(images)) != (NOTHING, 1):
            raise PayloadFormatError("packages that are half an image of a slot")


def _fits_record(check: Check) -> Check:
    """``check``, and no longer than the journal's record takes, which repeats the text for the ordinary boot."""
    return lambda value: check(value) and len(value) <= TEXT_BYTES_MAX


_MANIFEST_FIELDS: dict[str, Check] = {
    "compatible": is_name,
    "expires-at": is_time,
    "images": lambda value: isinstance(value, list) and 0 < len(value) <= IMAGES_MAX,
    "kernel-release": _fits_record(is_name),
    "signed-at": is_time,
    "version": between(0, VERSION_MAX),
    "version-name": is_text,
}

_IMAGE_FIELDS: dict[str, Check] = {
    "delta-digest": is_digest,
    "filesystem": one_of("squashfs", "erofs", "ext4", NOTHING),
    "frame-size": between(FRAME_BYTES_MIN, FRAME_BYTES_MAX, IMAGE_UNIT_BYTES),
    "init": _fits_record(is_path),
    "kind": one_of("immutable", "read-write", PACKAGES),
    "size": between(IMAGE_UNIT_BYTES, IMAGE_BYTES_MAX, IMAGE_UNIT_BYTES),
    "slot-class": is_name,
    "table-digest": is_digest,
    "watchdog-owner": one_of(NOTHING, "systemd"),
}

# What a manifest of this format has: bundles made by another version of the toolkit may differ in it.
MANIFEST_KEYS = (*sorted(_MANIFEST_FIELDS), *sorted(_IMAGE_FIELDS))
