"""Signing keys as files. Runs on the build host only; no private key ever reaches a device.

A private key is Ed25519 in PEM (PKCS #8), mode 0600, encrypted where a passphrase was given. A public key is
a file of 64 hexadecimal digits, or of the 32 raw bytes. Where passphrases come from is the caller's matter;
they are never on a command line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from payload.codec import PUBLIC_KEY_BYTES
from payload.durable import atomic_replace
from payload.errors import PayloadInputError
from payload.roots import root_message
from payload.signatures import key_id
from payload.trust import signed_message

KEY_FILE_BYTES_MAX = 16 << 10
ENCRYPTED_MARK = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class SigningKey(Protocol):
    """What signs: a key in memory, or one that stays in a token (``initramfs.pkcs11``)."""

    def sign(self, data: bytes, /) -> bytes: ...

    def public_key(self) -> Ed25519PublicKey: ...


# asked only where a passphrase is needed, with the key's file
Passphrase = Callable[[Path], bytes]


def generate_key(private_path: Path, public_path: Path, passphrase: bytes = b"") -> None:
    """Make a new key pair; without a passphrase the private key is stored in the clear.

    A key that exists is never overwritten, a public one neither: devices may pin it.

    Raises:
        PayloadInputError: there is a file already at one of the paths, or they are one.
        OSError: a file cannot be written.
    """
    if private_path == public_path:
        raise PayloadInputError(f"{private_path} is the public key's name; choose another one for the private key")
    for path in (private_path, public_path):
        if path.exists():
            raise PayloadInputError(f"{path} exists; choose another name or move it away")
    key = Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    atomic_replace(private_path, pem, mode=0o600)
    atomic_replace(public_path, public_bytes(key).hex().encode("ascii") + b"\n")


def load_signing_key(path: Path, passphrase: Passphrase | None = None) -> Ed25519PrivateKey:
    """The private key in ``path``; ``passphrase`` is asked only if it is encrypted. Raises ``PayloadInputError``."""
    content = _read(path)
    secret = None
    if content.lstrip().startswith(ENCRYPTED_MARK):
        if passphrase is None:
            raise PayloadInputError(f"{path} is encrypted and no passphrase was given")
        secret = passphrase(path)
    try:
        key = serialization.load_pem_private_key(content, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wrong = (
            "the passphrase is wrong, or the file is damaged" if secret is not None else "it is not a PEM private key"
        )
        raise PayloadInputError(f"{path}: {wrong}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PayloadInputError(f"{path} is not an Ed25519 key; make one with `unbrick key new`")
    return key


def load_public_key(path: Path) -> bytes:
    """The 32 bytes of the public key in ``path``. Raises ``PayloadInputError``."""
    content = _read(path)
    if len(content) == PUBLIC_KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise PayloadInputError(f"{path} holds neither 32 bytes nor 64 hexadecimal digits")
    return key


def public_bytes(key: SigningKey) -> bytes:
    """The 32 bytes of the public half of ``key``."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def sign(key: SigningKey, manifest_bytes: bytes) -> tuple[bytes, bytes]:
    """Key id and signature of a manifest, as a header lists them."""
    return sign_message(key, signed_message(manifest_bytes))


def sign_root(key: SigningKey, text: bytes) -> tuple[bytes, bytes]:
    """Key id and signature of a root, as a chain lists them."""
    return sign_message(key, root_message(text))


def sign_message(key: SigningKey, message: bytes) -> tuple[bytes, bytes]:
    """Key id and signature of a message that already begins with its purpose."""
    return key_id(public_bytes(key)), key.sign(message)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise PayloadInputError(f"{path}: {error.strerror}") from error
