"""The lab on a real kernel: console, power, faults of the medium, sticks, keys, watchdog."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qemu.accelerator import EMULATION, probe
from qemu.console import Console
from qemu.errors import MachineEnded
from qemu.faults import nth_flush_fails, nth_write_fails, sector_fails
from qemu.machine import Disk, MachineOptions
from qemu.options import shell_line
from qemu.pytest_plugin import MachineFactory
from qemu.write_log import WriteLog, crash_image
from tests.boot import lab_guest

pytestmark = pytest.mark.boot

VIRTIO = ("virtio_pci", "virtio_blk")
BOOT_SECONDS = 60.0
SAY_SECONDS = 10.0

Options = Callable[..., MachineOptions]


@pytest.fixture(scope="session")
def kernel() -> lab_guest.Kernel:
    return lab_guest.debian_kernel()


@pytest.fixture(scope="session")
def init(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return lab_guest.compile_init(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def options(kernel: lab_guest.Kernel, init: bytes, tmp_path: Path) -> Options:
    """``options("hello", *modules, …)``: a machine whose guest does that one thing."""

    def make(
        thing: str,
        *modules: str,
        parameters: str = "",
        disks: tuple[Disk, ...] = (),
        usb: bool = False,
        watchdog: str = "",
    ) -> MachineOptions:
        initrd = tmp_path / "initrd"
        lab_guest.write_initrd(initrd, init, kernel.load_order(modules), parameters)
        append = f"console=ttyS0 lab={thing}"
        return MachineOptions(
            kernel=kernel.image, initrd=initrd, append=append, disks=disks, usb=usb, watchdog=watchdog
        )

    return make


def blank(path: Path, size: int = 1 << 20) -> Path:
    with path.open("wb") as image:
        image.truncate(size)
    return path


def first_blocks(image: Path) -> tuple[bytes, bytes, bytes]:
    content = image.read_bytes()
    return content[:4096], content[4096:8192], content[8192:12288]


def test_a_guest_says_hello_and_answers_and_switches_itself_off(machine: MachineFactory, options: Options) -> None:
    guest = machine(options("hello"))
    guest.expect("name? ", BOOT_SECONDS)
    guest.send("world\n")
    assert guest.expect(re.compile(r"lab: hello (\w+)$"), SAY_SECONDS)[1] == "world"
    assert guest.wait_exit(BOOT_SECONDS) == 0


def test_boots_are_counted_and_the_end_of_a_guest_is_told(machine: MachineFactory, options: Options) -> None:
    guest = machine(options("hello"))
    guest.expect("name? ", BOOT_SECONDS)
    assert guest.boots == 1
    guest.reset()
    guest.expect("name? ", BOOT_SECONDS)
    assert guest.boots == 2
    guest.power_off()
    with pytest.raises(MachineEnded, match="code -9"):
        guest.expect("name? ", BOOT_SECONDS)


def test_a_killed_machine_keeps_what_an_honest_power_cut_loses(
    machine: MachineFactory, options: Options, tmp_path: Path
) -> None:
    image, base, crashed = blank(tmp_path / "disk"), blank(tmp_path / "base"), tmp_path / "crashed"
    disk = Disk(image, "logged", log=tmp_path / "log")
    guest = machine(options("write", *VIRTIO, disks=(disk,)))
    guest.expect("lab: flush 0, three blocks written", BOOT_SECONDS)
    guest.power_off()
    flushed, first, second = b"F" * 4096, b"U" * 4096, b"U" * 4096
    nothing = bytes(4096)
    assert first_blocks(image) == (flushed, first, second), "a killed emulator loses nothing"

    log = WriteLog.read(tmp_path / "log")
    crash_image(log, base, crashed)
    assert first_blocks(crashed) == (flushed, nothing, nothing)
    *_, second_write = log.not_durable(len(log.entries))
    crash_image(log, base, crashed, lose={second_write})
    assert first_blocks(crashed) == (flushed, first, nothing)
    crash_image(log, base, crashed, tear={second_write: 1536})
    assert first_blocks(crashed) == (flushed, nothing, second[:1536].ljust(4096, b"\0"))
    crash_image(log, base, crashed, upto=1)
    assert first_blocks(crashed) == (nothing, nothing, nothing), "the flush had not happened yet"


def test_exactly_the_chosen_requests_fail(machine: MachineFactory, options: Options, tmp_path: Path) -> None:
    faults = (nth_write_fails(3), nth_flush_fails(1), sector_fails("write", 5 * 8 + 7))
    disk = Disk(blank(tmp_path / "disk"), "faulty", faults=faults)
    guest = machine(options("write-five", *VIRTIO, disks=(disk,)))
    for number, error in enumerate((0, 0, 5, 0, 5), start=1):
        assert guest.expect(re.compile(rf"lab: write {number} errno (\d+)"), BOOT_SECONDS)[1] == str(error)
    guest.expect("lab: flush errno 5", SAY_SECONDS)


def test_a_saved_state_goes_on_with_other_disks(machine: MachineFactory, options: Options, tmp_path: Path) -> None:
    image, state = blank(tmp_path / "disk"), tmp_path / "state"
    disk = Disk(image, "logged", log=tmp_path / "log")
    asked = options("wait", *VIRTIO, disks=(disk,))
    guest = machine(asked)
    guest.expect("lab: waiting", BOOT_SECONDS)
    guest.save_state(state)
    for letter in "AB":
        image.write_bytes(letter.encode() * (1 << 20))
        resumed = machine(replace(asked, resume_from=state))
        resumed.send("go\n")
        resumed.expect(f"lab: the disk says {letter}", SAY_SECONDS)
        resumed.power_off()


def test_a_person_runs_the_same_machine_by_hand(options: Options, tmp_path: Path) -> None:
    asked = options("hello")
    script = tmp_path / "by_hand.py"
    script.write_text(
        "from pathlib import PosixPath\nfrom qemu.options import MachineOptions\n"
        f"from qemu.run import run_interactive\nraise SystemExit(run_interactive({asked!r}))\n"
    )
    output = tmp_path / "output"
    with output.open("wb") as stream:
        person = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=stream,
                                  env={**os.environ, "PYTHONPATH": str(lab_guest.CHECKOUT)})  # fmt: skip
    terminal = Console(output)
    terminal.expect(shell_line(asked), SAY_SECONDS)
    terminal.expect("name? ", BOOT_SECONDS)
    person.communicate(b"\x01x", timeout=SAY_SECONDS)  # Ctrl-A X
    assert person.returncode == 0


def test_an_accelerator_is_proven_by_a_boot(kernel: lab_guest.Kernel) -> None:
    assert probe(EMULATION, kernel.image, BOOT_SECONDS).works
    refused = probe("abacus", kernel.image)
    assert not refused.works and "abacus" in refused.reason


def test_a_stick_is_plugged_in_and_pulled_out(machine: MachineFactory, options: Options, tmp_path: Path) -> None:
    stick = blank(tmp_path / "stick")
    stick.write_bytes(b"carrots".ljust(1 << 20, b"\0"))
    guest = machine(options("stick", "xhci_pci", "usb_storage", "sd_mod", usb=True))
    guest.expect("lab: plug it in", BOOT_SECONDS)
    name = guest.hotplug_usb(stick, "stick-7")
    guest.expect("SerialNumber: stick-7", SAY_SECONDS)
    guest.expect("lab: the stick says carrots", BOOT_SECONDS)
    guest.unplug(name)
    guest.expect("lab: the stick is gone", SAY_SECONDS)


def test_a_key_held_from_power_on_is_down_when_the_driver_looks(machine: MachineFactory, options: Options) -> None:
    guest = machine(options("key", "evdev"), hold_key="r")
    guest.expect("lab: the key is down", BOOT_SECONDS)
    guest.release_key()
    guest.expect("lab: the key is up", SAY_SECONDS)


def test_the_watchdog_resets_a_guest_that_hangs(machine: MachineFactory, options: Options) -> None:
    guest = machine(options("watchdog", "i6300esb", parameters="heartbeat=1", watchdog="i6300esb"))
    guest.expect("lab: the watchdog runs", BOOT_SECONDS)
    guest.expect("lab: the watchdog runs", BOOT_SECONDS)
    assert guest.boots == 2
