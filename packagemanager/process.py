"""Running one program of the system that is worked on: in its root, bounded in time and in what it may say.

The program gets a session of its own, nothing to read, and one pipe to write to. When its time is up, its whole
process group is ended. What it starts on purpose and leaves behind (a daemon) lives on when it ended in time, as it
would under dpkg. Knows nothing of packages.
"""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of what a program says, the end is kept: the message of an error is there.
OUTPUT_BYTES_MAX = 8192
READ_BYTES = 65536
POLL_SECONDS_MAX = 0.05
CLOSED_POLL_SECONDS = 0.005
# What a killed group needs at most to be gone; a process that the kernel cannot end is left to it.
ENDING_SECONDS_MAX = 5.0
EXIT_NOT_STARTED = 127


class Ended:
    """How a program ended: its exit code (negative: the signal), or that it was ended; and the end of what it said."""

    __slots__ = ("code", "ended_by_us", "output")

    def __init__(self, code: int, output: bytes, ended_by_us: bool = False) -> None:
        self.code = code
        self.output = output
        self.ended_by_us = ended_by_us

    @property
    def good(self) -> bool:
        return self.code == 0 and not self.ended_by_us


def run(root: str, program: str, arguments: Sequence[str], environment: Mapping[str, str], seconds_max: float) -> Ended:
    """Run ``program`` (a path inside of the folder ``root``, which is its `/`) and wait for its end.

    Raises: OSError when there is no process to be had; a program that cannot be started ends with 127.
    """
    reading, writing = os.pipe()
    try:
        process = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if process == 0:
        _become(root, program, arguments, environment, writing)
    os.close(writing)
    try:
        return _wait(process, reading, time.monotonic() + seconds_max)
    except BaseException:  # Ctrl-C: what its caller does now must not run beside the program
        _abandon(process)
        raise
    finally:
        os.close(reading)


def _become(root: str, program: str, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> None:
    """The child's side. Never returns: whatever fails, the fork must not go on with its parent's work."""
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and who is started inherits that
            signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY)
        for descriptor, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, descriptor)
        if root != "/":
            os.chroot(root)
        os.chdir("/")
        os.umask(0o022)
        os.execve(program, [program, *arguments], dict(environment))
    except BaseException as error:
        os.write(2, f"{program}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(EXIT_NOT_STARTED)


def _wait(process: int, reading: int, deadline: float) -> Ended:
    said = b""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        said = _read(reading, said, 0 if ended else POLL_SECONDS_MAX)
        if ended:
            return Ended(os.waitstatus_to_exitcode(status), said)
        if time.monotonic() > deadline:
            return Ended(_end(process), _read(reading, said, 0), ended_by_us=True)


def _read(reading: int, said: bytes, seconds: float) -> bytes:
    """What was said so far and what can be read now; waits up to ``seconds`` for something to read.

    One read takes all that a pipe holds. The pipe's end is not waited for: a daemon that was left behind holds it
    open for ever.
    """
    readable, _, _ = select.select([reading], [], [], seconds)
    if not readable:
        return said
    piece = os.read(reading, READ_BYTES)
    if not piece and seconds:  # closed: by a program that ends this moment, or that runs on silently
        time.sleep(CLOSED_POLL_SECONDS)
    return (said + piece)[-OUTPUT_BYTES_MAX:]


def _abandon(process: int) -> None:
    """End the process group, if it is not at its end already."""
    try:
        _end(process)
    except (ProcessLookupError, ChildProcessError):
        return


def _end(process: int) -> int:
    """End the process group; the exit code, or SIGKILL's where the kernel does not let go of it in time."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # so busy a machine that it did not come to make its group; it was not waited for yet
        os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + ENDING_SECONDS_MAX
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS_MAX)
    return -signal.SIGKILL
