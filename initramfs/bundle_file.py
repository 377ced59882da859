"""A bundle in a file, seen from the build host: what it claims, what a device would say to it, its images.

:func:`claims` believes nothing and says so. :func:`believed` asks the production rules of ``payload.trust`` with
the root that a device pins; whatever needs a bundle to be right begins there. Nothing here changes a bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from initramfs.device_fit import check_room, has_place, kernel_release
from initramfs.errors import BuildError
from payload.bundle import Header, read_header
from payload.delta import BLOCKS, REFERENCES, BlockIndex, ReferenceIndex, read_directory, read_index
from payload.durable import atomic_replace
from payload.errors import BundleError, PayloadError, PayloadInputError
from payload.frames import FrameReader, silent, verify_source
from payload.manifest import Image, Manifest, decode, encode
from payload.root_files import pinned_by
from payload.roots import Link, decode_root
from payload.sources import FileSource
from payload.table import RAW, ZERO, ZSTD
from payload.trust import Trusted, attach_tables, verify

if TYPE_CHECKING:
    from initramfs.config import Config
    from payload.frames import Progress

KIND_NAMES = {ZERO: "zero", RAW: "raw", ZSTD: "zstd"}
INDEXES: dict[int, Callable[[bytes, Image], object]] = {BLOCKS: BlockIndex, REFERENCES: ReferenceIndex}
HOLE_BYTES = 4096
HOLE = bytes(HOLE_BYTES)
DAMAGED_FRAMES_TOLD_MAX = 100


@contextmanager
def opened(path: Path) -> Iterator[FileSource]:
    """The file as a source. Raises ``BuildError`` where it cannot be opened."""
    try:
        source = FileSource(str(path.resolve()), path.name)
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror or error}", "Name a bundle, a file that ends in .ubk.") from error
    try:
        yield source
    finally:
        source.close()


def claims(path: Path) -> dict[str, Any]:
    """What the bundle in ``path`` says of itself, as a plain document. Signatures and frames are not looked at.

    Raises:
        BuildError: it cannot be opened.
        BundleError: it has no header that could be read.
    """
    with opened(path) as source:
        header = read_header(source)
        manifest = decode(header.manifest_bytes)
        attach_tables(manifest, header.tables)
        needed = len(header.raw) + max(image.frames().stored_end() for image in manifest.images)
        return {
            "type": "bundle",
            "believed": False,
            "bytes": source.size,
            "bytes_needed": needed,
            "header_bytes": len(header.raw),
            "digest": manifest.digest.hex(),
            "signed_by": [name.hex() for name, _signature in header.signatures],
            "roots": [_claimed_root(link) for link in header.roots],
            "manifest": json.loads(encode(manifest)),
            "images": [
                {**_claimed_image(image), "delta": delta_facts(source, header, manifest, image)}
                for image in manifest.images
            ],
        }


def _claimed_image(image: Image) -> dict[str, Any]:
    kinds = dict.fromkeys(KIND_NAMES.values(), 0)
    stored: dict[tuple[int, int], None] = {}  # frames may share what is stored
    table = image.frames()
    for frame in map(table.__getitem__, range(len(table))):
        kinds[KIND_NAMES[frame.kind]] += 1
        stored[frame.offset, frame.stored_length] = None
    stored_bytes = sum(length for _offset, length in stored)
    return {
        "slot_class": image.slot_class,
        "bytes": image.size,
        "stored_bytes": stored_bytes,
        "stored_ratio": round(stored_bytes / image.size, 4),
        "frame_bytes": image.frame_size,
        "frames": kinds,
    }


def delta_facts(source: FileSource, header: Header, manifest: Manifest, image: Image) -> dict[str, Any]:
    """What the delta part offers for ``image``: ``units`` for any old content, and the old versions it refers to."""
    facts: dict[str, Any] = {"units": False, "old_versions": [], "index_bytes": 0, "damage": []}
    try:
        entries = read_directory(source, header, manifest, image)
    except BundleError as error:
        return {**facts, "damage": [str(error)]}
    for entry in entries:
        facts["index_bytes"] += entry.stored_length
        if entry.kind == BLOCKS:
            facts["units"] = True
        else:
            facts["old_versions"].append(entry.base.hex())
        try:
            INDEXES[entry.kind](read_index(source, len(header.raw), entry), image)
        except BundleError as error:
            facts["damage"].append(str(error))
    return facts


def _claimed_root(link: Link) -> dict[str, Any]:
    """The fields of the root as `unbrick key show` has them; of one that cannot be read, its place in the chain."""
    signed_by = [name.hex() for name, _signature in link.signatures]
    try:
        said = json.loads(decode_root(link.text).text)
    except BundleError as error:
        said = {"unreadable": str(error)}
    return {**said, "version": link.version, "signed-by": signed_by}


@dataclass(frozen=True)
class Judge:
    """Who would be asked: a device that pins the file ``root``; with ``device``, one of that configuration."""

    root: Path
    device: Config | None = None

    def trusted(self, header: Header) -> Trusted:
        """Raises ``PayloadInputError`` for a file that is no root, ``BundleError`` for what is no manifest."""
        if self.device is None:
            return Trusted(pinned_by(self.root, decode(header.manifest_bytes).compatible))
        return Trusted(pinned_by(self.root, self.device.compatible), self.device.floor)

    def manifest(self, header: Header) -> tuple[Manifest, Trusted]:
        """What the device takes, and what it believes then. Raises ``PayloadError``.

        A transaction of packages has no kernel, and a serial instead of a version: what a device had last is not known.
        Everything else has to fit the device's slots.
        """
        compatible = self.device.compatible if self.device else None
        if decode(header.manifest_bytes).is_transaction:
            return verify(header, self.trusted(header), compatible, None, any_version=True)
        release = kernel_release(self.device) if self.device else ""
        manifest, trusted = verify(header, self.trusted(header), compatible, release or None)
        if self.device:
            check_room(self.device, header, manifest)
        return manifest, trusted


@dataclass(frozen=True)
class Believed:
    """A bundle whose header the device takes. Its frames are verified as they are read."""

    source: FileSource
    header: Header
    manifest: Manifest
    trusted: Trusted

    def reader(self, image: Image) -> FrameReader:
        return FrameReader(self.source, len(self.header.raw), image.frames())


@contextmanager
def believed(path: Path, judge: Judge) -> Iterator[Believed]:
    """The bundle in ``path``, believed by ``judge``. Raises ``BuildError`` and ``PayloadError``."""
    with opened(path) as source:
        header = read_header(source)
        yield Believed(source, header, *judge.manifest(header))


def verdict(path: Path, judge: Judge, progress: Progress = silent) -> dict[str, Any]:
    """Whether the device would take the bundle and find every frame in it; a damaged one is an answer, no error.

    Raises:
        BuildError: it cannot be opened.
        PayloadInputError: what ``judge`` pins is no root.
    """
    try:
        with believed(path, judge) as bundle:
            damaged = _damaged(bundle, progress)
            delta_damage = _delta_damage(bundle)
            kept = _kept(bundle, judge.device)
    except PayloadInputError:
        raise
    except PayloadError as error:
        return {"type": "bundle", "intact": False, "reason": error.reason, "verdict": f"not usable: {error}"}
    frames = sum(len(image.frames()) for image in bundle.manifest.images)
    facts = {
        "type": "bundle",
        "intact": not damaged,
        "reason": damaged[0]["reason"] if damaged else "none",
        "digest": bundle.manifest.digest.hex(),
        "version": bundle.manifest.version,
        "root": bundle.trusted.root.version,
        "frames": frames,
        "damaged": damaged[:DAMAGED_FRAMES_TOLD_MAX],
        "delta_damaged": delta_damage,
        **({} if kept is None else {"kept": kept}),
    }
    signed = f"signed as root {bundle.trusted.root.version} wants it"
    if damaged:
        return {**facts, "verdict": f"{signed}, but {len(damaged)} of {frames} frames are damaged"}
    told = f"an intact bundle of version {bundle.manifest.version}, {signed}, {frames} frames"
    if delta_damage:
        told += "; its delta part is damaged, so updates take more bytes"
    if kept is False:
        told += "; no place of the device keeps it: the OS cannot update a single slot to it, nothing repairs it there"
    return {**facts, "verdict": told}


def _kept(bundle: Believed, device: Config | None) -> bool | None:
    """Whether a place of ``device`` can keep it; None where that is not asked, as of packages, which need none."""
    if device is None or bundle.manifest.is_transaction:
        return None
    return has_place(device, bundle.header, bundle.manifest)


def _delta_damage(bundle: Believed) -> list[str]:
    """What is wrong with the delta part; a device does without it, so it is no reason to refuse the bundle."""
    return [
        f"{image.slot_class}: {each}"
        for image in bundle.manifest.images
        for each in delta_facts(bundle.source, bundle.header, bundle.manifest, image)["damage"]
    ]


def _damaged(bundle: Believed, progress: Progress) -> list[dict[str, Any]]:
    return [
        {"slot_class": image.slot_class, "frame": index, "reason": error.reason, "error": str(error)}
        for image in bundle.manifest.images
        for index, error in verify_source(bundle.reader(image), progress).items()
    ]


def image_of(manifest: Manifest, slot_class: str) -> Image:
    """The image for ``slot_class``; without one, the only image. Raises ``BuildError``."""
    classes = [image.slot_class for image in manifest.images]
    if not slot_class and len(classes) == 1:
        return manifest.images[0]
    if slot_class in classes:
        return manifest.image(slot_class)
    problem = f"the bundle has no image for {slot_class!r}" if slot_class else "the bundle has several images"
    raise BuildError(problem, f"Name one with --image: {', '.join(classes)}.")


def extract(bundle: Believed, image: Image, output: Path, progress: Progress = silent) -> None:
    """Write ``image`` to ``output``, every frame verified, blocks of zeroes as holes. All or nothing.

    Raises:
        BundleError: a frame is not there or damaged; ``output`` is as it was.
        OSError: the same, by the medium that is written.
    """
    reader = bundle.reader(image)

    def write(file: BinaryIO) -> None:
        for index in range(len(reader.table)):
            _write_data(file, reader.table.position(index), reader.frame(index))
            progress("extract", index + 1, len(reader.table))
        file.truncate(image.size)

    atomic_replace(output, write)


def _write_data(file: BinaryIO, position: int, plain: bytes) -> None:
    """What is not zero of ``plain``; images and frames are whole blocks."""
    starts = range(0, len(plain), HOLE_BYTES)
    for is_hole, run in groupby(starts, key=lambda start: plain[start : start + HOLE_BYTES] == HOLE):
        first, *others = run
        if not is_hole:
            file.seek(position + first)
            file.write(plain[first : (others or [first])[-1] + HOLE_BYTES])
