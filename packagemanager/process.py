"""Running one program of the system that is worked on: in its root, bounded in time and in what it may say.

The program gets a session that is not its caller's, nothing to read, and one pipe to write to. When its time is up, its
whole session is ended. What it starts on purpose and leaves behind (a daemon) lives on when it ended in time, as it
would under dpkg. Nobody hears that any more, but writing to the pipe does not end it: it holds the pipe for reading,
too, and when nobody reads and the pipe is full, what it says is refused. Knows nothing of packages.

Between the two is the *keeper*, a fork of the caller that leads the session. It ends the program when the caller is
gone, however that ended, and the caller's locks (flock) are held until then: nobody else works beside a program. It is
in the program's process group, so it blocks every signal: those that a program sends to its group are not for it.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Of what a program says, the end is kept: the message of an error is there.
OUTPUT_BYTES_MAX = 8192
READ_BYTES = 65536
POLL_SECONDS_MAX = 0.05
CLOSED_POLL_SECONDS = 0.005
# What a killed session needs at most to be gone; a process that the kernel cannot end is left to it.
ENDING_SECONDS_MAX = 5.0
EXIT_NOT_STARTED = 127
_STANDARD = (0, 1, 2)
_ALL_SIGNALS = signal.valid_signals()
_OVER = (b"Z", b"X")  # proc(5): a zombie, and what is dead


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


class _Running:
    """A program that was started: ``process`` is its keeper, ``reading`` what it says, ``alive`` keeps it going."""

    __slots__ = ("alive", "process", "reading")

    def __init__(self, process: int, reading: int, alive: int) -> None:
        self.process = process
        self.reading = reading
        self.alive = alive

    def end(self) -> int:
        """End the program and its session; the exit code, or SIGKILL's where the kernel does not let go of it."""
        self._let_go()
        code = self._code_within(0)
        if code is None:
            os.kill(self.process, signal.SIGCONT)  # a program can stop its group, and the keeper with it
            code = self._code_within(ENDING_SECONDS_MAX)
        if code is None:
            _end_session(self.process)
            code = self._code_within(ENDING_SECONDS_MAX)
        return -signal.SIGKILL if code is None else code

    def _code_within(self, seconds: float) -> int | None:
        """The keeper's exit code, if it ends within that time."""
        deadline = time.monotonic() + seconds
        while True:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                return None
            time.sleep(CLOSED_POLL_SECONDS)

    def close(self) -> None:
        self._let_go()
        os.close(self.reading)

    def _let_go(self) -> None:
        if self.alive >= 0:
            os.close(self.alive)
            self.alive = -1


def run(root: str, program: str, arguments: Sequence[str], environment: Mapping[str, str], seconds_max: float) -> Ended:
    """Run ``program`` (a path inside of the folder ``root``, which is its `/`) and wait for its end.

    Raises: OSError when there is no process to be had; a program that cannot be started ends with 127.
    """
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # inherited: the kernel would tell of no end
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)  # the keeper begins with none
    try:
        running = _start(root, program, arguments, environment)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return _wait(running, time.monotonic() + seconds_max)
    except BaseException:  # Ctrl-C: what its caller does now must not run beside the program
        _abandon(running)
        raise
    finally:
        running.close()


def _start(root: str, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> _Running:
    reading, writing = _pipe(os.O_RDWR)
    watched, alive = _pipe(os.O_WRONLY)
    try:
        process = os.fork()
    except OSError:
        for descriptor in (reading, writing, watched, alive):
            os.close(descriptor)
        raise
    if process == 0:
        os.close(alive)
        _keep(lambda: _become(root, program, arguments, environment), writing, watched)
    os.close(writing)
    os.close(watched)
    return _Running(process, reading, alive)


def _pipe(mode: int) -> tuple[int, int]:
    """Its ends, the second one opened with ``mode``. Neither has a standard number, which a caller may have closed."""
    reading, writing = os.pipe()
    try:
        return _beyond_standard(os.dup(reading)), _beyond_standard(os.open(f"/proc/self/fd/{writing}", mode))
    finally:
        os.close(reading)
        os.close(writing)


def _beyond_standard(descriptor: int) -> int:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, len(_STANDARD))
    finally:
        os.close(descriptor)


