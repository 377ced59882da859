"""Where a transaction comes from: a file, a disk or partition that begins with one, or a URL."""

from __future__ import annotations

import os

from packagemanager.errors import TransactionError
from payload.sources import FileSource
from recovery.asked import is_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from payload.bundle import Header
    from payload.manifest import Manifest
    from payload.sources import Source
    from recovery.workshop import Workshop
    from statemachine.record import Record


_OPENABLE = "Name a file, a disk or partition that begins with a transaction, or a URL."


def open_transaction(where: str, workshop: Workshop, record: Record, last_serial: int) -> Source:
    """The transaction at ``where``, not believed yet but for one from a URL. The caller closes it.

    Raises:
        FetchError, PayloadError, PackageError: there is none, and why.
    """
    if not is_url(where):
        return _opened(where)
    from recovery import download

    workshop.recall(record)

    def believe(header: Header) -> Manifest:
        return workshop.keyring.packages(header, last_serial, network=True)

    return download.find(workshop, [where], lambda _name, _error: None, believe).source


def _opened(where: str) -> Source:
    try:
        return FileSource(os.path.realpath(where), where)
    except OSError as error:
        raise TransactionError(f"{where} cannot be opened: {error.strerror or error}", _OPENABLE) from error
