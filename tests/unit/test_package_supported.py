"""What scripts may want is a list; what is not on it is refused by name."""

from collections.abc import Mapping

import pytest

from packagemanager import supported
from packagemanager.calls import Turn
from packagemanager.errors import UnsupportedError
from packagemanager.supported import Facts

SHELL = b"#!/bin/sh\nset -e\n"
INFO = Facts(lambda path: path == "/bin/sh", lambda path: path in ("/bin/sh", "/usr/bin/python3"))


def refused(
    files: Mapping[str, bytes], *, old: Mapping[str, bytes] | None = None, facts: Facts = INFO, new: str = "2"
) -> list[str]:
    before = old or {}
    turn = Turn("thing", "amd64", old="1" if old else "", new=new, old_scripts=before, new_scripts=files)
    try:
        supported.refuse((turn,), {("thing", "old"): before, ("thing", "new"): files}, facts)
    except UnsupportedError as error:
        assert error.advice
        return str(error).splitlines()
    return []


@pytest.mark.requirement("M14")
def test_ordinary_scripts_and_control_files_are_taken() -> None:
    names = ("conffiles", "md5sums", "shlibs", "symbols", "triggers", "templates", "config", "preinst", "postrm")
    assert refused(dict.fromkeys(names, SHELL), old={"prerm": b"#! /bin/sh -e\n"}) == []


@pytest.mark.requirement("M14")
def test_a_control_file_that_nobody_knows_is_refused() -> None:
    assert refused({"preflight": b""}) == ["thing: its control file 'preflight' is not known"]


@pytest.mark.requirement("M14")
@pytest.mark.parametrize(
    ("script", "text", "reason"),
    [
        ("postinst", b"\x7fELF", "it is no script"),
        ("postinst", b"#!sh\n", "it is no script"),
        ("postinst", b"#!/usr/bin/lua\n", "there is no /usr/bin/lua to run it"),
        ("preinst", b"#!/usr/bin/python3\n", "there is no /usr/bin/python3 to run it"),
        ("postinst", SHELL + bytes(supported.SCRIPT_BYTES_MAX), "bytes, allowed are"),
        ("postinst", SHELL + b"DEBIAN_FRONTEND=x apt-get -y install y\n", "it calls apt-get -y install"),
        ("postinst", SHELL + b"if true; then /usr/bin/dpkg --force-all -i x.deb; fi", "it calls /usr/bin/dpkg"),
        ("postinst", SHELL + b"x=$(dpkg --purge y)", "it calls dpkg --purge y"),
    ],
)
def test_a_script_that_cannot_work_is_refused_with_its_reason(script: str, text: bytes, reason: str) -> None:
    (line,) = refused({script: text})
    assert line.startswith(f"thing.{script} (new): ")
    assert reason in line


@pytest.mark.parametrize(
    "line",
    [
        b"# dpkg --configure -a",
        b"dpkg --compare-versions 1 lt 2 && dpkg -L thing && dpkg -s thing",
        b"dpkg-divert --package thing --remove --rename /bin/x",
        b'echo "reconfigure with dpkg --configure thing"',
        b"reconfigure with ``dpkg --configure passwd''.",
        b"python3 -c pass # the interpreter of a postinst may come with the transaction",
    ],
)
def test_words_in_messages_and_what_asks_only_are_taken(line: bytes) -> None:
    assert refused({"postinst": SHELL + line}) == []


@pytest.mark.requirement("M14")
def test_a_script_is_run_by_what_is_there_at_its_time() -> None:
    python = b"#!/usr/bin/python3\n"
    assert refused({"postinst": python, "postrm": python, "prerm": python}) == []
    assert refused({}, old={"prerm": python}) == ["thing.prerm (old): there is no /usr/bin/python3 to run it"]


@pytest.mark.requirement("M14")
def test_removing_what_diverts_is_refused_and_upgrading_it_is_not() -> None:
    facts = Facts(INFO.runs_before, INFO.runs_after, diversions=(("/bin/x", "thing"), ("/bin/y", "other")))
    assert refused({}, old={"prerm": SHELL}, facts=facts, new="") == ["thing: it is to be removed and diverts /bin/x"]
    assert refused({}, old={"prerm": SHELL}, facts=facts) == []


@pytest.mark.requirement("M14")
def test_a_preinst_that_wants_another_package_first_is_refused() -> None:
    facts = Facts(INFO.runs_before, INFO.runs_after, unmet=lambda turn: "libc6 (>= 9)")
    assert refused({"preinst": SHELL}, facts=facts) == ["thing: its preinst wants libc6 (>= 9) before the transaction"]
    assert refused({"postinst": SHELL}, facts=facts) == []


@pytest.mark.requirement("M14")
def test_scripts_for_two_architectures_are_refused() -> None:
    turns = [Turn("thing", name, new="1", new_scripts=("postinst",)) for name in ("amd64", "arm64")]
    with pytest.raises(UnsupportedError, match="amd64 and arm64"):
        supported.refuse(turns, {}, INFO)


def test_all_reasons_are_told_and_their_number_is_bounded() -> None:
    reasons = refused({f"unknown-{number}": b"" for number in range(100)})
    assert len(reasons) == supported.REASONS_MAX + 1
    assert reasons[-1] == "and 80 more"