def _keep(become: Callable[[], object], output: int, watched: int) -> None:
    """The keeper's side. Never returns: it ends as the program does, or the program with it when nobody holds the other
    end of ``watched`` any more. Until then it holds the locks that its caller had.
    """
    code = EXIT_NOT_STARTED
    try:
        os.setsid()
        _keep_open(_STANDARD)
        null = _beyond_standard(os.open("/dev/null", os.O_RDONLY))
        for descriptor, source in zip(_STANDARD, (null, output, output), strict=True):
            os.dup2(source, descriptor)
        process = os.fork()
        if process == 0:
            become()
        code = _watch(process, watched)
        os.set_blocking(output, False)  # nobody reads any more: who waits to write, and a daemon, must not stop
    except BaseException as error:
        os.write(2, f"{error}\n".encode(errors="replace"))
    finally:
        _end_as(code)


def _keep_open(descriptors: Sequence[int]) -> None:
    """Hold what the caller has there, though these numbers will be something else: it may be its lock."""
    for descriptor in descriptors:
        try:
            os.dup(descriptor)
        except OSError:
            continue  # closed


def _watch(process: int, watched: int) -> int:
    """The program's exit code. One that cannot be watched (a pidfd needs Linux 5.3) is ended, with its session."""
    try:
        ending = os.pidfd_open(process)
        readable, _, _ = select.select([ending, watched], [], [])
        if ending not in readable:
            _end_session(os.getpid())
            select.select([ending], [], [], ENDING_SECONDS_MAX)
    except BaseException as error:
        os.write(2, f"it cannot be watched: {error}\n".encode(errors="replace"))
        _end_session(os.getpid())
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _end_as(code: int) -> None:
    """End with the code of a program, by the same signal where one has ended it."""
    try:
        if code < 0:
            if code != -signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (-code,))
            os.kill(os.getpid(), -code)
    finally:
        os._exit(code if code >= 0 else EXIT_NOT_STARTED)


def _become(root: str, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """The program's side. Never returns: whatever fails, the fork must not go on with its parent's work."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and who is started inherits that
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if root != "/":
            os.chroot(root)
        os.chdir("/")
        os.umask(0o022)
        os.execve(program, [program, *arguments], dict(environment))
    except BaseException as error:
        os.write(2, f"{program}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(EXIT_NOT_STARTED)


def _wait(running: _Running, deadline: float) -> Ended:
    said = b""
    while True:
        ended, status = os.waitpid(running.process, os.WNOHANG)
        said = _read(running.reading, said, 0 if ended else POLL_SECONDS_MAX)
        if ended:
            return Ended(_code(running.process, status), said)
        if time.monotonic() > deadline:
            return Ended(running.end(), _read(running.reading, said, 0), ended_by_us=True)


def _code(process: int, status: int) -> int:
    """The exit code of the keeper that is gone. Whoever killed it has left the program alone."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL or (code < 0 and -code not in _ALL_SIGNALS):  # libc's own (32, 33) cannot be blocked
        _end_session(process)
    return code


def _end_session(session: int) -> None:
    """Kill what is in it until nothing of it runs; not the caller."""
    deadline = time.monotonic() + ENDING_SECONDS_MAX
    while (running := _running_in(session)) and time.monotonic() < deadline:
        for process in running:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(CLOSED_POLL_SECONDS)


def _running_in(session: int) -> list[int]:
    """The processes of a session but the caller, from /proc/PID/stat: see proc(5)."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, _parent, _group, its_session = file.read().rpartition(b")")[2].split()[:4]
        except OSError:
            continue  # it is gone
        if int(its_session) == session and state not in _OVER:
            found.append(int(name))
    return found


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


def _abandon(running: _Running) -> None:
    """End the program and its session, if it is not at its end already."""
    try:
        running.end()
    except ChildProcessError:
        return
