"""Lists of signatures, as bytes, and who of a set of keys has signed. Bytes: docs/SPEC.md, "Signatures".

Knows nothing of what is signed, and decides nothing but who signed it.
"""

from __future__ import annotations

from payload.codec import SIGNATURE_BYTES, ed25519_verify
from payload.digest import DIGEST_BYTES, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # (key id, signature)
    Signatures = tuple[tuple[bytes, bytes], ...]

KEY_ID_BYTES = DIGEST_BYTES
SIGNATURE_ENTRY_BYTES = KEY_ID_BYTES + SIGNATURE_BYTES
SIGNATURES_MAX = 16


def key_id(public_key: bytes) -> bytes:
    """The 32 bytes that name ``public_key`` in a list of signatures."""
    return digest(public_key)


def encode_signatures(signatures: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + signature for name, signature in signatures)


def decode_signatures(listed: bytes) -> Signatures:
    """The entries of ``listed``, whose length is a multiple of an entry's."""
    starts = range(0, len(listed), SIGNATURE_ENTRY_BYTES)
    entries = [listed[start : start + SIGNATURE_ENTRY_BYTES] for start in starts]
    return tuple([(entry[:KEY_ID_BYTES], entry[KEY_ID_BYTES:]) for entry in entries])


def signers(signatures: Signatures, keys: tuple[bytes, ...], message: bytes) -> tuple[int, int]:
    """How many different ``keys`` the list names, and how many of them did sign ``message``.

    A key counts once, however many entries it has; entries of other keys count nowhere.
    """
    by_name = {key_id(key): key for key in keys}
    named = {name for name, _signature in signatures if name in by_name}
    valid = {
        name for name, signature in signatures if name in by_name and ed25519_verify(signature, message, by_name[name])
    }
    return len(named), len(valid)
