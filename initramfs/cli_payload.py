"""The verbs of signed payloads: bundle create, bundle sign."""

from __future__ import annotations

import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from initramfs.filesystem_image import FILESYSTEMS, filesystem_of

if TYPE_CHECKING:
    from initramfs.config import Config
    from payload.roots import Link, Root
    from payload.signing_key import SigningKey

BUNDLE_DAYS = 365
ROOTS = Option(("--roots",), "the file of roots: the chain that it carries", kind=Path, metavar="FILE")
OLD_VERSIONS = Option(("--from",), "a bundle that devices have: a small update for them", metavar="OLD.UBK", many=True)
KINDS = ("immutable", "read-write")
WATCHDOG_OWNERS = ("none", "systemd")
ROOTFS = "rootfs"
EVERY_CLASS = ""
SLOT_CLASS = re.compile(r"[A-Za-z0-9._+~-]+")
# the fields of an image that have an option, and what they may be; () for any text
IMAGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "filesystem": FILESYSTEMS,
    "kind": KINDS,
    "watchdog_owner": WATCHDOG_OWNERS,
    "init": (),
}


def bundle_create(arguments: Namespace) -> int:
    from initramfs import config as configuration
    from initramfs.device_fit import check_wanted
    from initramfs.progress import Progress
    from payload.create import BundleInput, ImageInput, create, draft
    from payload.root_files import load_roots

    device = configuration.load(arguments.config)
    roots = load_roots(arguments.roots) if arguments.roots else ()
    signed_at = signing_time()
    images = tuple(ImageInput(**fields) for fields in images_of(arguments))
    wanted = BundleInput(
        device.compatible,
        arguments.version,
        arguments.version_name or str(arguments.version),
        arguments.kernel_release,
        images,
        signed_at,
        expiry(arguments.expires, signed_at, BUNDLE_DAYS),
        units=arguments.units,
        old_versions=tuple(Path(path) for path in getattr(arguments, "from")),
    )
    key, *cosigners = keys = signing_keys(arguments)
    root = _root_of(device, roots)
    told = _signers_told(root, keys) if root else []
    check_wanted(device, root.floor if root else 0, *draft(wanted, keys, roots))
    with Progress() as progress:
        created = create(wanted, key, arguments.output, progress.count, cosigners=cosigners, roots=roots)
    facts = {
        "output": str(arguments.output),
        "digest": created.digest.hex(),
        "bytes": created.file_bytes,
        "delta_bytes": created.delta_bytes,
        "header_bytes": created.header_bytes,
        "image_bytes": created.image_bytes,
        "frames": created.frames,
    }
    kinds = ", ".join(f"{count} {kind}" for kind, count in created.frames.items())
    show(arguments, facts, [f"{arguments.output}: {created.file_bytes} bytes, frames: {kinds}", *told])
    return 0


def images_of(arguments: Namespace) -> list[dict[str, Any]]:
    """The fields of an ``ImageInput`` for every ``--image``.

    Raises:
        BuildError: a class is there twice, has no image or one that no device mounts, or an option says what cannot be.
    """
    paths = _by_class("--image", arguments.image, ROOTFS)
    given = {name: _checked(name, getattr(arguments, name), choices) for name, choices in IMAGE_OPTIONS.items()}
    unknown = {slot_class for values in given.values() for slot_class in values} - {*paths, EVERY_CLASS}
    if unknown:
        hint = f"Images are given for: {', '.join(paths)}."
        raise BuildError(f"there is no --image for {', '.join(sorted(unknown))}", hint)
    images = []
    for slot_class, path in paths.items():
        fields = {name: values.get(slot_class, values.get(EVERY_CLASS)) for name, values in given.items()}
        known = {name: value for name, value in fields.items() if value is not None}
        known["filesystem"] = filesystem_of(Path(path), known.get("filesystem", ""), known.get("kind", KINDS[0]))
        images.append({"path": Path(path), "slot_class": slot_class, **known})
    return images


