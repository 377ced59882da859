"""Who else has to know of a transaction: a protocol, so that this package knows no journal.

Each is told before the next step is taken.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Ledger(Protocol):
        """On a device with recovery: its journal."""

        def staged(self, serial: int, digest: bytes) -> None: ...

        def applied(self) -> None: ...

        def taken_back(self) -> None: ...

        def resumed(self, serial: int, digest: bytes, on_trial: bool) -> None:
            """What a cut had left is finished now, and on trial, or undone; it may not have been told of at all."""

        def failing(self) -> None:
            """A script failed at the start after the files changed: recovery takes them back at the next one."""
