"""The verbs of signed payloads: bundle create, bundle sign."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from initramfs.cli_registry import CONFIG, Option, Verb, position, show
from initramfs.cli_secrets import (
    DETACHED_OPTIONS,
    PASSPHRASE_OPTIONS,
    SIGNING_KEYS,
    expiry,
    imported,
    signing_keys,
    signing_time,
)
from initramfs.errors import BuildError

if TYPE_CHECKING:
    from initramfs.config import Config
    from payload.roots import Link
    from payload.signing_key import SigningKey

BUNDLE_DAYS = 365
ROOTS = Option(("--roots",), "the file of roots: the chain that it carries", kind=Path, metavar="FILE")
FILESYSTEMS = ("squashfs", "erofs", "ext4")
_MAGICS = ((0, b"hsqs", "squashfs"), (1024, b"\xe2\xe1\xf5\xe0", "erofs"), (1080, b"\x53\xef", "ext4"))


def bundle_create(arguments: Namespace) -> int:
    from initramfs import config as configuration
    from initramfs.progress import Progress
    from payload.create import BundleInput, ImageInput, create
    from payload.root_files import load_roots

    device = configuration.load(arguments.config)
    roots = load_roots(arguments.roots) if arguments.roots else ()
    signed_at = signing_time()
    image = ImageInput(
        path=arguments.image,
        filesystem=arguments.filesystem or filesystem_of(arguments.image),
        slot_class=arguments.slot_class,
        kind=arguments.kind,
        watchdog_owner=arguments.watchdog_owner,
        init=arguments.init,
    )
    wanted = BundleInput(
        device.compatible,
        arguments.version,
        arguments.version_name or str(arguments.version),
        arguments.kernel_release,
        (image,),
        signed_at,
        expiry(arguments.expires, signed_at, BUNDLE_DAYS),
    )
    key, *cosigners = keys = signing_keys(arguments)
    told = _signers_told(device, roots, keys)
    with Progress() as progress:
        created = create(wanted, key, arguments.output, progress.count, cosigners=cosigners, roots=roots)
    facts = {
        "output": str(arguments.output),
        "digest": created.digest.hex(),
        "bytes": created.file_bytes,
        "header_bytes": created.header_bytes,
        "image_bytes": created.image_bytes,
        "frames": created.frames,
    }
    kinds = ", ".join(f"{count} {kind}" for kind, count in created.frames.items())
    show(arguments, facts, [f"{arguments.output}: {created.file_bytes} bytes, frames: {kinds}", *told])
    return 0


def filesystem_of(image: Path) -> str:
    """The file system in ``image`` by its magic number.

    Raises:
        BuildError: none that can be in a slot.
    """
    try:
        with image.open("rb") as stream:
            start = stream.read(2048)
    except OSError as error:
        raise BuildError(f"{image}: {error.strerror}") from error
    for offset, magic, name in _MAGICS:
        if start[offset : offset + len(magic)] == magic:
            return name
    raise BuildError(f"{image} holds no {', '.join(FILESYSTEMS)}", "Name the file system with --filesystem.")


def bundle_sign(arguments: Namespace) -> int:
    """Add signatures, or exchange the chain of roots; the images stay as they are."""
    from payload.cosign import bundle_header, bundle_message, rewrite_bundle, with_signatures
    from payload.durable import atomic_replace
    from payload.root_files import load_roots
    from payload.signing_key import sign

    header = bundle_header(arguments.bundle)
    message = bundle_message(header)
    if arguments.export_message is not None:
        atomic_replace(arguments.export_message, message)
    added = [sign(key, header.manifest_bytes) for key in signing_keys(arguments)] + imported(arguments, message)
    signatures = with_signatures(header.signatures, added)
    roots = load_roots(arguments.roots) if arguments.roots else header.roots
    if added or arguments.roots:
        rewrite_bundle(arguments.bundle, header, signatures=signatures, roots=roots, output=arguments.output)
    elif arguments.export_message is None:
        hint = "Give --key FILE, --import-signature FILE, --export-message FILE or --roots FILE."
        raise BuildError("nothing to sign with", hint)
    names = [name.hex() for name, _signature in signatures]
    versions = [link.version for link in roots]
    told = ", ".join(str(version) for version in versions) or "none"
    facts = {"signed_by": names, "roots": versions}
    show(arguments, facts, [*(f"signed by key {name}" for name in names), f"roots: {told}"])
    return 0


def _signers_told(device: Config, roots: tuple[Link, ...], keys: list[SigningKey]) -> list[str]:
    """What devices of this configuration will say to these signatures; nothing where what they pin is not here.

    Raises:
        PayloadInputError: they cannot follow the chain.
        BuildError: none of the keys is theirs.
    """
    from payload.root_files import known_after, pinned_by
    from payload.signing_key import public_bytes

    if not roots and not device.keyring.root.exists():
        return []
    root = known_after(pinned_by(device.keyring.root, device.compatible), roots)
    ours = {public_bytes(key) for key in keys} & set(root.bundle_keys)
    if not ours:
        hint = "Sign with the key of [keyring] root, or name the chain that leads to it with --roots."
        raise BuildError(f"no --key is a bundle key of root {root.version}: no device would take this bundle", hint)
    lacking = root.bundle_threshold - len(ours)
    return [f"{lacking} more signatures are needed: `unbrick bundle sign`"] if lacking > 0 else []


VERBS = (
    Verb(
        "bundle create",
        "Make a signed bundle of an operating system's image.",
        bundle_create,
        (
            CONFIG,
            Option(("--image",), "the root file system's image", kind=Path, metavar="FILE", required=True),
            Option(("--version",), "a whole number; higher is newer", kind=int, metavar="N", required=True),
            Option(("--version-name",), "the version as people call it", metavar="TEXT", default=""),
            Option(("--kernel-release",), "what `uname -r` says on the device", metavar="RELEASE", required=True),
            replace(SIGNING_KEYS, required=True),
            *PASSPHRASE_OPTIONS,
            ROOTS,
            Option(
                ("--expires",),
                "from then on no network source may offer it: YYYY-MM-DD or never; a year without",
                metavar="DAY",
                default="",
            ),
            Option(("-o", "--output"), "the bundle to write", kind=Path, metavar="FILE.ubk", required=True),
            Option(("--filesystem",), "found by its magic number without", choices=FILESYSTEMS, default=""),
            Option(("--slot-class",), "which slots it is for", metavar="CLASS", default="rootfs"),
            Option(("--kind",), "may the OS write it?", choices=("immutable", "read-write"), default="immutable"),
            Option(
                ("--watchdog-owner",), "who pets the watchdog in the OS", choices=("none", "systemd"), default="none"
            ),
            Option(("--init",), "what to start in it", metavar="PATH", default="/sbin/init"),
        ),
        examples=(
            "unbrick bundle create -c device.toml --image rootfs.squashfs --version 2 --version-name 2.0 \\\n"
            "      --kernel-release 6.1.0-40-amd64 --key signing.key -o os.ubk",
        ),
    ),
    Verb(
        "bundle sign",
        "Add signatures to a bundle, or give it another chain of roots.",
        bundle_sign,
        (
            position("bundle", "the bundle"),
            SIGNING_KEYS,
            *PASSPHRASE_OPTIONS,
            *DETACHED_OPTIONS,
            ROOTS,
            Option(("-o", "--output"), "write there and leave the bundle alone", kind=Path, metavar="FILE.ubk"),
        ),
        "Where a root wants several signatures, each signer runs this. A key on a machine without a network: export\n"
        "the message, sign it there (`openssl pkeyutl -sign -rawin -inkey release.key -in message -out signature`),\n"
        "import the signature.",
        (
            "unbrick bundle sign os.ubk --key release.key",
            "unbrick bundle sign os.ubk --export-message message",
            "unbrick bundle sign os.ubk --import-signature signature --public-key release.pub",
        ),
    ),
)