def _checked(name: str, texts: list[str], choices: tuple[str, ...]) -> dict[str, str]:
    values = _by_class(f"--{name.replace('_', '-')}", texts, EVERY_CLASS)
    for value in values.values():
        if choices and value not in choices:
            raise BuildError(f"--{name.replace('_', '-')} {value}: there is no such thing", f"{', '.join(choices)}.")
    return values


def _by_class(option: str, texts: list[str], without: str) -> dict[str, str]:
    """``CLASS=VALUE`` or ``VALUE``, which is meant for ``without``. A path with a slash before its `=` is a path."""
    found: dict[str, str] = {}
    for text in texts:
        slot_class, equals, value = text.partition("=")
        if not equals or not SLOT_CLASS.fullmatch(slot_class):
            slot_class, value = without, text
        if slot_class in found:
            hint = f"Give each of them a slot class: {option} CLASS={value}."
            raise BuildError(f"{option} is there twice for {slot_class or 'every class'}", hint)
        found[slot_class] = value
    return found


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


def _root_of(device: Config, roots: tuple[Link, ...]) -> Root | None:
    """What devices of this configuration know after they have followed ``roots``; None where what they pin is not here.

    Raises:
        PayloadInputError: they cannot follow the chain.
    """
    from payload.root_files import known_after, pinned_by

    if not roots and not device.keyring.root.exists():
        return None
    return known_after(pinned_by(device.keyring.root, device.compatible), roots)


def _signers_told(root: Root, keys: list[SigningKey]) -> list[str]:
    """What devices that know ``root`` will say to these signatures. Raises ``BuildError`` where no key is theirs."""
    from payload.signing_key import public_bytes

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
            Option(
                ("--image",),
                "an image and the slots it is for, rootfs without; one for each class",
                metavar="[CLASS=]FILE",
                required=True,
                many=True,
            ),
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
            Option(
                ("--filesystem",),
                "what it has to be; found by its magic number without",
                metavar=f"[CLASS=]{'|'.join(FILESYSTEMS)}",
                choices=FILESYSTEMS,
                many=True,
            ),
            Option(
                ("--kind",),
                "may the OS write it? immutable without",
                metavar=f"[CLASS=]{'|'.join(KINDS)}",
                choices=KINDS,
                many=True,
            ),
            Option(
                ("--watchdog-owner",),
                "who pets the watchdog in the OS; none without",
                metavar=f"[CLASS=]{'|'.join(WATCHDOG_OWNERS)}",
                choices=WATCHDOG_OWNERS,
                many=True,
            ),
            Option(("--init",), "what to start in it; /sbin/init without", metavar="[CLASS=]PATH", many=True),
            Option(("--units",), "add what makes it a small update for devices with any old content", flag=True),
            OLD_VERSIONS,
        ),
        "A bundle may have several images, each for another slot class; an option without a class is for all of them.\n"
        "What no device of this configuration would take, or could mount, is refused before anything is made.\n"
        "The same images, keys and options give the same bytes, where SOURCE_DATE_EPOCH says when it was signed.\n"
        "The file appears whole or not at all. --units and --from add a part behind the plain frames, from which a\n"
        "device that downloads it chooses; building that takes minutes: content that no --from has costs the most.",
        (
            "unbrick bundle create -c device.toml --image rootfs.squashfs --version 2 --version-name 2.0 \\\n"
            "      --kernel-release 6.1.0-40-amd64 --key signing.key -o os.ubk",
            "unbrick bundle create --image rootfs=rootfs.erofs --image maps=maps.ext4 --kind maps=read-write \\\n"
            "      --version 2 --kernel-release 6.1.0-40-amd64 --key signing.key -o os.ubk",
            "unbrick bundle create --image rootfs.ext4 --units --from os-1.ubk --from os-2.ubk --version 3 \\\n"
            "      --kernel-release 6.1.0-40-amd64 --key signing.key -o os-3.ubk",
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
