"""Certificates for the tests of TLS: an authority, and what it can say well or wrongly about a server."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = 1_900_000_000
DAY = 86_400

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """A certificate, its key, and those that a server sends along with it."""

    public: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.public.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.public.public_bytes(Encoding.PEM)

    def write(self, folder: Path) -> list[str]:
        """What `openssl s_server` must be told to present it."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "server.pem").write_bytes(self.pem + key)
        (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in self.chain))
        arguments = ["-cert", str(folder / "server.pem")]
        return [*arguments, "-cert_chain", str(folder / "chain.pem")] if self.chain else arguments


def authority(
    name: str = "authority", issuer: Certificate | None = None, from_days: int = -1000, to_days: int = 1000
) -> Certificate:
    """One that may sign others: its own root, or below ``issuer``."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key, issuer, from_days, to_days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return _signed(builder, key, issuer)


def server(
    issuer: Certificate | None,
    *names: str,
    subject: str = "server",
    from_days: int = -10,
    to_days: int = 80,
    key: PrivateKey | None = None,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Certificate:
    """For DNS ``names`` and addresses; without an ``issuer`` it is signed by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = _builder(subject, key, issuer, from_days, to_days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return _signed(builder, key, issuer)


def _builder(
    name: str, key: PrivateKey, issuer: Certificate | None, from_days: int, to_days: int
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.public.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(from_days))
        .not_valid_after(_date(to_days))
    )


def _signed(builder: x509.CertificateBuilder, key: PrivateKey, issuer: Certificate | None) -> Certificate:
    chain = (issuer.public, *issuer.chain) if issuer and issuer.public.issuer != issuer.public.subject else ()
    return Certificate(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key, chain)


def _date(days: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(NOW + days * DAY, datetime.UTC)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
