"""A layer: files put over a root file system, as a tar archive with fixed owners and times.

A layer never depends on who builds it: every entry belongs to root and carries the same time.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# One time for every file of every image: the release of Debian 12 (2023-06-10 00:00:00 UTC).
SOURCE_DATE_EPOCH = 1686355200


class Layer:
    """Entries by path (relative, no leading slash); written sorted, parents before children."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tarfile.TarInfo, bytes]] = {}

    def file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        content = data.encode() if isinstance(data, str) else data
        self._add(path, tarfile.REGTYPE, mode, content)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, b"", target)

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._add(path, tarfile.DIRTYPE, mode, b"")

    def mask(self, *units: str) -> None:
        """Units of systemd that must never start."""
        for unit in units:
            self.symlink(f"etc/systemd/system/{unit}", "/dev/null")

    def _add(self, path: str, kind: bytes, mode: int, data: bytes, target: str = "") -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.size = kind, mode, len(data)
        entry.linkname, entry.mtime = target, SOURCE_DATE_EPOCH
        self._entries[path] = (entry, data)

    def archive(self) -> bytes:
        """The layer as an uncompressed tar archive."""
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(self._entries):
                entry, data = self._entries[path]
                archive.addfile(entry, io.BytesIO(data))
        return output.getvalue()

    def files(self) -> Iterator[tuple[str, bytes, int]]:
        """Path, content and mode of every regular file."""
        for path, (entry, data) in sorted(self._entries.items()):
            if entry.isreg():
                yield path, data, entry.mode

    def digest(self) -> str:
        return hashlib.blake2b(self.archive(), digest_size=8).hexdigest()

    def write(self, path: Path) -> Path:
        path.write_bytes(self.archive())
        return path
