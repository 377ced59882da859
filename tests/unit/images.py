"""A small image that could start, for tests that look into images: real programs, no build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from initramfs import archive, report
from initramfs.compression import compress
from initramfs.image_contents import assemble, places
from initramfs.tree import Entry, Reason, Tree, file

WHY = Reason("a test")
MODULE_LISTS = ("etc/unbrick/modules.boot", "etc/unbrick/modules.recovery")


def module(name: str, *needs: str) -> Entry:
    """A kernel module as far as its .modinfo goes."""
    information = f"license=GPL\0depends={','.join(needs)}\0name={name}\0".encode()
    return file(f"lib/modules/6.1/{name}.ko", b"\x7fELF" + information, Reason(f"{name} is a test"))


def startable(*more: Entry, boot: tuple[str, ...] = ()) -> Tree:
    """A tree with all that every image needs; ``boot`` are the lines of the list of boot modules."""
    lists = [
        file(MODULE_LISTS[0], "".join(f"{line}\n" for line in boot).encode(), WHY),
        file(MODULE_LISTS[1], b"", WHY),
    ]
    return assemble([*places(), file("init", b"#! no program\n", WHY, executable=True), *lists, *more])


def without(tree: Tree, path: str) -> Tree:
    return Tree(tuple(entry for entry in tree if entry.path != path))


def changed(tree: Tree, path: str, **values: object) -> Tree:
    return Tree(tuple(replace(e, **values) if e.path == path else e for e in tree))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Written:
    """An image and its sidecar in a folder."""

    file: Path
    tree: Tree


def write_image(folder: Path, tree: Tree, compression: str = "gz") -> Written:
    import hashlib

    plain = archive.newc(tree)
    image = compress(plain, compression)
    path = folder / f"image.cpio.{compression}"
    path.write_bytes(image)
    facts = report.ImageFacts(
        len(image), len(plain), hashlib.sha256(image).hexdigest(), compression, 0, "test", "6.1", {"e2fsprogs": "1.47"}
    )
    report.sidecar_path(path).write_bytes(report.encode(report.sidecar(tree, facts, {})))
    return Written(path, tree)
