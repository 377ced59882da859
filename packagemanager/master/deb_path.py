"""A package in a file of the master's, opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from packagemanager.deb import Deb
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import RepositoryError
from payload.sources import FileSource


@contextmanager
def opened_deb(path: Path, advice: str = "Fetch it again.") -> Iterator[Deb]:
    """The package in the file ``path``. Raises ``RepositoryError``: it cannot be read, or is damaged."""
    try:
        with closing(FileSource(str(path.resolve()), path.name)) as source:
            yield Deb(source)
    except (OSError, ArchiveError) as error:
        raise RepositoryError(f"{path}: {error}", advice) from error
