"""The scripts that dpkg and we call of a package, from whatever dpkg left of it: the same, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from packagemanager.process import Ended
from tests.programs.dpkg_twin import Twins, Workbench, key_of
from tests.programs.package_constructs import SAME, write

SCRIPT = """#!/bin/sh
echo "$DPKG_MAINTSCRIPT_NAME $DPKG_MAINTSCRIPT_ARCH $*" >> "$CALLS"
"""
FAILING = f"{SCRIPT}exit 1\n"
NAMES = ("preinst", "postinst", "prerm", "postrm")
PATH = "/etc/p.conf"


class Case:
    """Both roots are prepared by dpkg; then one of them changes by dpkg, the other by us."""

    def __init__(self, bench: Workbench, twins: Twins, calls: Path) -> None:
        self._bench = bench
        self._calls = calls
        self._ours: list[str] = []
        self.twins = twins
        twins.both(lambda root: (root / "bin").mkdir())
        twins.both(write("bin/sh", "of nobody"))

    def deb(self, version: str, *failing: str, architecture: str = "all", control: str = "") -> Path:
        controls = {name: FAILING if name in failing else SCRIPT for name in NAMES}
        files = {PATH: f"{version}\n", "/usr/p": version}
        return self._bench.deb("p", version, files, conffiles=[PATH], controls=controls, architecture=architecture,
                               control=control)  # fmt: skip

    def before(self, *words: str | Path, fails: bool = False) -> None:
        for root in (self.twins.theirs, self.twins.ours):
            try:
                self.twins.dpkg_in(root, *map(str, words))
            except AssertionError:
                if not fails:
                    raise

    def install(self, deb: Path) -> None:
        self._change(("-i", str(deb)), {key_of(deb): deb})

    def remove(self) -> None:
        self._change(("-r", "p"), {})

    def _change(self, words: Sequence[str], debs: Mapping[str, Path]) -> None:
        self._calls.unlink(missing_ok=True)
        self.twins.dpkg(*words)
        wanted = {key: deb.name.split("_")[1] for key, deb in debs.items()}
        self.twins.apply(wanted, debs, run=self._run)
        theirs = self._calls.read_text().splitlines() if self._calls.exists() else []
        assert self._ours == theirs
        assert self.twins.differences() == []
        self._ours.clear()

    def _run(self, program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        assert (self.twins.ours / program.lstrip("/")).exists()
        told = (environment["DPKG_MAINTSCRIPT_NAME"], environment["DPKG_MAINTSCRIPT_ARCH"], *words)
        self._ours.append(" ".join(told))
        return Ended(0, b"")


@pytest.fixture
def case(bench: Workbench, twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return Case(bench, twins, tmp_path / "calls")


AMD64, SAME_AMD64, ALL = {"architecture": "amd64"}, {"architecture": "amd64", "control": SAME}, {"architecture": "all"}


@pytest.mark.requirement("M10")
@pytest.mark.parametrize(
    ("one", "other"), [(AMD64, SAME_AMD64), (SAME_AMD64, ALL)], ids=["of one architecture", "for all"]
)
def test_a_package_whose_control_files_get_other_names(one: dict[str, str], other: dict[str, str], case: Case) -> None:
    for version, more in (("1", one), ("2", other), ("3", one)):
        case.install(case.deb(version, **more))
    case.remove()
    case.install(case.deb("4", **other))


def unpacked(case: Case) -> None:
    case.before("--unpack", case.deb("2"))


def unpacked_over_another(case: Case) -> None:
    case.before("-i", case.deb("1"))
    case.before("--unpack", case.deb("2"))


def unpacked_over_its_configuration(case: Case) -> None:
    case.before("-i", case.deb("1"))
    case.before("-r", "p")
    case.before("--unpack", case.deb("2"))


def half_configured(case: Case) -> None:
    case.before("-i", case.deb("2", "postinst"), fails=True)


def half_configured_over_another(case: Case) -> None:
    case.before("-i", case.deb("1"))
    case.before("-i", case.deb("2", "postinst"), fails=True)


def half_installed(case: Case) -> None:
    case.before("-i", case.deb("2", "preinst", "postrm"), fails=True)


def unpacked_over_another_and_removed(case: Case) -> None:
    unpacked_over_another(case)
    case.before("-r", "p")


def unpacked_and_removed(case: Case) -> None:
    unpacked(case)
    case.before("-r", "p")


LEFT = (unpacked, unpacked_over_another, unpacked_over_its_configuration, half_configured, half_configured_over_another,
        half_installed)  # fmt: skip
REMOVED = (unpacked_over_another_and_removed, unpacked_and_removed)


@pytest.mark.requirement("M10")
@pytest.mark.parametrize(
    ("prepare", "version"),
    [*((prepare, "3") for prepare in (*LEFT, *REMOVED)), (unpacked_over_another, "2"), (unpacked_over_another, "1.5")],
)
def test_what_dpkg_left_by_half_is_replaced(prepare: Callable[[Case], None], version: str, case: Case) -> None:
    prepare(case)
    case.install(case.deb(version))
    case.remove()


@pytest.mark.requirement("M10")
@pytest.mark.parametrize("prepare", LEFT[:-1])
def test_what_dpkg_left_by_half_is_removed(prepare: Callable[[Case], None], case: Case) -> None:
    prepare(case)
    case.remove()
