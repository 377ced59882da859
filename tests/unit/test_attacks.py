"""The attacks that The Update Framework lists, each by its name, each against the production code.

(TUF specification 1.0, 1.5.2 "Goals for implementation"; theupdateframework.io "Security".) The device of
these tests pins root 1: two of alice, bob and carol sign roots, build signs bundles. Slow retrieval and data
without end that never was a header are matters of the transport.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from payload import install
from payload.bundle import PREFIX, Header, decode_header, encode_header, read_header
from payload.digest import digest
from payload.errors import (
    PayloadBelowFloorError,
    PayloadBelowThresholdError,
    PayloadCorruptError,
    PayloadError,
    PayloadExpiredError,
    PayloadForgedError,
    PayloadFormatError,
    PayloadKeyRevokedError,
    PayloadRootExpiredError,
    PayloadRootMismatchError,
    PayloadRootRefusedError,
    PayloadTooLargeError,
    PayloadTruncatedError,
    PayloadUnsignedError,
    PayloadWrongCompatibleError,
    PayloadWrongKeyError,
)
from payload.manifest import VERSION_MAX, encode
from payload.roots import CHAIN_BYTES_MAX, LINK, ROOTS_MAX, Link, decode_chain, encode_chain, follow
from payload.signing_key import sign, sign_root
from payload.strict_json import TIME_MAX
from payload.trust import Trusted, verify
from tests.simulator.disk import Storage
from tests.unit.payload_samples import COMPATIBLE, FRAME, KERNEL, BytesReader, mixed_image
from tests.unit.trust_samples import (
    CHAIN,
    DAY,
    DEVICE,
    LINK_2,
    LINK_3,
    LINK_4,
    NOON,
    ROOT_1,
    ROOT_2,
    ROOT_3,
    ROOT_4,
    YEAR,
    Vendor,
    changed,
    key,
    make_root,
    signed_root,
)

pytestmark = pytest.mark.requirement("D6", "M6")


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("vendor"), mixed_image(3))


def take(header: Header, trusted: Trusted = DEVICE, *, network: bool = False) -> tuple[int, Trusted]:
    """What the device does with a header: the version that it takes, and what it believes from then on."""
    manifest, after = verify(header, trusted, COMPATIBLE, KERNEL, network=network)
    return manifest.version, after


def refused(error: type[PayloadError], header: Header, trusted: Trusted = DEVICE, *, network: bool = False) -> None:
    with pytest.raises(error) as raised:
        take(header, trusted, network=network)
    assert type(raised.value) is error


def installed(vendor: Vendor, source: bytes, header: Header) -> bytes:
    """What a blank slot holds after ``source`` was installed into it by a device that knows root 4."""
    manifest, _trusted = verify(header, Trusted(ROOT_4), COMPATIBLE, KERNEL)
    storage = Storage(images=[bytes(2 * len(header.raw)), bytes(4 * FRAME)])
    copies = [storage.disks[0].window(at * len(header.raw), len(header.raw)) for at in (0, 1)]
    try:
        image = manifest.image("rootfs")
        install.install(storage.disks[1], copies, BytesReader(source), header, image, target_broken=True)
    finally:
        plain = storage.disks[1].peek(0, 4 * FRAME)
    return plain


def test_what_the_vendor_signs_is_taken(vendor: Vendor) -> None:
    assert take(vendor.header(5, "build")) == (5, DEVICE)
    version, after = take(vendor.header(9, "build-3 release", CHAIN))
    assert (version, after.root.digest, after.floor) == (9, ROOT_4.digest, 8)


@pytest.mark.fault("T1")
def test_arbitrary_install(vendor: Vendor) -> None:
    """Somebody offers an image of their own making."""
    text = encode(vendor.manifest(9))
    refused(PayloadUnsignedError, vendor.with_signatures(text, []))
    refused(PayloadWrongKeyError, vendor.header(9, "mallory"))
    name, _signature = sign(key("build"), text)
    refused(PayloadForgedError, vendor.with_signatures(text, [(name, sign(key("mallory"), text)[1])]))


@pytest.mark.fault("T1")
def test_wrong_key(vendor: Vendor) -> None:
    """Keys of the device sign what is not theirs to sign, or the right key signs it as something else."""
    refused(PayloadWrongKeyError, vendor.header(9, "alice bob carol"))
    text = encode(vendor.manifest(9))
    refused(PayloadForgedError, vendor.with_signatures(text, [sign_root(key("build"), text)]))
    mine = signed_root(make_root(2, "mallory", "mallory"), "mallory build")
    refused(PayloadRootRefusedError, vendor.header(9, "mallory", [mine]))


@pytest.mark.fault("N7", "T4")
def test_rollback(vendor: Vendor) -> None:
    """A genuine, signed, old bundle with a known hole; and an old root in place of the newer one."""
    device = Trusted(ROOT_1, floor=5)
    assert take(vendor.header(5, "build"), device)[0] == 5
    refused(PayloadBelowFloorError, vendor.header(4, "build"), device)
    knows_2 = DEVICE.with_root(ROOT_2)
    _version, after = take(vendor.header(6, "build-2", ()), knows_2)
    assert after.root.version == 2
    refused(PayloadKeyRevokedError, vendor.header(6, "build"), knows_2)
    assert follow(ROOT_4, CHAIN) == []


@pytest.mark.fault("N7")
def test_fast_forward(vendor: Vendor) -> None:
    """A stolen bundle key signs the highest version for the last second. Rotating that key undoes both."""
    _version, after = take(vendor.header(VERSION_MAX, "build", signed_at=TIME_MAX, expires_at=TIME_MAX))
    poisoned = Trusted(after.root, floor=VERSION_MAX, clock_floor=after.clock_floor)
    assert poisoned.clock_floor == TIME_MAX
    refused(PayloadBelowFloorError, vendor.header(7, "build"), poisoned)

    cure = vendor.header(7, "build-2", [LINK_2], signed_at=ROOT_2.signed_at, expires_at=ROOT_2.signed_at + YEAR)
    version, healed = take(cure, poisoned, network=True)
    assert (version, healed.floor, healed.clock_floor) == (7, ROOT_2.floor, ROOT_2.signed_at)
    refused(PayloadKeyRevokedError, vendor.header(VERSION_MAX, "build", [LINK_2]), poisoned)
    refused(PayloadKeyRevokedError, vendor.header(VERSION_MAX, "build"), healed)


def test_a_rotation_that_revokes_nothing_resets_nothing() -> None:
    device = Trusted(ROOT_1, floor=9, clock_floor=NOON + 9 * YEAR)
    more = device.with_root(changed(ROOT_1, version=2, bundle_keys=[*ROOT_1.bundle_keys, *ROOT_2.bundle_keys]))
    assert (more.floor, more.clock_floor) == (9, NOON + 9 * YEAR)
    assert device.with_root(changed(ROOT_1, version=2, floor=10)).floor == 10


@pytest.mark.fault("N8")
def test_freeze(vendor: Vendor) -> None:
    """A mirror goes on serving what was the newest. It shows as soon as anything newer was seen, from anywhere."""
    frozen = vendor.header(5, "build", signed_at=NOON, expires_at=NOON + 30 * DAY)
    newer = vendor.header(5, "build", signed_at=NOON + 31 * DAY, expires_at=NOON + 60 * DAY)
    assert take(frozen, network=True)[0] == 5
    _version, after = take(newer)
    refused(PayloadExpiredError, frozen, after, network=True)
    assert take(frozen, after)[0] == 5, "what is here already stays good to recover from"


@pytest.mark.fault("T3")
def test_expired(vendor: Vendor) -> None:
    """Expiry of a manifest and of a root refuses the network alone, and only signed times make it come."""
    late = Trusted(ROOT_1, clock_floor=NOON + 2 * YEAR)
    old = vendor.header(5, "build", signed_at=NOON, expires_at=NOON + YEAR)
    refused(PayloadExpiredError, old, late, network=True)
    assert take(old, late)[0] == 5

    later = Trusted(ROOT_1, clock_floor=ROOT_1.expires_at + 1)
    fresh = vendor.header(5, "build", signed_at=later.clock_floor, expires_at=later.clock_floor + YEAR)
    refused(PayloadRootExpiredError, fresh, later, network=True)
    assert take(fresh, later)[0] == 5
    renewed = signed_root(changed(ROOT_1, version=2, expires_at=later.clock_floor + YEAR), "alice carol")
    again = vendor.header(5, "build", [renewed], signed_at=later.clock_floor, expires_at=later.clock_floor + YEAR)
    assert take(again, later, network=True)[0] == 5


@pytest.mark.fault("H6", "H9")
def test_the_clock_jumps_to_2038_and_back(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock decides nothing; a signed time of 2038, by mistake, is undone by a new root."""
    header = vendor.header(5, "build")
    outcomes = []
    for now in (0.0, 2.0**31 - 1, 2.0**31, 2.0**33, 0.0):
        for name in ("time", "monotonic", "time_ns"):
            monkeypatch.setattr(time, name, lambda now=now: now)
        outcomes.append(take(header, network=True))
    assert outcomes == [(5, DEVICE)] * 5

    _version, after = take(vendor.header(6, "build", signed_at=1 << 31, expires_at=TIME_MAX))
    assert after.clock_floor == 1 << 31
    today = vendor.header(7, "build", expires_at=NOON + YEAR)
    refused(PayloadRootExpiredError, today, after, network=True)
    assert take(today, after)[0] == 7, "a stick still helps"
    back = vendor.header(7, "build-2", [LINK_2], signed_at=NOON + YEAR, expires_at=NOON + 2 * YEAR)
    assert take(back, after, network=True)[1].clock_floor == NOON + YEAR


