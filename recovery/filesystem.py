"""Putting an ext4 in order with the image's e2fsck. Off the ordinary boot's path: run where a mount failed.

There are two degrees. :func:`preen` does what is certain and guesses nothing: it is for user data, which
recovery never puts at risk. :func:`mend` answers every question with yes: it is for a slot, whose content can
be brought back from a payload.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_E2FSCK = "/usr/sbin/e2fsck"
# Exit codes of e2fsck(8): errors were corrected, and a restart is wanted (of nothing here: it is not mounted).
_MENDED = (0, 1, 2, 3)
_SECONDS_MAX = 1800.0
_POLL_SECONDS = 0.05


def preen(node: str, alive: Callable[[], None]) -> bool:
    """Replay the journal and correct what has one answer only. Whether it may be mounted now."""
    return _check(alive, "-p", node)


def mend(node: str, alive: Callable[[], None]) -> bool:
    """Look at everything and correct whatever is wrong. Whether it may be mounted now."""
    return _check(alive, "-f", "-y", node)


def _check(alive: Callable[[], None], *arguments: str) -> bool:
    """``alive`` is called while e2fsck works, which says nothing itself; a bounded time, then it is ended."""
    try:
        process = os.posix_spawn(_E2FSCK, [_E2FSCK, *arguments], {})
    except OSError:
        return False
    deadline = time.monotonic() + _SECONDS_MAX
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) in _MENDED
        if time.monotonic() > deadline:
            os.kill(process, 9)
            deadline += _SECONDS_MAX
        alive()
        time.sleep(_POLL_SECONDS)
