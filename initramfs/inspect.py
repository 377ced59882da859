"""Questions about an image: what is in it, why, and how it differs from another.

Works on what a reader found in the file (:mod:`initramfs.newc`) and on the sidecar ``IMAGE.json``
(:mod:`initramfs.report`), which alone knows the reasons. Knows nothing of how images are built.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initramfs.compression import DamagedImage
from initramfs.errors import BuildError
from initramfs.newc import Contents, Member, read
from initramfs.report import load_sidecar, sidecar_path
from initramfs.tree import FORMAT_BITS, canonical

IMAGE_BYTES_MAX = 1024 * 1024 * 1024
CHAIN_MAX = 64
KINDS = {bits: str(kind) for kind, bits in FORMAT_BITS.items()}


@dataclass(frozen=True)
class Item:
    """One path as a person wants to see it. ``size_bytes`` and ``sha256`` are of a file's content."""

    path: str
    kind: str
    mode: int
    size_bytes: int
    sha256: str
    target: str
    device: tuple[int, int]


@dataclass(frozen=True)
class Change:
    """``what`` is added, removed or changed; a size is None where the path was not."""

    what: str
    path: str
    before_bytes: int | None
    after_bytes: int | None

    @property
    def delta_bytes(self) -> int:
        return (self.after_bytes or 0) - (self.before_bytes or 0)


def read_image(file: Path) -> Contents:
    """What ``file`` holds.

    Raises:
        BuildError: it cannot be read; ``DamagedImage``: it is no initramfs.
    """
    return read(read_bounded(file, IMAGE_BYTES_MAX))


def read_bounded(file: Path, size_max_bytes: int) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(size_max_bytes + 1)
    except OSError as error:
        raise BuildError(f"{file}: {error.strerror}") from error
    if len(data) > size_max_bytes:
        raise DamagedImage(f"{file}: larger than {size_max_bytes} bytes, which is not read")
    return data


def listing(contents: Contents) -> dict[str, Item]:
    """Items by path. Where archives are concatenated the last one wins, as in the kernel."""
    return {member.path: _item(member) for member in sorted(contents.members, key=lambda member: member.path)}


def _item(member: Member) -> Item:
    is_file = member.format_bits == stat.S_IFREG
    is_link = member.format_bits == stat.S_IFLNK
    return Item(
        member.path,
        KINDS.get(member.format_bits, "other"),
        stat.S_IMODE(member.mode),
        len(member.data) if is_file else 0,
        hashlib.sha256(member.data).hexdigest() if is_file else "",
        member.data.decode("utf-8", "surrogateescape") if is_link else "",
        member.device,
    )


def listing_of_sidecar(document: Mapping[str, Any]) -> dict[str, Item]:
    """The same from a sidecar that :func:`initramfs.report.load_sidecar` accepted."""
    return {
        entry["path"]: Item(
            entry["path"], entry["kind"], int(entry["mode"], 8), entry["bytes"],
            entry["sha256"], entry["target"], tuple(entry["device"]),
        )
        for entry in document["entries"]
    }  # fmt: skip


def differences(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Change]:
    """What changed, the largest difference in size first."""
    changes = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            what = "added" if old is None else "removed" if new is None else "changed"
            changes.append(Change(what, path, old.size_bytes if old else None, new.size_bytes if new else None))
    return sorted(changes, key=lambda change: (-abs(change.delta_bytes), change.path))


def sidecar_of(file: Path, image: bytes) -> dict[str, Any]:
    """The sidecar of ``file``, if it speaks of these very bytes.

    Raises:
        BuildError: there is none, it is damaged, or it belongs to another build.
    """
    document = load_sidecar(sidecar_path(file))
    if document["image"]["sha256"] != hashlib.sha256(image).hexdigest():
        raise BuildError(
            f"{sidecar_path(file)} belongs to another build than {file}",
            "Copy the two together, or build again.",
        )
    return document


def why(document: Mapping[str, Any], path: str) -> list[str]:
    """The chain of reasons from ``path`` to what somebody asked for, one line each.

    The name of a Python module that is frozen into ``/init`` is answered as well.

    Raises:
        BuildError: the image has no such path; the nearest ones are named.
    """
    entries = {entry["path"]: entry for entry in document["entries"]}
    links = {entry["path"]: entry["target"] for entry in document["entries"] if entry["kind"] == "symlink"}
    wanted = canonical(path, links)
    if wanted not in entries and wanted in document.get("frozen", {}):
        return [f"{wanted}: a Python module, frozen into /init", f"  because: {document['frozen'][wanted]}"]
    if wanted not in entries:
        raise BuildError(f"/{wanted} is not in the image", _nearest(wanted, list(entries)))
    lines = [f"/{wanted}: {_facts(entries[wanted])}"]
    seen: set[str] = set()
    while wanted in entries and wanted not in seen and len(seen) < CHAIN_MAX:
        seen.add(wanted)
        reasons = entries[wanted]["reasons"]
        lines += [f"{'  ' * len(seen)}because: {reason['text']}" for reason in reasons[:1]]
        lines += [f"{'  ' * len(seen)}also:    {reason['text']}" for reason in reasons[1:]]
        wanted = reasons[0]["parent"]
    return lines


def _facts(entry: Mapping[str, Any]) -> str:
    what = {
        "file": f"{entry['bytes']} bytes",
        "symlink": f"symlink to {entry['target']}",
        "device": f"device {entry['device'][0]}:{entry['device'][1]}",
    }.get(entry["kind"], entry["kind"])
    return f"{what}, from {entry['source']}" if entry["source"] else what


def _nearest(path: str, known: list[str]) -> str:
    import difflib

    name = path.rpartition("/")[2]
    same_name = [other for other in known if other.rpartition("/")[2] == name]
    close = same_name or difflib.get_close_matches(path, known, n=3, cutoff=0.6)
    return f"Did you mean /{close[0]}?" if close else "`unbrick ls IMAGE` lists what is."