def test_endless_data(vendor: Vendor) -> None:
    """A header that never ends: its length is bounded before anything of it is read, and so is the chain."""
    asked: list[int] = []

    class Endless:
        size = sys.maxsize

        def read(self, offset: int, length: int) -> bytes:
            asked.append(length)
            return prefix.ljust(length, b"\xff")

    for position in range(4):
        lengths = [0xFFFFFFFF if index == position else 0 for index in range(4)]
        prefix = PREFIX.pack(b"\x89UBK\r\n\x1a\n", bytes(32), 1, *lengths, 0)
        with pytest.raises(PayloadTooLargeError):
            read_header(Endless())
    assert asked == [PREFIX.size] * 4
    many = b"".join(encode_chain([Link(version, b"x", ())]) for version in range(2, ROOTS_MAX + 3))
    with pytest.raises(PayloadFormatError):
        decode_chain(many)
    with pytest.raises(PayloadFormatError):
        decode_chain(LINK.pack(2, 1 << 31, 1))
    with pytest.raises(PayloadFormatError):
        decode_chain(LINK.pack(2, 10, 1 << 31) + bytes(10))
    assert CHAIN_BYTES_MAX < 1 << 17


def test_extraneous_files(vendor: Vendor) -> None:
    """More than what was signed: a second table, a second manifest, bytes behind the header, unknown keys."""
    good = vendor.header(5, "build")
    more = encode_header(good.manifest_bytes, good.signatures, good.tables + good.tables, good.roots)
    refused(PayloadFormatError, decode_header(more))
    with pytest.raises(PayloadTruncatedError):
        decode_header(good.raw + bytes(4096))
    doubled = encode(vendor.manifest(5)) + encode(vendor.manifest(9))
    refused(PayloadFormatError, vendor.with_signatures(doubled, [sign(key("build"), doubled)]))
    unknown = encode(vendor.manifest(5)).replace(b'"images"', b'"hook":"/bin/sh","images"')
    refused(PayloadFormatError, vendor.with_signatures(unknown, [sign(key("build"), unknown)]))


