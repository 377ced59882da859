"""The kinds of file that `verify` and `info` know, told apart by their first bytes.

Each kind answers with a plain document. ``verify`` says ``intact`` (a bool) and ``verdict`` (a sentence);
a damaged file is an answer, not an error. Adding a kind is adding a class to :data:`FORMATS`.
"""

from __future__ import annotations

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import Any, Protocol

from initramfs.compression import BY_NAME
from initramfs.errors import BuildError

FIRST_BYTES = 16


class Format(Protocol):
    """``arguments`` are those of the verb; a format looks at the ones that concern it."""

    name: str

    def matches(self, first: bytes) -> bool: ...

    def info(self, file: Path, arguments: Namespace) -> dict[str, Any]: ...

    def verify(self, file: Path, arguments: Namespace) -> dict[str, Any]: ...


def recognise(file: Path) -> Format:
    """The kind of ``file``.

    Raises:
        BuildError: it cannot be read, or is of no kind known here.
    """
    try:
        with file.open("rb") as stream:
            first = stream.read(FIRST_BYTES)
    except OSError as error:
        raise BuildError(f"{file}: {error.strerror}") from error
    for kind in FORMATS:
        if kind.matches(first):
            return kind
    raise BuildError(
        f"{file} is no image, no bundle and no journal: it begins with {first[:8].hex(' ') or 'nothing'}",
        "An image begins with a cpio header or a known compression, a journal with its first record.",
    )


def _answer(kind: str, intact: bool, verdict: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "intact": intact, "verdict": verdict, **more}


class ImageFormat:
    """An initramfs, ours or another."""

    name = "image"

    def matches(self, first: bytes) -> bool:
        magics = [kind.magic for kind in BY_NAME.values() if kind.magic]
        return first.startswith((b"070701", b"070702", *magics))

    def info(self, file: Path, _arguments: Namespace) -> dict[str, Any]:
        from initramfs.inspect import IMAGE_BYTES_MAX, read_bounded
        from initramfs.newc import read
        from initramfs.report import load_sidecar, sidecar_path

        data = read_bounded(file, IMAGE_BYTES_MAX)
        contents = read(data)
        facts = {
            "type": self.name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "compression": contents.compression,
            "unpacked_bytes": contents.unpacked_bytes,
            "entries": len(contents.members),
        }
        if sidecar_path(file).exists():
            document = load_sidecar(sidecar_path(file))
            facts |= {key: document.get(key, "") for key in ("compatible", "kernel_release", "packages")}
        return facts

    def verify(self, file: Path, _arguments: Namespace) -> dict[str, Any]:
        """Whole, as its sidecar says, and able to start: libraries and module dependencies complete."""
        from initramfs.inspect import IMAGE_BYTES_MAX, listing, listing_of_sidecar, read_bounded, sidecar_of
        from initramfs.newc import read
        from initramfs.report import sidecar_path
        from initramfs.self_check import check_startable

        data = read_bounded(file, IMAGE_BYTES_MAX)
        try:
            contents = read(data)
            check_startable(contents.members)
            with_sidecar = sidecar_path(file).exists()
            if with_sidecar and listing(contents) != listing_of_sidecar(sidecar_of(file, data)):
                raise BuildError("its contents are not those that IMAGE.json lists")
        except BuildError as error:
            return _answer(self.name, False, f"damaged: {error.message}")
        told = "as IMAGE.json says" if with_sidecar else "IMAGE.json is not beside it"
        return _answer(self.name, True, f"an intact image of {len(contents.members)} entries, {told}")


class BundleFormat:
    """A payload bundle, ``.ubk``: what `unbrick bundle info` and `unbrick bundle verify` say."""

    name = "bundle"

    def matches(self, first: bytes) -> bool:
        from payload.bundle import MAGIC

        return first.startswith(MAGIC)

    def info(self, file: Path, _arguments: Namespace) -> dict[str, Any]:
        from initramfs.bundle_file import claims

        return claims(file)

    def verify(self, file: Path, arguments: Namespace) -> dict[str, Any]:
        from initramfs.bundle_file import verdict
        from initramfs.cli_bundle import judge

        return verdict(file, judge(arguments))


class RootsFormat:
    """A file of roots. Whether it leads on from what a device pins needs --root; that it hangs together does not."""

    name = "roots"

    def matches(self, first: bytes) -> bool:
        from payload.root_files import ROOTS_MAGIC

        return first.startswith(ROOTS_MAGIC)

    def info(self, file: Path, _arguments: Namespace) -> dict[str, Any]:
        from initramfs.root_report import chain_facts
        from payload.root_files import load_roots

        return chain_facts(load_roots(file))

    def verify(self, file: Path, arguments: Namespace) -> dict[str, Any]:
        from payload.errors import PayloadError
        from payload.root_files import known_after, load_roots, pinned_by
        from payload.roots import check_first

        try:
            chain = load_roots(file)
            first = check_first(chain[0])
            pinned = pinned_by(arguments.root, first.compatible) if arguments.root else first
            root = known_after(pinned, chain)
        except PayloadError as error:
            return _answer(self.name, False, f"not usable: {error}")
        by = arguments.root or f"its own root {first.version} (no --root)"
        return _answer(self.name, True, f"{len(chain)} roots, the newest is {root.version}, followed from {by}")


class JournalFormat:
    """One dumped copy of a journal, or several behind each other."""

    name = "journal"

    def matches(self, first: bytes) -> bool:
        from statemachine.journal import MAGIC

        return first.startswith(MAGIC)

    def info(self, file: Path, _arguments: Namespace) -> dict[str, Any]:
        from initramfs.journal_files import open_copies

        return {"type": self.name, **open_copies([file]).facts()}

    def verify(self, file: Path, _arguments: Namespace) -> dict[str, Any]:
        from initramfs.journal_files import open_copies

        facts = open_copies([file]).facts()
        intact = facts["verdict"] == "INTACT"
        return _answer(self.name, intact, f"{facts['verdict']}: {facts['records']} records", journal=facts)


FORMATS: tuple[Format, ...] = (BundleFormat(), RootsFormat(), JournalFormat(), ImageFormat())
