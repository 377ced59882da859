"""A package, unpacked into a folder of the master, so that its files can be compared and compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from packagemanager.deb import Deb
from packagemanager.entry import FILE, Content, Entry
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import RepositoryError
from payload.sources import FileSource


class Unpacked:
    """The package in ``deb``; its files are in ``folder`` by number.

    Raises:
        RepositoryError: it is damaged.
    """

    def __init__(self, deb: Path, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}
        self.deb_bytes = deb.stat().st_size
        try:
            source = FileSource(str(deb.resolve()), deb.name)
            try:
                self.content: Content = Deb(source).unpack(self._keep)
            finally:
                source.close()
        except (OSError, ArchiveError) as error:
            raise RepositoryError(f"{deb}: {error}", "Fetch it again.") from error
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
        lines = self.content.files.get("conffiles", b"").decode("utf-8", "surrogateescape").splitlines()
        return frozenset(line.split(" ")[-1].strip().lstrip("/") for line in lines if line.strip())
