"""A second reader of bundles, written from docs/SPEC.md ("The bundle") alone: nothing of `payload` is imported here.

`taken` says what a device would do with the bytes of a bundle: it gives the images, or raises RefusedError. It
holds everything in memory, knows no journal, and does not read the delta part: the plain frames are always there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LAST_SECOND = 253_402_300_799
NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+~-")
Fields = dict[str, Callable[[object], bool]]


class RefusedError(Exception):
    """A device does not take these bytes."""


@dataclass(frozen=True)
class Device:
    """What the device brings: a raw key or a file of roots, its journal's floors; by the network?"""

    compatible: str
    pinned: bytes
    kernel_release: str | None = None
    floor: int = 0
    clock_floor: int = 0
    network: bool = False


def require(condition: object) -> None:
    if not condition:
        raise RefusedError


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def is_integer(low: int, high: int, step: int = 1) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high and value % step == 0


def is_text(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable()


def is_name(value: object) -> bool:
    return is_text(value) and set(str(value)) <= NAME


def is_path(value: object) -> bool:
    text = str(value)
    return is_text(value) and text.isascii() and len(text) <= 96 and text[0] == "/" and ".." not in text.split("/")


def is_hex(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_keys(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 8 and all(map(is_hex, value)) and value == sorted(set(value))


def is_one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in words


IMAGE: Fields = {
    "slot-class": is_name,
    "kind": is_one_of("immutable", "read-write", "packages"),
    "filesystem": is_one_of("squashfs", "erofs", "ext4", "none"),
    "size": is_integer(4096, 2**50, 4096),
    "frame-size": is_integer(4096, 4 << 20, 4096),
    "delta-digest": is_hex,
    "table-digest": is_hex,
    "watchdog-owner": is_one_of("none", "systemd"),
    "init": is_path,
}
TIMES: Fields = {"signed-at": is_integer(0, LAST_SECOND), "expires-at": is_integer(0, LAST_SECOND)}
MANIFEST: Fields = TIMES | {
    "compatible": is_name,
    "version": is_integer(0, 2**64 - 1),
    "version-name": is_text,
    "kernel-release": lambda value: is_name(value) and len(str(value)) <= 96,
    "images": lambda value: isinstance(value, list) and 1 <= len(value) <= 16,
}
ROOT: Fields = TIMES | {
    "version": is_integer(1, 2**32 - 1),
    "compatible": is_name,
    "root-keys": is_keys,
    "root-threshold": is_integer(1, 8),
    "bundle-keys": is_keys,
    "bundle-threshold": is_integer(1, 8),
    "floor": is_integer(0, 2**64 - 1),
}


def encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def fields(value: object, rules: Fields) -> dict[str, Any]:
    require(isinstance(value, dict) and value.keys() == rules.keys())
    assert isinstance(value, dict)
    require(all(rule(value[key]) for key, rule in rules.items()))
    return value


def parsed(data: bytes, rules: Fields) -> dict[str, Any]:
    require(data.count(b"{") + data.count(b"[") <= 64)
    try:
        value = json.loads(data.decode("ascii"))
        require(encode(value) == data)
    except (ValueError, RecursionError) as error:
        raise RefusedError from error
    value = fields(value, rules)
    require(value["signed-at"] <= value["expires-at"])
    return value


def parsed_root(data: bytes) -> dict[str, Any]:
    root = parsed(data, ROOT)
    require(root["root-threshold"] <= len(root["root-keys"]) and root["bundle-threshold"] <= len(root["bundle-keys"]))
    return root


def has_signed(key: str, entries: list[bytes], message: bytes) -> bool:
    public = bytes.fromhex(key)
    for entry in entries:
        if entry[:32] == digest(public):
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(entry[32:], message)
                return True
            except (InvalidSignature, ValueError):
                continue
    return False


def check_signed(keys: Iterable[str], threshold: int, entries: list[bytes], message: bytes) -> None:
    require(sum(has_signed(key, entries, message) for key in keys) >= threshold)


def cut_entries(data: bytes) -> list[bytes]:
    require(len(data) % 96 == 0 and len(data) <= 16 * 96)
    return [data[at : at + 96] for at in range(0, len(data), 96)]


def cut_chain(data: bytes) -> list[tuple[int, bytes, list[bytes]]]:
    """The links of a chain: version, text, entries of signatures."""
    links: list[tuple[int, bytes, list[bytes]]] = []
    while data:
        require(len(data) >= 12)
        version, length, count = struct.unpack_from("<III", data)
        require(version >= 1 and length <= 1536 and count <= 16 and len(data) >= 12 + length + 96 * count)
        require(not links or version == links[-1][0] + 1)
        links.append((version, data[12 : 12 + length], cut_entries(data[12 + length : 12 + length + 96 * count])))
        data = data[12 + length + 96 * count :]
    require(len(links) <= 32)
    return links


@dataclass(frozen=True)
class Known:
    """The newest root that is followed, and the floors."""

    text: bytes
    floor: int
    clock_floor: int

    def raised(self, floor: int, clock_floor: int) -> Known:
        return replace(self, floor=max(self.floor, floor), clock_floor=max(self.clock_floor, clock_floor))


def followed(known: Known, chain: bytes) -> Known:
    for version, text, entries in cut_chain(chain):
        root = parsed_root(known.text)
        if version < root["version"]:
            continue
        if version == root["version"]:
            require(text == known.text)
            continue
        message = b"unbrick root 1\n" + text
        require(version == root["version"] + 1)
        check_signed(root["root-keys"], root["root-threshold"], entries, message)
        new = parsed_root(text)
        require(new["version"] == version and new["compatible"] == root["compatible"])
        check_signed(new["root-keys"], new["root-threshold"], entries, message)
        if set(root["bundle-keys"]) <= set(new["bundle-keys"]):
            known = replace(known, text=text).raised(new["floor"], new["signed-at"])
        else:
            known = Known(text, new["floor"], new["signed-at"])
    return known


def pinned(device: Device) -> Known:
    if len(device.pinned) == 32:
        keys, ever = [device.pinned.hex()], {"signed-at": 0, "expires-at": LAST_SECOND, "floor": 0}
        both = {"root-keys": keys, "root-threshold": 1, "bundle-keys": keys, "bundle-threshold": 1}
        return Known(encode(ever | both | {"version": 1, "compatible": device.compatible}), 0, 0)
    require(device.pinned[:8] == b"\x89UBKROOT")
    version, text, entries = cut_chain(device.pinned[8:])[0]
    root = parsed_root(text)
    require(version == root["version"] == 1 and root["compatible"] == device.compatible)
    check_signed(root["root-keys"], root["root-threshold"], entries, b"unbrick root 1\n" + text)
    newest = parsed_root(followed(Known(text, 0, 0), device.pinned[8:]).text)
    return Known(encode(newest), newest["floor"], newest["signed-at"])


def plain_frame(stored: bytes, kind: int, length: int) -> bytes:
    if kind == 0:
        return bytes(length)
    if kind == 1:
        return stored
    try:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RefusedError from error


def image_of(image: dict[str, Any], table: bytes, data: bytes) -> bytes:
    """The plain bytes of one image; `data` is what lies behind the header."""
    require(digest(table).hex() == image["table-digest"])
    plain: list[bytes] = []
    for index, (offset, stored, kind, reserved, wanted) in enumerate(struct.iter_unpack("<QIB3s32s", table)):
        length = min(image["frame-size"], image["size"] - index * image["frame-size"])
        bounds = {0: (0, 0), 1: (length, length), 2: (1, length - 1)}
        require(kind in bounds and bounds[kind][0] <= stored <= bounds[kind][1] and reserved == bytes(3))
        require(offset <= 2**62 and (kind != 0 or offset == 0) and offset + stored <= len(data))
        plain.append(plain_frame(data[offset : offset + stored], kind, length))
        require(len(plain[-1]) == length and digest(plain[-1]) == wanted)
    return b"".join(plain)


def checked(
    device: Device, known: Known, manifest_text: bytes, entries: list[bytes]
) -> tuple[list[dict[str, Any]], Known]:
    root = parsed_root(known.text)
    message = b"unbrick bundle manifest 1\n" + manifest_text
    check_signed(root["bundle-keys"], root["bundle-threshold"], entries, message)
    manifest = parsed(manifest_text, MANIFEST)
    images = [fields(image, IMAGE) for image in manifest["images"]]
    require(len({image["slot-class"] for image in images}) == len(images))
    for image in images:
        marks = (image["slot-class"], image["kind"], image["filesystem"])
        rest = (image["init"], image["watchdog-owner"], manifest["kernel-release"], len(images))
        if marks[:2] != ("packages", "packages") or marks[2] != "none":
            require("packages" not in marks[:2] and marks[2] != "none")
        else:
            require(rest == ("/", "none", "none", 1))
            require(device.kernel_release is None)
    require(manifest["compatible"] == device.compatible and manifest["version"] >= known.floor)
    require(device.kernel_release in (None, manifest["kernel-release"]))
    known = known.raised(0, manifest["signed-at"])
    require(not device.network or min(root["expires-at"], manifest["expires-at"]) >= known.clock_floor)
    return images, known


def taken(bundle: bytes, device: Device) -> tuple[dict[str, bytes], Known]:
    """The images of a bundle by slot class, every frame verified, and what is known then. Raises: RefusedError."""
    require(len(bundle) >= 64)
    magic, sealed, form, *lengths, reserved = struct.unpack_from("<8s32sIIIIII", bundle)
    bounds = (65_536, 16 * 96, 98_688, 16 << 20)
    require(magic == b"\x89UBK\r\n\x1a\n" and form == 1 and reserved == 0)
    require(all(length <= bound for length, bound in zip(lengths, bounds, strict=True)))
    header = bundle[: (64 + sum(lengths) + 4095) // 4096 * 4096]
    require(len(header) % 4096 == 0 and digest(header[40:]) == sealed and not any(header[64 + sum(lengths) :]))
    parts, at = [], 64
    for length in lengths:
        parts.append(header[at : at + length])
        at += length
    manifest_text, signatures, chain, tables = parts
    begin = pinned(device).raised(device.floor, device.clock_floor)
    images, known = checked(device, followed(begin, chain), manifest_text, cut_entries(signatures))
    found: dict[str, bytes] = {}
    for image in images:
        rows = -(-image["size"] // image["frame-size"]) * 48
        require(len(tables) >= rows)
        found[image["slot-class"]] = image_of(image, tables[:rows], bundle[len(header) :])
        tables = tables[rows:]
    require(not tables)
    return found, known
