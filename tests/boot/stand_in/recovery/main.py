"""What Python can do to PID 1, one function each; the kernel's command line says which: ``act=NAME``."""

# pathlib would be frozen in with all it imports
# ruff: noqa: PTH101, PTH102, PTH103, PTH123, PTH208

import os
import time

import _unbrick

MESSAGES, MODULES = 3, 4
WATCHDOG_SECONDS = 8
MS_BIND = 4096


def main(arguments: list[str]) -> int:
    crashes = int(arguments[1])
    modules = os.read(MODULES, 1)
    say(f"start {crashes} modules {modules!r}")
    with open("/proc/cmdline", encoding="ascii") as file:
        options = dict(word.partition("=")[::2] for word in file.read().split())
    return ACTS[options["act"]](crashes) or 0


def say(text: str) -> None:
    os.write(1, f"stand-in: {text}\n".encode())


def send(line: str) -> None:
    os.write(MESSAGES, line.encode() + b"\n")


def wait() -> None:
    while True:
        time.sleep(1)


def exits(crashes: int) -> int:
    return 7


def raises(crashes: int) -> None:
    raise LookupError("nobody catches this")


def killed(crashes: int) -> None:
    if crashes == 0:
        os.kill(os.getpid(), 9)
    wait()


def silent(crashes: int) -> None:
    """The first Python says nothing, the second reports progress for longer than it may be silent."""
    while True:
        time.sleep(0.2)
        if crashes:
            send(".")
            if time.clock_gettime(time.CLOCK_BOOTTIME) % 5 < 0.25:
                say("still working")


def memory_hog(crashes: int) -> None:
    if crashes == 0:
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1)) * (1 << 20))
    wait()


def orphans(crashes: int) -> None:
    """Leave orphans behind, as a program that daemonises does, and look whether PID 1 reaps them."""
    for _ in range(5):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                time.sleep(0.1)
            os._exit(0)
        os.waitpid(child, 0)
    time.sleep(1.5)
    say(f"left behind: {[name for name in os.listdir('/proc') if name.isdigit() and parent_of(name) == 1]}")
    wait()


def parent_of(process: str) -> int:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0
    return parent if int(process) != os.getpid() else 0


def children_end(crashes: int) -> None:
    """Die while a child of ours still runs: it must not go on beside the next Python."""
    if crashes == 0:
        if os.fork() == 0:
            wait()
        os._exit(1)
    say(f"others: {[name for name in os.listdir('/proc') if name.isdigit() and command_of(name) and int(name) > 1]}")
    wait()


def command_of(process: str) -> bool:
    """Whether it is a program: threads of the kernel have no command line."""
    with open(f"/proc/{process}/cmdline", "rb") as file:
        return bool(file.read()) and int(process) != os.getpid()


def babbles(crashes: int) -> None:
    send("sing a song")
    send("handover /only/one/word")
    os.write(MESSAGES, b"x" * 3000 + b"\n.\n")
    time.sleep(1)
    say("and goes on")
    wait()


def make_root(init: str) -> None:
    os.makedirs("/newroot", exist_ok=True)
    _unbrick.mount("tmpfs", "/newroot", "tmpfs", 0, None)
    for name in ("dev", "proc", "sys", "run", "sbin"):
        os.mkdir(f"/newroot/{name}")
    with open("/tiny-init", "rb") as source, open(f"/newroot{init}", "wb") as copy:
        copy.write(source.read())
    os.chmod(f"/newroot{init}", 0o755)
    _unbrick.mount("tmpfs", "/mnt", "tmpfs", 0, None)
    for place, seen_as in (("/", "/newroot/initramfs"), ("/mnt", "/newroot/mounted")):
        os.mkdir(seen_as)
        _unbrick.mount(place, seen_as, None, MS_BIND, None)
    for marker in ("/run/marker", "/mnt/marker"):
        with open(marker, "w", encoding="ascii") as file:
            file.write("kept")


def hands_over(crashes: int) -> None:
    make_root("/sbin/init")
    if os.fork() == 0:
        wait()  # a straggler: it must be gone when init starts
    send("handover /newroot /sbin/init none 3")
    wait()


def last_words(crashes: int) -> int:
    """Everything that is still in the pipe counts, though its writer is dead and it takes many reads."""
    make_root("/sbin/init")
    os.write(MESSAGES, b".\n" * 5000 + b"handover /newroot /sbin/init none 3\n")
    return 1


def hands_over_to_nothing(crashes: int) -> None:
    make_root("/sbin/other")
    send("handover /newroot /sbin/init none 3")
    wait()


def hands_over_nowhere(crashes: int) -> None:
    send("handover /etc /sbin/init none 3")
    wait()


def watched(crashes: int) -> None:
    """Work for two timeouts and more, slowly."""
    send(f"watchdog /dev/watchdog0 {WATCHDOG_SECONDS}")
    for _ in range(WATCHDOG_SECONDS * 2 + 2):
        time.sleep(1)
        send(".")
    say("the watchdog slept")
    wait()


def stuck(crashes: int) -> None:
    """Hang so that not even SIGKILL helps, as on a dead disk: frozen by the freezer of old."""
    send(f"watchdog /dev/watchdog0 {WATCHDOG_SECONDS}")
    os.makedirs("/run/freezer", exist_ok=True)
    _unbrick.mount("cgroup", "/run/freezer", "cgroup", 0, "freezer")
    os.mkdir("/run/freezer/all")
    for name, content in (("cgroup.procs", str(os.getpid())), ("freezer.state", "FROZEN")):
        with open(f"/run/freezer/all/{name}", "w", encoding="ascii") as file:
            file.write(content)
    say("not reached")


def leaves_watchdog_running(crashes: int) -> None:
    make_root("/sbin/init")
    send(f"watchdog /dev/watchdog0 {WATCHDOG_SECONDS}")
    send("handover /newroot /sbin/init systemd 3")
    wait()


def stops_watchdog(crashes: int) -> None:
    make_root("/sbin/init")
    send(f"watchdog /dev/watchdog0 {WATCHDOG_SECONDS}")
    send("handover /newroot /sbin/init none 3")
    wait()


def switches_off(crashes: int) -> None:
    send("poweroff")
    wait()


def reboots(crashes: int) -> None:
    send("reboot")
    wait()


ACTS = {
    act.__name__: act
    for act in (
        exits, raises, killed, silent, memory_hog, orphans, children_end, babbles, hands_over, last_words,
        hands_over_to_nothing, hands_over_nowhere, watched, stuck, leaves_watchdog_running, stops_watchdog,
        switches_off, reboots,
    )
}  # fmt: skip
