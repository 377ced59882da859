"""The device's own command, in a process of its own, on a disk in a file: what it says, exits with, and survives."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from statemachine.record import Record
from tests.simulator.devices import Device, Kind, Version, factory
from tests.simulator.disk import Storage

ROOT = Path(__file__).parents[2]
# The configuration is built into an image, and the disk of a device is found by its serial number.
PROGRAM = """
import json, sys, types
sys.path.insert(0, sys.argv[1])
folder = sys.argv[2]
made = types.ModuleType("device_config")
made.CONFIG = json.load(open(folder + "/config.json"))
sys.modules["device_config"] = made
from recovery import cli, cli_update, device_journal
cli.find_disk = cli_update.find_disk = lambda serial: folder + "/disk.img"
device_journal.LOCK, device_journal.UPDATE_LOCK = folder + "/run/journal.lock", folder + "/run/update.lock"
cli_update.SOURCE_FILE = folder + "/data/update-source"
cli_update.tell_console = lambda line: None
sys.exit(cli.main(["unbrick", *sys.argv[3:]]))
"""


class Command:
    """A device in ``folder``: its disk, its bundles, and its command."""

    def __init__(self, folder: Path, kind: Kind, installed: int = 1) -> None:
        self.folder = folder
        self.kind = kind
        device = factory(kind, installed)
        (folder / "disk.img").write_bytes(device.storage.images()[0])
        (folder / "config.json").write_text(json.dumps(device.config))
        for version in kind.versions:
            (folder / f"v{version.number}.ubk").write_bytes(version.content)

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(ROOT), str(self.folder), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=60, check=False)

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def bundle(self, version: int) -> str:
        return str(self.folder / f"v{version}.ubk")

    def wait_for(self, name: str) -> None:
        """Return when a file is there."""
        deadline = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"no {name}"
            time.sleep(0.01)

    def restart(self) -> Record:
        """The device starts; what its recovery did is on the disk afterwards."""
        disk = self.folder / "disk.img"
        device = Device(self.kind, Storage(images=[disk.read_bytes()]))
        record = device.boot()
        disk.write_bytes(device.storage.images()[0])
        return record


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp("versions")
    return Kind(tuple(Version(folder, number, number) for number in (1, 2)))


@pytest.fixture
def device(kind: Kind, tmp_path: Path) -> Command:
    return Command(tmp_path, kind)


@pytest.mark.requirement("M4", "M6")
def test_an_update_from_beginning_to_end(device: Command) -> None:
    installed = device.run("install", device.bundle(2))
    assert installed.returncode == 4, installed.stderr
    assert installed.stdout == "unbrick: version 2 installed; restart to try it: unbrick reboot\n"
    assert "write" in installed.stderr and "100%" in installed.stderr
    early = device.run("commit")
    assert (early.returncode, early.stdout.startswith("unbrick: E118 not-booted")) == (4, True)
    assert device.run("resume").returncode == 4
    assert device.restart().installed.version == 2
    assert device.run("commit").stdout == "unbrick: E100 confirmed: version 2\n"
    assert device.json("status")["slots"] == "0 version 1 good; 1 version 2 good"
    assert device.run("resume").returncode == 2
    assert device.json("rollback") == {
        "outcome": "rolled-back",
        "version": 1,
        "restart-needed": True,
        "detail": "E116 rolled-back: version 1; restart to run it: unbrick reboot",
    }
    assert device.restart().installed.version == 1


def test_what_is_kept_and_what_is_offered_can_be_checked(device: Command) -> None:
    assert device.run("check").returncode == 0
    assert device.json("check")[0] == {"what": "slot 0", "version": 1, "condition": "good", "damaged": 0}
    assert device.run("check", device.bundle(2)).stdout == "unbrick: version 2 would be taken: an upgrade\n"
    damaged = bytearray(Path(device.bundle(2)).read_bytes())
    damaged[100] ^= 1
    Path(device.bundle(2)).write_bytes(damaged)
    refused = device.run("check", device.bundle(2))
    assert refused.returncode == 1
    assert "E403 payload-corrupt" in refused.stderr and "what to do: Copy the payload again." in refused.stderr


def test_a_refusal_is_one_reason_and_a_next_step(device: Command) -> None:
    refused = device.json("rollback")
    assert (refused["outcome"], refused["reason"]) == ("failed", "E119 nothing-to-roll-back")
    absent = device.run("install", "/absent.ubk")
    assert absent.returncode == 1
    assert "No such file" in absent.stderr and "what to do" in absent.stderr


def test_one_installation_at_a_time_and_nobody_has_a_lock_to_delete(device: Command) -> None:
    lock = device.folder / "run" / "update.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = device.run("install", device.bundle(2))
        assert (busy.returncode, "E121 update-busy" in busy.stderr) == (1, True)
    assert device.run("install", device.bundle(2)).returncode == 4


@pytest.mark.requirement("M7")
@pytest.mark.parametrize("goes_on_by", ["resume", "install", "nothing"])
def test_a_killed_installation_goes_on_or_never_was(device: Command, goes_on_by: str) -> None:
    for delay in (0.0, 0.15, 0.3, 0.45):
        process = subprocess.Popen(device.words("install", "--background", "--rate-limit", "8K", device.bundle(2)))
        device.wait_for("data/update-source")
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if goes_on_by == "nothing":
        assert device.restart().installed.version == 1
        return
    words = ("resume",) if goes_on_by == "resume" else ("install", device.bundle(2))
    done = device.run(*words)
    assert done.returncode == 4, done.stderr
    assert device.restart().installed.version == 2


def test_help_shows_how(device: Command) -> None:
    shown = device.run("install", "--help").stdout
    assert "unbrick install --background --rate-limit 2M os.ubk" in shown
    assert "exit codes" in shown
    assert device.run("install", "--rate-limit", "fast", "x").returncode == 2
