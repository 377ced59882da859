"""Every truncation and every flipped bit of a bundle on a stick, the way that recovery goes: look, believe, install.

The bundle carries a chain of three roots and frames of every kind. Refused means: the slot's headers are untouched;
where the slot could still boot, the slot is, too, and else each frame of it is the old or the new one. Harmless means:
the slot and both headers are what the undamaged bundle makes of them. (What a forger seals again: test_bundle_bits.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from payload.bundle import MAGIC, Header, decode_header
from payload.errors import PayloadError
from payload.install import install
from payload.manifest import Manifest
from payload.sources import RegionSource, candidates, order
from payload.trust import verify
from tests.simulator.journals import MemoryRegion
from tests.unit.payload_samples import COMPATIBLE, FRAME, KERNEL, BytesReader, mixed_image
from tests.unit.trust_samples import CHAIN, DEVICE, ROOT_4, YEAR, Vendor

pytestmark = [pytest.mark.sweep, pytest.mark.requirement("D6", "M6"), pytest.mark.fault("N3")]

FRAMES = 4
OLD = mixed_image(FRAMES + 1, seed=9)[FRAME:]  # no frame of it is one of the new image
BROKEN = pytest.mark.parametrize("target_broken", [True, False], ids=["broken slot", "bootable slot"])


@cache
def verified(raw: bytes) -> Manifest:
    return verify(decode_header(raw), DEVICE, COMPATIBLE, KERNEL)[0]


def believe(header: Header) -> Manifest:
    """The production rules, asked once for the same bytes."""
    return verified(header.raw)


class Device:
    """An old image in a slot, its two headers, and what becomes of them."""

    def __init__(self, old_header: bytes, header_bytes: int) -> None:
        self.slot = MemoryRegion(bytearray(OLD))
        self.headers = [MemoryRegion(bytearray(old_header.ljust(header_bytes, b"\0"))) for _copy in range(2)]

    def take(self, bundle: bytes, target_broken: bool) -> str:
        """The reason why not, or "installed"."""
        found, refused = candidates([RegionSource(BytesReader(bundle), "stick")], believe)
        if not found:
            return refused[0][1].reason
        best = order(found, floor=0)[0]
        image = best.manifest.image("rootfs")
        try:
            install(self.slot, self.headers, best.source, best.header, image, target_broken=target_broken)
        except PayloadError as error:
            return error.reason
        return "installed"

    def state(self) -> list[bytes]:
        return [bytes(region.image) for region in (self.slot, *self.headers)]


class Bench:
    """One bundle, and the check of what a damaged copy of it leaves."""

    def __init__(self, vendor: Vendor) -> None:
        times = {"signed_at": ROOT_4.signed_at, "expires_at": ROOT_4.signed_at + YEAR}
        self.header_bytes = len(vendor.header(9, "build-3 release", CHAIN, **times).raw)
        self.content = vendor.header(9, "build-3 release", CHAIN, **times).raw + vendor.data
        self.new = vendor.sample.plain
        self.old_header = vendor.header(8, "build-3 release", CHAIN, **times).raw
        whole = self.device()
        assert whole.take(self.content, True) == "installed"
        self.installed = whole.state()

    def device(self) -> Device:
        return Device(self.old_header, self.header_bytes)

    def check(self, bundle: bytes, target_broken: bool) -> str:
        device = self.device()
        before = device.state()
        answer = device.take(bundle, target_broken)
        after = device.state()
        if answer == "installed":
            assert after == self.installed
            return answer
        assert after[1:] == before[1:], "a refused bundle reached the headers"
        if not target_broken:
            assert after == before, "a refused bundle reached a slot that could boot"
        for start in range(0, len(OLD), FRAME):
            frame = after[0][start : start + FRAME]
            assert frame in (OLD[start : start + FRAME], self.new[start : start + FRAME])
        return answer


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(Vendor(tmp_path_factory.mktemp("bits"), mixed_image(FRAMES)))


def flips(content: bytes, first_byte: int, end_byte: int) -> Iterator[bytes]:
    damaged = bytearray(content)
    for bit in range(8 * first_byte, 8 * end_byte):
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)
        damaged[bit // 8] ^= 1 << bit % 8


@BROKEN
def test_every_truncation(bench: Bench, target_broken: bool) -> None:
    answers = Counter(bench.check(bench.content[:length], target_broken) for length in range(len(bench.content)))
    assert answers == {"payload-truncated": len(bench.content)}
    assert bench.check(bench.content, target_broken) == "installed"


def test_every_flipped_bit_of_the_header(bench: Bench) -> None:
    answers = Counter(bench.check(damaged, False) for damaged in flips(bench.content, 0, bench.header_bytes))
    assert answers["payload-missing"] == 8 * len(MAGIC)
    assert answers["payload-corrupt"] > 7 * bench.header_bytes
    assert "installed" not in answers and sum(answers.values()) == 8 * bench.header_bytes


@pytest.mark.parametrize(
    "target_broken", [True, pytest.param(False, marks=pytest.mark.long)], ids=["broken slot", "bootable slot"]
)
def test_every_flipped_bit_of_the_frames(bench: Bench, target_broken: bool) -> None:
    damaged = flips(bench.content, bench.header_bytes, len(bench.content))
    answers = Counter(bench.check(bundle, target_broken) for bundle in damaged)
    assert answers.keys() <= {"payload-corrupt", "installed"}
    # A few bits of a compressed frame say how it is stored and not what: those alone are harmless.
    assert 0 <= answers["installed"] < 40, answers
    assert answers["payload-corrupt"] > 8 * FRAME
