"""The certificates that a device's HTTPS believes: read from one PEM file at build time, frozen in as DER.

Says nothing about dates: an anchor is believed because it is in the image (docs/SECURITY.md). Any X.509
certificate will do, a private authority's or the server's own; the device is given no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initramfs.config import Config

FILE_BYTES_MAX = 512 * 1024
ANCHORS_MAX = 256
"""As many as the device's TLS module takes."""
KEY = "network.ca"


def trust_anchors(config: Config) -> list[str]:
    """DER in hexadecimal digits, in the order of the file; empty for a device without HTTPS.

    Raises:
        ConfigError: ``network.ca`` cannot be read, holds no certificate, too many, or a private key.
    """
    network = config.network
    if network is None or not network.https or network.ca is None:
        return []
    content = _content(config, network.ca)
    return [der.hex() for der in _certificates(config, network.ca, content)]


def _content(config: Config, place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise config.source.error(KEY, f"{place} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise config.source.error(KEY, f"{place} is longer than {FILE_BYTES_MAX} bytes")
    if b"PRIVATE KEY-----" in content:
        hint = "Name a file with the certificate alone; the key has no place in an image."
        raise config.source.error(KEY, f"{place} holds a private key", hint)
    return content


def _certificates(config: Config, place: Path, content: bytes) -> list[bytes]:
    from cryptography import x509  # takes a tenth of a second: only for a device with HTTPS
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        hint = "It begins with -----BEGIN CERTIFICATE-----; `openssl x509 -in FILE -inform der` makes one of DER."
        raise config.source.error(KEY, f"{place} holds no PEM certificate: {error}", hint) from error
    if len(found) > ANCHORS_MAX:
        hint = "Name the authorities of your own servers only."
        raise config.source.error(KEY, f"{place} holds {len(found)} certificates; at most {ANCHORS_MAX}", hint)
    return [certificate.public_bytes(Encoding.DER) for certificate in found]
