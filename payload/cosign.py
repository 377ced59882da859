"""Adding signatures to what is there: to a bundle, to the newest root of a chain. Runs on the build host only.

So several people can sign in several places, and a key can stay on a machine without a network: that machine
gets the *message* (what is signed, its purpose in front) and gives back 64 bytes, by any program that does Ed25519.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from payload.bundle import Header, encode_header, read_header
from payload.codec import ed25519_verify
from payload.durable import atomic_replace
from payload.errors import BundleError, PayloadInputError
from payload.roots import Link, root_message
from payload.signatures import key_id
from payload.sources import FileSource
from payload.trust import signed_message

if TYPE_CHECKING:
    from payload.signatures import Signatures

COPY_BYTES = 1 << 20


def bundle_header(path: Path) -> Header:
    """The header of the bundle in ``path``, not believed. Raises ``BundleError`` and ``OSError``."""
    source = FileSource(str(path.resolve()), path.name)
    try:
        return read_header(source)
    finally:
        source.close()


def bundle_message(header: Header) -> bytes:
    """What a signer of the bundle signs."""
    return signed_message(header.manifest_bytes)


def link_message(link: Link) -> bytes:
    """What a signer of the root signs."""
    return root_message(link.text)


def detached(public_key: bytes, signature: bytes, message: bytes) -> tuple[bytes, bytes]:
    """The entry of a signature that was made elsewhere.

    Raises:
        PayloadInputError: it is not of this message by this key.
    """
    if not ed25519_verify(signature, message, public_key):
        raise PayloadInputError("the signature is not of this message by this key: 64 raw bytes are expected")
    return key_id(public_key), signature


def with_signatures(signatures: Signatures, added: Iterable[tuple[bytes, bytes]]) -> Signatures:
    """``signatures`` and ``added``; a key that is there twice has its newest signature, once."""
    merged = dict(signatures) | dict(added)
    return tuple(merged.items())


def sign_link(link: Link, added: Iterable[tuple[bytes, bytes]]) -> Link:
    """The same root with more signatures."""
    return Link(link.version, link.text, with_signatures(link.signatures, added))


def rewrite_bundle(
    path: Path, header: Header, *, signatures: Signatures, roots: Sequence[Link], output: Path | None = None
) -> None:
    """Give the bundle in ``path``, whose header is ``header``, these signatures and this chain of roots.

    Frames are copied as they are: their offsets count from the end of the header. With ``output`` the
    bundle itself is left alone.

    Raises:
        PayloadInputError: too many signatures or roots for a header.
        OSError: nothing changed.
    """
    try:
        raw = encode_header(header.manifest_bytes, signatures, header.tables, roots)
    except BundleError as error:
        raise PayloadInputError(f"{path}: {error}") from error

    def write(file: BinaryIO) -> None:
        file.write(raw)
        with path.open("rb") as source:
            source.seek(len(header.raw))
            shutil.copyfileobj(source, file, COPY_BYTES)

    atomic_replace(output or path, write)
