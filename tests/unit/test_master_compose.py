"""What is decided for devices: what stays although the lists are old, and what devices would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packagemanager.master.compose import Composed, compose
from packagemanager.master.errors import RepositoryError, RequestError
from packagemanager.master.request import Request
from packagemanager.master.transaction_file import Label, create_transaction
from tests.unit.master_samples import packages_list
from tests.unit.payload_samples import COMPATIBLE, KEY

pytestmark = pytest.mark.requirement("M1")

LISTS = """
    app 1 D: lib
    lib 1
    lib 2 D: helper
    helper 1
    mail 2 V: mta
    other 1 V: mta
    mailer 1 D: mta
"""


class Desk:
    """Lists, and what devices have: as they say it themselves, or as dpkg's database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place("Packages", LISTS)
        self.states: list[str] = []

    def place(self, name: str, text: str) -> str:
        (self.folder / name).write_bytes(packages_list(text))
        return str(self.folder / name)

    def state(self, **installed: str) -> None:
        path = self.folder / f"state-{len(self.states)}.json"
        path.write_text(json.dumps({"installed": {f"{name}:amd64": version for name, version in installed.items()}}))
        self.states.append(str(path))

    def database(self, text: str) -> None:
        fields = "; Status: install ok installed"
        lines = [
            f"{line.strip()}{fields if ': ' in line else fields[1:]}" for line in filter(str.strip, text.splitlines())
        ]
        self.states.append(self.place(f"status-{len(self.states)}", "\n".join(lines)))

    def compose(self, *want: str, old: str = "", **more: Any) -> Composed:
        request = Request(
            COMPATIBLE, 4, want=want, repositories=(str(self.folder / "Packages"),), old=(old,) if old else (),
            states=tuple(self.states), **more,
        )  # fmt: skip
        return compose(request, self.folder / "cache")

    def write(self, composed: Composed) -> None:
        create_transaction(composed.order, Label(COMPATIBLE, 4, "4", 1, 2), [KEY], [], self.folder / "x.ubk")

    def wanted(self, *want: str, **more: Any) -> list[str]:
        return sorted(str(package) for package in self.compose(*want, **more).order.configure)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.requirement("M4")
@pytest.mark.parametrize("upgrade", [False, True])
def test_what_is_newer_than_the_lists_stays_where_somebody_knows_it(desk: Desk, upgrade: bool) -> None:
    desk.state(app="1", lib="3")
    newer = desk.place("newer", "lib 3 D: more\nmore 1")
    with pytest.raises(RequestError, match="nobody says what 3 needs"):
        desk.wanted("app", upgrade=upgrade)
    desk.place("Packages", f"{LISTS}\nmore 1")
    assert desk.wanted("app", old=newer, upgrade=upgrade) == ["app 1", "lib 3", "more 1"]


def test_what_nobody_knows_is_refused_with_what_to_do(desk: Desk) -> None:
    desk.state(app="1", lib="3")
    with pytest.raises(RequestError, match=r"devices have lib:amd64 3, the newest that is to be had is 2") as raised:
        desk.compose("app")
    for words in ("apt-get update", "--old", "--pin lib=2", "--downgrade"):
        assert words in raised.value.advice
    assert desk.wanted("mail") == ["mail 2"], "what is not wanted needs nothing"


def test_what_is_older_than_the_lists_and_to_be_had_nowhere_is_replaced(desk: Desk) -> None:
    desk.state(app="1", lib="1.5")
    assert desk.wanted("app") == ["app 1", "helper 1", "lib 2"]


def test_a_package_for_all_architectures_stays_for_this_one(desk: Desk) -> None:
    desk.place("Packages", "tool 2 Architecture: all\napp 1 D: tool:amd64")
    path = desk.folder / "state.json"
    path.write_text(json.dumps({"installed": {"tool:all": "3"}}))
    desk.states.append(str(path))
    with pytest.raises(RequestError, match="devices have tool:all 3"):
        desk.compose("app")


def test_a_name_that_it_provides_leads_to_it(desk: Desk) -> None:
    desk.state(mailer="1", mail="3")
    with pytest.raises(RequestError, match="devices have mail:amd64 3"):
        desk.compose("mailer")


@pytest.mark.requirement("M4")
def test_dpkgs_database_says_what_a_newer_package_needs(desk: Desk) -> None:
    desk.database("app 1 D: lib\nlib 3 D: helper, thing\nthing 7\nhelper 1")
    composed = desk.compose("app", upgrade=True)
    assert sorted(map(str, composed.order.configure)) == ["app 1", "helper 1", "lib 3", "thing 7"]
    assert composed.changes == ()
    desk.state(app="1", helper="1", thing="7")
    with pytest.raises(RepositoryError, match="only devices have") as raised:
        desk.write(desk.compose("app"))
    assert "--old" in raised.value.advice


@pytest.mark.requirement("M4")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"pin": {"lib": "1"}}, ["app 1", "lib 1"]),
        ({"downgrade": True}, ["app 1", "helper 1", "lib 2"]),
        ({"downgrade": True, "upgrade": True}, ["app 1", "helper 1", "lib 2"]),
    ],
)
def test_going_back_is_asked_for(desk: Desk, asked: dict[str, Any], found: list[str]) -> None:
    desk.state(app="1", lib="3")
    assert desk.wanted("app", **asked) == found


def test_what_devices_have_stays_although_older_versions_may_come(desk: Desk) -> None:
    desk.state(app="1", lib="3")
    newer = desk.place("newer", "lib 3")
    assert desk.wanted("app", downgrade=True, old=newer) == ["app 1", "lib 3"]
    assert desk.wanted("app", downgrade=True, upgrade=True, old=newer) == ["app 1", "helper 1", "lib 2"]


def test_a_package_for_another_architecture_holds_nothing_back(desk: Desk) -> None:
    path = desk.folder / "state.json"
    path.write_text(json.dumps({"installed": {"lib:amd64": "1", "lib:i386": "9"}}))
    desk.states.append(str(path))
    assert desk.wanted("lib", upgrade=True) == ["helper 1", "lib 2"]


@pytest.mark.parametrize("mark", ["Essential", "Protected"])
@pytest.mark.parametrize("version", ["1", "0"])
def test_what_devices_cannot_do_without_is_not_removed(desk: Desk, mark: str, version: str) -> None:
    """Version 0 is to be had nowhere: the one that is known speaks for it."""
    desk.state(app="1")
    desk.state(base=version)
    old = desk.place("old", f"base 1 {mark}: yes")
    with pytest.raises(RequestError, match=f"base:amd64 is {mark.lower()} and would be removed") as raised:
        desk.compose("app", old=old)
    assert str(raised.value).startswith(desk.states[1]) and "--expendable" in raised.value.advice
    assert desk.compose("app", old=old, expendable=("base",)).order.removals == ["base:amd64"]


def test_of_dpkgs_database_the_marks_count(desk: Desk) -> None:
    desk.database("base 1 Protected: yes\napp 1")
    with Path(desk.states[0]).open("ab") as status:
        status.write(b"\nPackage: base\nStatus: purge ok not-installed\nArchitecture: i386\n")
    with pytest.raises(RequestError, match="base:amd64 is protected"):
        desk.compose("app")


def test_what_nobody_knows_goes(desk: Desk) -> None:
    desk.state(mystery="1")
    assert desk.compose("app").order.removals == ["mystery:amd64"]
