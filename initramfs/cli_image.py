"""The verbs that look at files: ls, why, diff, verify, info. They change nothing."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator

from initramfs.cli_registry import JUDGE, Option, Verb, position, show

_MARKS = {"directory": "d", "symlink": "l", "device": "c", "file": "-"}


def ls(arguments: Namespace) -> int:
    from initramfs.inspect import Item, listing, read_image

    def line(item: Item) -> str:
        size = f"{item.device[0]}, {item.device[1]}" if item.kind == "device" else str(item.size_bytes)
        arrow = f" -> {item.target}" if item.target else ""
        return f"{_MARKS.get(item.kind, '?')} {item.mode:04o} {size:>10} /{item.path}{arrow}"

    items = [item for path, item in listing(read_image(arguments.image)).items() if _is_below(path, arguments.below)]
    show(arguments, [dataclasses.asdict(item) for item in items], map(line, items))
    return 0


def why(arguments: Namespace) -> int:
    from initramfs.inspect import IMAGE_BYTES_MAX, read_bounded, sidecar_of
    from initramfs.inspect import why as chain

    document = sidecar_of(arguments.image, read_bounded(arguments.image, IMAGE_BYTES_MAX))
    paths = arguments.path or [entry["path"] for entry in document["entries"]]
    answers = {path: chain(document, path) for path in paths}
    show(arguments, answers, (line for lines in answers.values() for line in lines))
    return 0


def diff(arguments: Namespace) -> int:
    from initramfs.inspect import differences, listing, read_image

    changes = differences(*(listing(read_image(file)) for file in (arguments.before, arguments.after)))
    total = sum(change.delta_bytes for change in changes)

    def lines() -> Iterator[str]:
        for change in changes:
            yield f"{change.what:8} {change.delta_bytes:>+11} /{change.path}"
        yield f"{len(changes)} paths differ, {total:+} bytes of content" if changes else "same content"

    show(arguments, [dataclasses.asdict(change) for change in changes], lines())
    return 0


def verify(arguments: Namespace) -> int:
    from initramfs.file_formats import recognise

    facts = recognise(arguments.file).verify(arguments.file, arguments)
    show(arguments, facts, [f"{arguments.file}: {facts['verdict']}"])
    return 0 if facts["intact"] else 1


def info(arguments: Namespace) -> int:
    from initramfs.file_formats import recognise

    facts = recognise(arguments.file).info(arguments.file, arguments)
    show(arguments, facts, _as_lines(facts))
    return 0


def _as_lines(value: object, indent: str = "") -> Iterator[str]:
    """A document of dicts and lists as indented lines."""
    pairs = value.items() if isinstance(value, dict) else ((f"{n}", v) for n, v in enumerate(value))  # type: ignore[arg-type, var-annotated]
    for name, item in pairs:
        if isinstance(item, dict | list | tuple) and item:
            yield f"{indent}{name}:"
            yield from _as_lines(item, indent + "  ")
        else:
            yield f"{indent}{name}: {item if item not in ((), [], {}) else '-'}"


def _is_below(path: str, below: str) -> bool:
    folder = below.strip("/")
    return not folder or path == folder or path.startswith(folder + "/")


VERBS = (
    Verb(
        "ls",
        "List what is in an image.",
        ls,
        (
            position("image", "an initramfs: ours or another, compressed or not"),
            Option(("below",), "list only this path and what is below", metavar="PATH", default=""),
        ),
        examples=("unbrick ls recovery.cpio.zst", "unbrick ls recovery.cpio.zst /lib/modules"),
    ),
    Verb(
        "why",
        "Say why a path is in an image.",
        why,
        (
            position("image", "an image with its IMAGE.json beside it"),
            Option(("path",), "the paths to explain; all of them without", many=True, metavar="PATH", default=()),
        ),
        "Prints the chain of reasons down to what the configuration asks for.",
        ("unbrick why recovery.cpio.zst /usr/lib/x86_64-linux-gnu/libc.so.6",),
    ),
    Verb(
        "diff",
        "Compare two images path by path.",
        diff,
        (position("before", "the one image"), position("after", "the other")),
        "The largest difference in size comes first. Differences are no error: the exit code is 0.",
        ("unbrick diff old.cpio.zst recovery.cpio.zst",),
    ),
    Verb(
        "verify",
        "Check an image, a bundle or a journal.",
        verify,
        (position("file", "recognised by its first bytes"), *JUDGE),
        "An image must be complete: libraries, modules, devices. A journal must have intact records. A bundle\n"
        "is judged as by `unbrick bundle verify`. The exit code is 1 where something is wrong.",
        ("unbrick verify recovery.cpio.zst", "unbrick verify os.ubk --root root.pub"),
    ),
    Verb(
        "info",
        "Say what an image, a bundle or a journal is.",
        info,
        (position("file", "recognised by its first bytes"),),
        examples=("unbrick info os.ubk", "unbrick info recovery.cpio.zst --json"),
    ),
)
