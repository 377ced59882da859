"""Bundles by number, right and wrong in every way that its maker could think of: the same number, the same bundle.

Most wrongs are made *before* the signing, so that nothing but the reader's own care refuses them. The bytes are put
together here and not by `payload`, which would refuse to make them.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.ubk_reader import Device

COMPATIBLE, KERNEL = "bench-7", "6.1.0-44-amd64"
DAY, NOON = 86_400, 1_800_000_000
ODD_VALUES: tuple[Any, ...] = (
    0, 1, -1, 7, True, None, 1.0, 1e400, 4096, 4097, 12_288, 4 << 20, (4 << 20) + 4096, 2**31, 2**32 - 1, 2**32, 2**50,
    2**50 + 4096, 2**64 - 1, 2**64, 253_402_300_799, 253_402_300_800, NOON, "", " ", "a b", "a\tb", "x" * 128,
    "x" * 129, "x" * 96, "x" * 97, "/" + "x" * 95, "/" + "x" * 96,
    "é", "\x7f", "\u200b", "\ud800", "none", "systemd", "immutable", "read-write", "packages", "ext4", "btrfs", "/",
    "//", "/a..b/c", "/a/../b", "/..", "a/b", "/a b", "/é",
    "/" + "[" * 50, "{" * 70, "a\u2028b", "a\u00a0b",
    COMPATIBLE, KERNEL, "0" * 64, "A" * 64, "g" * 64, "0" * 63, [], [[]], {}, [{}],
    ["0" * 64], ["1" * 64, "0" * 64], ["0" * 64, "0" * 64], [f"{number:064x}" for number in range(9)],
)  # fmt: skip


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(digest(name.encode()))


def public(name: str) -> bytes:
    return key(name).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def entry(name: str, message: bytes) -> bytes:
    return digest(public(name)) + key(name).sign(message)


def encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


@dataclass
class Link:
    """A root, who signs it, and what its header says of it where that is not true."""

    root: dict[str, Any]
    signers: list[str]
    version: int
    text: bytes | None = None

    def encode(self) -> bytes:
        text = encode(self.root) if self.text is None else self.text
        entries = [entry(name, b"unbrick root 1\n" + text) for name in self.signers]
        return struct.pack("<III", self.version, len(text), len(entries)) + text + b"".join(entries)


@dataclass
class Draft:
    """A bundle before it is signed. ``tables`` belong to the images, ``data`` are the stored frames."""

    manifest: dict[str, Any]
    tables: list[bytes]
    data: bytes
    signers: list[str]
    links: list[Link]
    pinned_links: list[Link] = field(default_factory=list)
    text: bytes | None = None
    entries: Callable[[list[bytes]], list[bytes]] = lambda made: made
    prefix: dict[str, int] = field(default_factory=dict)
    fill: bytes = b""

    def encode(self) -> bytes:
        text = encode(self.manifest) if self.text is None else self.text
        signatures = [entry(name, b"unbrick bundle manifest 1\n" + text) for name in self.signers]
        chain = b"".join(link.encode() for link in self.links)
        sections = [text, b"".join(self.entries(signatures)), chain, b"".join(self.tables)]
        names = ("manifest", "signatures", "roots", "tables")
        lengths = [self.prefix.get(name, len(part)) for name, part in zip(names, sections, strict=True)]
        content = struct.pack("<6I", self.prefix.get("format", 1), *lengths, self.prefix.get("reserved", 0))
        content += b"".join(sections)
        content += self.fill.ljust(-(len(content) + 40) % 4096, b"\0")
        return b"\x89UBK\r\n\x1a\n" + digest(content) + content + self.data


def make_image(chance: random.Random, slot_class: str, data: bytearray) -> tuple[dict[str, Any], bytes]:
    """The fields of an image and its table; its frames are added to ``data``."""
    frame_size = chance.choice((4096, 8192, 12_288))
    size = 4096 * chance.randint(1, 5)
    table = b""
    for start in range(0, size, frame_size):
        length = min(frame_size, size - start)
        plain = chance.choice((bytes(length), chance.randbytes(length), b"text %d " % chance.randrange(9) * length))[
            :length
        ]
        kind, stored = store(chance, plain)
        table += struct.pack("<QIB3s32s", len(data) if stored else 0, len(stored), kind, b"", digest(plain))
        data += stored
    fields = {
        "slot-class": slot_class, "kind": chance.choice(("immutable", "read-write")), "filesystem": "squashfs",
        "size": size, "frame-size": frame_size, "table-digest": digest(table).hex(), "watchdog-owner": "none",
        "init": "/sbin/init", "delta-digest": chance.choice((bytes(32), digest(b"a directory elsewhere"))).hex(),
    }  # fmt: skip
    return fields, table


def store(chance: random.Random, plain: bytes) -> tuple[int, bytes]:
    """Any kind that holds it; as a zstd frame in any of the forms that RFC 8878 has, and some it has not."""
    if not any(plain) and chance.random() < 0.7:
        return 0, b""
    says_size, has_checksum = chance.random() < 0.7, chance.random() < 0.3
    stored = zstandard.ZstdCompressor(write_content_size=says_size, write_checksum=has_checksum).compress(plain)
    stored += chance.choice((b"",) * 8 + (b"\0", stored, b"\x50\x2a\x4d\x18\4\0\0\0skip"))
    if chance.random() < 0.05:
        stored = b"\x50\x2a\x4d\x18\4\0\0\0skip" + stored
    return (2, stored) if len(stored) < len(plain) else (1, plain)


def make_draft(chance: random.Random) -> Draft:
    """A bundle that the devices of :func:`make_device` take."""
    data = bytearray()
    classes = ["rootfs", "maps", "voice"][: chance.choice((1, 1, 2, 3))]
    made = [make_image(chance, slot_class, data) for slot_class in classes]
    signed_at = NOON + chance.randrange(10) * DAY
    manifest = {
        "compatible": COMPATIBLE, "version": chance.randrange(5, 9), "version-name": "5 «x»", "kernel-release": KERNEL,
        "signed-at": signed_at, "expires-at": signed_at + chance.randrange(3) * DAY,
        "images": [fields for fields, _table in made],
    }  # fmt: skip
    return Draft(manifest, [table for _fields, table in made], bytes(data), ["build"], [])


def make_roots(chance: random.Random, count: int) -> list[Link]:
    """Root 1 and its followers; "build" always signs bundles, and some roots take another key away."""
    links: list[Link] = []
    before: list[str] = []
    for version in range(1, count + 1):
        names = chance.sample(("alice", "bob", "carol", "dave"), chance.randint(1, 3))
        bundle_names = ["build", *chance.sample(("release", "other"), chance.randint(0, 2))]
        root: dict[str, Any] = {
            "version": version, "compatible": COMPATIBLE, "root-keys": sorted(public(name).hex() for name in names),
            "root-threshold": chance.randint(1, len(names)), "floor": chance.choice((0, 0, 4, 6)),
            "bundle-keys": sorted(public(name).hex() for name in bundle_names), "bundle-threshold": 1,
            "signed-at": NOON + version * DAY, "expires-at": NOON + (version + chance.randrange(9)) * DAY,
        }  # fmt: skip
        links.append(Link(root, sorted({*names, *before}), version))
        before = names
    return links


def make_device(chance: random.Random, draft: Draft) -> Callable[[], Device]:
    """Who is asked; built late, so that what is wrong with the pinned roots is in it."""
    device = Device(
        COMPATIBLE,
        public("build"),
        chance.choice((None, *[KERNEL] * 9, "6.2")),
        floor=chance.choice((0, 0, 0, 5, 7)),
        clock_floor=chance.choice((0, 0, NOON + 2 * DAY, NOON + 5 * DAY)),
        network=chance.random() < 0.4,
    )
    if chance.random() < 0.4:
        return lambda: device
    links = make_roots(chance, chance.randint(1, 4))
    draft.pinned_links = links[: chance.randint(1, len(links))]
    draft.links = links[chance.choice((0, 0, 1)) :]
    if chance.random() < 0.2:
        draft.links = draft.links[: chance.randint(0, len(draft.links))]
    return lambda: replace(device, pinned=b"\x89UBKROOT" + b"".join(link.encode() for link in draft.pinned_links))


# What can be wrong before the signing.


def odd_fields(chance: random.Random, values: dict[str, Any]) -> None:
    """A value that is odd, most often one of the right type, a key too few or one too many."""
    name = chance.choice(sorted(values))
    alike = tuple(value for value in ODD_VALUES if type(value) is type(values[name]))
    change = chance.randrange(6)
    if change == 0:
        del values[name]
    elif change == 1:
        values[chance.choice(("x", name + "s"))] = chance.choice(ODD_VALUES)
    else:
        values[name] = chance.choice(alike if alike and change > 2 else ODD_VALUES)


def wrong_manifest(chance: random.Random, draft: Draft) -> None:
    odd_fields(chance, draft.manifest)


def wrong_image(chance: random.Random, draft: Draft) -> None:
    odd_fields(chance, chance.choice(draft.manifest["images"]))


def wrong_images(chance: random.Random, draft: Draft) -> None:
    """More of the same images, with or without their tables, with the same class or with others."""
    count = chance.choice((1, 2, 15, 16, 17))
    first = draft.manifest["images"][0]
    draft.manifest["images"] = [{**first, "slot-class": f"c{number}"} for number in range(count)]
    draft.tables = [draft.tables[0]] * chance.choice((count, count, count - 1))
    if chance.random() < 0.3:
        draft.manifest["images"][-1]["slot-class"] = "c0"


def wrong_table(chance: random.Random, draft: Draft) -> None:
    """An entry says something else, and the signed digest agrees."""
    number = chance.randrange(len(draft.tables))
    table = draft.tables[number]
    row = list(struct.unpack_from("<QIB3s32s", table, 48 * chance.randrange(len(table) // 48)))
    at = table.index(struct.pack("<QIB3s32s", *row))
    column = chance.randrange(5)
    length = draft.manifest["images"][number]["frame-size"]
    row[column] = chance.choice(
        {
            0: (0, 1, row[0] + 1, len(draft.data), 2**62, 2**62 + 1, 2**64 - 1),
            1: (0, 1, length - 1, length, length + 1, row[1] + 1, 2**32 - 1),
            2: (0, 1, 2, 3, 255),
            3: (b"\0\0\1", b"\1\0\0"),
            4: (bytes(32), digest(bytes(length)), row[4][::-1]),
        }[column]
    )
    table = table[:at] + struct.pack("<QIB3s32s", *row) + table[at + 48 :]
    if chance.random() < 0.1:
        table += table[:48]
    draft.tables[number] = table
    draft.manifest["images"][number]["table-digest"] = digest(table).hex()


def wrong_encoding(chance: random.Random, draft: Draft) -> None:
    """The same content, or nearly, in other bytes."""
    text = encode(draft.manifest)
    draft.text = chance.choice(
        (
            text + b"\n", b" " + text, text[:-1], text.replace(b":", b": ", 1), text.replace(b":[", b":[[[[[", 1), b"",
            text.replace(b"\\u00ab", "«".encode()), text.replace(b"\\u00ab", b"\\u00AB"), b"[" + text + b"]", b"{}",
            text.replace(b"bench", b"\\u0062ench"), text.replace(b"{", b'{"version":1,', 1), b"\xef\xbb\xbf" + text,
            json.dumps(draft.manifest).encode(), b"[" * 60_000, text.replace(b"4096", b"4096.0"), b"9" * 5000, b"NaN",
            text.replace(b"4096", b"04096"), text.replace(b"/sbin/init", b"\\/sbin/init"), b"null", text.ljust(65_536),
            text.ljust(65_537),
        )
    )  # fmt: skip


def wrong_root(chance: random.Random, draft: Draft) -> None:
    if draft.links:
        odd_fields(chance, chance.choice(draft.links).root)


def wrong_pinned_root(chance: random.Random, draft: Draft) -> None:
    if draft.pinned_links:
        draft.pinned_links = [Link(dict(link.root), link.signers, link.version) for link in draft.pinned_links]
        odd_fields(chance, chance.choice(draft.pinned_links).root)


def wrong_link(chance: random.Random, draft: Draft) -> None:
    """A link that lies about its version, is left out, is there twice, or whose text is another."""
    if not draft.links:
        draft.links = make_roots(chance, 2)
    at = chance.randrange(len(draft.links))
    link = draft.links[at]
    change = chance.randrange(6)
    if change == 0:
        draft.links.pop(at)
    elif change == 1:
        draft.links.insert(at, link)
    else:
        text = chance.choice((None, encode(link.root) + b" ", b"", b"x" * 1536, b"x" * 1537, encode(link.root)[:-1]))
        version = chance.choice((link.version, link.version + 1, 0, 2**32 - 1))
        draft.links[at] = Link(link.root, link.signers, version, text)


def wrong_link_signers(chance: random.Random, draft: Draft) -> None:
    if draft.links:
        link = chance.choice(draft.links)
        link.signers = chance.choice(
            (link.signers[1:], link.signers * 2, link.signers + ["mallory"] * 13, ["mallory"], [], ["mallory"] * 17)
        )


def wrong_signers(chance: random.Random, draft: Draft) -> None:
    draft.signers = chance.choice(([], ["mallory"], ["release"], ["build", "mallory"], ["build"] * 16, ["build"] * 17))


def wrong_entries(chance: random.Random, draft: Draft) -> None:
    """Signatures in other bytes: torn, one of a known key that lies beside one that does not, in either order."""
    change = chance.randrange(4)
    lie = digest(public("build")) + bytes(64)
    draft.entries = [
        lambda made: [lie, *made], lambda made: [*made, lie], lambda made: [b"".join(made)[:-1]],
        lambda made: [each[:95] + bytes([each[95] ^ 0x80]) for each in made],
    ][change]  # fmt: skip


def wrong_prefix(chance: random.Random, draft: Draft) -> None:
    name = chance.choice(("format", "reserved", "manifest", "signatures", "roots", "tables"))
    draft.prefix[name] = chance.choice(
        (0, 1, 2, 48, 96, 4096, 65_536, 65_537, 98_688, 98_689, 1 << 24, (1 << 24) + 48, 2**32 - 1)
    )


def wrong_fill(chance: random.Random, draft: Draft) -> None:
    draft.fill = bytes(chance.randrange(9)) + b"x"


# In the order in which they can be made together; what is there twice is chosen more often.
WRONGS = (
    wrong_table, wrong_table, wrong_images, wrong_image, wrong_image, wrong_manifest, wrong_manifest, wrong_encoding,
    wrong_link, wrong_root, wrong_root, wrong_pinned_root, wrong_link_signers, wrong_signers, wrong_entries,
    wrong_prefix, wrong_fill,
)  # fmt: skip


def damaged(chance: random.Random, bundle: bytes) -> bytes:
    """A bit, a byte or the end: with the checksum of the header made right again half of the time."""
    if chance.random() < 0.2:
        return bundle[: chance.randrange(len(bundle))]
    changed = bytearray(bundle)
    at = chance.randrange(len(bundle)) if chance.random() < 0.5 else chance.randrange(min(len(bundle), 1500))
    changed[at] = chance.choice((0, 255, changed[at] ^ 1 << chance.randrange(8)))
    if chance.random() < 0.5:
        lengths = struct.unpack_from("<4I", changed, 44)
        header = (64 + sum(lengths) + 4095) // 4096 * 4096
        changed[8:40] = digest(bytes(changed[40:header]))
    return bytes(changed)


def make_case(number: int) -> tuple[bytes, Device]:
    """A bundle and the device that is to judge it."""
    chance = random.Random(number)
    draft = make_draft(chance)
    device = make_device(chance, draft)
    wrongs = {chance.choice(WRONGS) for _wrong in range(chance.choice((0, 0, 1, 1, 1, 2)))}
    for wrong in sorted(wrongs, key=WRONGS.index):
        wrong(chance, draft)
    bundle = draft.encode()
    if chance.random() < 0.25:
        bundle = damaged(chance, bundle)
    return bundle + bytes(chance.choice((0, 0, 1, 5000))), device()
