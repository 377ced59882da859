"""The sidecar ``IMAGE.json``: what is in an image, why, how large; and the report a person reads.

The sidecar depends on the image alone: no time, no host, no folder, so that two builds have the same.
It is written beside the image and is not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initramfs.errors import BuildError
from initramfs.tree import Entry, Tree

SIDECAR_FORMAT = "unbrick-image/1"
SIDECAR_BYTES_MAX = 64 * 1024 * 1024
LARGEST_SHOWN = 8
_ENTRY_FIELDS = {"path", "kind", "mode", "bytes", "sha256", "target", "device", "source", "reasons"}


@dataclass(frozen=True)
class ImageFacts:
    """A finished image. ``packages`` are the versions that went in."""

    size_bytes: int
    unpacked_bytes: int
    sha256: str
    compression: str
    time_seconds: int
    compatible: str
    kernel_release: str
    packages: Mapping[str, str]


def sidecar_path(image: Path) -> Path:
    return image.with_name(image.name + ".json")


def sidecar(tree: Tree, facts: ImageFacts, frozen: Mapping[str, str]) -> dict[str, Any]:
    """The sidecar as plain values; :func:`encode` makes the bytes. ``frozen``: modules in /init, and why."""
    return {
        "format": SIDECAR_FORMAT,
        "compatible": facts.compatible,
        "kernel_release": facts.kernel_release,
        "image": {
            "bytes": facts.size_bytes,
            "unpacked_bytes": facts.unpacked_bytes,
            "sha256": facts.sha256,
            "compression": facts.compression,
            "time_seconds": facts.time_seconds,
            "tree": tree.digest,
        },
        "packages": dict(sorted(facts.packages.items())),
        "frozen": dict(sorted(frozen.items())),
        "entries": [_entry(entry) for entry in tree],
    }


def encode(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")


def load_sidecar(file: Path) -> dict[str, Any]:
    """A sidecar from its file, checked as far as its readers rely on it.

    Raises:
        BuildError: absent, damaged or of another format.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(SIDECAR_BYTES_MAX + 1)
        document = json.loads(raw[:SIDECAR_BYTES_MAX].decode())
    except FileNotFoundError as error:
        hint = "It is written beside the image by `unbrick build`; copy it along."
        raise BuildError(f"{file} is missing: it holds the reasons", hint) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(f"{file} is damaged: {error}", "Build the image again.") from error
    if not _is_sidecar(document):
        raise BuildError(f"{file} is no {SIDECAR_FORMAT}", "Build the image again with this version.")
    return dict(document)


def by_source(tree: Tree) -> dict[str, int]:
    """Bytes of file content by where it came from (the part before the first colon), largest first."""
    total: dict[str, int] = {}
    for entry in tree:
        if entry.data:
            name = entry.source.partition(":")[0] or "made here"
            total[name] = total.get(name, 0) + len(entry.data)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def largest(tree: Tree) -> list[Entry]:
    return sorted(tree, key=lambda entry: (-len(entry.data), entry.path))[:LARGEST_SHOWN]


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "kind": str(entry.kind),
        "mode": f"{entry.mode:04o}",
        "bytes": len(entry.data),
        "sha256": entry.digest,
        "target": entry.target,
        "device": list(entry.device),
        "source": entry.source,
        "reasons": [{"text": reason.text, "parent": reason.parent} for reason in entry.reasons],
    }


def _is_sidecar(document: Any) -> bool:
    if not isinstance(document, dict) or document.get("format") != SIDECAR_FORMAT:
        return False
    image, entries = document.get("image"), document.get("entries")
    return (
        isinstance(image, dict)
        and isinstance(image.get("sha256"), str)
        and isinstance(entries, list)
        and all(isinstance(entry, dict) and entry.keys() == _ENTRY_FIELDS for entry in entries)
        and all(entry["reasons"] and {"text", "parent"} <= entry["reasons"][0].keys() for entry in entries)
    )
