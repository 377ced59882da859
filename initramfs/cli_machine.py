"""The verb boot: a virtual machine on the terminal."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from initramfs.cli_registry import Option, Verb, show

MEMORY_MIB_DEFAULT = 256


def boot(arguments: Namespace) -> int:
    from qemu.disks import Disk
    from qemu.options import MachineOptions, shell_line
    from qemu.run import run_interactive

    disks = tuple(Disk(path, serial) for path, serial in map(_disk, arguments.disk))
    options = MachineOptions(
        kernel=arguments.kernel,
        initrd=arguments.image,
        append=arguments.append,
        memory_mib=arguments.memory,
        disks=disks,
        watchdog=arguments.watchdog,
        usb=True,
    )
    if arguments.output_format == "json" or arguments.print:
        options.check()
        line = shell_line(options)
        show(arguments, {"command": line}, [line])
        return 0
    return run_interactive(options)


def _disk(text: str) -> tuple[Path, str]:
    """``FILE`` or ``FILE,serial=NAME``."""
    path, _, serial = text.partition(",serial=")
    return Path(path), serial or "unbrick-system"


VERBS = (
    Verb(
        "boot",
        "Boot an image in QEMU on this terminal.",
        boot,
        (
            Option(("image",), "the initramfs", kind=Path, metavar="IMAGE"),
            Option(("--kernel",), "the kernel that belongs to its modules", kind=Path, metavar="FILE", required=True),
            Option(("--disk",), "a disk, found by the guest by its serial", metavar="FILE[,serial=NAME]", many=True),
            Option(("--append",), "the kernel's command line", metavar="TEXT", default="console=ttyS0"),
            Option(("--memory",), "of the machine, in MiB", kind=int, metavar="MIB", default=MEMORY_MIB_DEFAULT),
            Option(("--watchdog",), "a watchdog device, for instance i6300esb", metavar="MODEL", default=""),
            Option(("--print",), "only print QEMU's command line", flag=True),
        ),
        "Prints QEMU's command line, to be run by hand as well. Ctrl-A X ends the machine.",
        ("unbrick boot recovery.cpio.zst --kernel vmlinuz --disk disk.img,serial=unbrick-system",),
    ),
)
