"""The verbs of keys and roots: key new, key root, key rotate, key revoke, key sign, key show."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from initramfs.cli_registry import CONFIG, Option, Verb, position, show
from initramfs.cli_secrets import (
    DETACHED_OPTIONS,
    PASSPHRASE_OPTIONS,
    SIGNING_KEYS,
    expiry,
    imported,
    new_passphrase,
    signing_keys,
    signing_time,
)
from initramfs.errors import BuildError

if TYPE_CHECKING:
    from payload.roots import Link, Root

ROOT_DAYS = 5 * 365


def key_new(arguments: Namespace) -> int:
    from payload.signing_key import generate_key

    public = arguments.key.with_suffix(".pub")
    passphrase = new_passphrase(arguments)
    generate_key(arguments.key, public, passphrase)
    facts = {"private": str(arguments.key), "public": str(public), "encrypted": bool(passphrase)}
    kept = "encrypted" if passphrase else "in the clear: for development; --passphrase encrypts it"
    lines = [
        f"private key: {arguments.key} ({kept}; keep it off every device)",
        f"public key:  {public} (keyring.root)",
    ]
    show(arguments, facts, lines)
    return 0


def key_root(arguments: Namespace) -> int:
    """Begin a file of roots."""
    from initramfs import config as configuration
    from payload.roots import Root

    if arguments.roots.exists():
        raise BuildError(f"{arguments.roots} exists", "`unbrick key rotate` makes the next root in it.")
    signed_at = signing_time()
    root = Root(
        compatible=configuration.load(arguments.config).compatible,
        version=1,
        root_keys=_public_keys(arguments.root_key),
        root_threshold=arguments.root_threshold,
        bundle_keys=_public_keys(arguments.bundle_key),
        bundle_threshold=arguments.bundle_threshold,
        floor=arguments.floor,
        signed_at=signed_at,
        expires_at=expiry(arguments.expires, signed_at, ROOT_DAYS),
    )
    return _publish(arguments, (), None, root)


def key_rotate(arguments: Namespace) -> int:
    """Make the next root: keys come and go, thresholds change, the expiry moves on."""
    chain, before = _newest(arguments)
    root_keys = _exchanged(before.root_keys, arguments.add_root_key, arguments.remove_root_key)
    bundle_keys = _exchanged(before.bundle_keys, arguments.add_bundle_key, arguments.remove_bundle_key)
    return _publish(arguments, chain, before, _following(arguments, before, root_keys, bundle_keys))


def key_revoke(arguments: Namespace) -> int:
    """Make the next root without a key, in either role."""
    chain, before = _newest(arguments)
    gone = _public_keys([arguments.revoked])
    if gone[0] not in before.root_keys + before.bundle_keys:
        raise BuildError(f"{arguments.revoked} is not a key of root {before.version}", "`unbrick key show` lists them.")
    root_keys = _exchanged(before.root_keys, arguments.add_root_key, [])
    bundle_keys = _exchanged(before.bundle_keys, arguments.add_bundle_key, [])
    kept = [tuple(key for key in keys if key not in gone) for keys in (root_keys, bundle_keys)]
    return _publish(arguments, chain, before, _following(arguments, before, kept[0], kept[1]))


def key_sign(arguments: Namespace) -> int:
    """Add signatures to the newest root."""
    from payload.cosign import link_message, sign_link
    from payload.durable import atomic_replace
    from payload.root_files import load_roots, save_roots
    from payload.signing_key import sign_root

    *chain, newest = load_roots(arguments.roots)
    message = link_message(newest)
    if arguments.export_message is not None:
        atomic_replace(arguments.export_message, message)
    added = [sign_root(key, newest.text) for key in signing_keys(arguments)] + imported(arguments, message)
    if not added and arguments.export_message is None:
        raise BuildError("nothing to sign with", "Give --key FILE, --import-signature FILE or --export-message FILE.")
    signed = (*chain, sign_link(newest, added))
    if added:
        save_roots(arguments.roots, signed)
    _show(arguments, signed)
    return 0


def key_show(arguments: Namespace) -> int:
    from payload.root_files import is_root_file, load_roots
    from payload.signatures import key_id
    from payload.signing_key import load_public_key

    if is_root_file(arguments.file):
        chain = load_roots(arguments.file)
        _show(arguments, chain)
        return 0
    key = load_public_key(arguments.file)
    facts = {"type": "public-key", "public": key.hex(), "id": key_id(key).hex()}
    show(arguments, facts, [f"public key: {facts['public']}", f"key id:     {facts['id']}"])
    return 0


def _show(arguments: Namespace, chain: tuple[Link, ...], before: Root | None = None) -> None:
    from initramfs.root_report import chain_facts, chain_lines

    show(arguments, chain_facts(chain, before), chain_lines(chain, before))


def _newest(arguments: Namespace) -> tuple[tuple[Link, ...], Root]:
    """The chain so far and its newest root; with ``--from`` no file is there yet and a raw key is root 1."""
    from initramfs import config as configuration
    from payload.root_files import load_roots
    from payload.roots import decode_root, single_key_root
    from payload.signing_key import load_public_key

    pinned: Path | None = getattr(arguments, "from")
    if pinned is not None:
        if arguments.roots.exists():
            raise BuildError(f"{arguments.roots} exists", "Leave out --from: the file knows where it begins.")
        compatible = configuration.load(arguments.config).compatible
        return (), single_key_root(load_public_key(pinned), compatible)
    chain = load_roots(arguments.roots)
    return chain, decode_root(chain[-1].text)


def _exchanged(keys: tuple[bytes, ...], added: list[Path], removed: list[Path]) -> tuple[bytes, ...]:
    gone = _public_keys(removed)
    for path, key in zip(removed, gone, strict=True):
        if key not in keys:
            raise BuildError(f"{path} is not among the keys of that role", "`unbrick key show` lists them.")
    return (*[key for key in keys if key not in gone], *[key for key in _public_keys(added) if key not in keys])


def _public_keys(paths: list[Path]) -> list[bytes]:
    from payload.signing_key import load_public_key

    return [load_public_key(path) for path in paths]


def _following(
    arguments: Namespace, before: Root, root_keys: tuple[bytes, ...], bundle_keys: tuple[bytes, ...]
) -> Root:
    from payload.roots import Root

    if not set(before.bundle_keys) <= set(bundle_keys) and arguments.floor is None:
        raise BuildError(
            "a root that takes a bundle key away sets the floor of every device: name it with --floor",
            "Take the newest version that you published yourself. Devices refuse what is lower; one that the lost key "
            "drove higher comes down to it.",
        )
    signed_at = signing_time()
    return Root(
        compatible=before.compatible,
        version=before.version + 1,
        root_keys=root_keys,
        root_threshold=arguments.root_threshold or before.root_threshold,
        bundle_keys=bundle_keys,
        bundle_threshold=arguments.bundle_threshold or before.bundle_threshold,
        floor=before.floor if arguments.floor is None else arguments.floor,
        signed_at=signed_at,
        expires_at=expiry(arguments.expires, signed_at, ROOT_DAYS),
    )


def _publish(arguments: Namespace, chain: tuple[Link, ...], before: Root | None, root: Root) -> int:
    """Sign ``root`` with the keys given and write it behind ``chain``."""
    from payload.errors import PayloadFormatError
    from payload.root_files import save_roots
    from payload.roots import Link, decode_root
    from payload.signatures import key_id
    from payload.signing_key import sign_root

    try:
        decode_root(root.text)
    except PayloadFormatError as error:
        hint = "Add keys with --add-root-key and --add-bundle-key, or lower the threshold."
        raise BuildError(f"no device could follow this root: {error}", hint) from error
    signatures = tuple(sign_root(key, root.text) for key in signing_keys(arguments))
    counted = {key_id(key) for key in root.root_keys + (before.root_keys if before else ())}
    if any(name not in counted for name, _signature in signatures):
        raise BuildError("a --key is no root key, old or new", "Root keys sign roots; bundle keys sign bundles.")
    signed = (*chain, Link(root.version, root.text, signatures))
    save_roots(arguments.roots, signed)
    _show(arguments, signed, before)
    return 0


_ROOTS = position("roots", "the file of roots")
_EXPIRES = Option(
    ("--expires",), "the last day for payloads from the network: YYYY-MM-DD or never", metavar="DAY", default=""
)
_FLOOR = Option(("--floor",), "the lowest version that devices take from now on", kind=int, metavar="N")
_FROM = Option(("--from",), "root.pub: devices pin this raw key, and the file is begun", kind=Path, metavar="FILE")
_SIGN_WITH = (SIGNING_KEYS, *PASSPHRASE_OPTIONS)


def _keys(name: str, text: str) -> Option:
    return Option((name,), text, kind=Path, metavar="FILE", many=True)


def _threshold(role: str, default: int | None) -> Option:
    return Option((f"--{role}-threshold",), f"how many must sign a {role}", kind=int, metavar="N", default=default)


VERBS = (
    Verb(
        "key new",
        "Make a signing key and its public half.",
        key_new,
        (
            position("key", "the private key's file; the public key is written beside it as .pub"),
            Option(("--passphrase",), "ask for a passphrase and encrypt the private key", flag=True),
            *PASSPHRASE_OPTIONS,
        ),
        "A file that exists is never overwritten. The public key can be the pinned root of [keyring].",
        ("unbrick key new root.key", "unbrick key new --passphrase release.key"),
    ),
    Verb(
        "key root",
        "Begin a file of roots: which keys sign, and how many of them must.",
        key_root,
        (
            _ROOTS,
            CONFIG,
            _keys("--root-key", "a public key that signs roots"),
            _keys("--bundle-key", "a public key that signs bundles"),
            _threshold("root", 1),
            _threshold("bundle", 1),
            Option(("--floor",), "the lowest version that devices take", kind=int, metavar="N", default=0),
            _EXPIRES,
            *_SIGN_WITH,
        ),
        "Root 1 is pinned in the recovery image: name the file in [keyring] root. Its own keys sign it.",
        (
            "unbrick key root device.roots --root-key alice.pub --root-key bob.pub --root-key carol.pub \\\n"
            "      --root-threshold 2 --bundle-key build.pub --key alice.key --key bob.key",
        ),
    ),
    Verb(
        "key rotate",
        "Make the next root: exchange keys, change thresholds, renew the expiry.",
        key_rotate,
        (
            _ROOTS,
            CONFIG,
            _FROM,
            _keys("--add-root-key", "a public key that signs roots from now on"),
            _keys("--remove-root-key", "one that does no more"),
            _keys("--add-bundle-key", "a public key that signs bundles from now on"),
            _keys("--remove-bundle-key", "one that does no more"),
            _threshold("root", None),
            _threshold("bundle", None),
            _FLOOR,
            _EXPIRES,
            *_SIGN_WITH,
        ),
        "It counts once enough keys of the root before it and enough of its own have signed. Devices learn it from\n"
        "the next bundle that is made with --roots.",
        (
            "unbrick key rotate device.roots --add-bundle-key build-2.pub --key alice.key --key bob.key",
            "unbrick key rotate device.roots --from root.pub --add-root-key new.pub --remove-root-key root.pub \\\n"
            "      --key root.key --key new.key",
        ),
    ),
    Verb(
        "key revoke",
        "Make the next root without a key that was lost or stolen.",
        key_revoke,
        (
            _ROOTS,
            position("revoked", "the public key that counts no more, in either role"),
            CONFIG,
            _FROM,
            _keys("--add-root-key", "a public key that signs roots in its place"),
            _keys("--add-bundle-key", "a public key that signs bundles in its place"),
            _threshold("root", None),
            _threshold("bundle", None),
            _FLOOR,
            _EXPIRES,
            *_SIGN_WITH,
        ),
        "Where a bundle key goes, --floor says which version is the lowest from now on: every device takes that\n"
        "floor, also one whose floor the stolen key has driven higher.",
        (
            "unbrick key revoke device.roots build.pub --add-bundle-key build-2.pub --floor 7 \\\n"
            "      --key alice.key --key bob.key",
        ),
    ),
    Verb(
        "key sign",
        "Add signatures to the newest root of a file.",
        key_sign,
        (_ROOTS, *_SIGN_WITH, *DETACHED_OPTIONS),
        "For people in several places, and for keys on machines without a network: export the message, sign it there\n"
        "(`openssl pkeyutl -sign -rawin -inkey alice.key -in message -out signature`), import the signature.",
        (
            "unbrick key sign device.roots --key bob.key",
            "unbrick key sign device.roots --export-message message",
            "unbrick key sign device.roots --import-signature signature --public-key alice.pub",
        ),
    ),
    Verb(
        "key show",
        "Show a public key, or every root of a file and what it still lacks.",
        key_show,
        (position("file", "a public key or a file of roots"),),
        examples=("unbrick key show root.pub", "unbrick key show device.roots --json"),
    ),
)
