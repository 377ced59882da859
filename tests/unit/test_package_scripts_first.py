"""Packages are called good after their scripts ran, and scripts wait for apt."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from packagemanager import cli, dpkg_lock
from packagemanager.process import Ended
from packagemanager.root import Root
from packagemanager.scripts import FOLDER as SCRIPTS
from packagemanager.scripts import SCRIPT_SECONDS_MAX, Scripts
from recovery import packages, update
from recovery.package_commit import check_scripts
from recovery.update import UpdateError
from statemachine.reasons import CODES
from tests.unit.running_os import KilledError, World, killed_in_its_scripts, with_script

pytestmark = pytest.mark.requirement("M4", "M7")


@pytest.mark.requirement("M20")
def test_packages_are_not_called_good_before_their_scripts_ran(world: World) -> None:
    calls: list[Sequence[str]] = []

    def run(_program: str, words: Sequence[str], _environment: Mapping[str, str]) -> Ended:
        calls.append(words)
        return Ended(0, b"")

    killed_in_its_scripts(world)
    with pytest.raises(UpdateError) as error:
        world.mark_good()
    assert error.value.reason == CODES["packages-scripts-left"]
    assert (world.record.state, world.record.packages_good) == ("TRYING", 0)
    world.packages(run=run).manager().resume()
    world.mark_good()
    assert (world.record.packages_good, calls) == (7, [("configure", "")])


@pytest.mark.requirement("M20")
def test_scripts_that_ran_before_a_restart_run_again_before_packages_are_called_good(world: World) -> None:
    packages = world.packages(run=lambda *_arguments: Ended(0, b""))
    packages.manager().apply(packages.take(with_script(world)), live=True)
    finished = world.root / SCRIPTS / "finished"
    finished.write_bytes(b"the boot before\n")
    with pytest.raises(UpdateError):
        world.mark_good()
    packages.manager().resume()
    world.mark_good()
    assert world.record.packages_good == 7


def test_what_is_called_good_already_is_not_asked_for_its_scripts(world: World) -> None:
    killed_in_its_scripts(world)
    update.commit(world.device.workshop(), world.device.ledger(), packages_on_trial=True)
    check_scripts(world.device.ledger(), str(world.root))


def test_packages_without_scripts_are_called_good_whoever_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object) -> Ended:
        raise KilledError

    packages = world.packages(run=killed)
    monkeypatch.setattr(Scripts, "after", killed)
    with pytest.raises(KilledError):
        packages.manager().apply(packages.take(world.transaction(world.package("1.0"))), live=True)
    world.mark_good()
    assert world.record.packages_good == 7


@contextmanager
def apt_at_work(world: World, seconds: float) -> Iterator[None]:
    """Another process holds dpkg's lock for so long."""
    ready, said = os.pipe()
    process = os.fork()
    if process == 0:
        descriptor = os.open(world.root / dpkg_lock.NAMES[0], os.O_RDWR | os.O_CREAT, 0o640)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(said, b"x")
        time.sleep(seconds)
        os._exit(0)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(ready)
        os.close(said)


def on_trial_after_a_start(world: World) -> None:
    packages = world.packages(run=lambda *_arguments: Ended(0, b""))
    packages.manager().apply(packages.take(with_script(world)), live=False)
    world.recover()
    assert world.record.state == "TRYING"


def apply_at_a_start(world: World, calls: list[str]) -> int:
    """What `unbrick-packages.service` does; the exit code."""

    def run(program: str, _words: Sequence[str], _environment: Mapping[str, str]) -> Ended:
        calls.append(program)
        return Ended(0, b"")

    ledger = world.packages().manager().ledger
    place = Mock(
        **{"root.side_effect": lambda _: Root(str(world.root)), "ledger.return_value": ledger, "run.return_value": run}
    )
    verb = next(verb for verb in cli.VERBS if verb.name == "apply")
    chosen = Namespace(root="/", json=False, transaction=None, offline=False, live=False)
    return cli.run(verb, chosen, place)


@pytest.mark.requirement("M20")
def test_at_a_start_apt_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpkg_lock, "POLL_SECONDS", 0.02)
    on_trial_after_a_start(world)
    calls: list[str] = []
    with apt_at_work(world, 0.3):
        assert apply_at_a_start(world, calls) == cli.EXIT_DONE
    assert len(calls) == 1
    world.mark_good()
    assert world.record.packages_good == 7


@pytest.mark.requirement("M20")
def test_apt_that_does_not_end_costs_a_good_set_no_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dpkg_lock, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(cli, "WAIT_SECONDS_MAX", 0.1)
    on_trial_after_a_start(world)
    before = world.record
    calls: list[str] = []
    with apt_at_work(world, 60):
        assert apply_at_a_start(world, calls) == cli.EXIT_BUSY
        assert "dpkg or apt works" in capsys.readouterr().err
        with pytest.raises(UpdateError) as error:
            world.mark_good()
        assert error.value.reason == CODES["packages-scripts-left"]
    assert (calls, world.record) == ([], before)
    assert apply_at_a_start(world, calls) == cli.EXIT_DONE
    world.mark_good()
    assert world.record.packages_good == 7


def test_the_unit_gives_apt_and_scripts_their_time_and_restarts_for_neither() -> None:
    text = (Path(packages.__file__).parent / "os/system/unbrick-packages.service").read_text()
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert str(cli.EXIT_BUSY) in said["SuccessExitStatus"].split()
    assert int(said["TimeoutStartSec"].removesuffix("min")) * 60 > dpkg_lock.WAIT_SECONDS_MAX + SCRIPT_SECONDS_MAX
