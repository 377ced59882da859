"""The verb build: from device.toml to an image, its sidecar and a report."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from initramfs.cli_registry import CONFIG, Option, Verb, show


def build(arguments: Namespace) -> int:
    from initramfs.build import Request, build_image
    from initramfs.progress import Progress

    request = Request(
        config=arguments.config,
        output=arguments.output,
        sysroot=arguments.sysroot,
        kernel_release=arguments.kver,
        cache=arguments.cache,
    )
    with Progress() as progress:
        built = build_image(request, progress)
    show(arguments, built.document(), built.lines())
    return 0


VERBS = (
    Verb(
        "build",
        "Build a recovery image.",
        build,
        (
            CONFIG,
            Option(("-o", "--output"), "the image to write; OUTPUT.json with reasons and sizes is written beside it",
                   kind=Path, metavar="IMAGE", default=Path("recovery.cpio.zst")),
            Option(("--sysroot",), "an unpacked root file system, instead of [sysroot]", kind=Path, metavar="DIR"),
            Option(("--kver",), "the kernel release, instead of kernel.release", metavar="RELEASE", default=""),
            Option(("--cache",), "where packages and intermediate results are kept (default: ~/.cache/unbrick)",
                   kind=Path, metavar="DIR"),
        ),
        "The same inputs give the same bytes on any host. The times in the image are SOURCE_DATE_EPOCH, or 0.\n"
        "The old image is replaced only after the new one was read back and checked. Nothing is installed on\n"
        "this host, and its kernel is not looked at.",
        ("unbrick build -c device.toml -o recovery.cpio.zst", "unbrick build --sysroot rootfs --kver 6.1.0-40-amd64"),
    ),
)  # fmt: skip
