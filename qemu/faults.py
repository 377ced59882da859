"""Media errors at a chosen operation or sector, played by the emulator's ``blkdebug`` driver.

Each fault is a block node of its own, so several on one disk do not disturb each other's count; a
request that one fault fails does not reach the faults that stand before it in the list. Whatever the
error number, the driver of a virtio disk in the guest is told of an I/O error, and of nothing finer.

Reads, writes and flushes are counted from power-on, across the guest's reboots, and as the emulator
sees them: the guest's firmware reads too, and its kernel merges and splits what its programs wrote.
Does not play wrong data without an error, and does not count the guest's "write zeroes" and discard
requests.
Source: QEMU's documentation, docs/devel/blkdebug.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from qemu.errors import OptionsError

COUNT_MAX = 1000  # one rule per counted operation, and a command line has an end

# operation -> (the event that counts it, the kind of request that fails)
_EVENTS = {
    "read": ("read_aio", "read"),
    "write": ("write_aio", "write"),
    "flush": ("flush_to_disk", "flush"),
}


@dataclass(frozen=True)
class Fault:
    """One fault of one disk, made by the functions below. ``number`` 0: not one by its count."""

    operation: str
    error: int
    number: int = 0
    sector: int | None = None
    once: bool = True

    def node(self) -> Mapping[str, object]:
        """The ``blkdebug`` block node, without its image."""
        event, kind = _EVENTS[self.operation]
        inject: dict[str, object] = {"iotype": kind, "errno": self.error, "once": self.once}
        if not self.number:
            at = {} if self.sector is None else {"sector": self.sector}
            return {"driver": "blkdebug", "inject-error": [{**inject, **at, "event": "none"}]}
        # The state is the number of the operation that comes next, from 1.
        count = [{"event": event, "state": state, "new_state": state + 1} for state in range(1, self.number)]
        inject |= {"event": event, "state": self.number}
        return {"driver": "blkdebug", "inject-error": [inject], **({"set-state": count} if count else {})}


def nth_write_fails(number: int, error: int = errno.EIO) -> Fault:
    """Exactly the ``number``-th write fails (the first is 1); ``error`` may be ENOSPC, a full medium."""
    return _nth("write", number, error)


def nth_read_fails(number: int, error: int = errno.EIO) -> Fault:
    """Exactly the ``number``-th read fails (the first is 1)."""
    return _nth("read", number, error)


def nth_flush_fails(number: int, error: int = errno.EIO) -> Fault:
    """Exactly the ``number``-th flush fails (the first is 1)."""
    return _nth("flush", number, error)


def sector_fails(operation: str, sector: int, error: int = errno.EIO, once: bool = False) -> Fault:
    """Every "read" or "write" that touches the 512-byte ``sector`` fails; with ``once`` just the first."""
    if operation not in ("read", "write") or sector < 0:
        raise OptionsError(f"{operation} of sector {sector}: only reads and writes of a sector can fail")
    return Fault(operation, error, sector=sector, once=once)


def flushes_fail(error: int = errno.EIO) -> Fault:
    """Every flush fails, so nothing written is ever promised to be durable."""
    return Fault("flush", error, once=False)


def _nth(operation: str, number: int, error: int) -> Fault:
    if not 1 <= number <= COUNT_MAX:
        raise OptionsError(f"{operation} number {number}: 1 to {COUNT_MAX} can be chosen")
    return Fault(operation, error, number=number)
