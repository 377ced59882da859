"""Which accelerator works on this host, proven by a boot.

``/dev/kvm`` can be there, open, and still leave a kernel hanging in its first second. So the only
evidence that counts is a kernel that ran on it from its first line to its last.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from qemu.errors import LabError
from qemu.machine import Machine, MachineOptions

EMULATION = "tcg,thread=multi"
VIRTUALIZATION = "kvm"
PROBE_SECONDS = 20.0

# Without a root file system this is the last thing that a kernel says: all of it has run by then.
_LAST_WORDS = "Unable to mount root fs"


@dataclass(frozen=True)
class Proof:
    """``reason`` says how the kernel failed; it is empty when the accelerator works."""

    accelerator: str
    reason: str

    @property
    def works(self) -> bool:
        return not self.reason


def probe(accelerator: str, kernel: Path, timeout_seconds: float = PROBE_SECONDS, console: str = "ttyS0") -> Proof:
    """Boot ``kernel`` without a root file system until it gives up, which takes a second or two.

    Raises: OptionsError, QemuMissing: the probe itself cannot be made.
    """
    append = f"console={console} panic=0"
    options = MachineOptions(kernel=kernel, append=append, accelerator=accelerator, cpus=1)
    options.check()
    with tempfile.TemporaryDirectory(prefix="machine-") as directory:
        try:
            with Machine(options, Path(directory)) as machine:
                machine.expect(_LAST_WORDS, timeout_seconds)
        except LabError as error:
            return Proof(accelerator, error.message)
    return Proof(accelerator, "")


def fastest(options: MachineOptions) -> MachineOptions:
    """``options`` with virtualization where it is proven to work with their kernel, else emulated."""
    if not Path("/dev/kvm").exists() or not probe(VIRTUALIZATION, options.kernel).works:
        return replace(options, accelerator=EMULATION)
    return replace(options, accelerator=VIRTUALIZATION)
