"""The verbs of signed payloads: bundle, key new."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from initramfs.cli_registry import CONFIG, Option, Verb, position, show

FILESYSTEMS = ("squashfs", "erofs", "ext4")
_MAGICS = ((0, b"hsqs", "squashfs"), (1024, b"\xe2\xe1\xf5\xe0", "erofs"), (1080, b"\x53\xef", "ext4"))


def bundle(arguments: Namespace) -> int:
    from initramfs import config as configuration
    from initramfs.progress import Progress
    from payload.create import BundleInput, ImageInput, create
    from payload.signing_key import load_signing_key

    device = configuration.load(arguments.config)
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
    )
    with Progress() as progress:
        created = create(wanted, load_signing_key(arguments.key), arguments.output, progress.count)
    facts = {
        "output": str(arguments.output),
        "digest": created.digest.hex(),
        "bytes": created.file_bytes,
        "header_bytes": created.header_bytes,
        "image_bytes": created.image_bytes,
        "frames": created.frames,
    }
    kinds = ", ".join(f"{count} {kind}" for kind, count in created.frames.items())
    show(arguments, facts, [f"{arguments.output}: {created.file_bytes} bytes, frames: {kinds}"])
    return 0


def filesystem_of(image: Path) -> str:
    """The file system in ``image`` by its magic number.

    Raises:
        BuildError: none that can be in a slot.
    """
    from initramfs.errors import BuildError

    try:
        with image.open("rb") as stream:
            start = stream.read(2048)
    except OSError as error:
        raise BuildError(f"{image}: {error.strerror}") from error
    for offset, magic, name in _MAGICS:
        if start[offset : offset + len(magic)] == magic:
            return name
    raise BuildError(f"{image} holds no {', '.join(FILESYSTEMS)}", "Name the file system with --filesystem.")


def key_new(arguments: Namespace) -> int:
    from payload.signing_key import generate_key

    public = arguments.key.with_suffix(".pub")
    generate_key(arguments.key, public)
    facts = {"private": str(arguments.key), "public": str(public)}
    lines = [f"private key: {arguments.key} (keep it off every device)", f"public key:  {public} (keyring.root)"]
    show(arguments, facts, lines)
    return 0


VERBS = (
    Verb(
        "bundle",
        "Make a signed bundle of an operating system's image.",
        bundle,
        (
            CONFIG,
            Option(("--image",), "the root file system's image", kind=Path, metavar="FILE", required=True),
            Option(("--version",), "a whole number; higher is newer", kind=int, metavar="N", required=True),
            Option(("--version-name",), "the version as people call it", metavar="TEXT", default=""),
            Option(("--kernel-release",), "what `uname -r` says on the device", metavar="RELEASE", required=True),
            Option(("--key",), "the private key to sign with", kind=Path, metavar="FILE", required=True),
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
            "unbrick bundle -c device.toml --image rootfs.squashfs --version 2 --version-name 2.0 \\\n"
            "      --kernel-release 6.1.0-40-amd64 --key signing.key -o os.ubk",
        ),
    ),
    Verb(
        "key new",
        "Make a signing key and its public half.",
        key_new,
        (position("key", "the private key's file; the public key is written beside it as .pub"),),
        "A file that exists is never overwritten. The public key is the pinned root of [keyring].",
        ("unbrick key new root.key",),
    ),
)
