"""What a transaction says of itself beside its plan: which one it is. Texts of a disk that may have rotted."""

from __future__ import annotations

from statemachine.record import DIGEST_BYTES, NO_DIGEST

SERIAL_MAX = (1 << 64) - 1
# Of a transaction that does not say which one it is: it is on trial all the same.
NAMELESS = b"\xff" * DIGEST_BYTES


def serial_of(facts: dict[str, str]) -> int:
    """The transaction's number; 0 where there is none."""
    text = facts.get("serial", "")
    serial = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(SERIAL_MAX)) else 0
    return serial if serial <= SERIAL_MAX else 0


def is_again(facts: dict[str, str]) -> bool:
    """Whether it brings a set that ran well back into a root that lost it."""
    return facts.get("again") == "1"


def name_of(facts: dict[str, str]) -> bytes:
    """The digest of its manifest, never `NO_DIGEST`."""
    try:
        digest = bytes.fromhex(facts.get("transaction", ""))
    except ValueError:
        return NAMELESS
    return digest if len(digest) == DIGEST_BYTES and digest != NO_DIGEST else NAMELESS
