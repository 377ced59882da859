"""Two roots with the same packages, and what builds packages for them: for tests that need dpkg and root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.dpkg_twin import Twins, Workbench, needs_dpkg


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    (tmp_path / "debs").mkdir()
    return Workbench(tmp_path / "debs")


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    if not needs_dpkg():
        pytest.skip("needs dpkg and root")
    return Twins(tmp_path)
