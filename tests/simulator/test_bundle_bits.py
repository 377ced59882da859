"""Every truncation and every flipped bit of a bundle with a chain of three roots: refused, or harmless.

Harmless means: the device takes the same manifest, believes the same afterwards, and the same bytes reach the
slot. The flips are made behind the checksum's back, as an attacker would: the checksum is for people.
"""

from __future__ import annotations

from collections import Counter

import pytest

from payload.bundle import CHECKED_FROM, Header, decode_header, encode_header, read_header
from payload.digest import digest
from payload.errors import PayloadError
from payload.frames import FrameReader
from payload.roots import decode_chain, encode_chain
from payload.trust import Trusted, verify
from tests.unit.payload_samples import COMPATIBLE, FRAME, KERNEL, BytesReader, mixed_image
from tests.unit.trust_samples import CHAIN, DEVICE, ROOT_4, YEAR, Vendor

pytestmark = [pytest.mark.sweep, pytest.mark.requirement("D6", "M6")]
KNOWS_4 = Trusted(ROOT_4)


class Bundle:
    def __init__(self, vendor: Vendor) -> None:
        times = {"signed_at": ROOT_4.signed_at, "expires_at": ROOT_4.signed_at + YEAR}
        self.header = vendor.header(9, "build-3 release", CHAIN, **times)
        self.content = self.header.raw + vendor.data
        self.plain = vendor.sample.plain


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(Vendor(tmp_path_factory.mktemp("bits"), mixed_image(3)))


def resealed(raw: bytes) -> bytes:
    return raw[:8] + digest(raw[CHECKED_FROM:]) + raw[CHECKED_FROM:]


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def taken(header: Header, trusted: Trusted) -> tuple[bytes, Trusted]:
    manifest, after = verify(header, trusted, COMPATIBLE, KERNEL, network=True)
    return manifest.digest, after


@pytest.mark.parametrize("trusted", [DEVICE, KNOWS_4], ids=["root 1", "root 4"])
def test_every_flipped_bit_of_the_header(bundle: Bundle, trusted: Trusted) -> None:
    good = taken(bundle.header, trusted)
    outcomes: Counter[str] = Counter()
    for bit in range(CHECKED_FROM * 8, len(bundle.header.raw) * 8):
        try:
            outcome = taken(decode_header(resealed(flipped(bundle.header.raw, bit))), trusted)
        except PayloadError as error:
            outcomes[error.reason] += 1
            continue
        assert outcome == good, f"bit {bit} changes what is believed"
        outcomes["harmless"] += 1
    assert sum(outcomes.values()) == (len(bundle.header.raw) - CHECKED_FROM) * 8
    # A device that knows root 4 does not look at the links before it; nothing else is of no consequence.
    older = 8 * sum(len(link.text) + 96 * len(link.signatures) for link in CHAIN[:2])
    newest = 8 * 96 * len(CHAIN[2].signatures)
    assert outcomes["harmless"] == (older + newest if trusted is KNOWS_4 else 0), outcomes


def test_every_flipped_bit_of_the_checksum_and_before(bundle: Bundle) -> None:
    for bit in range(CHECKED_FROM * 8):
        with pytest.raises(PayloadError):
            read_header(BytesReader(flipped(bundle.content, bit)))


def test_every_flipped_bit_of_the_frames(bundle: Bundle) -> None:
    manifest, _trusted = verify(bundle.header, DEVICE, COMPATIBLE, KERNEL)
    table = manifest.image("rootfs").frames()
    start = len(bundle.header.raw)
    refused = 0
    for bit in range(start * 8, len(bundle.content) * 8):
        reader = FrameReader(BytesReader(flipped(bundle.content, bit)), start, table)
        for index in range(len(table)):
            frame, position = table[index], bit // 8 - start
            if frame.offset <= position < frame.offset + frame.stored_length:
                try:
                    assert reader.frame(index) == bundle.plain[index * FRAME : (index + 1) * FRAME]
                except PayloadError:
                    refused += 1
    assert refused > FRAME * 8


def test_every_truncation(bundle: Bundle) -> None:
    manifest, _trusted = verify(bundle.header, DEVICE, COMPATIBLE, KERNEL)
    table = manifest.image("rootfs").frames()
    whole_header = len(bundle.header.raw)
    for length in range(len(bundle.content)):
        reader = BytesReader(bundle.content[:length])
        with pytest.raises(PayloadError):
            read_header(reader)
            frames = FrameReader(reader, whole_header, table)
            for index in range(len(table)):
                frames.frame(index)


def test_every_truncation_of_the_chain(bundle: Bundle) -> None:
    """A chain cut anywhere, in a header that is whole otherwise."""
    section = encode_chain(CHAIN)
    whole = {len(encode_chain(CHAIN[:count])) for count in range(4)}
    for length in range(len(section)):
        if length not in whole:
            with pytest.raises(PayloadError):
                decode_chain(section[:length])
    shorter = [
        encode_header(bundle.header.manifest_bytes, bundle.header.signatures, bundle.header.tables, CHAIN[:count])
        for count in range(3)
    ]
    with pytest.raises(PayloadError):
        taken(decode_header(shorter[0]), DEVICE)
    # Roots 2 and 3 take these signatures, too: an older bundle's chain, and as good. It takes nothing back.
    for version in (2, 3):
        assert taken(decode_header(shorter[version - 1]), DEVICE)[1].root.version == version
        assert taken(decode_header(shorter[version - 1]), KNOWS_4)[1].root.version == 4
