"""Delta parts that lie: damaged, cut short, or signed nonsense. The plain frames are there all the same."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payload.delta import (
    BLOCKS,
    DIRECTORY_BYTES,
    INDEX_BYTES_MAX,
    REFERENCES,
    Entry,
    decode_directory,
    directory_offset,
    encode_directory,
    read_directory,
    read_index,
)
from payload.digest import digest
from payload.errors import PayloadFormatError
from payload.seeded import Reuse
from payload.seeds import Seed
from tests.simulator.delta_samples import BLOCK, CountingReader, Device, Version, old_image
from tests.unit.payload_samples import BytesReader, believe


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Version]:
    folder = tmp_path_factory.mktemp("small")
    old = Version(folder, "old", old_image(2, seed=5), 1, units=False)
    return old, Version(folder, "new", updated_slightly(old.plain), 2, old)


def updated_slightly(old: bytes) -> bytes:
    changed = bytearray(old)
    changed[3 * BLOCK + 7 : 3 * BLOCK + 20] = b"CHANGED HERE!"
    changed[17 * BLOCK + 9 : 17 * BLOCK + 22] = b"CHANGED HERE!"
    return bytes(changed)


@pytest.mark.fault("N3")
@pytest.mark.parametrize("step", [97, pytest.param(3, marks=pytest.mark.long)])
def test_a_delta_part_with_any_byte_changed_is_harmless(small: tuple[Version, Version], step: int) -> None:
    old, new = small
    start = len(new.content) - new.created.delta_bytes
    for at in range(start, len(new.content), step):
        reader = CountingReader(flipped(new.content, 8 * at + at % 8))
        for manifest in (None, old.manifest):
            frames = Reuse(new.manifest, [Seed(BytesReader(old.plain), manifest)]).plan(
                reader, new.header, new.image, Device(new.plain, b"", len(new.plain)).slot, [0, 1]
            )
            assert b"".join(frames.frame(index) for index in (0, 1)) == new.plain


@pytest.mark.fault("N3")
@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.long)])
def test_a_delta_part_that_ends_anywhere_is_harmless(small: tuple[Version, Version], step: int) -> None:
    old, new = small
    start = len(new.content) - new.created.delta_bytes
    slot = Device(new.plain, b"", len(new.plain)).slot
    for length in range(start, len(new.content), step):
        for manifest in (None, old.manifest):
            seeds = [Seed(BytesReader(old.plain), manifest)]
            reader = BytesReader(new.content[:length])
            frames = Reuse(new.manifest, seeds).plan(reader, new.header, new.image, slot, [0, 1])
            assert b"".join(frames.frame(index) for index in (0, 1)) == new.plain


def indexes(version: Version) -> dict[int, bytes]:
    reader = BytesReader(version.content)
    entries = read_directory(reader, version.header, version.manifest, version.image)
    return {entry.kind: read_index(reader, len(version.header.raw), entry) for entry in entries}


class Signed(Version):
    """A bundle whose signer wrote nonsense into an index: everything is signed, nothing fits."""

    def __init__(self, version: Version, kind: int, index: bytes) -> None:
        self.plain = version.plain
        base = read_directory(BytesReader(version.content), version.header, version.manifest, version.image)
        stored = zstandard.ZstdCompressor().compress(index)
        place = len(version.content) - len(version.header.raw)
        entries = [
            Entry(
                kind=kind,
                offset=place,
                stored_length=len(stored),
                plain_length=len(index),
                digest=digest(stored),
                base=entry.base,
            )
            for entry in base
            if entry.kind == kind
        ]
        directory = encode_directory(entries)
        at = len(version.header.raw) + directory_offset(version.manifest, version.image)
        self.content = version.content[:at] + directory + version.content[at + DIRECTORY_BYTES :] + stored
        self.header = version.header
        self.manifest = believe(version.header)
        self.image = self.manifest.image("rootfs")
        self.image.delta_digest = digest(directory)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([BLOCKS, REFERENCES]), st.data())
def test_signed_nonsense_is_harmless(small: tuple[Version, Version], kind: int, data: st.DataObject) -> None:
    old, new = small
    index = bytearray(indexes(new)[kind])
    for _change in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(60, len(index) - 1)) | st.integers(0, len(index) - 1))
        index[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del index[data.draw(st.integers(0, len(index))) :]
    signed = Signed(new, kind, bytes(index))
    slot = Device(new.plain, b"", len(new.plain)).slot
    seeds = [Seed(BytesReader(old.plain), old.manifest), Seed(slot, is_target=True)]
    frames = Reuse(signed.manifest, seeds).plan(BytesReader(signed.content), signed.header, signed.image, slot, [0, 1])
    frames.announce([0, 1])
    assert b"".join(frames.frame(number) for number in (0, 1)) == new.plain


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=4096))
def test_any_bytes_are_a_directory_or_refused(raw: bytes) -> None:
    with contextlib.suppress(PayloadFormatError):
        decode_directory(raw.ljust(DIRECTORY_BYTES, b"\0"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": 3},
        {"kind": REFERENCES},
        {"kind": BLOCKS, "base": b"x" * 32},
        {"stored_length": INDEX_BYTES_MAX + 1},
        {"plain_length": INDEX_BYTES_MAX + 1},
        {"offset": (1 << 62) + 1},
    ],
)
def test_absurd_entries_are_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"kind": BLOCKS, "offset": 0, "stored_length": 1, "plain_length": 1, "digest": bytes(32)}
    decode_directory(encode_directory([Entry(**right)]))
    with pytest.raises(PayloadFormatError):
        decode_directory(encode_directory([Entry(**(right | wrong))]))


def test_an_index_that_unpacks_to_more_than_it_says_is_refused(small: tuple[Version, Version]) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    entry = Entry(kind=BLOCKS, offset=0, stored_length=len(bomb), plain_length=1000, digest=digest(bomb))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadFormatError):
            read_index(BytesReader(bomb), 0, entry)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
