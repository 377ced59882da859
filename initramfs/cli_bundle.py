"""The verbs that use bundles as they are: bundle info, verify, extract, serve. They change no bundle."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initramfs.cli_registry import JUDGE, Option, Verb, position, show
from initramfs.cli_secrets import day
from initramfs.errors import BuildError

if TYPE_CHECKING:
    from initramfs.bundle_file import Judge

PORT_DEFAULT = 8000
PORT_MAX = 65535


def judge(arguments: Namespace) -> Judge:
    """The device that ``--root`` and ``--config`` name. Raises ``BuildError``."""
    from initramfs import config
    from initramfs.bundle_file import Judge

    device = config.load(arguments.config) if arguments.config else None
    root = arguments.root or (device.keyring.root if device else None)
    if root is None:
        hint = "Give --root root.pub or -c device.toml; `unbrick bundle info` shows what a bundle claims."
        raise BuildError("a bundle is only worth what its signatures are: who is to believe it?", hint)
    return Judge(root, device)


def bundle_info(arguments: Namespace) -> int:
    from initramfs.bundle_file import claims

    facts = claims(arguments.bundle)
    show(arguments, facts, _claim_lines(arguments.bundle, facts))
    return 0


def _claim_lines(bundle: Path, facts: dict[str, Any]) -> Iterator[str]:
    manifest = facts["manifest"]
    yield f"{bundle}: version {manifest['version']} ({manifest['version-name']}) for {manifest['compatible']!r}"
    yield f"  digest     {facts['digest']}"
    yield f"  kernel     {manifest['kernel-release']}"
    yield f"  signed     {day(manifest['signed-at'])}; network sources may offer it until {day(manifest['expires-at'])}"
    yield from (f"  signed by  key {name}" for name in facts["signed_by"] or ["none"])
    yield from map(_root_line, facts["roots"])
    for image, claimed in zip(facts["images"], manifest["images"], strict=True):
        yield from _image_lines(image, claimed)
    missing = facts["bytes_needed"] - facts["bytes"]
    end = f", cut short: {missing} more are needed" if missing > 0 else ""
    yield f"  file       {facts['bytes']} bytes, {facts['header_bytes']} of them header{end}"
    yield "Nothing of this is believed here: `unbrick bundle verify` asks as a device does."


def _root_line(root: dict[str, Any]) -> str:
    if "unreadable" in root:
        return f"  root {root['version']:<5} {root['unreadable']}"
    return (
        f"  root {root['version']:<5} {root['bundle-threshold']} of {len(root['bundle-keys'])} keys sign bundles, "
        f"{root['root-threshold']} of {len(root['root-keys'])} sign roots; floor {root['floor']}, "
        f"expires {day(root['expires-at'])}, {len(root['signed-by'])} signatures"
    )


def _image_lines(image: dict[str, Any], claimed: dict[str, Any]) -> Iterator[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in image["frames"].items())
    yield f"  image      {image['slot_class']}: {claimed['filesystem']}, {claimed['kind']}, {claimed['init']}"
    yield f"             {image['bytes']} bytes, stored in {image['stored_bytes']} ({image['stored_ratio']:.1%})"
    yield f"             {sum(image['frames'].values())} frames of {image['frame_bytes']} bytes: {kinds}"
    yield from _delta_lines(image["delta"])


def _delta_lines(delta: dict[str, Any]) -> Iterator[str]:
    """What makes an update small, if there is anything."""
    if delta["units"]:
        yield "             delta: units for any old content"
    for base in delta["old_versions"]:
        yield f"             delta: made from the old version {base}"
    for damage in delta["damage"]:
        yield f"             delta: {damage}"


def bundle_verify(arguments: Namespace) -> int:
    from initramfs.bundle_file import verdict
    from initramfs.progress import Progress
    from statemachine.reasons import CODES, advice, label

    with Progress() as progress:
        facts = verdict(arguments.bundle, judge(arguments), progress.count)
    lines = [f"{arguments.bundle}: {facts['verdict']}"]
    if not facts["intact"]:
        code = CODES[facts["reason"]]
        lines += [f"  {one['slot_class']}: {one['error']}" for one in facts.get("damaged", ())]
        lines += [f"  {label(code)}. What to do: {advice(code)}"]
    lines += [f"  {damage}" for damage in facts.get("delta_damaged", ())]
    show(arguments, facts, lines)
    return 0 if facts["intact"] else 1


def bundle_extract(arguments: Namespace) -> int:
    from initramfs.bundle_file import believed, extract, image_of
    from initramfs.progress import Progress
    from payload.errors import PayloadError, PayloadInputError

    try:
        with believed(arguments.bundle, judge(arguments)) as bundle, Progress() as progress:
            image = image_of(bundle.manifest, arguments.image)
            extract(bundle, image, arguments.output, progress.count)
    except PayloadInputError:
        raise
    except PayloadError as error:
        hint = f"Nothing was written. `unbrick bundle verify {arguments.bundle}` says all that is wrong with it."
        raise BuildError(f"{arguments.bundle}: {error.reason}: {error}", hint) from error
    facts = {
        "output": str(arguments.output),
        "slot_class": image.slot_class,
        "filesystem": image.filesystem,
        "bytes": image.size,
        "disk_bytes": arguments.output.stat().st_blocks * 512,
    }
    told = f"{arguments.output}: {image.slot_class}, {image.filesystem}, {image.size} bytes, every frame verified"
    show(arguments, facts, [told])
    return 0


def bundle_serve(arguments: Namespace) -> int:
    from initramfs.static_server import StaticServer

    if not 0 <= arguments.port <= PORT_MAX:
        raise BuildError(f"{arguments.port} is no port", f"0 to {PORT_MAX}; 0 takes a free one.")
    with StaticServer(arguments.path, arguments.address, arguments.port) as server:
        facts = {"urls": server.urls(), "files": server.files()}
        lines = [*server.urls(), *(f"  {name}" for name in server.files())]
        show(arguments, facts, [*lines, "For a bench or a workshop, not for the world. Ctrl-C ends it."])
        sys.stdout.flush()
        server.run()
    return 0


BUNDLE = position("bundle", "the bundle")
VERBS = (
    Verb(
        "bundle info",
        "Show what a bundle claims: version, signers, roots, images.",
        bundle_info,
        (BUNDLE,),
        "Nothing is believed: signatures and frames are not looked at. It reads the header and the\n"
        "indexes of the delta part.",
        ("unbrick bundle info os.ubk", "unbrick bundle info os.ubk --json"),
    ),
    Verb(
        "bundle verify",
        "Say whether a device takes a bundle, and check every frame.",
        bundle_verify,
        (BUNDLE, *JUDGE),
        "Asks the rules that a device asks: the chain of roots, signatures, floor; with -c also its kind, its\n"
        "kernel, its own floor and the room in its slots. The journal of a real device may know a higher floor or\n"
        "a newer root. The exit code is 0 where all is well, else 1, with the reason that the device would show. A\n"
        "damaged delta part is told, and that no payload region keeps it; these are no reasons to refuse.",
        (
            "unbrick bundle verify os.ubk --root root.pub",
            "unbrick bundle verify os.ubk --root device.roots --json",
            "unbrick bundle verify os.ubk -c device.toml",
        ),
    ),
    Verb(
        "bundle extract",
        "Write an image of a bundle to a file.",
        bundle_extract,
        (
            BUNDLE,
            *JUDGE,
            Option(("--image",), "whose image, where there are several", metavar="CLASS", default=""),
            Option(("-o", "--output"), "the file to write", kind=Path, metavar="FILE", required=True),
        ),
        "The bundle must be one that the device takes; every frame is verified before it is written. Blocks of\n"
        "zeroes become holes. The file appears whole or not at all.",
        (
            "unbrick bundle extract os.ubk --root root.pub -o rootfs.squashfs",
            "unbrick bundle extract os.ubk -c device.toml --image rootfs -o rootfs.squashfs",
        ),
    ),
    Verb(
        "bundle serve",
        "Serve a bundle, or a folder of them, by HTTP.",
        bundle_serve,
        (
            Option(("path",), "a file, or a folder whose files are served", kind=Path, metavar="PATH"),
            Option(("--address",), "listen on this address only; all of IPv4 and IPv6 without", default=""),
            Option(("--port",), "0 takes a free one", kind=int, metavar="N", default=PORT_DEFAULT),
        ),
        "For a bench or a workshop. Any web server that serves files and ranges does as well; nothing here needs\n"
        "to be trusted by the device. No TLS, at most 32 connections, links out of the folder are not followed.",
        ("unbrick bundle serve os.ubk", "unbrick bundle serve releases --address 192.0.2.1 --port 8080"),
    ),
)
