"""How the comparison with dpkg ends: by a difference without a reason, by what could not be done, by a wrong word."""

import pytest

from initramfs.errors import BuildError
from scripts.comparison.__main__ import main
from scripts.comparison.cases import CASES, Compared, Workshop
from scripts.comparison.explained import UNTOUCHED, sort_out, with_its_time
from scripts.comparison.tree_difference import Difference
from scripts.virtual.commands import SetupError

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def compared(*found: Difference) -> Compared:
    reasons, unexplained = sort_out(found)
    return Compared("update", 1, 2, reasons, unexplained)


@pytest.mark.parametrize(("path", "code"), [("usr/bin/tool", 1), ("etc/machine-id", 0)])
def test_a_difference_without_a_reason_is_a_failure(path: str, code: int, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setitem(CASES, "update", lambda _workshop: compared(Difference(path, "content", "a", "b")))
    assert main(["update"]) == code
    assert f"{code} differences without a reason" in capsys.readouterr().out


@pytest.mark.parametrize("error", [SetupError("no root", "become root"), BuildError("no packages", "apt-get update")])
def test_what_cannot_be_done_is_said(error: Exception, monkeypatch: Patch, capsys: Capture) -> None:
    def fails(_workshop: Workshop) -> Compared:
        raise error

    monkeypatch.setitem(CASES, "itself", fails)
    assert main(["itself"]) == 1
    assert capsys.readouterr().err.startswith(f"comparison: {error.args[0]}\n")


def test_a_case_that_there_is_not() -> None:
    assert main(["update", "nothing"]) == 2


def test_times_have_their_reasons() -> None:
    one = Difference("usr/bin/tool", "time", "2", "1")
    assert with_its_time(one, {"time": "1"}, {one.path}).aspect == UNTOUCHED
    assert sort_out([with_its_time(one, {"time": "3"}, {one.path})])[1] == [one]
    assert sort_out([with_its_time(one, {"time": "3"}, {})])[1] == []
