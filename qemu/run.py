"""A machine for a person: its console and the emulator's monitor on the terminal."""

from __future__ import annotations

import subprocess
import sys

from qemu.options import MachineOptions, console_on_terminal, shell_line


def run_interactive(options: MachineOptions) -> int:
    """Print the command line, run it on this terminal until it ends, and return its exit code.

    Ctrl-A X ends the machine, Ctrl-A C switches to the monitor and back. Has no limit of time: a person
    ends it.

    Raises: OptionsError, QemuMissing: before anything is started.
    """
    options.check()
    print(shell_line(options), flush=True)
    print("Ctrl-A X ends the machine, Ctrl-A C is its monitor.", file=sys.stderr, flush=True)
    return subprocess.run(console_on_terminal(options), check=False).returncode
