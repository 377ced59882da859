"""A region: a run of bytes on some medium. The only way this package touches the world.

The production implementation is ``payload.device_region``; the tests play disks that lie, tear and
vanish (``tests/simulator/disk.py``). Nothing here opens, finds or locks anything.
"""

TYPE_CHECKING = False  # the ordinary boot does not pay for `import typing`
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Region(Protocol):
    """Bytes 0 … ``size`` of a medium.

    ``write_unit`` and ``erase_unit`` are in bytes: writes are aligned to the first, and a cut may
    destroy what shares an erase unit with the write in progress. Every method raises ``OSError``.
    """

    size: int
    write_unit: int
    erase_unit: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, from the medium and not from a cache that a cut would lose."""

    def write(self, offset: int, data: bytes) -> None:
        """Hand ``data`` to the medium. Durable only after the next :meth:`flush` that returns."""

    def flush(self) -> None:
        """Return when every earlier write is durable. After an error, write again before flushing."""
