"""The master's answers beside apt's own, on the real lists of this machine: the same packages in the same versions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from packagemanager.master.order import Graph, components, configure_order
from packagemanager.master.repository import APT_LISTS, Repositories, apt_lists
from packagemanager.master.resolve import resolve
from packagemanager.master.wish import Wish

pytestmark = [pytest.mark.requirement("M10"), pytest.mark.long]
SECONDS_MAX = 120
REQUESTS = {
    "a server": (["openssh-server"], False),
    "recommended packages": (["openssh-server"], True),
    "a system": (["systemd", "openssl"], False),
    "Python": (["python3", "curl"], False),
    "alternatives": (["default-mta", "mutt"], False),
    "many": (["network-manager", "nginx"], False),
    "a database": (["mariadb-server"], False),
}


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    return Repositories([apt_lists(APT_LISTS, "amd64", tmp_path_factory.mktemp("cache"))])


def answer_of_apt(names: list[str], recommends: bool, folder: Path) -> dict[str, str]:
    """What apt would install into an empty system."""
    status = folder / "status"
    status.touch()
    settings = [f"Dir::State::status={status}", "Debug::NoLocking=true", f"APT::Install-Recommends={recommends}"]
    options = [word for setting in settings for word in ("-o", setting)]
    done = subprocess.run(
        ["apt-get", "-s", "-qq", *options, "install", *names],
        capture_output=True, text=True, check=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    return {found[1]: found[2] for found in re.finditer(r"^Inst (\S+) \((\S+) ", done.stdout, re.MULTILINE)}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_apt_decides_the_same(lists: Repositories, request_name: str, tmp_path: Path) -> None:
    names, recommends = REQUESTS[request_name]
    wish = Wish(names, {}, {}, upgrade=True, recommends=recommends, essential=False)
    found = resolve(wish, lists)
    assert {package.name: package.version for package in found} == answer_of_apt(names, recommends, tmp_path)
    needs = Graph(found).needs
    cycle = {one: number for number, group in enumerate(components(found, needs)) for one in group}
    place = {package: number for number, package in enumerate(configure_order(found, lambda package: True))}
    for package, needed in needs.items():
        assert all(place[one] < place[package] for one in needed if cycle[one] != cycle[package])
