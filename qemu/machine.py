"""A virtual machine with a console to match, keys to hold, sticks to plug in and power to cut.

    with Machine(MachineOptions(kernel=kernel, initrd=initrd), directory) as machine:
        machine.expect("Welcome", timeout_seconds=60)

:meth:`Machine.power_off` kills the emulator. That is a *weak* power cut: what the guest wrote and never
flushed is in the image all the same. The honest cut is a crash image made from a disk's write log,
see :mod:`qemu.write_log`.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from qemu.console import Console, Expected
from qemu.disks import Disk, block_node
from qemu.errors import LabError, MachineEnded, MonitorError
from qemu.keyboard import HOLD_SECONDS_MAX, HeldKey
from qemu.monitor import Monitor
from qemu.options import NIC, USB_BUS, MachineOptions, console_to_file, shell_line

__all__ = ["Disk", "Machine", "MachineOptions"]

START_SECONDS = 30.0
KILL_SECONDS = 10.0
DYING_SECONDS = 2.0
SAVE_SECONDS = 120.0
RESUME_SECONDS = 60.0
STATUS_POLL_SECONDS = 0.01
SAVE_BYTES_PER_SECOND = 16 << 30  # the emulator's default is meant for a network
UNPLUG_SECONDS = 15.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Machine:
    """One machine, used once: start it, watch it, end it. Not safe for several threads."""

    def __init__(self, options: MachineOptions, directory: Path, name: str = "machine") -> None:
        """``directory`` gets ``<name>.console`` and ``<name>.errors`` (what the emulator itself says)."""
        self.options = options
        self.name = name
        self.console = Console(directory / f"{name}.console", self._ended)
        self._errors_path = directory / f"{name}.errors"
        # A socket's path has 107 bytes at most; the directories of tests are longer.
        self._socket_directory = Path(tempfile.gettempdir())
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._held: HeldKey | None = None
        self._sticks = 0

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, hold_key: str = "") -> None:
        """Switch the machine on, with the key ``hold_key`` already down if one is given.

        Raises:
            OptionsError, QemuMissing: before anything is started.
            MachineEnded: the emulator refused its command line; its own words are in the message.
        """
        if self._process is not None:
            raise LabError(f"{self.name} was started before", "make another Machine for another power-on")
        self.options.check()
        for disk in self.options.disks:
            if disk.log is not None:
                disk.log.write_bytes(b"")
        self.console.path.parent.mkdir(parents=True, exist_ok=True)
        self._socket_directory = Path(tempfile.mkdtemp(prefix="machine-"))
        try:
            self._launch()
            if self.options.resume_from is not None:
                self._wait_status("query-status", "paused", RESUME_SECONDS)
            self.monitor.execute("cont")
            if hold_key:  # a machine that stands still refuses keys
                self.hold_key(hold_key)
        except BaseException:
            self.close()
            raise

    def _launch(self) -> None:
        control = self._socket_directory / "control"
        with self.console.path.open("wb") as output, self._errors_path.open("wb") as errors:
            self._process = subprocess.Popen(
                console_to_file(self.options, control),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 — one system call, no lock
            )
        self._monitor = Monitor(control)
        try:
            self._monitor.connect(START_SECONDS, self._ended)
        except LabError as error:
            with suppress(subprocess.TimeoutExpired):  # its own words say why, once it is gone
                self._process.wait(DYING_SECONDS)
            raise MachineEnded(self._ended() or str(error), self.command_line()) from error

    def command_line(self) -> str:
        """The line for a shell that runs this machine by hand, with its console on the terminal."""
        return shell_line(self.options)

    # What the guest says, and what is typed to it.

    def expect(self, expected: Expected, timeout_seconds: float, unless: Expected | None = None) -> re.Match[str]:
        """Wait for a console line; see :meth:`qemu.console.Console.expect`."""
        return self.console.expect(expected, timeout_seconds, unless)

    def send(self, text: str) -> None:
        """Type ``text`` on the serial console. A person's Enter is ``\\n`` there."""
        self._input().write(text.encode())

    @property
    def boots(self) -> int:
        """How often a kernel has started, counted by its first console line (not shown when ``quiet``)."""
        return self.console.starts

    # Keys.

    def hold_key(self, key: str, seconds: float = HOLD_SECONDS_MAX) -> None:
        """Hold ``key`` from now on, for ``seconds`` or until :meth:`release_key`, in the background."""
        self.release_key()
        self._held = HeldKey(self.monitor, key, seconds)

    def release_key(self) -> None:
        """Let the held key go; nothing happens if there is none."""
        if self._held is not None:
            self._held.release()
            self._held = None

    # USB sticks.

    def hotplug_usb(self, path: Path, serial: str, read_only: bool = False) -> str:
        """Plug in a USB stick whose content is the raw image ``path``; the name for :meth:`unplug`.

        Needs the option ``usb``. Raises: OptionsError, MonitorError.
        """
        disk = Disk(path, serial, read_only=read_only)
        disk.check()
        self._sticks += 1
        name = f"stick{self._sticks}"
        self.monitor.execute("blockdev-add", block_node(disk, name))
        device = {"driver": "usb-storage", "bus": f"{USB_BUS}.0", "drive": name, "id": f"device-{name}"}
        self.monitor.execute("device_add", {**device, "serial": serial})
        return name

    def unplug(self, name: str) -> None:
        """Pull out the stick ``name``, whatever the guest is doing with it."""
        self.monitor.execute("device_del", {"id": f"device-{name}"})
        self.monitor.wait_event("DEVICE_DELETED", UNPLUG_SECONDS, device=f"device-{name}")
        self.monitor.execute("blockdev-del", {"node-name": name})

    # The cable.

    def plug_cable(self, is_in: bool) -> None:
        """Pull the network cable out, or plug it in. Needs the option ``network``. Raises: MonitorError."""
        self.monitor.execute("set_link", {"name": NIC, "up": is_in})

    # The memory.

    def save_state(self, path: Path) -> None:
        """Write the running guest's memory and devices to ``path`` and end the machine.

        Machines with the option ``resume_from`` go on from there in a fraction of a boot's time. They
        may have disks with other content, if the guest has not looked at them yet: save before it
        loads their driver. Raises: MonitorError: the state cannot be saved.
        """
        self.monitor.execute("stop")
        self.monitor.execute("migrate-set-parameters", {"max-bandwidth": SAVE_BYTES_PER_SECOND})
        self.monitor.execute("migrate", {"uri": f"exec:cat > {shlex.quote(str(path))}"})
        self._wait_status("query-migrate", "completed", SAVE_SECONDS)
        self.power_off()

    def _wait_status(self, query: str, wanted: str, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while True:
            answer = self.monitor.execute(query)
            status = answer.get("status", "") if isinstance(answer, dict) else ""
            if status == wanted:
                return
            if status == "failed" or time.monotonic() >= deadline:
                raise MonitorError(f"{query} says {status!r} and not {wanted!r}: {answer}")
            time.sleep(STATUS_POLL_SECONDS)

    # The power.

    def reset(self) -> None:
        """Push the reset button: the guest starts again, its memory is lost, its disks are not."""
        self.monitor.execute("system_reset")

    def power_off(self) -> None:
        """Pull the plug. Unflushed writes survive this: see the module's words on honest power cuts."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(KILL_SECONDS)

    def wait_exit(self, timeout_seconds: float) -> int:
        """Wait until the guest switches itself off; the emulator's exit code.

        Raises: ConsoleTimeout: it still runs.
        """
        if self._process is None:
            raise MachineEnded(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise self.console.timeout(f"{self.name} still runs after {timeout_seconds:g} s") from error

    @property
    def running(self) -> bool:
        """Whether the emulator's process is there."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Power off and let go of everything; the console's file stays. Harmless when repeated."""
        self.power_off()
        self.release_key()
        if self._monitor is not None:
            self._monitor.close()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._process is not None:
            shutil.rmtree(self._socket_directory, ignore_errors=True)

    @property
    def monitor(self) -> Monitor:
        """The control socket, for what has no method here. Raises: MachineEnded: it is not running."""
        if self._monitor is None or not self.running:
            raise MachineEnded(self._ended() or f"{self.name} was never started")
        return self._monitor

    def _input(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None or not self.running:
            raise MachineEnded(self._ended() or f"{self.name} was never started")
        return self._process.stdin

    def _ended(self) -> str:
        """How the emulator ended, with what it said; empty while it runs."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return ""
        said = self._errors_path.read_text(errors="replace")[:2000].strip()
        return f"the emulator ended with code {code}{': ' if said else ''}{said}"


def _die_with_parent() -> None:
    """Runs in the new process: no emulator outlives a test run that was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
