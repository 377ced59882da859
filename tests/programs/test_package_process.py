"""Programs that packages bring along are bounded: in time, with all that they started, and in what they say."""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packagemanager import process
from packagemanager.process import EXIT_NOT_STARTED, OUTPUT_BYTES_MAX, Ended, run

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "WORD": "given"}


def shell(text: str, seconds_max: float = 20.0) -> Ended:
    return run("/", "/bin/sh", ("-c", text, "name", "first"), ENVIRONMENT, seconds_max)


def test_a_program_gets_its_arguments_and_its_environment_and_nothing_else() -> None:
    ended = shell('echo "$1 $WORD ${HOME-none} $(cat | wc -c) $(umask) $PWD"; exit 3')
    assert (ended.code, ended.output, ended.good) == (3, b"first given none 0 0022 /\n", False)


def test_a_program_has_the_signals_that_a_shell_expects() -> None:
    assert (
        b"141"
        in shell('(yes; echo $? >&2) 2>&1 >/dev/full; bash -c "yes | head -1 >/dev/null; echo \\${PIPESTATUS}"').output
    )


def test_of_a_huge_output_the_end_is_kept() -> None:
    ended = shell('i=0; while [ $i -lt 9000 ]; do echo "a line of some length"; i=$((i+1)); done; echo the end')
    assert ended.good
    assert len(ended.output) == OUTPUT_BYTES_MAX
    assert ended.output.endswith(b"the end\n")


@pytest.mark.requirement("M20")
def test_a_program_that_talks_for_ever_is_ended() -> None:
    started = time.monotonic()
    ended = shell("yes", seconds_max=0.5)
    assert ended.ended_by_us
    assert time.monotonic() - started < 3


@pytest.mark.requirement("M20")
def test_with_a_program_that_hangs_its_children_end(tmp_path: Path) -> None:
    """They hold the pipe open, ignore what can be ignored, and one has closed what it could speak with."""
    children = f"sleep 1234 & echo $! >{tmp_path}/a; (trap '' TERM HUP INT; exec sleep 1234) & echo $! >{tmp_path}/b"
    ended = shell(f"echo started; {children}; exec sleep 1234 >/dev/null 2>&1", seconds_max=0.5)
    assert (ended.ended_by_us, ended.output, ended.good) == (True, b"started\n", False)
    for name in ("a", "b"):
        assert not is_running(int((tmp_path / name).read_text()))


class InterruptedByAPersonError(BaseException):
    """As `KeyboardInterrupt`, which pytest would take for its own."""


