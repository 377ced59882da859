"""The device's own command, in a process of its own, on a disk in a file: what it says, exits with, and survives."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packagemanager.plan_file import encode_phase
from packagemanager.script_plan import ScriptPlan, encode
from packagemanager.scripts import BOOT_ID
from packagemanager.scripts import FOLDER as SCRIPTS
from recovery.package_phase import PHASE
from statemachine.record import Record
from tests.simulator.devices import FRAMES, HEADER, Device, Kind, Version, factory
from tests.simulator.disk import Storage
from tests.unit.payload_samples import FRAME
from tests.unit.test_recovery_network import config as network_config
from tests.unit.test_update_url import DAY, Noise, expired_version
from tests.unit.web_server import StaticFile, WebServer

ROOT = Path(__file__).parents[2]
# The configuration is built into an image, and the disk of a device is found by its serial number.
PROGRAM = """
import json, sys, types
sys.path.insert(0, sys.argv[1])
folder = sys.argv[2]
made = types.ModuleType("device_config")
made.CONFIG = json.load(open(folder + "/config.json"))
sys.modules["device_config"] = made
sys.modules["encodings.idna"] = None  # the frozen program has no such codec
from recovery import cli, cli_update, device_journal
cli.find_disk = cli_update.find_disk = lambda serial: folder + "/disk.img"
device_journal.LOCK, device_journal.UPDATE_LOCK = folder + "/run/journal.lock", folder + "/run/update.lock"
cli_update.SYSTEM = folder + "/root"
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
        device.config["network"] = network_config()
        (folder / "disk.img").write_bytes(device.storage.images()[0])
        (folder / "config.json").write_text(json.dumps(device.config))
        (folder / "root").mkdir()
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

    def opened(self) -> Device:
        """What is on the disk now."""
        return Device(self.kind, Storage(images=[(self.folder / "disk.img").read_bytes()]))

    def restart(self) -> Record:
        """The device starts; what its recovery did is on the disk afterwards."""
        device = self.opened()
        record = device.boot()
        self.write(device)
        return record

    def write(self, device: Device) -> None:
        (self.folder / "disk.img").write_bytes(device.storage.images()[0])


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
    assert "all of them have to be URLs" in device.run("install", "http://one/a", "two").stderr
    assert "not a URL of http or https: 'ftp://one/a'" in device.run("check", "ftp://one/a").stderr


class Drips(StaticFile):
    """Sends little at a time, so that what was sent is about what came in."""

    def send(self, connection: socket.socket, body: bytes) -> None:
        for start in range(0, len(body), 512):
            self.sent += len(body[start : start + 512])
            connection.sendall(body[start : start + 512])
            time.sleep(0.02)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp("noise")
    return Kind((Noise(folder, 1, shared=0), Noise(folder, 2, shared=0)))


@pytest.mark.requirement("M3", "M7")
@pytest.mark.fault("N3")
@pytest.mark.parametrize(("slots", "goes_on_by"), [(2, "install"), (2, "resume"), (1, "install"), (1, "resume")])
def test_a_killed_download_goes_on_and_fetches_the_rest(
    noise: Kind, tmp_path: Path, slots: int, goes_on_by: str
) -> None:
    device, version = Command(tmp_path, replace(noise, slots=slots)), noise.version(2)
    dripping, rest = Drips(version.content), StaticFile(version.content)
    with WebServer(dripping) as server:
        process = subprocess.Popen(device.words("install", "--rate-limit", "1M", server.url))
        deadline = time.monotonic() + 30
        while dripping.sent < HEADER + 2.6 * FRAME:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        written = frames_on_disk(device, version)
        assert 1 <= written < FRAMES
        assert device.opened().journal(look_only=True).record.state == "CONFIRMED"
        server.answer = rest
        done = device.run(*(("resume",) if goes_on_by == "resume" else ("install", server.url)), "--json")
    assert done.returncode == 4, done.stderr
    assert rest.sent <= len(version.content) - written * FRAME, "and none of it twice"
    assert json.loads(done.stdout)["fetched"] >= rest.sent
    assert "fetched" in done.stderr, "the progress bar shows it"
    assert device.restart().installed.version == 2
    assert device.run("commit").stdout == "unbrick: E100 confirmed: version 2\n"
    assert device.run("resume").returncode == 2


