"""The same real packages by dpkg and by ours into two copies of a real Debian 12 root: the same system afterwards.

What differs, and why, is in scripts/comparison/explained.py and docs/packages.md; nothing else may.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packagemanager.database import Database
from packagemanager.root import Root
from scripts.comparison import cases
from scripts.comparison.cases import Compared, Workshop

CHECKOUT = Path(__file__).parents[2]
PACKAGES_MIN = 150
CHANGED_MIN = 18
NAMED = ("libc6", "openssl", "systemd", "python3.11")

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="roots are made by root")]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("comparison"), CHECKOUT / "build" / "cache")


def same(compared: Compared) -> None:
    assert [str(one) for one in compared.unexplained] == []


@pytest.mark.requirement("M14")
def test_a_real_update_ends_as_with_dpkg(workshop: Workshop) -> None:
    same(cases.update(workshop))
    copies, _ = workshop.updated
    versions = {package.name: package.version for package in Database(Root(str(copies.ours))).present()}
    assert len(versions) >= PACKAGES_MIN
    changed = {path.name.partition("_")[0] for path in workshop.real.new.iterdir()}
    assert len(changed) >= CHANGED_MIN
    assert changed.issuperset(NAMED)


@pytest.mark.requirement("M4")
def test_a_real_downgrade_ends_as_with_dpkg(workshop: Workshop) -> None:
    same(cases.downgrade(workshop))


@pytest.mark.requirement("M9")
def test_a_meta_package_in_the_place_of_another_ends_as_with_dpkg(workshop: Workshop) -> None:
    compared = cases.replace_meta_package(workshop)
    same(compared)
    assert compared.packages > 5


@pytest.mark.requirement("M5")
def test_the_package_manager_replaces_itself_and_dpkg(workshop: Workshop) -> None:
    """The running program is the installed one; its postinst sees the new one in its place."""
    same(cases.replace_itself(workshop))
    ours = workshop.folder / "itself" / "ours"
    assert (ours / "var/lib/unbrick-version").read_bytes() == b"2"
    versions = {package.name: package.version for package in Database(Root(str(ours))).present()}
    assert versions["unbrick"] == "2"
    assert versions["dpkg"].endswith("newer1")
