"""Files of roots: the chain that a vendor keeps beside its keys. Runs on the build host only.

A file is 8 bytes of magic and a chain as a bundle's header has it. It begins with root 1, where that is root
metadata, or with root 2, where the devices pin one raw key. Its newest root may lack signatures still: people
in several places add theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from payload.durable import atomic_replace
from payload.errors import PayloadError, PayloadFormatError, PayloadInputError
from payload.roots import (
    CHAIN_BYTES_MAX,
    Link,
    Root,
    check_first,
    decode_chain,
    encode_chain,
    follow,
    single_key_root,
)
from payload.signing_key import load_public_key

ROOTS_MAGIC = b"\x89UBKROOT"


def load_roots(path: Path) -> tuple[Link, ...]:
    """The chain in the file ``path``, not believed. Raises ``PayloadInputError``."""
    try:
        with path.open("rb") as file:
            content = file.read(len(ROOTS_MAGIC) + CHAIN_BYTES_MAX + 1)
    except OSError as error:
        raise PayloadInputError(f"{path}: {error.strerror}") from error
    if not content.startswith(ROOTS_MAGIC):
        raise PayloadInputError(f"{path} is not a file of roots; `unbrick key root` makes one")
    try:
        chain = decode_chain(content[len(ROOTS_MAGIC) :])
    except PayloadFormatError as error:
        raise PayloadInputError(f"{path}: {error}") from error
    if not chain:
        raise PayloadInputError(f"{path} holds no root")
    return chain


def save_roots(path: Path, chain: Sequence[Link]) -> None:
    """Replace ``path`` by a file of this chain. Raises ``PayloadInputError`` where no header could carry it."""
    section = encode_chain(chain)
    try:
        decode_chain(section)
    except PayloadFormatError as error:
        raise PayloadInputError(f"{error}; pin a later root in new images and begin a new file with it") from error
    atomic_replace(path, ROOTS_MAGIC + section)


def is_root_file(path: Path) -> bool:
    """Whether ``path`` is a file of roots and not a raw key. Raises ``PayloadInputError``."""
    try:
        with path.open("rb") as file:
            return file.read(len(ROOTS_MAGIC)) == ROOTS_MAGIC
    except OSError as error:
        raise PayloadInputError(f"{path}: {error.strerror}") from error


def pinned_by(path: Path, compatible: str) -> Root:
    """The root that a device pins which is built with ``path``: a raw key's, or the newest of a file of roots.

    Raises:
        PayloadInputError: it is neither, or a root in it lacks signatures or is for another kind of device.
    """
    if not is_root_file(path):
        return single_key_root(load_public_key(path), compatible)
    chain = load_roots(path)
    if chain[0].version != 1:
        raise PayloadInputError(f"{path} begins with root {chain[0].version}: pin the raw key that root 1 is")
    try:
        root = ([check_first(chain[0]), *follow(check_first(chain[0]), chain)])[-1]
    except PayloadError as error:
        raise PayloadInputError(f"{path}: {error}") from error
    if root.compatible != compatible:
        raise PayloadInputError(f"{path} is for {root.compatible!r}, not {compatible!r}")
    return root


def known_after(pinned: Root, chain: tuple[Link, ...]) -> Root:
    """The newest root of a device that pins ``pinned`` and saw ``chain``. Raises ``PayloadInputError``."""
    try:
        return ([pinned, *follow(pinned, chain)])[-1]
    except PayloadError as error:
        raise PayloadInputError(str(error)) from error
