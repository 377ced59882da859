"""Small enough to be read in one sitting: no function over a screen, no module of more than one idea."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("statemachine", "payload", "packagemanager", "recovery", "initramfs", "qemu", "scripts", "unbrick")
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.requirement("M19")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_fit(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= MODULE_LINES_MAX
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, node.name
