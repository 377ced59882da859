"""The manifest: what a bundle holds and for whom. The signed part, as one JSON text.

Knows nothing of signatures or disks. :func:`decode` is only for bytes whose signature holds
(``payload.trust``); it is strict all the same, because one meaning must have one encoding: keys are
exactly the known ones, and the text is byte for byte what :func:`encode` makes of its content, which
also rules out duplicate keys, other spellings of a number and stray white space.
"""

from __future__ import annotations

from payload.digest import DIGEST_BYTES, digest
from payload.errors import PayloadFormatError
from payload.table import FRAME_BYTES_MAX, FRAME_BYTES_MIN, IMAGE_UNIT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from payload.table import FrameTable

    Check = Callable[[Any], bool]

MANIFEST_BYTES_MAX = 64 << 10
BRACKETS_MAX = 64  # bounds depth and number of containers before the parser runs
IMAGES_MAX = 16
TEXT_CHARACTERS_MAX = 128
VERSION_MAX = (1 << 64) - 1
IMAGE_BYTES_MAX = 1 << 50


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
    """What a bundle says of itself. ``digest`` is over its bytes: the identity of a version."""

    __slots__ = ("compatible", "digest", "images", "kernel_release", "version", "version_name")

    def __init__(
        self,
        *,
        compatible: str,
        version: int,
        version_name: str,
        kernel_release: str,
        images: tuple[Image, ...],
    ) -> None:
        self.compatible = compatible
        self.version = version
        self.version_name = version_name
        self.kernel_release = kernel_release
        self.images = images
        self.digest = digest(encode(self))

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
    return _dump(
        {
            "compatible": manifest.compatible,
            "images": [_image_fields(image) for image in manifest.images],
            "kernel-release": manifest.kernel_release,
            "version": manifest.version,
            "version-name": manifest.version_name,
        }
    )


def decode(text: bytes) -> Manifest:
    """The manifest in ``text``.

    Raises:
        PayloadFormatError: it is not the one encoding of a manifest of this format.
    """
    fields = _load(text)
    _check_fields(fields, _MANIFEST_FIELDS, "manifest")
    images = tuple(_decode_image(image) for image in fields["images"])
    if len({image.slot_class for image in images}) != len(images):
        raise PayloadFormatError("two images of the manifest are for the same slot class")
    return Manifest(
        compatible=fields["compatible"],
        version=fields["version"],
        version_name=fields["version-name"],
        kernel_release=fields["kernel-release"],
        images=images,
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
    _check_fields(fields, _IMAGE_FIELDS, "image")
    values = {key.replace("-", "_"): value for key, value in fields.items()}
    values["delta_digest"] = bytes.fromhex(fields["delta-digest"])
    values["table_digest"] = bytes.fromhex(fields["table-digest"])
    return Image(**values)


def _dump(fields: Any) -> bytes:
    import json  # late: the ordinary boot reads no manifest

    return json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")


def _load(text: bytes) -> Any:
    import json

    if len(text) > MANIFEST_BYTES_MAX:
        raise PayloadFormatError(f"the manifest has {len(text)} bytes, allowed are {MANIFEST_BYTES_MAX}")
    if text.count(b"{") + text.count(b"[") > BRACKETS_MAX:
        raise PayloadFormatError("the manifest is nested too deeply")
    try:
        fields = json.loads(text.decode("ascii"))
    except ValueError as error:
        raise PayloadFormatError(f"the manifest is not JSON: {error}") from error
    if _dump(fields) != text:
        raise PayloadFormatError("the manifest is not in its one encoding")
    return fields


def _check_fields(fields: Any, known: dict[str, Check], what: str) -> None:
    if not isinstance(fields, dict):
        raise PayloadFormatError(f"the {what} is not an object")
    for key in sorted(known.keys() ^ fields.keys()):
        raise PayloadFormatError(f"the {what} {'lacks' if key in known else 'has the unknown key'} {key!r:.80}")
    for key, check in known.items():
        if not check(fields[key]):
            raise PayloadFormatError(f"the {what} has a bad value of {key!r}")


def _is_text(value: Any) -> bool:
    """Short and printable: it goes to screens as it is."""
    return isinstance(value, str) and 0 < len(value) <= TEXT_CHARACTERS_MAX and value.isprintable()


def _is_name(value: Any) -> bool:
    """A text without white space, separators and surprises."""
    return _is_text(value) and all(letter.isalnum() or letter in "._+~-" for letter in value) and value.isascii()


def _is_path(value: Any) -> bool:
    return _is_text(value) and value.isascii() and value.startswith("/") and ".." not in value.split("/")


def _is_digest(value: Any) -> bool:
    digits = set("0123456789abcdef")
    return isinstance(value, str) and len(value) == 2 * DIGEST_BYTES and digits.issuperset(value)


def _between(low: int, high: int, unit: int = 1) -> Check:
    # `type(...) is int`: True and False are ints, too
    return lambda value: type(value) is int and low <= value <= high and value % unit == 0


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


_MANIFEST_FIELDS: dict[str, Check] = {
    "compatible": _is_name,
    "images": lambda value: isinstance(value, list) and 0 < len(value) <= IMAGES_MAX,
    "kernel-release": _is_name,
    "version": _between(0, VERSION_MAX),
    "version-name": _is_text,
}

_IMAGE_FIELDS: dict[str, Check] = {
    "delta-digest": _is_digest,
    "filesystem": _one_of("squashfs", "erofs", "ext4"),
    "frame-size": _between(FRAME_BYTES_MIN, FRAME_BYTES_MAX, IMAGE_UNIT_BYTES),
    "init": _is_path,
    "kind": _one_of("immutable", "read-write"),
    "size": _between(IMAGE_UNIT_BYTES, IMAGE_BYTES_MAX, IMAGE_UNIT_BYTES),
    "slot-class": _is_name,
    "table-digest": _is_digest,
    "watchdog-owner": _one_of("none", "systemd"),
}
