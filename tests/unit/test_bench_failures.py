"""What a benchmark cannot do is said in a line, and the run ends with an error: never a traceback, never in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from initramfs.errors import BuildError
from packagemanager.master.repository import deb_file
from scripts.benchmarks import package_deltas
from scripts.benchmarks.__main__ import main
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.registry import BENCHMARKS
from scripts.benchmarks.rows import OURS, Results
from scripts.benchmarks.workplace import Workplace
from scripts.virtual.commands import SetupError
from tests.unit.transaction_samples import make_deb


@pytest.mark.parametrize(
    "error",
    [SetupError("no root", "become root"), BuildError("no packages", "get them"), BenchmarkError("only one version")],
)
def test_a_run_that_ends_early_says_why(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_place: Workplace) -> Results:
        raise error

    monkeypatch.setitem(BENCHMARKS, "deltas", replace(BENCHMARKS["deltas"], run=run))
    assert main(["deltas"]) == 1
    assert capsys.readouterr().err.startswith(f"bench: {error.args[0]}")


def test_a_peer_that_is_not_there_could_not_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = deb_file(make_deb(tmp_path / "old", "tool", "1", {"usr/bin/tool": b"1"}))
    new = deb_file(make_deb(tmp_path / "new", "tool", "2", {"usr/bin/tool": b"2"}))
    monkeypatch.setattr(package_deltas, "PEERS", {"a peer": lambda *_paths: [tmp_path / "absent"]})
    monkeypatch.setattr(package_deltas, "pairs", lambda _cache: [(new, old)])
    place = Workplace(folder=tmp_path, cache=tmp_path)
    results = package_deltas.run(place)
    assert list(place.failures) == ["a peer"] and "is not installed" in place.failures["a peer"]
    assert results.contenders == [package_deltas.PACKAGES, OURS]
