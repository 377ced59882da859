"""Which bundles a device takes, and which reason the others get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from payload import codec, manifest, table
from payload.bundle import Header, encode_header, read_header
from payload.create import BundleInput
from payload.digest import digest
from payload.errors import (
    PayloadBelowFloorError,
    PayloadCorruptError,
    PayloadError,
    PayloadForgedError,
    PayloadFormatError,
    PayloadKernelMismatchError,
    PayloadUnsignedError,
    PayloadWrongCompatibleError,
    PayloadWrongKeyError,
)
from payload.signatures import key_id
from payload.signing_key import sign
from payload.trust import trusted_key, verify
from tests.unit.payload_samples import (
    COMPATIBLE,
    KERNEL,
    KEY,
    OTHER_KEY,
    ROOT,
    VERSION,
    BytesReader,
    Sample,
    believe,
    make,
    mixed_image,
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("trust"), mixed_image(3))


def signed(manifest_bytes: bytes, tables: bytes, key: Ed25519PrivateKey = KEY) -> Header:
    raw = encode_header(manifest_bytes, [sign(key, manifest_bytes)], tables)
    return read_header(BytesReader(raw))


def test_the_right_bundle_is_taken(sample: Sample) -> None:
    taken, _trusted = verify(sample.header, trusted_key(ROOT, COMPATIBLE, VERSION), COMPATIBLE, KERNEL)
    assert taken.version == VERSION
    assert len(taken.image("rootfs").frames()) == 3


def test_the_host_asks_for_the_signature_alone(sample: Sample) -> None:
    assert verify(sample.header, trusted_key(ROOT, COMPATIBLE), None, None)[0].compatible == COMPATIBLE


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"compatible": "other"}, PayloadWrongCompatibleError, "payload-wrong-compatible"),
        ({"floor": VERSION + 1}, PayloadBelowFloorError, "payload-below-floor"),
        ({"kernel_release": "6.1.0-45-amd64"}, PayloadKernelMismatchError, "payload-kernel-mismatch"),
        ({"root_key": bytes(32)}, PayloadWrongKeyError, "payload-wrong-key"),
    ],
)
def test_a_bundle_for_somebody_else_is_refused(
    sample: Sample, arguments: dict[str, object], error: type[PayloadError], reason: str
) -> None:
    device = {"root_key": ROOT, "compatible": COMPATIBLE, "floor": 0, "kernel_release": KERNEL, **arguments}
    trusted = trusted_key(device["root_key"], COMPATIBLE, device["floor"])  # type: ignore[arg-type]
    with pytest.raises(error) as raised:
        verify(sample.header, trusted, device["compatible"], device["kernel_release"])  # type: ignore[arg-type]
    assert raised.value.reason == reason


@pytest.mark.fault("T1")
def test_another_key_is_refused(tmp_path: Path) -> None:
    path, _created = make(tmp_path, mixed_image(1), key=OTHER_KEY)
    with pytest.raises(PayloadWrongKeyError):
        believe(read_header(BytesReader(path.read_bytes())))


@pytest.mark.fault("T4")
def test_an_old_version_is_refused(tmp_path: Path) -> None:
    path, _created = make(tmp_path, mixed_image(1), fields=BundleInput(COMPATIBLE, 0, "0", KERNEL, ()))
    with pytest.raises(PayloadBelowFloorError):
        believe(read_header(BytesReader(path.read_bytes())))


def test_an_unsigned_bundle_is_refused(sample: Sample) -> None:
    raw = encode_header(sample.header.manifest_bytes, [], sample.header.tables)
    with pytest.raises(PayloadUnsignedError):
        believe(read_header(BytesReader(raw)))


def test_a_foreign_signature_under_our_name_is_refused(sample: Sample) -> None:
    _name, signature = sign(OTHER_KEY, sample.header.manifest_bytes)
    raw = encode_header(sample.header.manifest_bytes, [(key_id(ROOT), signature)], sample.header.tables)
    with pytest.raises(PayloadForgedError):
        believe(read_header(BytesReader(raw)))


def test_a_signature_without_its_purpose_is_refused(sample: Sample) -> None:
    """A signature that our key gave to the same bytes in another role does not count."""
    signature = KEY.sign(sample.header.manifest_bytes)
    raw = encode_header(sample.header.manifest_bytes, [(key_id(ROOT), signature)], sample.header.tables)
    with pytest.raises(PayloadForgedError):
        believe(read_header(BytesReader(raw)))


def test_more_signatures_than_ours_do_no_harm(sample: Sample) -> None:
    text = sample.header.manifest_bytes
    raw = encode_header(text, [sign(OTHER_KEY, text), sign(KEY, text)], sample.header.tables)
    assert believe(read_header(BytesReader(raw))).version == VERSION


def test_the_manifest_is_not_parsed_before_its_signature_holds(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr("payload.trust.decode", parsed.append)
    header = signed(b"not even JSON", sample.header.tables, OTHER_KEY)
    with pytest.raises(PayloadWrongKeyError):
        believe(header)
    assert parsed == []


def test_tables_that_the_manifest_does_not_vouch_for_are_refused(sample: Sample) -> None:
    tables = bytearray(sample.header.tables)
    tables[-1] ^= 1
    with pytest.raises(PayloadCorruptError):
        believe(signed(sample.header.manifest_bytes, bytes(tables)))
    with pytest.raises(PayloadCorruptError):
        believe(signed(sample.header.manifest_bytes, sample.header.tables[:-48]))
    with pytest.raises(PayloadFormatError):
        believe(signed(sample.header.manifest_bytes, sample.header.tables + bytes(48)))


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (12, b"\x03"),  # an unknown kind
        (13, b"\x01"),  # padding
        (8, b"\x00\x00\x00\x00"),  # a zstd frame of no bytes
        (8, b"\x00\x10\x00\x00"),  # a zstd frame as long as the plain one
        (7, b"\x80"),  # an offset beyond anything
    ],
)
def test_signed_nonsense_in_a_table_is_refused(sample: Sample, start: int, change: bytes) -> None:
    entries = sample.header.tables[:start] + change + sample.header.tables[start + len(change) :]
    decoded = manifest.decode(sample.header.manifest_bytes)
    decoded.images[0].table_digest = digest(entries)
    with pytest.raises(PayloadFormatError):
        believe(signed(manifest.encode(decoded), entries))


def test_an_image_cannot_be_used_before_it_is_trusted(sample: Sample) -> None:
    with pytest.raises(AssertionError):
        manifest.decode(sample.header.manifest_bytes).image("rootfs").frames()


def test_a_missing_slot_class_has_a_reason(sample: Sample) -> None:
    with pytest.raises(PayloadFormatError):
        sample.manifest.image("bootloader")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_and_signatures_of_any_length_are_just_wrong(length: int) -> None:
    assert not codec.ed25519_verify(bytes(length), b"", ROOT)
    assert not codec.ed25519_verify(bytes(64), b"", bytes(length))
    assert not codec.ed25519_verify(bytes(64), b"", b"\xff" * 32)


def test_a_decompression_bomb_stays_small() -> None:
    import tracemalloc

    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            codec.zstd_decompress(bomb, 4096)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", [b"", b"x", b"\x28\xb5\x2f\xfd", bytes(20)])
def test_what_is_not_zstd_is_a_value_error(damage: bytes) -> None:
    with pytest.raises(ValueError):
        codec.zstd_decompress(damage, 4096)


def test_a_short_frame_is_a_value_error() -> None:
    import zstandard

    with pytest.raises(ValueError):
        codec.zstd_decompress(zstandard.ZstdCompressor().compress(bytes(100)), 4096)


def test_frames_past_four_gigabytes_have_their_place() -> None:
    entry = table.Frame(table.RAW, 5 << 30, 4096, 4096, digest(b""))
    packed = table.FrameTable(4096, 4096, entry.encode())
    assert packed[0].offset == 5 << 30


def test_samples_differ_in_their_identity(tmp_path: Path) -> None:
    one = Sample(tmp_path, mixed_image(1), "one", version=1)
    two = Sample(tmp_path, mixed_image(1), "two", version=2)
    assert one.manifest.digest != two.manifest.digest
    assert replace(one.created, digest=b"") == replace(two.created, digest=b"")
