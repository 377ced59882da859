"""Which bundles this device takes. Rules only: nothing is read or written here, and no clock is asked.

The order is the point. First the chain of roots, from the root that is known (``payload.roots``): so keys
that were revoked since count no more. Then the signatures, over bytes nobody has interpreted; then the
manifest; then the frame tables it vouches for; then whether it is meant for this device, now.

Time: the device has no clock that an attacker, an empty battery or the year 2038 could not set. So the only
times that count are signed ones: the *clock floor* is the newest signed time ever believed, and what expires
before it is old. Expiry refuses bundles from the network (somebody may hold newer ones back); it never
refuses one that a person brings or the device keeps: those are what it recovers from.
"""

from __future__ import annotations

from payload import roots
from payload.digest import digest
from payload.errors import (
    PayloadBelowFloorError,
    PayloadBelowThresholdError,
    PayloadCorruptError,
    PayloadExpiredError,
    PayloadForgedError,
    PayloadFormatError,
    PayloadKernelMismatchError,
    PayloadKeyRevokedError,
    PayloadRootExpiredError,
    PayloadRootsIncompleteError,
    PayloadUnsignedError,
    PayloadWrongCompatibleError,
    PayloadWrongKeyError,
    TrustError,
)
from payload.manifest import decode
from payload.roots import single_key_root
from payload.signatures import key_id, signers
from payload.table import ENTRY, FrameTable, frame_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from payload.bundle import Header
    from payload.manifest import Image, Manifest
    from payload.roots import Root

# What is signed begins with its purpose: no signature of one thing ever passes for another.
SIGNED_PURPOSE = b"unbrick bundle manifest 1\n"
# How a bundle fails whose keys were replaced since it was signed.
_REPLACED_KEYS = (PayloadKeyRevokedError, PayloadBelowThresholdError, PayloadWrongKeyError)


class Trusted:
    """What the device believes: the newest root, the lowest version it takes, the newest signed time.

    A value: nothing changes it. ``revoked`` are ids of bundle keys that counted once; only messages differ
    by them. ``floor`` and ``clock_floor`` begin at the root's own, never below.
    """

    __slots__ = ("clock_floor", "floor", "revoked", "root")

    def __init__(
        self, root: Root, floor: int = 0, clock_floor: int = 0, revoked: frozenset[bytes] = frozenset()
    ) -> None:
        self.root = root
        self.floor = max(floor, root.floor)
        self.clock_floor = max(clock_floor, root.signed_at)
        self.revoked = revoked

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trusted) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]

    def _values(self) -> tuple[bytes, int, int]:
        return self.root.digest, self.floor, self.clock_floor

    def with_root(self, root: Root) -> Trusted:
        """The state under ``root``, the next one. Taking a bundle key away resets floor and clock."""
        gone = frozenset([key_id(key) for key in self.root.bundle_keys if key not in root.bundle_keys])
        revoked = (self.revoked | gone) - {key_id(key) for key in root.bundle_keys}
        if gone:
            return Trusted(root, root.floor, root.signed_at, revoked)
        return Trusted(root, self.floor, self.clock_floor, revoked)

    def with_time(self, signed_at: int) -> Trusted:
        """The state after something signed at that time was believed."""
        return Trusted(self.root, self.floor, max(self.clock_floor, signed_at), self.revoked)


def trusted_key(key: bytes, compatible: str, floor: int = 0) -> Trusted:
    """The state of a device that pins one raw key and knows nothing more."""
    return Trusted(single_key_root(key, compatible), floor)


def signed_message(manifest_bytes: bytes) -> bytes:
    """What is signed for a manifest."""
    return SIGNED_PURPOSE + manifest_bytes


def follow(header: Header, trusted: Trusted) -> Trusted:
    """``trusted`` with the newer roots that ``header`` brings; ``trusted`` itself if it brings none.

    Valid whatever becomes of the bundle: a revocation is known once it was seen. To be made durable before
    anything is taken because of it.

    Raises:
        PayloadRootRefusedError, PayloadRootMismatchError: see ``payload.roots.follow``.
        BundleError: a signed root is not of this format.
    """
    for root in roots.follow(trusted.root, header.roots):
        trusted = trusted.with_root(root)
    return trusted