@pytest.mark.fault("N6")
def test_mix_and_match(vendor: Vendor, tmp_path: Path) -> None:
    """Genuine parts that never belonged together: tables, roots, frames of two versions."""
    other = Vendor(tmp_path, mixed_image(3, seed=2))
    header = vendor.header(5, "build")
    mixed = encode_header(header.manifest_bytes, header.signatures, other.sample.header.tables)
    refused(PayloadCorruptError, decode_header(mixed))

    # Two roots 2, both signed by enough of root 1's keys; the device knows one of them.
    fork = changed(ROOT_2, bundle_keys=ROOT_1.bundle_keys)
    knows_2 = DEVICE.with_root(ROOT_2)
    refused(PayloadRootMismatchError, vendor.header(9, "build", [signed_root(fork, "alice bob")]), knows_2)
    fork_3 = signed_root(changed(ROOT_3, compatible="another"), "alice bob dave")
    refused(PayloadRootRefusedError, vendor.header(9, "build-3 release", [LINK_2, fork_3]))

    good = vendor.header(9, "build-3 release", CHAIN)
    with pytest.raises(PayloadCorruptError):
        installed(vendor, good.raw + other.data, good)
    assert installed(vendor, good.raw + vendor.data, good)[: 3 * FRAME] == vendor.sample.plain


def test_wrong_file(vendor: Vendor) -> None:
    """A genuine bundle for another device, another slot, or with another file's frames behind it."""
    refused(PayloadWrongCompatibleError, vendor.header(9, "build", compatible="other"))
    manifest, _trusted = verify(vendor.header(9, "build"), DEVICE, COMPATIBLE, KERNEL)
    with pytest.raises(PayloadFormatError):
        manifest.image("bootloader")
    header = vendor.header(9, "build-3 release", CHAIN)
    with pytest.raises(PayloadCorruptError):
        installed(vendor, header.raw + bytes(len(vendor.data)), header)


