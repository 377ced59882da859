"""The ordinary boot imports what it needs and nothing else: every module more is boot time.

The modules of the device are imported in an interpreter of their own, with stand-ins for what only the image
has. What is imported inside functions is read from their source.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, types
sys.modules["_unbrick"] = types.ModuleType("_unbrick")
sys.modules["device_config"] = types.ModuleType("device_config")
sys.modules["device_config"].CONFIG = {}
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import recovery.main
print(*sorted(set(sys.modules) - before))
"""
OF_THE_PROJECT = {
    "payload",
    "payload.device_region",
    "recovery",
    "recovery.console",
    "recovery.device_journal",
    "recovery.disks",
    "recovery.evidence",
    "recovery.hand_over",
    "recovery.main",
    "recovery.package_phase",
    "recovery.supervisor",
    "statemachine",
    "statemachine.decide",
    "statemachine.journal",
    "statemachine.limits",
    "statemachine.merge",
    "statemachine.reasons",
    "statemachine.record",
    "statemachine.ring",
    "statemachine.step",
    "statemachine.store",
    "statemachine.table",
}
# All are parts of the interpreter but `__future__`, a module of constants that the import statement runs.
OF_PYTHON = {"__future__", "_blake2", "_struct", "errno", "fcntl", "select", "time"}
LATE = {
    "fcntl",
    "_unbrick",
    "recovery.conductor",  # recovery's work begins
    "recovery.filesystem",  # the data partition does not mount
    "payload.device_region",
}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return set(done.stdout.decode().split())


def test_the_ordinary_boot_imports_exactly_these_modules_of_the_project(imported: set[str]) -> None:
    assert {name for name in imported if (ROOT / name.partition(".")[0]).is_dir()} == OF_THE_PROJECT


def test_the_ordinary_boot_imports_few_modules_of_python(imported: set[str]) -> None:
    assert imported - OF_THE_PROJECT <= OF_PYTHON


@pytest.mark.parametrize("name", sorted(OF_THE_PROJECT - {"payload", "recovery", "statemachine"}))
def test_what_is_imported_inside_functions_is_for_what_is_not_ordinary(name: str) -> None:
    tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())
    late = {module for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for module in _imports(node)}
    assert late <= LATE


def _imports(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_a_command_of_every_start_does_not_import_the_package_manager() -> None:
    program = PROGRAM.replace("import recovery.main", "import recovery.cli; recovery.cli.command_parser(False)")
    program = program.replace('sys.modules["_unbrick"] =', "_not_needed =")
    command = [sys.executable, "-I", "-c", program, str(ROOT)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = {name for name in done.stdout.decode().split() if name.startswith("packagemanager")}
    assert found <= {"packagemanager", "packagemanager.errors"}
