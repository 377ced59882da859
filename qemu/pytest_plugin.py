"""The pytest plugin of the lab: the fixture ``machine``, its options, and the marks.

    def test_boots(machine, kernel, initrd):
        options = MachineOptions(kernel=kernel, initrd=initrd, append="console=ttyS0")
        guest = machine(options)
        guest.expect("Welcome", timeout_seconds=60)

Every machine of a test is switched off at its end. A failing test's report has the command lines
and the ends of the consoles. Without an emulator the tests that need one are skipped, and fail
where ``CI`` is set in the environment or ``--qemu-required`` is given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qemu.errors import QemuMissing
from qemu.machine import Machine, MachineOptions
from qemu.options import require_program

REPORT_LINES = 200

_MARKS = (
    "requirement(id): the requirement that this test shows",
    "fault(id): the fault that this test plays",
    "boot: boots a virtual machine (seconds each)",
)
_machines_key = pytest.StashKey[list[Machine]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("qemu", "virtual machines")
    group.addoption(
        "--qemu-console-dir",
        type=Path,
        default=None,
        help="keep the serial consoles here (default: the test's own temporary directory)",
    )
    group.addoption(
        "--qemu-required",
        action="store_true",
        default=os.environ.get("CI", "") not in ("", "0", "false"),
        help="fail instead of skip without an emulator (default: if CI is set)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)


class MachineFactory:
    """What the fixture ``machine`` is: call it for a machine that runs."""

    def __init__(self, config: pytest.Config, directory: Path, stem: str) -> None:
        self.machines: list[Machine] = []
        self._required = bool(config.getoption("--qemu-required"))
        self._directory = directory
        self._stem = stem

    def __call__(self, options: MachineOptions, *, hold_key: str = "") -> Machine:
        """Make a machine and switch it on, with the key ``hold_key`` held from power-on.

        Raises: OptionsError, MachineEnded: it cannot be started.
        """
        try:
            require_program(options.program)
        except QemuMissing as missing:
            if self._required:
                raise
            pytest.skip(str(missing))
        made = Machine(options, self._directory, f"{self._stem}-{len(self.machines) + 1}")
        self.machines.append(made)
        made.start(hold_key)
        return made


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MachineFactory]:
    """Make virtual machines: ``machine(options)`` boots one. All are switched off afterwards."""
    directory = request.config.getoption("--qemu-console-dir") or tmp_path
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", request.node.name).strip("-")[:80]
    factory = MachineFactory(request.config, directory, stem)
    request.node.stash[_machines_key] = factory.machines
    yield factory
    with ExitStack() as every_one:  # also where closing one of them fails
        for made in factory.machines:
            every_one.callback(made.close)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Put the consoles into the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for made in item.stash.get(_machines_key, []):
        said = f"{made.command_line()}\n\n{made.console.tail(REPORT_LINES)}"
        report.sections.append((f"serial console {made.console.path}", said))
