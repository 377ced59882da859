"""What the fuzzer throws bytes at: each parser that strangers' bytes reach, and what must hold whatever they are.

A target takes any bytes and ends: an error of its own kind is an answer, every other exception is a defect. What it
accepts it has to encode to the same bytes again, or to keep within its bounds. Digests and signatures would stop a
fuzzer at the door, so a target makes digests right, and in :func:`signatures_hold` a signature is what its bytes say.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from payload import codec, manifest, roots
from payload.bundle import CHECKED_FROM, decode_header, read_header
from payload.digest import digest
from payload.errors import PayloadError
from payload.frames import FrameReader
from payload.strict_json import dump
from payload.table import ENTRY, FRAME_BYTES_MAX, IMAGE_UNIT_BYTES, RAW, ZERO, ZSTD, Frame, FrameTable
from payload.trust import Trusted, verify
from recovery.workshop import image_of
from statemachine import journal, record
from tests.fuzz import bundle_mutations, delta_target, http_target, package_target, transaction_target
from tests.fuzz.bundle_cases import COMPATIBLE, KERNEL, make_draft, make_roots, public
from tests.fuzz.target import Target
from tests.unit.payload_samples import BytesReader

INPUT_BYTES_MAX = 8192
SEEDS = 12
BLOCKS_MAX, FRAME_BLOCKS_MAX = 64, 8  # of an image: small ones, for speed
TABLE_START = struct.Struct("<II")  # blocks of the image, blocks of a frame


@contextmanager
def signatures_hold() -> Iterator[None]:
    """A world in which a signature is right unless it begins with a zero: the fuzzer cannot sign."""
    real = codec._ed25519_verify
    codec._ed25519_verify = lambda signature, message, public_key: signature[0] != 0
    try:
        yield
    finally:
        codec._ed25519_verify = real


def check_header(data: bytes) -> None:
    """A header whose checksum is right, judged by a device that pins root 1 of its chain, from the network."""
    sealed = data[:8] + digest(data[CHECKED_FROM:]) + data[CHECKED_FROM:]
    with suppress(PayloadError):
        read_header(BytesReader(data))
    try:
        believed, after = verify(decode_header(sealed), PINNED, COMPATIBLE, KERNEL, network=True)
    except PayloadError:
        return
    TAKEN["header"] += 1
    assert after.floor >= after.root.floor and after.clock_floor >= believed.signed_at
    for table in (image.frames() for image in believed.images):
        assert table.position(len(table) - 1) < table.image_bytes


def check_remembered_header(data: bytes) -> None:
    """The same for a header that the journal remembers, after its keys were replaced."""
    sealed = data[:8] + digest(data[CHECKED_FROM:]) + data[CHECKED_FROM:]
    with suppress(PayloadError):
        header = decode_header(sealed)
        known = digest(header.manifest_bytes)
        verify(header, REPLACED_KEYS, None, None, any_version=True, remembered=(known,))


def check_manifest(data: bytes) -> None:
    try:
        decoded = manifest.decode(data)
    except PayloadError:
        return
    assert manifest.encode(decoded) == data and decoded.digest == digest(data)
    for image in decoded.images:
        assert 0 < image.frame_size <= FRAME_BYTES_MAX and image.size > 0
    with suppress(PayloadError):  # a bundle without a root file system
        kept = record.Record(slots=(record.Slot(image_of(decoded), "good"),))
        assert record.decode(kept.encode()) == kept


def check_roots(data: bytes) -> None:
    try:
        chain = roots.decode_chain(data)
    except PayloadError:
        return
    assert roots.encode_chain(chain) == data and len(chain) <= roots.ROOTS_MAX
    followed = [PINNED.root]
    with suppress(PayloadError):
        followed += roots.follow(PINNED.root, chain)
    assert [root.version for root in followed] == list(range(1, len(followed) + 1))
    for link in chain:
        with suppress(PayloadError):
            assert roots.decode_root(link.text).text == link.text


def check_table(data: bytes) -> None:
    """A table for an image whose size and frame size come first; its frames are read from what follows."""
    if len(data) < TABLE_START.size:
        return
    blocks, frame_blocks = TABLE_START.unpack_from(data)
    image_bytes = IMAGE_UNIT_BYTES * (blocks % BLOCKS_MAX + 1)
    frame_bytes = IMAGE_UNIT_BYTES * (frame_blocks % FRAME_BLOCKS_MAX + 1)
    count = -(-image_bytes // frame_bytes)
    rows = data[TABLE_START.size :][: count * ENTRY.size]
    try:
        table = FrameTable(image_bytes, frame_bytes, rows)
    except PayloadError:
        return
    assert len(table) == count and table.position(count - 1) < image_bytes
    frames = FrameReader(BytesReader(data), TABLE_START.size, table)
    for index in range(count):
        frame = table[index]
        assert frame.encode() == rows[index * ENTRY.size : (index + 1) * ENTRY.size]
        with suppress(PayloadError):
            assert digest(frames.frame(index)) == frame.digest


def check_record(data: bytes) -> None:
    """The body of a journal record, bare and as a record on the disk."""
    decoded = record.decode(data)
    if decoded is not None:
        assert decoded.encode() == data
    slot = data[: journal.RECORD_BYTES_MIN].ljust(journal.RECORD_BYTES_MIN, b"\0")
    content = slot[: -journal.DIGEST_BYTES]
    for raw in (slot, content + digest(content)):
        found, word = journal.decode(raw)
        assert (found is None) == (word != "valid")
        if found is not None:
            again = journal.encode(len(raw), found.identity, found.term, found.sequence, found.previous, found.body)
            assert again == raw
            record.decode(found.body)


def header_seeds() -> list[bytes]:
    seeds = []
    for number in range(SEEDS):
        draft = make_draft(random.Random(number))
        draft.links = make_roots(random.Random(0), 1 + number % 4)[number % 2 :]
        bundle = draft.encode()
        seeds.append(bundle[: len(bundle) - len(draft.data)])
    return seeds


def manifest_seeds() -> list[bytes]:
    drafts = [make_draft(random.Random(number)) for number in range(SEEDS)]
    return [dump(draft.manifest) for draft in drafts]


def roots_seeds() -> list[bytes]:
    chains = [make_roots(random.Random(0), 1 + number % 4)[number // 4 % 2 :] for number in range(2 * 4)]
    return [b"".join(link.encode() for link in chain) for chain in chains]


def table_seeds() -> list[bytes]:
    zeroes = digest(bytes(4096))
    rows = {
        ZERO: Frame(ZERO, 0, 0, 4096, zeroes), RAW: Frame(RAW, 96, 4096, 4096, zeroes),
        ZSTD: Frame(ZSTD, 96, 20, 4096, zeroes),
    }  # fmt: skip
    starts = [TABLE_START.pack(count, 0) + b"".join(rows[kind].encode() for kind in kinds)
              for count, kinds in ((0, (ZERO,)), (1, (RAW, ZSTD)), (2, (ZSTD, ZERO, RAW)))]  # fmt: skip
    return [start + bytes(length) for start in starts for length in (0, 4096)]


def record_seeds() -> list[bytes]:
    image = record.Image(bytes(range(32)), 7, 4096, "immutable", "systemd", "squashfs", KERNEL, "/sbin/init")
    slots = (record.Slot(image, "good"), record.Slot(image, "bad"))
    body = record.Record("TRYING", slots=slots, target=image, tried=(bytes(32),) * 3, root=b"root").encode()
    return [body, record.Record().encode(), journal.encode(4096, bytes(16), 1, 0, bytes(32), body)]


def replaced_keys() -> roots.Root:
    """A later root that names other keys than those that signed the seeds."""
    root = make_roots(random.Random(0), 1)[0].root
    return roots.decode_root(dump({**root, "version": 9, "bundle-keys": [public("next").hex()], "floor": 0}))


REPLACED_KEYS = Trusted(replaced_keys())
TAKEN = {"header": 0}  # how often a fuzzed bundle was one that the device takes
PINNED = Trusted(roots.decode_root(dump(make_roots(random.Random(0), 1)[0].root)))
# Headers and tables: ten million.
BUNDLE_TARGETS = {
    "header": Target(check_header, header_seeds, bundle_mutations.mutate_header, 2_000_000),
    "remembered-header": Target(check_remembered_header, header_seeds, bundle_mutations.mutate_header, 2_000_000),
    "manifest": Target(check_manifest, manifest_seeds, bundle_mutations.mutate_json, 2_000_000),
    "roots": Target(check_roots, roots_seeds, bundle_mutations.mutate_chain, 2_000_000),
    "table": Target(check_table, table_seeds, bundle_mutations.mutate_bytes, 2_000_000),
}
TARGETS = {
    **BUNDLE_TARGETS,
    **delta_target.TARGETS,
    **http_target.TARGETS,
    **transaction_target.TARGETS,
    **package_target.TARGETS,
    "record": Target(check_record, record_seeds, bundle_mutations.mutate_bytes, 1_000_000),
}