def verify(
    header: Header,
    trusted: Trusted,
    compatible: str | None,
    kernel_release: str | None,
    *,
    network: bool = False,
    any_version: bool = False,
    remembered: tuple[bytes, ...] = (),
) -> tuple[Manifest, Trusted]:
    """The manifest of ``header``, with the frame tables of its images, if this device takes it; and what is
    believed from now on (a newer root, a later time), which the caller makes durable before using either.

    ``compatible`` and ``kernel_release`` are left out (None) where no particular device is meant, as
    on the build host. ``network``: it comes from a source that may hold newer ones back. ``any_version``:
    below the floor, too; for what is only looked at. ``remembered`` are digests of manifests that the
    journal holds: what was believed once may bear the signature of a key that is replaced by now, so that
    replacing it does not take the installed image's repair away. Unsigned or forged it may not be.

    Raises:
        TrustError: intact, but not for this device.
        BundleError: signed, and yet not a bundle of this format.
    """
    trusted = follow(header, trusted)
    try:
        _check_signatures(header, trusted)
    except _REPLACED_KEYS:
        if digest(header.manifest_bytes) not in remembered:
            raise
    manifest = decode(header.manifest_bytes)
    attach_tables(manifest, header.tables)
    if compatible is not None and manifest.compatible != compatible:
        raise PayloadWrongCompatibleError(f"the bundle is for {manifest.compatible!r}, this device is {compatible!r}")
    if manifest.version < trusted.floor and not any_version:
        raise PayloadBelowFloorError(f"version {manifest.version} is below the floor {trusted.floor}")
    if kernel_release is not None and manifest.is_transaction:
        raise PayloadKernelMismatchError("these are packages, nothing that boots: `unbrick packages apply` takes them")
    if kernel_release is not None and manifest.kernel_release != kernel_release:
        raise PayloadKernelMismatchError(
            f"the bundle is for kernel {manifest.kernel_release}, {kernel_release:.80} runs"
        )
    trusted = trusted.with_time(manifest.signed_at)
    if network:
        _check_not_expired(manifest, trusted)
    return manifest, trusted


def check_complete(header: Header, pinned: Root) -> None:
    """That a device which knows no root but ``pinned`` believes ``header``, by nothing but the chain in it.

    Older links are passed over by a device that knows a newer root: so they may be missing, or spoilt by whoever
    carried the bundle. Once they are what the device keeps, and its journal is lost, nothing leads to that root again.

    Raises:
        PayloadRootsIncompleteError: it would not.
    """
    try:
        _check_signatures(header, follow(header, Trusted(pinned)))
    except (TrustError, PayloadFormatError) as error:
        raise PayloadRootsIncompleteError(f"from root {pinned.version} on: {error}") from error


def _check_signatures(header: Header, trusted: Trusted) -> None:
    root = trusted.root
    if not header.signatures:
        raise PayloadUnsignedError("the bundle is not signed")
    named, valid = signers(header.signatures, root.bundle_keys, signed_message(header.manifest_bytes))
    if valid >= root.bundle_threshold:
        return
    if valid < named:
        raise PayloadForgedError("a signature is not of this manifest")
    if valid > 0:
        raise PayloadBelowThresholdError(
            f"the bundle is signed by {valid} keys of root {root.version}, which wants {root.bundle_threshold}"
        )
    if any(name in trusted.revoked for name, _signature in header.signatures):
        raise PayloadKeyRevokedError(f"the key that signed the bundle is revoked by root {root.version}")
    raise PayloadWrongKeyError("the bundle is signed, but not by a key of this device")


def _check_not_expired(manifest: Manifest, trusted: Trusted) -> None:
    if trusted.root.expires_at < trusted.clock_floor:
        raise PayloadRootExpiredError(f"root {trusted.root.version} has expired; a newer one is needed")
    if manifest.expires_at < trusted.clock_floor:
        raise PayloadExpiredError(f"version {manifest.version} has expired; something newer was signed since")


def attach_tables(manifest: Manifest, tables: bytes) -> None:
    """Give each image its frame table, compared with the digest in the manifest. Raises ``BundleError``."""
    start = 0
    for image in manifest.images:
        end = start + frame_count(image.size, image.frame_size) * ENTRY.size
        image.table = _verified_table(image, tables[start:end])
        start = end
    if start != len(tables):
        raise PayloadFormatError("the header has more frame tables than the manifest has images")


def _verified_table(image: Image, entries: bytes) -> FrameTable:
    if digest(entries) != image.table_digest:
        raise PayloadCorruptError(f"the frame table of {image.slot_class!r} is not the signed one")
    return FrameTable(image.size, image.frame_size, entries)
