"""Root metadata: which keys count, how many of them, and from when on. Rules and bytes, no disk.

Root N names the keys that sign bundles and the keys that sign roots, with a threshold for each. Root 1 is
pinned in the recovery image; root N + 1 counts once the threshold of root N *and* its own have signed it
(The Update Framework 1.0, 5.3 "Update the root role"). A key that root N does not name is revoked as soon
as root N is known. The chain of roots travels in the header of every bundle. Bytes: docs/SPEC.md, "Roots".

``floor`` is the lowest version from this root on. A root that takes a bundle key away *sets* the floor and
the clock to its own values, up or down: whoever had that key may have signed version 2^64 - 1 for the
year 9999, and no later bundle would ever be taken again (TUF's recovery from a fast-forward attack, 5.3.11).
Any other root only raises them.
"""

from __future__ import annotations

from struct import Struct

from payload.digest import digest
from payload.errors import PayloadFormatError, PayloadRootMismatchError, PayloadRootRefusedError
from payload.signatures import (
    SIGNATURE_ENTRY_BYTES,
    SIGNATURES_MAX,
    decode_signatures,
    encode_signatures,
    signers,
)
from payload.strict_json import TIME_MAX, between, check_fields, dump, is_digest, is_name, is_time, load
from statemachine.limits import ROOT_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from payload.signatures import Signatures
    from payload.strict_json import Check

# What is signed begins with its purpose: no signature of one thing ever passes for another.
ROOT_PURPOSE = b"unbrick root 1\n"
ROOTS_MAX = 32
ROLE_KEYS_MAX = 8
ROOT_VERSION_MAX = (1 << 32) - 1
FLOOR_MAX = (1 << 64) - 1
# version, bytes of the root, number of signatures
LINK = Struct("<III")
CHAIN_BYTES_MAX = ROOTS_MAX * (LINK.size + ROOT_BYTES_MAX + SIGNATURES_MAX * SIGNATURE_ENTRY_BYTES)


class Root:
    """What root ``version`` says. Keys are 32 bytes each, times seconds since 1970.

    ``text`` is its one encoding, ``digest`` that of the text.
    """

    __slots__ = (
        "bundle_keys",
        "bundle_threshold",
        "compatible",
        "digest",
        "expires_at",
        "floor",
        "root_keys",
        "root_threshold",
        "signed_at",
        "text",
        "version",
    )

    def __init__(
        self,
        *,
        compatible: str,
        version: int,
        root_keys: Iterable[bytes],
        root_threshold: int,
        bundle_keys: Iterable[bytes],
        bundle_threshold: int,
        floor: int = 0,
        signed_at: int = 0,
        expires_at: int = TIME_MAX,
    ) -> None:
        self.compatible = compatible
        self.version = version
        self.root_keys = tuple(sorted(root_keys))
        self.root_threshold = root_threshold
        self.bundle_keys = tuple(sorted(bundle_keys))
        self.bundle_threshold = bundle_threshold
        self.floor = floor
        self.signed_at = signed_at
        self.expires_at = expires_at
        self.text = dump(_fields(self))
        self.digest = digest(self.text)


class Link:
    """A root as it stands in a chain: its bytes and their signatures, none of them believed yet."""

    __slots__ = ("signatures", "text", "version")

    def __init__(self, version: int, text: bytes, signatures: Signatures) -> None:
        self.version = version
        self.text = text
        self.signatures = signatures


def decode_root(text: bytes) -> Root:
    """The root in ``text``.

    Raises:
        PayloadFormatError: it is not the one encoding of a root that can ever be followed.
    """
    fields = load(text, ROOT_BYTES_MAX, "root")
    check_fields(fields, _FIELDS, "root")
    for role in ("root", "bundle"):
        keys = fields[f"{role}-keys"]
        if keys != sorted(set(keys)):
            raise PayloadFormatError(f"the {role} keys of the root are not in order, each once")
        if fields[f"{role}-threshold"] > len(keys):
            raise PayloadFormatError(f"the root wants more {role} keys than it names")
    if fields["expires-at"] < fields["signed-at"]:
        raise PayloadFormatError("the root expires before it is signed")
    values = {key.replace("-", "_"): value for key, value in fields.items()}
    for role in ("root_keys", "bundle_keys"):
        values[role] = [bytes.fromhex(key) for key in values[role]]
    return Root(**values)


def single_key_root(key: bytes, compatible: str) -> Root:
    """Root 1 of a device that pins one raw key: it signs roots and bundles, alone and for ever."""
    return Root(
        compatible=compatible, version=1, root_keys=(key,), root_threshold=1, bundle_keys=(key,), bundle_threshold=1
    )


def root_message(text: bytes) -> bytes:
    """What is signed for a root."""
    return ROOT_PURPOSE + text


