"""Making signed bundles. Runs on the build host only.

The same input gives the same bytes, whoever builds, wherever and when (and with the same version of
the zstd library). Images are streamed: memory is a few frames. The output appears whole or not at
all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from payload.bundle import encode_header, header_length
from payload.digest import DIGEST_BYTES, digest
from payload.durable import atomic_replace
from payload.errors import PayloadFormatError, PayloadInputError
from payload.frames import silent
from payload.manifest import Image, Manifest, decode, encode
from payload.roots import encode_chain
from payload.signatures import SIGNATURE_ENTRY_BYTES
from payload.signing_key import SigningKey, sign
from payload.strict_json import TIME_MAX
from payload.table import (
    ENTRY,
    FRAME_BYTES_DEFAULT,
    IMAGE_UNIT_BYTES,
    RAW,
    ZERO,
    ZSTD,
    Frame,
    frame_count,
)

if TYPE_CHECKING:
    from payload.frames import Progress
    from payload.roots import Link

ZSTD_LEVEL = 15
THREADS_MAX = 8
FRAMES_AHEAD_PER_THREAD = 4
KIND_NAMES = {ZERO: "zero", RAW: "raw", ZSTD: "zstd"}


@dataclass(frozen=True)
class ImageInput:
    """An image file and what the manifest says of it. Filled up with zeroes to whole 4 KiB."""

    path: Path
    filesystem: str
    slot_class: str = "rootfs"
    kind: str = "immutable"
    watchdog_owner: str = "none"
    init: str = "/sbin/init"
    frame_size: int = FRAME_BYTES_DEFAULT


@dataclass(frozen=True)
class BundleInput:
    """The fields of a manifest, and its images. Times are seconds since 1970."""

    compatible: str
    version: int
    version_name: str
    kernel_release: str
    images: tuple[ImageInput, ...]
    signed_at: int = 0
    expires_at: int = TIME_MAX


@dataclass(frozen=True)
class Created:
    """What was made: the manifest's digest (the version's identity), bytes of the header, of the whole
    file and of the plain images, and how many frames are stored as ``zero``, ``raw``, ``zstd``."""

    digest: bytes
    header_bytes: int
    file_bytes: int
    image_bytes: int
    frames: dict[str, int]


def create(
    bundle: BundleInput,
    signing_key: SigningKey,
    output: Path,
    progress: Progress = silent,
    *,
    cosigners: Sequence[SigningKey] = (),
    roots: Sequence[Link] = (),
) -> Created:
    """Write the bundle to ``output``, signed by ``signing_key`` and ``cosigners``, with the chain of ``roots``.

    Raises:
        PayloadInputError: an image is missing or empty, or a field is not as the format wants it.
        OSError: the output cannot be written; what was there before is still there.
    """
    writer = _Writer(bundle, (signing_key, *cosigners), tuple(roots), progress)
    atomic_replace(output, writer.write)
    return writer.created()


class _Writer:
    """Data first, behind the place of the header, whose length is known before its content is."""

    def __init__(
        self,
        bundle: BundleInput,
        signing_keys: Sequence[SigningKey],
        roots: Sequence[Link],
        progress: Progress,
    ) -> None:
        self._bundle = bundle
        self._signing_keys = signing_keys
        self._roots = roots
        self._progress = progress
        self._sizes = [_padded_size(image.path) for image in bundle.images]
        self._counts = [
            frame_count(size, image.frame_size) for size, image in zip(self._sizes, bundle.images, strict=True)
        ]
        draft = self._manifest([bytes(DIGEST_BYTES)] * len(bundle.images))
        self._header_bytes = header_length(
            len(draft),
            len(signing_keys) * SIGNATURE_ENTRY_BYTES,
            len(encode_chain(roots)),
            sum(self._counts) * ENTRY.size,
        )
        self._stored_bytes = 0
        self._kinds = dict.fromkeys(KIND_NAMES.values(), 0)
        self._manifest_bytes = b""

    def write(self, file: BinaryIO) -> None:
        file.seek(self._header_bytes)
        with ThreadPoolExecutor(_threads()) as pool:
            tables = [self._write_image(number, file, pool) for number in range(len(self._sizes))]
        self._manifest_bytes = self._manifest([digest(table) for table in tables])
        signatures = [sign(key, self._manifest_bytes) for key in self._signing_keys]
        header = encode_header(self._manifest_bytes, signatures, b"".join(tables), self._roots)
        assert len(header) == self._header_bytes, "the header's length was computed wrongly"
        file.seek(0)
        file.write(header)
        file.truncate(self._header_bytes + self._stored_bytes)

    def created(self) -> Created:
        file_bytes = self._header_bytes + self._stored_bytes
        return Created(digest(self._manifest_bytes), self._header_bytes, file_bytes, sum(self._sizes), self._kinds)

    def _write_image(self, number: int, file: BinaryIO, pool: ThreadPoolExecutor) -> bytes:
        image, size = self._bundle.images[number], self._sizes[number]
        table = []
        with image.path.open("rb") as source:
            plain_frames = _plain_frames(source, size, image.frame_size)
            while batch := list(islice(plain_frames, _threads() * FRAMES_AHEAD_PER_THREAD)):
                for kind, stored, plain_digest, plain_length in pool.map(_pack, batch):
                    offset = self._stored_bytes if stored else 0
                    table.append(Frame(kind, offset, len(stored), plain_length, plain_digest).encode())
                    file.write(stored)
                    self._stored_bytes += len(stored)
                    self._kinds[KIND_NAMES[kind]] += 1
                    self._progress("bundle", sum(self._kinds.values()), sum(self._counts))
        return b"".join(table)

    def _manifest(self, table_digests: list[bytes]) -> bytes:
        images = tuple(
            Image(
                slot_class=image.slot_class,
                kind=image.kind,
                filesystem=image.filesystem,
                size=size,
                frame_size=image.frame_size,
                table_digest=table_digest,
                watchdog_owner=image.watchdog_owner,
                init=image.init,
            )
            for image, size, table_digest in zip(self._bundle.images, self._sizes, table_digests, strict=True)
        )
        manifest_bytes = encode(
            Manifest(
                compatible=self._bundle.compatible,
                version=self._bundle.version,
                version_name=self._bundle.version_name,
                kernel_release=self._bundle.kernel_release,
                images=images,
                signed_at=self._bundle.signed_at,
                expires_at=self._bundle.expires_at,
            )
        )
        try:
            decode(manifest_bytes)
        except PayloadFormatError as error:
            raise PayloadInputError(str(error)) from error
        return manifest_bytes


def _threads() -> int:
    return min(os.cpu_count() or 1, THREADS_MAX)


def _padded_size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise PayloadInputError(f"{path}: {error.strerror}") from error
    if not path.is_file() or size == 0:
        raise PayloadInputError(f"{path} is not a file with an image in it")
    return -(-size // IMAGE_UNIT_BYTES) * IMAGE_UNIT_BYTES


def _plain_frames(source: BinaryIO, size: int, frame_size: int) -> Iterator[bytes]:
    for start in range(0, size, frame_size):
        length = min(frame_size, size - start)
        plain = source.read(length)
        if len(plain) <= length - IMAGE_UNIT_BYTES:
            raise PayloadInputError(f"{source.name} became shorter while it was read")
        yield plain.ljust(length, b"\0")


def _pack(plain: bytes) -> tuple[int, bytes, bytes, int]:
    """Kind, stored bytes, digest and length of one frame; the smallest kind that holds it."""
    plain_digest, length = digest(plain), len(plain)
    if plain.count(0) == length:
        return ZERO, b"", plain_digest, length
    stored = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(plain)
    if len(stored) < length:
        return ZSTD, stored, plain_digest, length
    return RAW, plain, plain_digest, length
