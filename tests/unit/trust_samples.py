"""Keys, roots and bundles of a vendor, for the tests of trust: made by the production code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from payload.bundle import Header, decode_header, encode_header
from payload.digest import digest
from payload.manifest import Manifest, decode, encode
from payload.roots import Link, Root
from payload.signing_key import public_bytes, sign, sign_root
from payload.trust import Trusted
from tests.unit.payload_samples import COMPATIBLE, Sample

NOON = 1_800_000_000  # seconds since 1970, some day
DAY = 86_400
YEAR = 365 * DAY


def key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name, always."""
    return Ed25519PrivateKey.from_private_bytes(digest(name.encode()))


def public(*names: str) -> list[bytes]:
    return [public_bytes(key(name)) for name in names]


def make_root(version: int, roots: str, bundles: str, thresholds: tuple[int, int] = (1, 1), **fields: int) -> Root:
    """``roots`` and ``bundles`` name keys, separated by spaces; thresholds are in the same order."""
    return Root(
        compatible=COMPATIBLE,
        version=version,
        root_keys=public(*roots.split()),
        root_threshold=thresholds[0],
        bundle_keys=public(*bundles.split()),
        bundle_threshold=thresholds[1],
        **{"signed_at": NOON, "expires_at": NOON + 5 * YEAR, **fields},
    )


def signed_root(root: Root, signers: str) -> Link:
    return Link(root.version, root.text, tuple(sign_root(key(name), root.text) for name in signers.split()))


ROOT_1 = make_root(1, "alice bob carol", "build", (2, 1))
ROOT_2 = make_root(2, "alice bob dave", "build-2 build-3", (2, 1), signed_at=NOON + YEAR, floor=6)
ROOT_3 = make_root(3, "alice dave erin", "build-3 release", (2, 2), signed_at=NOON + 2 * YEAR, floor=6)
ROOT_4 = make_root(4, "dave erin frank", "build-3 release", (2, 2), signed_at=NOON + 3 * YEAR, floor=8)
LINK_1 = signed_root(ROOT_1, "alice bob")
LINK_2 = signed_root(ROOT_2, "alice bob")
LINK_3 = signed_root(ROOT_3, "alice dave")
LINK_4 = signed_root(ROOT_4, "dave erin")
CHAIN = (LINK_2, LINK_3, LINK_4)
DEVICE = Trusted(ROOT_1)


class Vendor:
    """Bundles of one image, signed in any way."""

    def __init__(self, folder: Path, image: bytes) -> None:
        self.sample = Sample(folder, image)
        self.data = self.sample.content[len(self.sample.header.raw) :]

    def manifest(self, version: int, **fields: object) -> Manifest:
        manifest = decode(self.sample.header.manifest_bytes)
        given = {"signed_at": NOON, "expires_at": NOON + YEAR, **fields}
        for name, value in {"version": version, "version_name": str(version), **given}.items():
            setattr(manifest, name, value)
        return manifest

    def header(self, version: int, signers: str, roots: Iterable[Link] = (), **fields: object) -> Header:
        """The header of a version, signed by the keys of these names."""
        text = encode(self.manifest(version, **fields))
        return self.with_signatures(text, [sign(key(name), text) for name in signers.split()], roots)

    def with_signatures(
        self, text: bytes, signatures: Sequence[tuple[bytes, bytes]], roots: Iterable[Link] = ()
    ) -> Header:
        return decode_header(encode_header(text, list(signatures), self.sample.header.tables, tuple(roots)))


def changed(root: Root, **fields: object) -> Root:
    """Another root with some fields changed."""
    values = {name: getattr(root, name) for name in Root.__slots__ if name not in ("digest", "text")}
    return Root(**{**values, **fields})


def without_signatures(link: Link) -> Link:
    return Link(link.version, link.text, ())