def follow(known: Root, chain: tuple[Link, ...]) -> list[Root]:
    """The roots that ``chain`` adds to ``known``, oldest first; none if it brings nothing new.

    Older links are passed over: they cannot change what is known. A chain that ends before ``known`` is
    an old bundle's; its signatures are judged by ``known`` all the same.

    Raises:
        PayloadRootMismatchError: it has another root of the version that is known.
        PayloadRootRefusedError: a link is missing or lacks signatures.
        PayloadFormatError: signed, and yet no root.
    """
    followed: list[Root] = []
    for link in chain:
        if link.version == known.version and link.text != known.text:
            raise PayloadRootMismatchError(f"the bundle has another root {link.version} than this device")
        if link.version > known.version:
            known = _next_root(known, link)
            followed.append(known)
    return followed


def _next_root(known: Root, link: Link) -> Root:
    if link.version != known.version + 1:
        raise PayloadRootRefusedError(f"root {link.version} does not follow root {known.version}, the one known")
    _check_signed(link, known, "the one before")
    root = decode_root(link.text)
    if root.version != link.version:
        raise PayloadRootRefusedError(f"root {root.version} stands in the chain as {link.version}")
    if root.compatible != known.compatible:
        raise PayloadRootRefusedError(f"root {root.version} is for {root.compatible!r}, not {known.compatible!r}")
    _check_signed(link, root, "its own keys")
    return root


def _check_signed(link: Link, by: Root, whose: str) -> None:
    _named, valid = signers(link.signatures, by.root_keys, root_message(link.text))
    if valid < by.root_threshold:
        raise PayloadRootRefusedError(
            f"root {link.version} has {valid} of the {by.root_threshold} signatures that {whose} must give"
        )


def check_first(link: Link) -> Root:
    """The root of the first link of a chain that a person vouches for: signed by its own threshold.

    Raises ``PayloadRootRefusedError`` and ``PayloadFormatError`` as :func:`follow`.
    """
    root = decode_root(link.text)
    if root.version != link.version:
        raise PayloadRootRefusedError(f"root {root.version} stands in the chain as {link.version}")
    _check_signed(link, root, "its own keys")
    return root


def encode_chain(chain: Iterable[Link]) -> bytes:
    """The links behind each other, as a header has them."""
    return b"".join(
        LINK.pack(link.version, len(link.text), len(link.signatures)) + link.text + encode_signatures(link.signatures)
        for link in chain
    )


def decode_chain(section: bytes) -> tuple[Link, ...]:
    """The links of a header's section of roots, not believed.

    Raises:
        PayloadFormatError: a length is over its bound or passes the end, or versions do not follow each other.
    """
    chain: list[Link] = []
    position = 0
    while position < len(section):
        if len(chain) == ROOTS_MAX:
            raise PayloadFormatError(f"a chain of more than {ROOTS_MAX} roots")
        link, position = _decode_link(section, position)
        if link.version != (chain[-1].version + 1 if chain else max(1, link.version)):
            raise PayloadFormatError("the versions of the roots do not follow each other")
        chain.append(link)
    return tuple(chain)


def _decode_link(section: bytes, position: int) -> tuple[Link, int]:
    if position + LINK.size > len(section):
        raise PayloadFormatError("the chain of roots is cut short")
    version, text_length, count = LINK.unpack_from(section, position)
    if text_length > ROOT_BYTES_MAX or count > SIGNATURES_MAX:
        raise PayloadFormatError(f"root {version} has {text_length} bytes and {count} signatures: too many")
    text_end = position + LINK.size + text_length
    end = text_end + count * SIGNATURE_ENTRY_BYTES
    if end > len(section):
        raise PayloadFormatError("the chain of roots is cut short")
    return Link(version, section[position + LINK.size : text_end], decode_signatures(section[text_end:end])), end


def _fields(root: Root) -> dict[str, Any]:
    return {
        "bundle-keys": [key.hex() for key in root.bundle_keys],
        "bundle-threshold": root.bundle_threshold,
        "compatible": root.compatible,
        "expires-at": root.expires_at,
        "floor": root.floor,
        "root-keys": [key.hex() for key in root.root_keys],
        "root-threshold": root.root_threshold,
        "signed-at": root.signed_at,
        "version": root.version,
    }


def _are_keys(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= ROLE_KEYS_MAX and all(is_digest(key) for key in value)


_FIELDS: dict[str, Check] = {
    "bundle-keys": _are_keys,
    "bundle-threshold": between(1, ROLE_KEYS_MAX),
    "compatible": is_name,
    "expires-at": is_time,
    "floor": between(0, FLOOR_MAX),
    "root-keys": _are_keys,
    "root-threshold": between(1, ROLE_KEYS_MAX),
    "signed-at": is_time,
    "version": between(1, ROOT_VERSION_MAX),
}