@pytest.mark.requirement("M20")
def test_with_its_caller_who_is_interrupted_a_program_ends(tmp_path: Path) -> None:
    """The caller takes the transaction back then: the script must not work on beside that."""
    pid = tmp_path / "pid"

    def interrupt(_number: int, _frame: object) -> None:
        if pid.exists() and pid.read_text().endswith("\n"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise InterruptedByAPersonError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(InterruptedByAPersonError):
            shell(f"echo $$ >{pid}; sleep 1234")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not is_running(int(pid.read_text()))


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_with_its_caller_who_is_killed_a_program_ends_before_the_lock_is_free(tmp_path: Path, number: int) -> None:
    """The next command takes the lock and goes on: the script must not work on beside that."""
    said, lock = tmp_path / "said", tmp_path / "lock"
    lock.touch()
    children = "(trap '' TERM HUP INT; exec sleep 1234) &"
    caller = os.fork()
    if caller == 0:
        held = os.open(lock, os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            shell(f"{children} echo $$ $! >{said}; sleep 1234; echo went on >>{said}")
        finally:
            os._exit(1)
    while not said.exists() or not said.read_text().endswith("\n"):
        time.sleep(0.01)
    os.kill(caller, number)
    os.waitpid(caller, 0)
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    program, child = (int(word) for word in said.read_text().split())
    assert not is_running(program)
    until_ended(child)


@pytest.mark.requirement("M20")
def test_a_program_whose_keeper_is_killed_ends_and_has_failed(tmp_path: Path) -> None:
    ended = shell(f"echo $$ >{tmp_path}/program; kill -9 $PPID; sleep 1234")
    assert (ended.code, ended.ended_by_us) == (-signal.SIGKILL, False)
    until_ended(int((tmp_path / "program").read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_program_that_a_signal_ends_is_told_with_it(number: int) -> None:
    assert shell(f"ulimit -c 0; kill -{number} $$").code == -number


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("number", sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}))
def test_a_signal_to_the_whole_group_is_the_programs_matter(number: int) -> None:
    assert shell(f"trap '' {number}; kill -{number} 0; sleep 0.05; exit 3").code == 3


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("number", [32, 33])
def test_with_a_keeper_that_libc_lets_a_signal_end_the_program_ends(tmp_path: Path, number: int) -> None:
    """Where threads ran before, libc takes the signal for its own and the keeper stays: then time ends the program."""
    ended = shell(f"echo $$ >{tmp_path}/program; kill -{number} $PPID; sleep 1234", seconds_max=1)
    assert (ended.code, ended.ended_by_us) in ((-number, False), (-signal.SIGKILL, True))
    until_ended(int((tmp_path / "program").read_text()))


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("caller_is_killed", [False, True])
def test_with_a_program_that_hangs_what_left_its_group_and_not_its_session_ends(
    tmp_path: Path, caller_is_killed: bool
) -> None:
    """As a shell with job control has it; and one whose child is always another."""
    said = tmp_path / "said"
    jobs = f"set -m; sleep 1234 & echo $! >>{said}; (while :; do sleep 0.01; date >{tmp_path}/beat; done) &"
    text = f"{jobs} echo $! >>{said}; echo over >>{said}; sleep 1234"
    caller = os.fork() if caller_is_killed else 0
    if caller_is_killed and caller == 0:
        run("/", "/bin/bash", ("-c", text), ENVIRONMENT, 60)
    elif caller:
        while not said.exists() or not said.read_text().endswith("over\n"):
            time.sleep(0.01)
        os.kill(caller, signal.SIGKILL)
        os.waitpid(caller, 0)
    else:
        assert run("/", "/bin/bash", ("-c", text), ENVIRONMENT, 1).ended_by_us
    jobs_left = [int(word) for word in said.read_text().split()[:2]]
    try:
        for pid in jobs_left:
            until_ended(pid, 5.0 if caller_is_killed else 0.0)
    finally:
        for pid in filter(is_running, jobs_left):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.requirement("M20")
def test_a_program_that_stops_its_group_is_ended_in_its_time(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    ended = shell(f"echo $$ $PPID >{pids}; kill -STOP 0; echo went on", seconds_max=0.5)
    assert (ended.ended_by_us, ended.output) == (True, b"")
    assert time.monotonic() - started < 3
    for pid in pids.read_text().split():
        assert not is_running(int(pid))


@pytest.mark.requirement("M20")
def test_a_keeper_that_does_not_end_the_program_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it were stopped again each time that it is to go on."""
    monkeypatch.setattr(process, "ENDING_SECONDS_MAX", 0.3)
    monkeypatch.setattr(signal, "SIGCONT", 0)
    pids = tmp_path / "pids"
    ended = shell(f"echo $$ $PPID >{pids}; kill -STOP $PPID; sleep 1234", seconds_max=0.5)
    assert (ended.code, ended.ended_by_us) == (-signal.SIGKILL, True)
    for pid in pids.read_text().split():
        until_ended(int(pid))


@pytest.mark.requirement("M20")
def test_a_program_that_cannot_be_watched_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a Linux before 5.3."""
    pid = tmp_path / "pid"

    def absent(_process: int) -> int:
        while not pid.exists() or not pid.read_text().endswith("\n"):
            time.sleep(0.01)
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", absent)
    ended = shell(f"echo $$ >{pid}; sleep 1234")
    assert (ended.code, ended.ended_by_us) == (-signal.SIGKILL, False)
    assert ended.output.endswith(b"it cannot be watched: [Errno 38] Function not implemented\n")
    assert not is_running(int(pid.read_text()))


def test_no_signal_is_blocked_for_the_program_nor_afterwards_for_its_caller() -> None:
    """Not asked through a shell: some unblock all of them."""
    ended = run("/", "/bin/cat", ("/proc/self/status",), ENVIRONMENT, 5)
    assert b"\nSigBlk:\t0000000000000000\n" in ended.output
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_daemon_that_a_program_leaves_behind_lives_on(tmp_path: Path) -> None:
    """It holds the pipe open: nobody waits for it."""
    started = time.monotonic()
    ended = shell(f"sleep 1234 & echo $! >{tmp_path}/daemon; echo done")
    daemon = int((tmp_path / "daemon").read_text())
    try:
        assert (ended.good, ended.output) == (True, b"done\n")
        assert time.monotonic() - started < 3
        assert is_running(daemon)
    finally:
        os.kill(daemon, 9)


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("lines", [1, 9000], ids=["a line", "more than anybody keeps for it"])
def test_a_daemon_that_says_something_later_lives_on(tmp_path: Path, lines: int) -> None:
    """Nobody hears it any more: what it says is lost, and it may be told so, but it is neither ended nor stopped."""
    talk = "i=0; while [ $i -lt $1 ]; do echo 'a line of some length'; i=$((i+1)); done"
    with daemon_of(tmp_path, f"until test -e go; do sleep 0.01; done; {talk}; echo on >on", lines) as pid:
        (tmp_path / "go").touch()
        until((tmp_path / "on").exists)
        assert is_running(pid)


@pytest.mark.requirement("M20")
def test_a_daemon_that_waits_to_say_something_when_the_program_ends_goes_on(tmp_path: Path) -> None:
    with daemon_of(tmp_path, "dd if=/dev/zero bs=64M count=1; echo on >on") as pid:
        until((tmp_path / "on").exists)
        assert is_running(pid)


@contextmanager
def daemon_of(folder: Path, text: str, *words: object) -> Iterator[int]:
    """What a program has left behind, which has a session of its own and does this in ``folder``."""
    script, pid = folder / "daemon", folder / "pid"
    script.write_text(f"trap '' HUP\ncd {folder}\necho $$ >pid\n{text}\nexec sleep 1234\n")
    started = f"setsid sh {script} {' '.join(map(str, words))} & until test -s {pid}; do sleep 0.01; done"
    assert shell(started).good
    daemon = int(pid.read_text())
    try:
        yield daemon
    finally:
        if is_running(daemon):
            os.kill(daemon, signal.SIGKILL)


def said_to_a_caller(folder: Path, prepare: Callable[[], object], text: str) -> bytes:
    """What a program says to a process of its own, for what would be the matter of all tests."""
    answer = folder / "answer"
    process = os.fork()
    if process == 0:
        try:
            prepare()
            ended = shell(text, seconds_max=5)
            answer.write_bytes(b"%d %r %s" % (ended.code, ended.ended_by_us, ended.output))
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    return answer.read_bytes()


def ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def test_a_caller_that_ignores_that_children_end_is_told_how_they_ended(tmp_path: Path) -> None:
    assert said_to_a_caller(tmp_path, ignore_children, "sh -c 'exit 4'; echo $?; exit 3") == b"3 False 4\n"


def test_its_programs_are_told_of_theirs(tmp_path: Path) -> None:
    """See proc(5), SigIgn: a mask in which the first signal is the lowest bit."""
    said = said_to_a_caller(tmp_path, ignore_children, "grep SigIgn /proc/self/status")
    assert not int(said.split()[-1], 16) & 1 << signal.SIGCHLD - 1


@pytest.mark.parametrize("closed", [(0, 1, 2), (0,), (1,), (2,), (0, 2)])
def test_a_caller_without_standard_descriptors_gives_them_to_its_programs(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    text = "cat; echo out; echo err >&2; ls /proc/$$/fd | grep -c '^[0-2]$'"
    assert said_to_a_caller(tmp_path, close, text) == b"0 False out\nerr\n3\n"


def test_what_a_caller_without_standard_descriptors_has_locked_stays_so_until_its_program_ended(
    tmp_path: Path,
) -> None:
    lock, said = tmp_path / "lock", tmp_path / "said"
    lock.touch()
    caller = os.fork()
    if caller == 0:
        os.closerange(0, 3)
        assert os.open(lock, os.O_RDWR) == 0
        fcntl.flock(0, fcntl.LOCK_EX)
        try:
            shell(f"echo over >{said}; sleep 1234")
        finally:
            os._exit(1)
    until(lambda: said.exists() and said.read_text() == "over\n")
    keeper = int(Path(f"/proc/{caller}/task/{caller}/children").read_text().split()[0])
    os.kill(keeper, signal.SIGSTOP)
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    with lock.open("r+") as file:
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.kill(keeper, signal.SIGCONT)
        fcntl.flock(file, fcntl.LOCK_EX)


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    ended = run("/", str(tmp_path / "absent"), (), ENVIRONMENT, 5)
    assert ended.code == EXIT_NOT_STARTED
    assert b"No such file" in ended.output


def test_a_program_sees_its_root_alone(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "program").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "bin" / "program").chmod(0o755)
    assert run(str(tmp_path), "/bin/sh", (), ENVIRONMENT, 5).code == EXIT_NOT_STARTED


def until_ended(pid: int, seconds_max: float = 5.0) -> None:
    until(lambda: not is_running(pid), seconds_max)


def until(is_so: Callable[[], bool], seconds_max: float = 5.0) -> None:
    deadline = time.monotonic() + seconds_max
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
