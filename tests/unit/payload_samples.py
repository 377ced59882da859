"""Small real bundles for the tests of ``payload``: made by the production code, signed by a fixed key."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from payload.bundle import Header, read_header
from payload.create import BundleInput, Created, ImageInput, create
from payload.manifest import Image, Manifest
from payload.signing_key import public_bytes
from payload.trust import trusted_key, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ROOT = public_bytes(KEY)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
COMPATIBLE = "unbrick-virtual"
KERNEL = "6.1.0-44-amd64"
VERSION = 7
FRAME = 4096


def mixed_image(frames: int = 4, seed: int = 1) -> bytes:
    """Frames in turn: text (stored as zstd), noise (raw), zeroes (zero)."""
    chance = random.Random(seed)
    makers = (
        lambda: (b"frame %d " % chance.randrange(1 << 30) * FRAME)[:FRAME],
        lambda: chance.randbytes(FRAME),
        lambda: bytes(FRAME),
    )
    return b"".join(makers[index % 3]() for index in range(frames))


class BytesReader:
    """A bundle in memory."""

    name = "memory"

    def __init__(self, content: bytes) -> None:
        self.content = content

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def make(
    folder: Path,
    image: bytes,
    *,
    key: Ed25519PrivateKey = KEY,
    frame_size: int = FRAME,
    name: str = "sample",
    fields: BundleInput | None = None,
) -> tuple[Path, Created]:
    """A bundle file of one image. ``fields`` replaces everything but the images."""
    path = folder / f"{name}.img"
    path.write_bytes(image)
    default = BundleInput(COMPATIBLE, VERSION, "7.0 «test»", KERNEL, ())
    images = (ImageInput(path, "squashfs", frame_size=frame_size, watchdog_owner="systemd"),)
    output = folder / f"{name}.ubk"
    return output, create(replace(fields or default, images=images), key, output)


class Sample:
    """A bundle in memory with everything that the code under test wants of it."""

    def __init__(self, folder: Path, image: bytes, name: str = "sample", version: int = VERSION) -> None:
        fields = BundleInput(COMPATIBLE, version, f"{version}.0", KERNEL, ())
        path, self.created = make(folder, image, name=name, fields=fields)
        self.plain = image
        self.content = path.read_bytes()
        self.reader = BytesReader(self.content)
        self.header: Header = read_header(self.reader)
        self.manifest: Manifest = believe(self.header)
        self.image: Image = self.manifest.image("rootfs")


def believe(header: Header) -> Manifest:
    """What the device of these tests takes."""
    return verify(header, trusted_key(ROOT, COMPATIBLE, floor=1), COMPATIBLE, KERNEL)[0]
