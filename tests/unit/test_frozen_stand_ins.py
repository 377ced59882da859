"""The stand-ins that are frozen have everything that the libraries ask of the real modules."""

from __future__ import annotations

import argparse
import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import transitions.core

from initramfs.frozen_init import STAND_INS

USERS = {"inspect": transitions.core, "six": transitions.core, "gettext": argparse}


def asked(name: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == name:
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
            yield node.attr


@pytest.mark.parametrize("name", STAND_INS)
def test_what_is_asked_is_there(name: str) -> None:
    there: dict[str, object] = {}
    exec(STAND_INS[name], there)
    wanted = set(asked(name, Path(str(USERS[name].__file__)).read_text()))
    assert wanted and wanted <= there.keys()


def test_they_answer_as_the_real_ones() -> None:
    made: dict[str, dict[str, object]] = {name: {} for name in STAND_INS}
    for name, text in STAND_INS.items():
        exec(text, made[name])
    inspect, gettext = importlib.import_module("inspect"), importlib.import_module("gettext")
    for value in (Path().exists, len, Path, print, "text".upper):
        assert made["inspect"]["ismethod"](value) == inspect.ismethod(value)  # type: ignore[operator]
    for count in range(3):
        assert made["gettext"]["ngettext"]("a", "b", count) == gettext.ngettext("a", "b", count)  # type: ignore[operator]
    assert made["gettext"]["gettext"]("usage: ") == "usage: "  # type: ignore[operator]
