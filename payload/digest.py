"""The one digest of the project: BLAKE2b with 32 bytes of output (RFC 7693), as ``b2sum -l 256``.

Straight from CPython's own C module: ``hashlib`` would try OpenSSL first, and costs boot time.
"""

from __future__ import annotations

from _blake2 import blake2b

DIGEST_BYTES = 32


def digest(data: bytes | memoryview) -> bytes:
    """The 32 bytes of BLAKE2b-256 over ``data``."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def hasher() -> blake2b:
    """The same digest, of what comes in pieces: ``update``, then ``digest``."""
    return blake2b(digest_size=DIGEST_BYTES)
