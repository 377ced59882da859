"""What a virtual machine is made of, and the emulator's command line that follows from it.

Pure: starts nothing and creates nothing. The command line in :func:`shell_line` is the one a person
runs by hand: the same machine, with the console on the terminal (Ctrl-A X ends it, Ctrl-A C is the
emulator's monitor) and without the lab's control socket.
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from qemu.disks import Disk, disk_arguments
from qemu.errors import OptionsError, QemuMissing
from qemu.network_log import HEADERS_BYTES_MAX

USB_BUS = "usb"
NIC = "nic"

_KEYBOARDS = {
    "builtin": [],  # the PC's own, behind its i8042
    "usb": ["-device", f"usb-kbd,bus={USB_BUS}.0"],
    "virtio": ["-device", "virtio-keyboard-pci"],
}


@dataclass(frozen=True)
class MachineOptions:
    """A machine that boots a kernel directly.

    ``append`` is the kernel's command line; give it ``console=ttyS0``, and not ``quiet``, or there is
    nothing to match; :func:`kernel_arguments` says what else it gets. ``watchdog`` is a device model
    (``i6300esb``) that resets the machine. ``usb`` adds a controller that
    :meth:`qemu.machine.Machine.hotplug_usb` needs. ``network`` is a device model (``virtio-net-pci``,
    ``e1000``) behind the emulator's own net: DHCP gives 10.0.2.15, and 10.0.2.2 is this host's loopback;
    ``network_options`` are further ones of ``-netdev user``; into ``network_log`` goes the beginning of every packet
    (:mod:`qemu.network_log`). Without ``reboot`` the emulator ends where the guest
    would start again. ``resume_from`` is a state that :meth:`qemu.machine.Machine.save_state` wrote;
    everything but the content of the disks must be as it was then. ``extra`` arguments come last and win.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = "console=ttyS0"
    memory_mib: int = 256
    cpus: int = 2
    disks: tuple[Disk, ...] = ()
    accelerator: str = "tcg,thread=multi"
    watchdog: str = ""
    usb: bool = False
    network: str = ""
    network_options: str = ""
    network_log: Path | None = None
    keyboard: str = "builtin"
    reboot: bool = True
    resume_from: Path | None = None
    program: str = "qemu-system-x86_64"
    machine: str = "pc"
    cpu: str = "max"
    extra: tuple[str, ...] = ()

    def check(self) -> None:
        """Look at the files now, where the message can be clear.

        Raises:
            OptionsError: a file is absent, or an option cannot be.
            QemuMissing: the emulator is not installed.
        """
        require_program(self.program)
        files = {"kernel": self.kernel, "initrd": self.initrd, "saved state": self.resume_from}
        for role, path in files.items():
            if path is not None and not path.is_file():
                raise OptionsError(f"{role} {path} does not exist")
        if self.keyboard not in _KEYBOARDS:
            raise OptionsError(f"keyboard {self.keyboard!r}: one of {', '.join(_KEYBOARDS)} is possible")
        if len({disk.serial for disk in self.disks}) != len(self.disks):
            raise OptionsError("two disks have the same serial number")
        for disk in self.disks:
            disk.check()


def require_program(program: str) -> None:
    """Raises: QemuMissing: ``program`` is not on this host's search path."""
    if shutil.which(program) is None:
        raise QemuMissing(
            f"{program} is not installed",
            "on Debian: apt install qemu-system-x86 (qemu-system-arm for other machines)",
        )


def kernel_arguments(options: MachineOptions) -> str:
    """The kernel's command line.

    A PC's kernel counts ticks of its timer for 10 ms, and panics ("IO-APIC + timer doesn't work!") where an
    emulator on a busy host was not given its turn meanwhile. KVM tells the kernel not to; here it is told.
    """
    is_emulated_pc = options.program.endswith("x86_64") and options.accelerator.startswith("tcg")
    return f"{options.append} no_timer_check" if is_emulated_pc else options.append


def arguments(options: MachineOptions) -> list[str]:
    """The program and the machine, without its console and without a control socket."""
    controller = options.usb or options.keyboard == "usb"
    return [
        options.program,
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", options.machine, "-cpu", options.cpu, "-accel", options.accelerator),
        *("-m", str(options.memory_mib), "-smp", str(options.cpus)),
        *("-kernel", str(options.kernel)),
        *(("-initrd", str(options.initrd)) if options.initrd else ()),
        *("-append", kernel_arguments(options)),
        *disk_arguments(options.disks),
        *(("-device", f"qemu-xhci,id={USB_BUS}") if controller else ()),
        *_KEYBOARDS[options.keyboard],
        *_network_arguments(options),
        *(("-device", options.watchdog, "-action", "watchdog=reset") if options.watchdog else ()),
        *(() if options.reboot else ("-no-reboot",)),
        *(("-incoming", f"exec:cat {shlex.quote(str(options.resume_from))}") if options.resume_from else ()),
    ]


def _network_arguments(options: MachineOptions) -> list[str]:
    if not options.network:
        return []
    further = f",{options.network_options}" if options.network_options else ""
    # Without its ROM: it is of use only to a firmware that boots from the net.
    card = ["-netdev", f"user,id=net{further}", "-device", f"{options.network},id={NIC},netdev=net,romfile="]
    if options.network_log is None:
        return card
    log = {"qom-type": "filter-dump", "id": "log", "netdev": "net", "file": str(options.network_log)}
    return [*card, "-object", json.dumps({**log, "maxlen": HEADERS_BYTES_MAX})]


def console_on_terminal(options: MachineOptions) -> list[str]:
    """The whole command line for a person: console and monitor share the terminal."""
    return [*arguments(options), "-serial", "mon:stdio", *options.extra]


def console_to_file(options: MachineOptions, control_socket: Path) -> list[str]:
    """The whole command line for the lab.

    The console writes to the standard output and reads from the standard input: a file and a pipe,
    so the guest never waits for a reader. The guest's processors stand still until ``cont``.
    """
    return [
        *arguments(options),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-qmp", f"unix:{control_socket},server=on,wait=off", "-S"),
        *options.extra,
    ]


def shell_line(options: MachineOptions) -> str:
    """The command line as a line for a shell."""
    return shlex.join(console_on_terminal(options))
