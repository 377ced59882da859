"""A folder of a person's files, and the command line that works in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from initramfs.cli import main

EXAMPLE = Path(__file__).parents[2] / "docs/examples/device.toml"


class Desk:
    """Every command runs in ``folder``, at one and the same time of the clock."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
        self.run("key new root.key")

    def run(self, line: str, code: int = 0) -> tuple[str, str]:
        """What the command said on standard output and standard error; it has to end with ``code``."""
        self.capsys.readouterr()
        assert main(line.split()) == code, self.capsys.readouterr()
        captured = self.capsys.readouterr()
        return captured.out, captured.err

    def facts(self, line: str, code: int = 0) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.run(f"{line} --json", code)[0])
        return facts
