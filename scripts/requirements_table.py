"""Rows of docs/requirements.toml × the tests that carry their ids. Started by ./scripts/requirements.

A test names a row with ``@pytest.mark.requirement("M7")``. A row with ``claimed = true`` and no test is an
error, and so is a mark whose row does not exist. Reads the tests' source; runs none of them.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path("tests")
ROWS = Path("docs/requirements.toml")


def marked_tests(tests: Path) -> Iterator[tuple[str, str]]:
    """Each (row id, ``file::test``) of the tree."""
    for path in sorted(tests.rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        everywhere = [row for node in tree.body if isinstance(node, ast.Assign) for row in _rows(node.value)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in everywhere + [row for mark in node.decorator_list for row in _rows(mark)]:
                    yield row, f"{path}::{node.name}"


def _rows(expression: ast.expr) -> list[str]:
    """The ids in ``pytest.mark.requirement(...)`` calls anywhere in an expression."""
    return [
        str(argument.value)
        for call in ast.walk(expression)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.requirement"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./scripts/requirements", description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="print problems only")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    chosen = parser.parse_args(arguments)
    rows = tomllib.loads(ROWS.read_text())["row"]
    tests: dict[str, list[str]] = {row["id"]: [] for row in rows}
    problems = []
    for row, test in marked_tests(TESTS):
        if row not in tests:
            problems.append(f"{test} names {row}, which is no row of {ROWS}")
        tests.setdefault(row, []).append(test)
    problems += [
        f"{row['id']} is claimed and no test shows it" for row in rows if row["claimed"] and not tests[row["id"]]
    ]
    if chosen.json:
        print(json.dumps([row | {"tests": tests[row["id"]]} for row in rows], indent=1))
    elif not chosen.quiet:
        for row in rows:
            print(f"{row['id']:<4} {'claimed' if row['claimed'] else '-':<8} {len(tests[row['id']]):3d}  {row['text']}")
    for problem in problems:
        print(f"requirements: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
