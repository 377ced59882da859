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
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from payload.bundle import Header, encode_header, header_length
from payload.create_delta import DeltaWriter, NewImage, OldVersion
from payload.delta import DIRECTORY_BYTES, DIRECTORY_ENTRIES_MAX, NO_DIGEST, directory_offset, encode_directory
from payload.digest import DIGEST_BYTES, digest
from payload.durable import atomic_replace
from payload.errors import PayloadError, PayloadFormatError, PayloadInputError
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
from payload.trust import attach_tables

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
    """The fields of a manifest, and its images. Times are seconds since 1970. ``units``: for devices with any old
    content. ``old_versions``: bundles that devices may have installed, whose content makes this one small for them."""

    compatible: str
    version: int
    version_name: str
    kernel_release: str
    images: tuple[ImageInput, ...]
    signed_at: int = 0
    expires_at: int = TIME_MAX
    units: bool = False
    old_versions: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Created:
    """What was made: the manifest's digest (the version's identity), bytes of the header, of the whole
    file, of its delta part and of the plain images, and how many frames are stored as ``zero``, ``raw``, ``zstd``."""

    digest: bytes
    header_bytes: int
    file_bytes: int
    delta_bytes: int
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
        PayloadInputError: an image is missing or empty, an old version is no bundle, or a field is not as
            the format wants it.
        OSError: the output cannot be written; what was there before is still there.
    """
    writer = _Writer(bundle, (signing_key, *cosigners), tuple(roots), progress)
    atomic_replace(output, writer.write)
    return writer.created()


def draft(
    bundle: BundleInput, signing_keys: Sequence[SigningKey], roots: Sequence[Link] = ()
) -> tuple[Header, Manifest]:
    """What :func:`create` would make, as far as that is known before an image is read: a header of zeroes that is as
    long as the real one, and the manifest without its digests. Raises ``PayloadInputError``."""
    writer = _Writer(bundle, signing_keys, roots, silent)
    manifest_bytes = encode(writer.draft)
    return Header(bytes(writer.header_bytes), manifest_bytes, (), tuple(roots), b""), writer.draft


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
        self._old_versions = [_old_version(path) for path in bundle.old_versions]
        if len(self._old_versions) >= DIRECTORY_ENTRIES_MAX:
            raise PayloadInputError(f"{len(self._old_versions)} old versions, {DIRECTORY_ENTRIES_MAX - 1} are allowed")
        self._sizes = [_padded_size(image.path) for image in bundle.images]
        self._counts = [
            frame_count(size, image.frame_size) for size, image in zip(self._sizes, bundle.images, strict=True)
        ]
        no_digests = [bytes(DIGEST_BYTES)] * len(bundle.images)
        self.draft = self._manifest(no_digests, no_digests)
        self.header_bytes = header_length(
            len(encode(self.draft)),
            len(signing_keys) * SIGNATURE_ENTRY_BYTES,
            len(encode_chain(roots)),
            sum(self._counts) * ENTRY.size,
        )
        self._stored_bytes = 0
        self._delta_bytes = 0
        self._kinds = dict.fromkeys(KIND_NAMES.values(), 0)
        self._manifest_bytes = b""

    def write(self, file: BinaryIO) -> None:
        file.seek(self.header_bytes)
        with ThreadPoolExecutor(_threads()) as pool:
            tables = [self._write_image(number, file, pool) for number in range(len(self._sizes))]
            directories = self._write_delta(file, pool, tables)
        manifest = self._manifest([digest(table) for table in tables], directories)
        self._manifest_bytes = encode(manifest)
        signatures = [sign(key, self._manifest_bytes) for key in self._signing_keys]
        header = encode_header(self._manifest_bytes, signatures, b"".join(tables), self._roots)
        assert len(header) == self.header_bytes, "the header's length was computed wrongly"
        file.seek(0)
        file.write(header)
        file.truncate(self.header_bytes + self._stored_bytes + self._delta_bytes)

    def created(self) -> Created:
        file_bytes = self.header_bytes + self._stored_bytes + self._delta_bytes
        return Created(
            digest=digest(self._manifest_bytes),
            header_bytes=self.header_bytes,
            file_bytes=file_bytes,
            delta_bytes=self._delta_bytes,
            image_bytes=sum(self._sizes),
            frames=self._kinds,
        )

    def _write_delta(self, file: BinaryIO, pool: ThreadPoolExecutor, tables: list[bytes]) -> list[bytes]:
        """Write the delta part behind the plain frames. The digests of the images' directories."""
        count = len(tables)
        if not self._bundle.units and not self._old_versions:
            return [NO_DIGEST] * count
        manifest = self._manifest([digest(table) for table in tables], [NO_DIGEST] * count)
        attach_tables(manifest, b"".join(tables))
        start = directory_offset(manifest, manifest.images[0])
        file.seek(self.header_bytes + start + count * DIRECTORY_BYTES)
        batch = _threads() * FRAMES_AHEAD_PER_THREAD
        writer = DeltaWriter(file, start + count * DIRECTORY_BYTES, pool, batch, self._progress)
        directories = [
            self._write_indexes(writer, NewImage(given.path, image))
            for given, image in zip(self._bundle.images, manifest.images, strict=True)
        ]
        file.seek(self.header_bytes + start)
        file.write(b"".join(directories))
        self._delta_bytes = writer.offset - self._stored_bytes
        return [digest(directory) for directory in directories]

    def _write_indexes(self, writer: DeltaWriter, new: NewImage) -> bytes:
        units = [writer.blocks(new, self._old_versions)] if self._bundle.units else []
        references = [writer.references(new, old) for old in self._old_versions]
        return encode_directory(units + [entry for entry in references if entry is not None])

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

    def _manifest(self, table_digests: list[bytes], delta_digests: list[bytes]) -> Manifest:
        images = tuple(
            Image(
                slot_class=image.slot_class,
                kind=image.kind,
                filesystem=image.filesystem,
                size=size,
                frame_size=image.frame_size,
                table_digest=table_digest,
                delta_digest=delta_digest,
                watchdog_owner=image.watchdog_owner,
                init=image.init,
            )
            for image, size, table_digest, delta_digest in zip(
                self._bundle.images, self._sizes, table_digests, delta_digests, strict=True
            )
        )
        manifest = Manifest(
            compatible=self._bundle.compatible,
            version=self._bundle.version,
            version_name=self._bundle.version_name,
            kernel_release=self._bundle.kernel_release,
            images=images,
            signed_at=self._bundle.signed_at,
            expires_at=self._bundle.expires_at,
        )
        try:
            return decode(encode(manifest))
        except PayloadFormatError as error:
            raise PayloadInputError(str(error)) from error


def _old_version(path: Path) -> OldVersion:
    try:
        return OldVersion(path)
    except (PayloadError, OSError) as error:
        raise PayloadInputError(f"{path} is no bundle of an old version: {error}") from error


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
    length = len(plain)
    if plain.count(0) == length:
        return ZERO, b"", _digest_of_zeroes(length), length
    plain_digest = digest(plain)
    stored = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(plain)
    if len(stored) < length:
        return ZSTD, stored, plain_digest, length
    return RAW, plain, plain_digest, length


@lru_cache(maxsize=4)
def _digest_of_zeroes(length: int) -> bytes:
    return digest(bytes(length))
