"""Where a transaction comes from: a file, a disk or partition that begins with one, or a URL."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from payload.bundle import Header
    from payload.manifest import Manifest
    from payload.sources import Source
    from recovery.workshop import Workshop
    from statemachine.record import Record


def open_transaction(where: str, workshop: Workshop, record: Record, last_serial: int) -> Source:
    """The transaction at ``where``, not believed yet but for one from a URL. The caller closes it.

    Raises:
        OSError, FetchError, PayloadError, PackageError: there is none, and why.
    """
    from recovery.asked import is_url

    if not is_url(where):
        from payload.sources import FileSource

        return FileSource(os.path.realpath(where), where)
    from recovery import download

    workshop.recall(record)

    def believe(header: Header) -> Manifest:
        return workshop.keyring.packages(header, last_serial, network=True)

    return download.find(workshop, [where], lambda _name, _error: None, believe).source
