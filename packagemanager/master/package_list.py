"""A ``Packages`` list of a Debian repository, parsed package by package as it is asked: whole ones have 60,000."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from packagemanager.control import Paragraph, paragraph
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import RepositoryError
from packagemanager.master.package import Package, look_at_all

LIST_BYTES_MAX = 1 << 30
PACKAGE_BYTES_MAX = 8 << 30
DECOMPRESS_SECONDS_MAX = 300

# How a package of a list is brought here: its paragraph to the path of its verified file.
Fetch = Callable[[Paragraph], Path]


class PackageList:
    """The packages of ``content`` for ``architecture`` and ``all``. ``origin`` is said in messages.

    Raises:
        RepositoryError: it is no such list.
    """

    def __init__(self, content: bytes, architecture: str, origin: str, fetch: Fetch) -> None:
        self.origin = origin
        self._native = architecture
        self._architectures = (architecture, "all")
        self._fetch = fetch
        self._named: dict[str, list[bytes]] = {}
        self._providing: dict[str, list[bytes]] = {}
        self._essential: list[bytes] = []
        self._made: dict[bytes, Package] = {}
        for piece in _pieces(content):
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        name = _value(piece, b"Package")
        if name is None:
            raise RepositoryError(f"{self.origin}: no list of packages", "Name a file like Packages.xz.")
        self._named.setdefault(name, []).append(piece)
        if _value(piece, b"Essential") == "yes":
            self._essential.append(piece)
        for virtual in (_value(piece, b"Provides") or "").split(","):
            if provided := virtual.partition("(")[0].partition(":")[0].strip():
                self._providing.setdefault(provided, []).append(piece)

    def named(self, name: str) -> list[Package]:
        """Every version of the package ``name``."""
        return self._packages(self._named.get(name, []))

    def providing(self, name: str) -> list[Package]:
        """The packages of other names that provide ``name``."""
        return [package for package in self._packages(self._providing.get(name, [])) if package.name != name]

    def essential(self) -> list[Package]:
        """The packages that every system is to have."""
        return self._packages(self._essential)

    def _packages(self, pieces: list[bytes]) -> list[Package]:
        made = [self._package(piece) for piece in pieces]
        return [package for package in made if package.architecture in self._architectures]

    def _package(self, piece: bytes) -> Package:
        if piece not in self._made:
            try:
                fields = paragraph(piece)
                size = int(fields.get("Size", "0"))
                if not 0 <= size <= PACKAGE_BYTES_MAX:
                    raise ValueError(f"a package of {size} bytes")
                made = Package(
                    fields, self.origin, size, fields.get("SHA256"), lambda: self._fetch(fields), self._native
                )
                look_at_all(made)
            except (ArchiveError, ValueError) as error:
                raise RepositoryError(f"{self.origin}: {error}", "The list is damaged: fetch it again.") from error
            self._made[piece] = made
        return self._made[piece]


def _pieces(content: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(content):
        end = content.find(b"\n\n", start)
        end = len(content) if end < 0 else end + 1
        if piece := content[start:end].strip(b"\n"):
            yield piece + b"\n"
        start = end


def _value(piece: bytes, name: bytes) -> str | None:
    """The value of a field, with the lines it goes on in. Written in the usual case: this is a look, not the parser."""
    start = 0 if piece.startswith(name + b":") else piece.find(b"\n" + name + b":") + 1
    if start == 0 and not piece.startswith(name + b":"):
        return None
    end = piece.find(b"\n", start)
    while piece[end + 1 : end + 2] in (b" ", b"\t"):
        end = piece.find(b"\n", end + 1)
    return piece[start + len(name) + 1 : end].decode("utf-8", "replace").strip()


def decompressed(path: Path) -> bytes:
    """The content of a list as apt and repositories keep it: plain, xz, gz, bz2, or lz4 by apt's own program.

    Raises:
        RepositoryError: it cannot be read, or is damaged.
    """
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as stream:
            content: bytes = stream.read(LIST_BYTES_MAX + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RepositoryError(f"{path}: {error}", "Fetch the list again.") from error
    if len(content) > LIST_BYTES_MAX:
        raise RepositoryError(f"{path}: more than {LIST_BYTES_MAX} bytes", "This is no list of packages.")
    return content


APT_HELPER = "/usr/lib/apt/apt-helper"


@contextmanager
def _by_apt(path: Path, _mode: str) -> Iterator[IO[bytes]]:
    """What apt's program makes of it, in a file that has no name."""
    command = [APT_HELPER, "cat-file", str(path)]
    with tempfile.TemporaryFile() as content:
        try:
            subprocess.run(
                command, stdout=content, stderr=subprocess.DEVNULL, check=True, timeout=DECOMPRESS_SECONDS_MAX
            )
        except (OSError, subprocess.SubprocessError) as error:
            hint = "Lists in lz4 are read by apt's own program, apt-helper: is apt on this machine?"
            raise RepositoryError(f"{path}: {error}", hint) from error
        content.seek(0)
        yield content


_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open, ".lz4": _by_apt}
