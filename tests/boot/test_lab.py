"""The lab on a real kernel: console, power, faults of the medium, sticks, keys, watchdog."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu.errors import ConsoleTimeout, MachineEnded
from qemu.faults import nth_write_fails
from qemu.machine import Disk, MachineOptions
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


def test_a_guest_says_hello_and_answers(machine: MachineFactory, options: Options) -> None:
    guest = machine(options("hello"))
    guest.expect("name? ", BOOT_SECONDS)
    guest.send("world\n")
    assert guest.expect(re.compile(r"lab: hello (\w+)$"), SAY_SECONDS)[1] == "world"
    with pytest.raises(ConsoleTimeout, match="lab: hello world"):
        guest.expect("something else", 0.5)


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


def test_a_guest_that_switches_itself_off_ends_the_emulator(machine: MachineFactory, options: Options) -> None:
    assert machine(options("off")).wait_exit(BOOT_SECONDS) == 0


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


def test_exactly_the_third_write_fails(machine: MachineFactory, options: Options, tmp_path: Path) -> None:
    disk = Disk(blank(tmp_path / "disk"), "faulty", faults=(nth_write_fails(3),))
    guest = machine(options("write-five", *VIRTIO, disks=(disk,)))
    for number, error in enumerate((0, 0, 5, 0, 0), start=1):
        assert guest.expect(re.compile(rf"lab: write {number} errno (\d+)"), BOOT_SECONDS)[1] == str(error)


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
    guest = machine(options("watchdog", "i6300esb", parameters="heartbeat=3", watchdog="i6300esb"))
    guest.expect("lab: the watchdog runs", BOOT_SECONDS)
    guest.expect("lab: the watchdog runs", BOOT_SECONDS)
    assert guest.boots == 2
