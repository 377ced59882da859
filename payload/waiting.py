"""Waiting for a descriptor without being out of reach meanwhile: whoever cares is called about every second."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TICK_SECONDS = 1.0
FOR_INPUT, FOR_OUTPUT = select.POLLIN, select.POLLOUT


def until_ready(descriptor: int, event: int, seconds: float, alive: Callable[[], None]) -> bool:
    """Whether ``event`` (or an error) came within ``seconds``. What ``alive`` raises ends the wait."""
    poll = select.poll()
    poll.register(descriptor, event)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        alive()
        if poll.poll(min(left, TICK_SECONDS) * 1000):
            return True
    return False
