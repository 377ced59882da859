"""The command line that options give, and the options that are refused."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from qemu.disks import Disk, block_node
from qemu.errors import OptionsError, QemuMissing
from qemu.faults import COUNT_MAX, flushes_fail, nth_flush_fails, nth_read_fails, nth_write_fails, sector_fails
from qemu.options import MachineOptions, arguments, console_on_terminal, shell_line


@pytest.fixture
def options(tmp_path: Path) -> MachineOptions:
    kernel = tmp_path / "a kernel"
    kernel.touch()
    image = tmp_path / "disk"
    image.write_bytes(bytes(4096))
    return MachineOptions(kernel=kernel, disks=(Disk(image, "system"),), program="true")


def value_of(flag: str, options: MachineOptions) -> str:
    given = arguments(options)
    return given[given.index(flag) + 1]


def test_the_shell_line_gives_the_same_words(options: MachineOptions) -> None:
    assert shlex.split(shell_line(options)) == console_on_terminal(options)


def test_extra_arguments_come_last(options: MachineOptions) -> None:
    assert console_on_terminal(replace(options, extra=("-rtc", "base=utc")))[-2:] == ["-rtc", "base=utc"]


def test_only_an_emulated_pc_is_told_not_to_check_its_timer(options: MachineOptions) -> None:
    emulated = replace(options, program="qemu-system-x86_64")
    assert value_of("-append", emulated) == "console=ttyS0 no_timer_check"
    assert value_of("-append", replace(emulated, accelerator="kvm")) == "console=ttyS0"
    assert value_of("-append", replace(options, program="qemu-system-aarch64")) == "console=ttyS0"


def test_a_network_is_there_only_where_it_is_asked_for(options: MachineOptions) -> None:
    assert "-netdev" not in arguments(options)
    connected = replace(options, network="e1000", network_options="restrict=on")
    assert value_of("-netdev", connected) == "user,id=net,restrict=on"
    assert "e1000,id=nic,netdev=net,romfile=" in arguments(connected)
    assert "-object" not in arguments(connected)


def test_what_a_network_card_is_sent_is_logged_where_that_is_asked_for(options: MachineOptions) -> None:
    log = json.loads(value_of("-object", replace(options, network="e1000", network_log=Path("/some, where"))))
    assert (log["qom-type"], log["netdev"], log["file"]) == ("filter-dump", "net", "/some, where")


def test_a_disk_is_found_by_its_serial_and_reports_errors(options: MachineOptions) -> None:
    device = json.loads(value_of("-device", options))
    assert device["serial"] == "system"
    assert (device["werror"], device["rerror"]) == ("report", "report")
    assert device["drive"] == json.loads(value_of("-blockdev", options))["node-name"]


def test_a_comma_in_a_path_is_no_option(options: MachineOptions, tmp_path: Path) -> None:
    image = tmp_path / "a,b=c"
    node = json.loads(value_of("-blockdev", replace(options, disks=(Disk(image, "system"),))))
    assert node["file"]["filename"] == str(image)


def test_a_logged_disk_takes_one_request_at_a_time(options: MachineOptions, tmp_path: Path) -> None:
    logged = replace(options, disks=(replace(options.disks[0], log=tmp_path / "log"),))
    assert json.loads(value_of("-blockdev", logged))["driver"] == "blklogwrites"
    assert json.loads(value_of("-device", logged))["queue-size"] == 4


def test_each_fault_stands_under_a_format_of_its_own(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", "system", faults=(nth_write_fails(2), nth_read_fails(1)))
    node = block_node(disk, "disk0")
    drivers = []
    current: object = node
    while isinstance(current, dict):
        drivers.append(current["driver"])
        current = current.get("image", current.get("file"))
    assert drivers == ["raw", "blkdebug", "raw", "blkdebug", "raw", "file"]


def test_the_third_write_is_reached_by_two_steps() -> None:
    node = nth_write_fails(3).node()
    assert node["inject-error"] == [{"event": "write_aio", "iotype": "write", "state": 3, "errno": 5, "once": True}]
    assert node["set-state"] == [
        {"event": "write_aio", "state": 1, "new_state": 2},
        {"event": "write_aio", "state": 2, "new_state": 3},
    ]


def test_a_fault_that_cannot_be_counted_is_refused() -> None:
    for make in (nth_write_fails, nth_read_fails, nth_flush_fails):
        for number in (0, -1, COUNT_MAX + 1):
            with pytest.raises(OptionsError, match=str(number)):
                make(number)
    with pytest.raises(OptionsError, match="flush of sector 3"):
        sector_fails("flush", 3)


def test_a_lasting_fault_has_no_count() -> None:
    assert "set-state" not in flushes_fail().node()
    assert sector_fails("read", 9).node()["inject-error"] == [
        {"event": "none", "iotype": "read", "sector": 9, "errno": 5, "once": False}
    ]


def test_good_options_are_accepted(options: MachineOptions) -> None:
    options.check()


@pytest.mark.parametrize("serial", ["", "a" * 21, "a,b"])
def test_a_serial_that_would_be_cut_is_refused(options: MachineOptions, serial: str) -> None:
    with pytest.raises(OptionsError, match="serial"):
        replace(options, disks=(replace(options.disks[0], serial=serial),)).check()


def test_what_is_not_there_is_named(options: MachineOptions, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for wrong in (
        replace(options, kernel=absent),
        replace(options, initrd=absent),
        replace(options, disks=(Disk(absent, "system"),)),
    ):
        with pytest.raises(OptionsError, match="absent"):
            wrong.check()
    with pytest.raises(QemuMissing, match="no-such-emulator is not installed"):
        replace(options, program="no-such-emulator").check()


def test_two_disks_with_one_serial_are_refused(options: MachineOptions) -> None:
    with pytest.raises(OptionsError, match="same serial"):
        replace(options, disks=options.disks * 2).check()


def test_a_log_needs_a_disk_of_whole_sectors(options: MachineOptions, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"1")
    with pytest.raises(OptionsError, match="write log"):
        replace(options, disks=(Disk(odd, "odd", log=tmp_path / "log"),)).check()
