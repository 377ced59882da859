"""A package, unpacked into a folder of the master, so that its files can be compared and compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from packagemanager.conffiles import declared
from packagemanager.entry import FILE, Content, Entry
from packagemanager.master.deb_path import opened_deb


class Unpacked:
    """The package in ``deb``; its files are in ``folder`` by number.

    Raises:
        RepositoryError: it is damaged.
    """

    def __init__(self, deb: Path, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}
        with opened_deb(deb) as package:
            self.content: Content = package.unpack(self._keep)
        self.files = {entry.path: entry for entry in self.content.entries if entry.kind == FILE}

    def _keep(self, entry: Entry, chunks: Iterator[bytes]) -> None:
        number = len(self._numbers)
        with (self._folder / str(number)).open("wb") as file:
            file.writelines(chunks)
        self._numbers[entry.path] = number

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Bytes of one of its files."""
        with (self._folder / str(self._numbers[path])).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    @property
    def conffiles(self) -> frozenset[str]:
        """The paths of files that whoever runs the device may have changed (deb-conffiles(5))."""
        return frozenset(path for path, _goes in declared(self.content.files.get("conffiles", b"")))