def frames_on_disk(device: Command, version: Version) -> int:
    """How many frames of it the disk holds, in a slot or in a place."""
    content = (device.folder / "disk.img").read_bytes()
    return sum(version.plain[at : at + FRAME] in content for at in range(0, len(version.plain), FRAME))


@pytest.mark.requirement("M6")
@pytest.mark.fault("T3", "N8")
def test_what_has_expired_is_refused_from_a_server_alone(device: Command) -> None:
    opened = device.opened()
    journal = opened.journal()
    journal.persist(journal.record.but(clock_floor=2 * DAY))
    device.write(opened)
    expired = expired_version(device.folder)
    with WebServer(StaticFile(expired)) as server:
        for verb in ("check", "install"):
            refused = device.run(verb, server.url)
            assert (refused.returncode, "E422 payload-expired" in refused.stderr) == (1, True)
            assert "what to do: Offer the newest one, or bring this one on a USB stick." in refused.stderr
    assert device.run("resume").returncode == 2, "nothing was begun"
    assert device.run("install", str(device.folder / "expired.ubk")).returncode == 4


@pytest.mark.requirement("M6")
@pytest.mark.fault("N4", "N6")
def test_a_mirror_that_lies_and_one_that_is_gone(device: Command) -> None:
    content = device.kind.version(2).content
    with WebServer(StaticFile(content[:HEADER] + bytes(len(content) - HEADER))) as lies:
        refused = device.json("install", lies.url)
        assert (refused["outcome"], refused["reason"]) == ("failed", "E403 payload-corrupt")
        with WebServer(StaticFile(content)) as honest:
            done = device.run("install", lies.url, "http://127.0.0.1:1/gone", honest.url)
    assert done.returncode == 4, done.stderr
    assert "unbrick: not used: http://127.0.0.1:1/gone: E433 server-unreachable" in done.stderr
    assert device.restart().installed.version == 2


@pytest.mark.fault("N1")
def test_a_server_that_is_gone_is_a_reason_and_a_next_step(device: Command) -> None:
    gone = device.run("install", "http://127.0.0.1:1/os.ubk")
    assert gone.returncode == 1
    assert "E433 server-unreachable" in gone.stderr and "what to do: Check the network and the server" in gone.stderr
    assert gone.stderr.endswith("; then `unbrick resume`, which fetches what is missing.\n")
    assert device.run("resume").returncode == 1, "it is asked again, whenever it comes back"


def test_a_refused_url_is_not_tried_again_at_every_boot(device: Command) -> None:
    device.run("install", device.bundle(2))
    assert device.restart().installed.version == 2
    with WebServer(StaticFile(device.kind.version(1).content)) as server:
        assert "E117 not-confirmed" in device.run("install", server.url).stderr
    assert not (device.folder / "data/update-source").exists()


def test_what_the_image_cannot_ask_is_refused_and_forgotten(device: Command) -> None:
    secure = device.run("install", "https://127.0.0.1:1/os.ubk")
    assert (secure.returncode, "E439 network-not-built: https is not part" in secure.stderr) == (1, True)
    config = json.loads((device.folder / "config.json").read_text())
    (device.folder / "config.json").write_text(json.dumps({**config, "network": None}))
    for verb in ("install", "check"):
        assert "E439 network-not-built: http is not part" in device.run(verb, "http://127.0.0.1:1/os.ubk").stderr
    assert device.run("resume").returncode == 2


