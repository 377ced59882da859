"""Signing keys that never leave their token: PKCS #11 through OpenSC's `pkcs11-tool`.

A key is named by an RFC 7512 URI: ``pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/…/module.so``. The
token's PIN comes from where passphrases come from and goes to the program in its environment, never in its
arguments: a URI that holds it is refused. The token must do EdDSA on Ed25519.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from initramfs.errors import BuildError, ToolError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SCHEME = "pkcs11:"
PROGRAM = "pkcs11-tool"
PROGRAM_SECONDS_MAX = 60
PIN_VARIABLE = "UNBRICK_TOKEN_PIN"
PIN_ATTRIBUTE = "pin-value"
# DER: an octet string of 32 bytes
_POINT = re.compile(r"EC_POINT:\s+0420([0-9a-fA-F]{64})\b")
_LABEL = re.compile(r"^\s+label:\s+(.*?)\s*$", re.MULTILINE)
_ID = re.compile(r"^\s+ID:\s+([0-9a-fA-F]+)\s*$", re.MULTILINE)
_EXAMPLE = "pkcs11:token=vendor;object=build?module-path=/usr/lib/softhsm/libsofthsm2.so"


class TokenKey:
    """A private key in a token. Signs like a key in memory (``payload.signing_key.SigningKey``).

    Raises:
        BuildError: the URI does not name a key, or holds a PIN.
        ToolError: `pkcs11-tool` is not here, or the token says no.
    """

    def __init__(self, uri: str, pin: bytes) -> None:
        check_holds_no_pin(uri)
        path, _, query = uri.removeprefix(SCHEME).partition("?")
        names = _attributes(path, ";") | _attributes(query, "&")
        missing = [name for name in ("token", "object", "module-path") if not names.get(name)]
        if missing:
            raise BuildError(f"{uri} does not say {', '.join(missing)}", f"Write {_EXAMPLE}")
        self._uri = uri
        self._pin = pin
        self._label = names["object"]
        self._token = ["--module", names["module-path"], "--token-label", names["token"]]
        found = self._public_keys()
        if len(found) != 1:
            raise ToolError(f"{uri} names {len(found)} Ed25519 keys", "`pkcs11-tool --list-objects` shows them.")
        self._public, self._id = bytes.fromhex(found[0][0]), found[0][1]

    def public_key(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self._public)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 over ``message``, made in the token and verified here. Raises ``ToolError``."""
        from payload.codec import ed25519_verify

        with tempfile.TemporaryDirectory(prefix="unbrick-") as name:
            folder = Path(name)
            (folder / "message").write_bytes(message)
            self._run(
                "--login", "--pin", f"env:{PIN_VARIABLE}", "--sign", "--mechanism", "EDDSA", "--id", self._id,
                "--input-file", str(folder / "message"), "--output-file", str(folder / "signature"),
            )  # fmt: skip
            signature = (folder / "signature").read_bytes()
        if not ed25519_verify(signature, message, self._public):
            raise ToolError(f"{self._uri} made a signature that does not verify", "Is it an Ed25519 key?")
        return signature

    def _public_keys(self) -> list[tuple[str, str]]:
        """Those with the object's label, and their ids, in hexadecimal digits.

        The program lists every key of the token, and signs with the first one whatever label it is given.
        """
        listed = self._run("--list-objects", "--type", "pubkey").split("Public Key Object")[1:]
        labelled = [one for one in listed if self._label in _LABEL.findall(one)]
        return [
            (point, name)
            for one in labelled
            for point, name in zip(_POINT.findall(one), _ID.findall(one), strict=False)
        ]

    def _run(self, *words: str) -> str:
        command = [PROGRAM, *self._token, *words]
        environment = os.environ | {PIN_VARIABLE: os.fsdecode(self._pin)}
        try:
            done = subprocess.run(
                command, capture_output=True, env=environment, timeout=PROGRAM_SECONDS_MAX, check=False, text=True
            )
        except FileNotFoundError as error:
            raise ToolError(f"{PROGRAM} is not installed", "Install the package opensc.") from error
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"{PROGRAM} did not end in {PROGRAM_SECONDS_MAX} s", "Is the token there?") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it did not say why"]
            said = next((line for line in lines if "error" in line), lines[-1])
            raise ToolError(f"{self._uri}: {said}", "Check the token's label, the object's label and the PIN.")
        return done.stdout


def check_holds_no_pin(uri: str) -> None:
    """Raises ``BuildError``, which does not repeat ``uri``: every process of the host can read a command line."""
    if PIN_ATTRIBUTE in uri.lower():
        hint = "Take it out, change it, and give the new one with --passphrase-env NAME or --passphrase-fd N."
        raise BuildError(f"the name of a key holds its PIN ({PIN_ATTRIBUTE})", hint)


def _attributes(text: str, separator: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(separator) if part]
    return {name: unquote(value) for name, _, value in pairs}
