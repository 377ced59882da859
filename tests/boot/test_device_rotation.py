"""A whole device learns a new root from a stick, and from then on refuses what the old key signed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from payload.cosign import bundle_header, rewrite_bundle
from payload.roots import Link, Root
from payload.signing_key import generate_key, load_signing_key, public_bytes, sign, sign_root
from scripts.virtual.kit import Kit
from scripts.virtual.usb_stick import make_fat_stick
from tests.boot.device import LOOKED_AT_SECONDS, Device

pytestmark = [pytest.mark.boot, pytest.mark.requirement("D6", "M7")]


def rotated(kit: Kit, new: Ed25519PrivateKey) -> Link:
    """Root 2: the pinned key goes on to sign roots, ``new`` alone signs bundles, from version 2 on."""
    root = Root(
        compatible=kit.device.compatible,
        version=2,
        root_keys=(kit.root_key,),
        root_threshold=1,
        bundle_keys=(public_bytes(new),),
        bundle_threshold=1,
        floor=2,
    )
    return Link(2, root.text, (sign_root(load_signing_key(kit.folder / "signing.key"), root.text),))


def resigned(bundle: Path, output: Path, key: Ed25519PrivateKey, roots: Sequence[Link] = ()) -> Path:
    header = bundle_header(bundle)
    signatures = (sign(key, header.manifest_bytes),)
    rewrite_bundle(bundle, header, signatures=signatures, roots=roots, output=output)
    return make_fat_stick(output, output.with_suffix(".img"))


@pytest.mark.fault("T1", "T2", "T4")
def test_a_stick_rotates_the_key_and_the_old_one_is_refused(device: Device, tmp_path: Path) -> None:
    generate_key(tmp_path / "new.key", tmp_path / "new.pub")
    new = load_signing_key(tmp_path / "new.key")
    good = device.kit.bundle(2)
    unknown = resigned(good, tmp_path / "unknown.ubk", new)
    rotating = resigned(good, tmp_path / "rotating.ubk", new, [rotated(device.kit, new)])

    device.disk.zero("slot")
    device.disk.zero("payload")
    guest = device.power_on()
    guest.expect("E400 no-source: WAITING", LOOKED_AT_SECONDS)
    plugged = guest.hotplug_usb(unknown, "unknown")
    guest.expect("E402 payload-wrong-key: sd", LOOKED_AT_SECONDS, unless="handing over")
    guest.unplug(plugged)
    guest.hotplug_usb(rotating, "rotating")
    record = device.until_confirmed(guest, version=2)
    assert (record.root_version, record.floor) == (2, 2)

    device.disk.zero("slot")
    device.disk.zero("payload")
    guest = device.power_on()
    guest.expect("E400 no-source: WAITING", LOOKED_AT_SECONDS)
    revoked = guest.hotplug_usb(make_fat_stick(device.kit.bundle(1), tmp_path / "old.img"), "revoked")
    guest.expect("E421 payload-key-revoked: sd", LOOKED_AT_SECONDS, unless="handing over")
    guest.unplug(revoked)
    guest.hotplug_usb(unknown, "new")
    record = device.until_confirmed(guest, version=2)
    assert record.root_version == 2