def test_where_a_transaction_cannot_come_from_is_said_with_a_next_step(device: Command) -> None:
    absent = device.run("packages", "apply", "/absent.ubk")
    assert (absent.returncode, "/absent.ubk cannot be opened: No such file" in absent.stderr) == (1, True)
    assert "what to do: Name a file" in absent.stderr
    gone = device.run("packages", "apply", "http://127.0.0.1:1/t.ubk")
    assert (gone.returncode, "E433 server-unreachable" in gone.stderr) == (1, True)
    assert "what to do: Check the network and the server" in gone.stderr and "disk" not in gone.stderr
    config = json.loads((device.folder / "config.json").read_text())
    (device.folder / "config.json").write_text(json.dumps({**config, "network": None}))
    refused = device.json("packages", "apply", "http://127.0.0.1:1/t.ubk")
    assert (refused["outcome"], refused["reason"]) == ("failed", "E439 network-not-built")


@pytest.mark.requirement("M20")
def test_packages_are_not_called_good_while_a_command_works_on_them(device: Command) -> None:
    opened = device.opened()
    journal = opened.journal()
    journal.persist(journal.record.but(state="TRYING", packages_serial=7, packages_digest=b"p" * 32))
    device.write(opened)
    phase = device.folder / "root" / PHASE
    phase.parent.mkdir(parents=True)
    phase.write_bytes(encode_phase("trying", bytes(32)))
    lock = device.folder / "run" / "update.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = device.run("mark-good")
        assert (busy.returncode, "E121 update-busy" in busy.stderr) == (1, True)
        assert device.json("status")["state"] == "TRYING"
    scripts = device.folder / "root" / SCRIPTS
    scripts.mkdir()
    left = ScriptPlan()
    left.pending = {"sample": ["trigger"]}
    (scripts / "plan").write_bytes(encode(left))
    refused = device.json("mark-good")
    assert (refused["outcome"], refused["reason"]) == ("failed", "E608 packages-scripts-left")
    assert "unbrick packages apply" in refused["advice"]
    assert device.json("status")["state"] == "TRYING"
    (scripts / "finished").write_bytes(Path(BOOT_ID).read_bytes())
    assert device.run("mark-good").returncode == 0
    status = device.json("status")
    assert (status["state"], status["packages-good"]) == ("CONFIRMED", 7)


def test_the_unit_that_resumes_looks_for_what_an_installation_leaves() -> None:
    unit = (ROOT / "recovery/os/system/unbrick-resume.service").read_text()
    program = (ROOT / "recovery/cli_update.py").read_text()
    condition = next(line for line in unit.splitlines() if line.startswith("ConditionPathExists="))
    assert f'SOURCE_FILE = "{condition.partition("=")[2]}"' in program


@pytest.mark.requirement("M4")
def test_a_server_is_asked_for_something_newer_by_its_header_alone(device: Command) -> None:
    newer, same = (StaticFile(device.kind.version(number).content) for number in (2, 1))
    with WebServer(newer) as server, WebServer(same) as old:
        found = device.run("check", server.url, "--json")
        assert (found.returncode, json.loads(found.stdout)["outcome"]) == (0, "accepted")
        assert newer.sent <= HEADER < len(newer.content)
        nothing = device.run("check", old.url)
        assert (nothing.returncode, "nothing newer: version 1 is there" in nothing.stdout) == (2, True)
        assert device.run("install", server.url).returncode == 4
        assert device.run("check", server.url).returncode == 4


RESTORING = """
import argparse, sys
from unittest.mock import Mock
sys.path.insert(0, sys.argv[1])
sys.modules["device_config"] = Mock(CONFIG={})
from recovery import cli, cli_packages, running_root
cli_packages.packages_of = Mock(**{"return_value.restore.return_value": sys.argv[2]})
running_root.running_root, cli_packages.tell_console, cli.restart = Mock(), Mock(), Mock(return_value=99)
sys.exit(cli_packages._restore(argparse.Namespace(json=True, restart=True), Mock()))
"""


@pytest.mark.requirement("D8")
@pytest.mark.parametrize(("outcome", "code"), [("nothing", 2), ("restart", 99), ("staged", 99), ("staged-again", 4)])
def test_packages_that_were_dropped_once_wait_for_a_restart_that_comes_anyway(outcome: str, code: int) -> None:
    words = [sys.executable, "-c", RESTORING, str(ROOT), outcome]
    assert subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == code
