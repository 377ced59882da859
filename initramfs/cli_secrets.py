"""What verbs that sign have in common: keys, their passphrases, times. Nothing is signed here.

A passphrase comes from a prompt, from an environment variable or from a file descriptor; never from the
command line, where every process of the host could read it.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from initramfs.cli_registry import Option
from initramfs.errors import BuildError
from initramfs.pkcs11 import SCHEME, check_holds_no_pin

if TYPE_CHECKING:
    from payload.signing_key import Passphrase, SigningKey

PASSPHRASE_BYTES_MAX = 1024
DAY_SECONDS = 86_400
NEVER = "never"

PASSPHRASE_OPTIONS = (
    Option(("--passphrase-env",), "the environment variable with the keys' passphrase or PIN", metavar="NAME"),
    Option(("--passphrase-fd",), "a file descriptor to read it from, a line a key", kind=int, metavar="N"),
)
SIGNING_KEYS = Option(
    ("--key",), "a private key to sign with: a file, or pkcs11:token=…;object=…", kind=Path, metavar="FILE", many=True
)
DETACHED_OPTIONS = (
    Option(("--export-message",), "write what is to be signed, for another machine", kind=Path, metavar="FILE"),
    Option(("--import-signature",), "64 bytes that were signed there", kind=Path, metavar="FILE"),
    Option(("--public-key",), "the key that made the imported signature", kind=Path, metavar="FILE"),
)


def signing_keys(arguments: Namespace) -> list[SigningKey]:
    """The private keys of ``--key``, in files or in tokens. Raises ``BuildError`` and ``PayloadInputError``."""
    for key in arguments.key:
        check_holds_no_pin(str(key))  # before it is named in a prompt
    ask = passphrase_source(arguments)
    return [_token_key(str(key), ask) if str(key).startswith(SCHEME) else _file_key(key, ask) for key in arguments.key]


def _token_key(uri: str, ask: Passphrase) -> SigningKey:
    from initramfs.pkcs11 import TokenKey

    return TokenKey(uri, ask(Path(uri)))


def _file_key(path: Path, ask: Passphrase) -> SigningKey:
    from payload.signing_key import load_signing_key

    return load_signing_key(path, ask)


def passphrase_source(arguments: Namespace) -> Passphrase:
    """Where the passphrases of existing keys come from."""
    if arguments.passphrase_env:
        return lambda _path: _from_environment(arguments.passphrase_env)
    if arguments.passphrase_fd is not None:
        return lambda path: _from_descriptor(arguments.passphrase_fd, path)
    return lambda path: _from_prompt(f"passphrase of {path}: ")


def new_passphrase(arguments: Namespace) -> bytes:
    """The passphrase of a key to be made; empty for one that is stored in the clear."""
    if arguments.passphrase_env or arguments.passphrase_fd is not None:
        return passphrase_source(arguments)(arguments.key)
    if not arguments.passphrase:
        return b""
    first = _from_prompt(f"new passphrase of {arguments.key}: ")
    if _from_prompt("the same again: ") != first:
        raise BuildError("the two passphrases differ", "Nothing was made. Try again.")
    return first


def _from_environment(name: str) -> bytes:
    if not os.environ.get(name):
        raise BuildError(f"the environment variable {name} is empty", "Set it to the passphrase of the key.")
    return os.environb[name.encode()]


def _from_descriptor(descriptor: int, path: Path) -> bytes:
    line = bytearray()
    try:
        while len(line) <= PASSPHRASE_BYTES_MAX and (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
            line += byte
    except OSError as error:
        raise BuildError(f"file descriptor {descriptor}: {error.strerror}", "Open it: `3<passphrase.txt`.") from error
    if not line:
        raise BuildError(f"file descriptor {descriptor} has no passphrase for {path}", "Give a line for each key.")
    return bytes(line)


def _from_prompt(text: str) -> bytes:
    import getpass

    hint = "Give it with --passphrase-env NAME or --passphrase-fd N where no person can type."
    try:
        with Path("/dev/tty").open("rb"):
            answer = getpass.getpass(text)
    except (OSError, EOFError) as error:
        raise BuildError("a passphrase is needed and there is no terminal to ask for it", hint) from error
    if not answer:
        raise BuildError("the passphrase is empty", "Nothing was done.")
    return answer.encode()


def signing_time() -> int:
    """Now, or ``SOURCE_DATE_EPOCH`` where builds are to be the same bit for bit. Seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return int(time.time())
    if not given.isdecimal():
        raise BuildError(f"SOURCE_DATE_EPOCH is {given!r}", "It has to be a whole number of seconds since 1970.")
    return int(given)


def expiry(text: str, signed_at: int, days: int) -> int:
    """The time that ``text`` names: a day (its first second, UTC), ``never``, or nothing: ``days`` later.

    Raises:
        BuildError: it is neither, or before ``signed_at``.
    """
    from payload.strict_json import TIME_MAX

    if text == NEVER:
        return TIME_MAX
    if not text:
        return min(signed_at + days * DAY_SECONDS, TIME_MAX)
    try:
        expires_at = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise BuildError(f"{text!r} is not a day", "Write 2031-12-31, or never.") from error
    if expires_at < signed_at:
        raise BuildError(f"{text} is over already", "Name a day to come, or never.")
    return expires_at


def day(seconds: int) -> str:
    """A time as a person reads it."""
    from payload.strict_json import TIME_MAX

    return NEVER if seconds >= TIME_MAX else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def imported(arguments: Namespace, message: bytes) -> list[tuple[bytes, bytes]]:
    """The signature of ``--import-signature``, if there is one. Raises ``BuildError``, ``PayloadInputError``."""
    from payload.cosign import detached
    from payload.signing_key import load_public_key

    if arguments.import_signature is None:
        return []
    if arguments.public_key is None:
        raise BuildError("whose signature is it?", "Name the key that made it with --public-key FILE.")
    try:
        with arguments.import_signature.open("rb") as file:
            signature = file.read(4096)
    except OSError as error:
        raise BuildError(f"{arguments.import_signature}: {error.strerror}") from error
    return [detached(load_public_key(arguments.public_key), signature, message)]
