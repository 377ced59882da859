"""The pytest plugin, run as a stranger's project runs it: in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
# An emulator that prints its guest's console and then obeys the control socket by falling silent.
TEST_FILE = """
import pytest
from qemu.machine import MachineOptions

@pytest.mark.requirement("M1")
@pytest.mark.fault("S1")
def test_boot(machine, tmp_path):
    kernel = tmp_path / "kernel"
    kernel.touch()
    machine(MachineOptions(kernel=kernel, program={program!r}))
"""


def run_pytest(directory: Path, program: str, *arguments: str, **environment: str) -> str:
    (directory / "test_it.py").write_text(TEST_FILE.format(program=program))
    command = [sys.executable, "-m", "pytest", "-p", "unbrick.pytest_plugin", "--strict-markers", "-rs"]
    clean = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments, str(directory)],
        env={**clean, "PYTHONPATH": str(CHECKOUT), **environment},
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_without_an_emulator_a_test_is_skipped_and_says_so(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "no-such-emulator")
    assert "1 skipped" in said
    assert "no-such-emulator is not installed" in said


@pytest.mark.parametrize("how", [{"CI": "true"}, {}])
def test_where_the_emulator_is_required_its_absence_is_a_failure(tmp_path: Path, how: dict[str, str]) -> None:
    said = run_pytest(tmp_path, "no-such-emulator", *(() if how else ("--qemu-required",)), **how)
    assert "1 failed" in said
    assert "QemuMissing: no-such-emulator is not installed" in said


def test_a_failure_shows_the_command_line_the_emulators_words_and_the_console(tmp_path: Path) -> None:
    emulator = tmp_path / "emulator"
    emulator.write_text("#!/bin/sh\necho the last words of the guest\necho no such machine >&2\nexit 3\n")
    emulator.chmod(0o755)
    kept = tmp_path / "kept"
    said = run_pytest(tmp_path, str(emulator), "--qemu-console-dir", str(kept))
    assert "1 failed" in said
    assert "the emulator ended with code 3: no such machine" in said
    assert f"{emulator} -nodefaults" in said
    assert "the last words of the guest" in said
    assert (kept / "test_boot-1.console").read_text() == "the last words of the guest\n"


def test_the_options_are_documented(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "true", "--help")
    assert "--qemu-console-dir" in said
    assert "--qemu-required" in said