@pytest.mark.fault("N4", "N6")
def test_malicious_mirror(vendor: Vendor) -> None:
    """It may strip, cut, reorder and replace. Nothing unsigned lands; what it leaves out is not forgotten."""
    good = vendor.header(9, "build-3 release", CHAIN)
    stripped = vendor.header(9, "build-3 release")
    refused(PayloadWrongKeyError, stripped)
    knows_4 = take(good)[1]
    assert take(stripped, knows_4)[0] == 9, "the root that is known needs no chain"
    refused(PayloadRootRefusedError, vendor.header(9, "build-3 release", CHAIN[1:]))
    refused(PayloadRootRefusedError, vendor.header(9, "build-3 release", CHAIN[2:]))
    for order in ((LINK_3, LINK_2), (LINK_2, LINK_4), (LINK_2, LINK_2)):
        with pytest.raises(PayloadFormatError):
            vendor.header(9, "build-3 release", order)
    relabelled = Link(2, LINK_3.text, LINK_3.signatures)
    refused(PayloadRootRefusedError, vendor.header(9, "build-3 release", [relabelled]))
    noise = bytes(reversed(vendor.data))
    with pytest.raises(PayloadCorruptError):
        installed(vendor, good.raw + noise, good)
    assert installed(vendor, good.raw + vendor.data, good)[: 3 * FRAME] == vendor.sample.plain


def test_keys_below_threshold(vendor: Vendor) -> None:
    """One of two is not two, and one twice is not two either: for bundles and for roots."""
    knows_3 = Trusted(ROOT_3)
    refused(PayloadBelowThresholdError, vendor.header(9, "release"), knows_3)
    refused(PayloadBelowThresholdError, vendor.header(9, "release release release"), knows_3)
    refused(PayloadBelowThresholdError, vendor.header(9, "release mallory build"), knows_3)
    text = encode(vendor.manifest(9))
    padded = [sign(key("release"), text), (digest(ROOT_3.bundle_keys[0]), bytes(64))]
    refused(PayloadForgedError, vendor.with_signatures(text, padded), knows_3)
    assert take(vendor.header(9, "release build-3 mallory"), knows_3)[0] == 9

    for signers in ("alice", "alice alice", "alice mallory", "dave erin", ""):
        refused(PayloadRootRefusedError, vendor.header(9, "build-2", [signed_root(ROOT_2, signers)]))
    # two of the old root, and only one of its own
    lonely = signed_root(make_root(2, "bob dave erin", "build-2", (2, 1)), "alice bob")
    refused(PayloadRootRefusedError, vendor.header(9, "build-2", [lonely]))
    # two of its own, and only one of the old root
    usurped = signed_root(make_root(2, "alice mallory", "mallory", (2, 1)), "alice mallory")
    refused(PayloadRootRefusedError, vendor.header(9, "mallory", [usurped]))


@pytest.mark.fault("T2")
def test_revoked_key(vendor: Vendor) -> None:
    """A key that the newest root does not name counts no more, for bundles and for roots."""
    knows_3 = DEVICE.with_root(ROOT_2).with_root(ROOT_3)
    refused(PayloadKeyRevokedError, vendor.header(9, "build"), knows_3)
    refused(PayloadKeyRevokedError, vendor.header(9, "build-2 build"), knows_3)
    refused(PayloadKeyRevokedError, vendor.header(9, "build", CHAIN))
    by_revoked = changed(ROOT_3, version=4)
    refused(PayloadRootRefusedError, vendor.header(9, "x", [signed_root(by_revoked, "alice bob")]), knows_3)
    assert take(vendor.header(9, "build-3 release"), knows_3)[0] == 9


def test_what_is_remembered_may_bear_a_replaced_key_and_that_is_all(vendor: Vendor) -> None:
    """The installed image stays repairable when its key is replaced; it is not taken for anything else."""
    header = vendor.header(5, "build")
    known = digest(header.manifest_bytes)
    knows_2 = Trusted(ROOT_2, floor=5)
    manifest, _trusted = verify(header, Trusted(changed(ROOT_2, floor=5)), COMPATIBLE, KERNEL, remembered=(known,))
    assert manifest.digest == known
    with pytest.raises(PayloadKeyRevokedError):
        verify(header, DEVICE.with_root(ROOT_2), COMPATIBLE, KERNEL, remembered=(bytes(32),))
    for signatures, error in (
        ([], PayloadUnsignedError),
        ([(digest(ROOT_2.bundle_keys[0]), bytes(64))], PayloadForgedError),
    ):
        stripped = vendor.with_signatures(header.manifest_bytes, signatures)
        with pytest.raises(error):
            verify(stripped, knows_2, COMPATIBLE, KERNEL, remembered=(known,))
    with pytest.raises(PayloadBelowFloorError):
        verify(header, knows_2, COMPATIBLE, KERNEL, remembered=(known,))
