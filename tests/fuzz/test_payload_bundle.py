"""The bytes of a bundle: round trip, every truncation, every flipped bit, any bytes at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload import bundle, manifest
from payload.bundle import (
    CHECKED_FROM,
    MAGIC,
    PREFIX,
    Header,
    decode_header,
    encode_header,
    header_length,
    read_header,
)
from payload.digest import digest
from payload.errors import (
    BundleError,
    PayloadCorruptError,
    PayloadError,
    PayloadFormatError,
    PayloadMissingError,
    PayloadTooLargeError,
    PayloadTruncatedError,
    PayloadUnreadableError,
)
from payload.frames import FrameReader
from payload.signatures import SIGNATURE_ENTRY_BYTES
from payload.table import ENTRY
from tests.unit.payload_samples import BytesReader, Sample, believe, mixed_image


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("bundle"), mixed_image(3))


def resealed(raw: bytes) -> bytes:
    """The same header with its checksum made right: what a forger would hand in."""
    return raw[: len(MAGIC)] + digest(raw[CHECKED_FROM:]) + raw[CHECKED_FROM:]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_header_survives_the_round_trip(sample: Sample) -> None:
    raw = sample.header.raw
    header = decode_header(raw)
    assert encode_header(header.manifest_bytes, list(header.signatures), header.tables) == raw
    assert len(raw) % 4096 == 0
    assert sample.content.startswith(raw)


def test_every_truncation_is_refused(sample: Sample) -> None:
    table = sample.image.frames()
    for length in range(len(sample.content)):
        reader = BytesReader(sample.content[:length])
        if length < len(sample.header.raw):
            with pytest.raises(PayloadTruncatedError):
                read_header(reader)
        else:
            frames = FrameReader(reader, len(sample.header.raw), table)
            with pytest.raises(PayloadTruncatedError):
                for index in range(len(table)):
                    frames.frame(index)


def test_every_flipped_bit_of_the_header_is_refused(sample: Sample) -> None:
    for bit in range(len(sample.header.raw) * 8):
        with pytest.raises(BundleError):
            read_header(BytesReader(flipped(sample.content, bit)))


def test_every_flipped_bit_of_a_resealed_header_is_refused(sample: Sample) -> None:
    """The checksum is for people; what protects is the signature."""
    content_bytes = PREFIX.size + len(sample.header.manifest_bytes) + 96 + len(sample.header.tables)
    for bit in range(CHECKED_FROM * 8, content_bytes * 8):
        with pytest.raises(PayloadError):
            believe(read_header(BytesReader(resealed(flipped(sample.header.raw, bit)))))


def test_every_flipped_bit_of_the_data_is_refused_or_harmless(sample: Sample) -> None:
    table = sample.image.frames()
    data_offset = len(sample.header.raw)
    refused = 0
    for bit in range(data_offset * 8, len(sample.content) * 8):
        frames = FrameReader(BytesReader(flipped(sample.content, bit)), data_offset, table)
        position = bit // 8 - data_offset
        for index in range(len(table)):
            entry = table[index]
            if entry.offset <= position < entry.offset + entry.stored_length:
                try:
                    assert frames.frame(index) == sample.plain[index * 4096 : (index + 1) * 4096]
                except PayloadCorruptError:
                    refused += 1
    assert refused > 4096 * 8


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=6000), st.booleans())
def test_any_bytes_are_a_bundle_error(content: bytes, with_magic: bool) -> None:
    with pytest.raises(BundleError):
        read_header(BytesReader(MAGIC + content if with_magic else content))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5), st.integers(0, 2**32 - 1))
def test_any_lengths_are_bounded(numbers: list[int], reserved: int) -> None:
    """No length makes the reader ask for more than the bound, or for anything but an error."""
    prefix = PREFIX.pack(MAGIC, bytes(32), *numbers, reserved)

    class Endless:
        size = 1 << 62

        def read(self, offset: int, length: int) -> bytes:
            assert length <= 17 << 20
            return prefix.ljust(length, b"\0")[:length]

    with pytest.raises(BundleError):
        read_header(Endless())


def test_reasons_tell_apart_what_people_fix_differently(sample: Sample) -> None:
    raw = sample.header.raw
    later_format = resealed(raw[:40] + (2).to_bytes(4, "little") + raw[44:])
    huge = resealed(raw[:44] + (1 << 20).to_bytes(4, "little") + raw[48:])
    padded = resealed(raw[:-1] + b"x")
    expected: list[tuple[bytes, type[PayloadError], str]] = [
        (bytes(8192), PayloadMissingError, "payload-missing"),
        (raw[:100], PayloadTruncatedError, "payload-truncated"),
        (flipped(raw, 8 * 200), PayloadCorruptError, "payload-corrupt"),
        (later_format, PayloadFormatError, "payload-format"),
        (huge, PayloadTooLargeError, "payload-too-large"),
        (padded, PayloadFormatError, "payload-format"),
    ]
    for content, error, reason in expected:
        with pytest.raises(error) as raised:
            read_header(BytesReader(content))
        assert raised.value.reason == reason


def test_a_medium_that_ends_earlier_than_it_says_is_truncated(sample: Sample) -> None:
    class Shrinking(BytesReader):
        size = 1 << 20

    with pytest.raises(PayloadTruncatedError):
        read_header(Shrinking(sample.content[:1000]))


def test_a_medium_that_fails_is_an_error_of_its_own() -> None:
    class Broken:
        size = 1 << 20

        def read(self, offset: int, length: int) -> bytes:
            raise OSError("pulled out")

    with pytest.raises(PayloadUnreadableError):
        read_header(Broken())


def test_lengths_of_headers_are_whole_blocks() -> None:
    assert header_length(1, 0, 0) == 4096
    assert header_length(4096 - PREFIX.size, 0, 0) == 4096
    assert header_length(4096 - PREFIX.size + 1, 0, 0) == 8192


def test_the_document_and_the_code_agree_on_the_layout() -> None:
    """docs/SPEC.md gives these numbers; changing them needs a new format number."""
    assert (PREFIX.size, CHECKED_FROM, bundle.FORMAT) == (64, 40, 1)
    assert SIGNATURE_ENTRY_BYTES == 96
    assert ENTRY.size == 48


# The manifest


def refuse(text: bytes) -> None:
    with pytest.raises(PayloadFormatError):
        manifest.decode(text)


def test_the_manifest_survives_the_round_trip(sample: Sample) -> None:
    text = sample.header.manifest_bytes
    decoded = manifest.decode(text)
    assert manifest.encode(decoded) == text
    assert decoded.digest == digest(text) == sample.created.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"compatible"', b'"competible"'),
        (b'{"compatible"', b'{"compatible":"x","compatible"'),
        (b'"version":7', b'"version":7.0'),
        (b'"version":7', b'"version":-7'),
        (b'"version":7', b'"version":07'),
        (b'"version":7', b'"version":true'),
        (b'"version":7', b'"version":18446744073709551616'),
        (b'"version":7', b'"version":NaN'),
        (b'"version":7', b'"version":"7"'),
        (b'"version":7', b'"version": 7'),
        (b'"version-name":"', b'"version-name":"\\ud800'),
        (b'"version-name":"', b'"version-name":"\\u001b[2J'),
        (b'"version-name":"', b'"version-name":"' + b"x" * 200),
        (b'"images":[', b'"images":[[],'),
        (b'"images":[', b'"images":[],"image":['),
        (b'"/sbin/init"', b'"sbin/init"'),
        (b'"/sbin/init"', b'"/sbin/../init"'),
        (b'"/sbin/init"', b'"/' + b"x" * 96 + b'"'),
        (b'"6.1.0-44-amd64"', b'"' + b"6" * 97 + b'"'),
        (b'"squashfs"', b'"btrfs"'),
        (b'"squashfs"', b'["squashfs"]'),
        (b'"immutable"', b"null"),
        (b'"size":12288', b'"size":12289'),
        (b'"size":12288', b'"size":0'),
        (b'"frame-size":4096', b'"frame-size":0'),
        (b'"frame-size":4096', b'"frame-size":8388608'),
        (b'"table-digest":"', b'"table-digest":"0'),
        (b'"slot-class":"rootfs"', b'"slot-class":"../x"'),
    ],
)
def test_a_manifest_that_is_not_exactly_right_is_refused(sample: Sample, old: bytes, new: bytes) -> None:
    text = sample.header.manifest_bytes
    assert text.count(old) == 1
    refuse(text.replace(old, new))


def test_two_images_for_one_slot_class_are_refused(sample: Sample) -> None:
    text = sample.header.manifest_bytes
    image = text[text.index(b"[") + 1 : text.index(b"]")]
    refuse(text.replace(image, image + b"," + image))


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"\xff", b"[" * 60_000, b"1" * 70_000, b'"' * 9])
def test_hostile_texts_are_refused(text: bytes) -> None:
    refuse(text)


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_json_is_refused(value: object) -> None:
    import json

    refuse(json.dumps({"images": value}).encode())


def test_a_header_says_nothing_of_trust() -> None:
    """Two steps on purpose: what read_header gives has no field that could be used by mistake."""
    assert Header.__slots__ == ("manifest_bytes", "raw", "roots", "signatures", "tables")


def test_paths_of_images_are_not_in_the_bundle(tmp_path: Path) -> None:
    sample = Sample(tmp_path, mixed_image(1))
    assert str(tmp_path).encode() not in sample.content
