"""Maintainer scripts of constructed packages, in a root of their own: each kind, and all they can do wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from packagemanager import scripts
from packagemanager.calls import SCRIPTS, Turn
from packagemanager.errors import ScriptError
from packagemanager.process import OUTPUT_BYTES_MAX, Ended
from packagemanager.root import Root
from packagemanager.script_plan import Changes, ScriptPlan, make
from packagemanager.scripts import INFO, Scripts, runner
from packagemanager.triggers import Declared, Interests

PROGRAMS = ("/bin/sh", "/bin/sleep", "/bin/cat", "/usr/bin/env", "/usr/bin/dpkg-trigger")
SECONDS_MAX, HANGING_SECONDS_MAX = 60.0, 1.5
# Every script says what it was called with, and does what the file of its name in /behave says.
SCRIPT = """#!/bin/sh
set -e
echo "$DPKG_MAINTSCRIPT_PACKAGE.$DPKG_MAINTSCRIPT_NAME {version}: $*" >>/said
behave=/behave/$DPKG_MAINTSCRIPT_PACKAGE.$DPKG_MAINTSCRIPT_NAME.$1
if [ -e $behave ]; then . $behave; fi
"""
UPGRADE = Turn("up", "amd64", old="1", new="2", old_scripts=SCRIPTS, new_scripts=SCRIPTS)
INSTALL = Turn("fresh", "all", new="1", new_scripts=SCRIPTS)
REMOVE = Turn("gone", "amd64", old="3", old_scripts=SCRIPTS, purge=True)
LISTENER = Turn("listener", "amd64")
DECLARED = {
    "listener": Declared((("word", False), ("/usr/share/watched", True))),
    "up": Declared((), ("word",)),
}
BEFORE = [
    "gone.prerm old: remove",
    "up.prerm old: upgrade 2",
    "up.preinst new: upgrade 1 2",
    "fresh.preinst new: install",
]
AFTER = [
    "gone.postrm old: remove",
    "gone.postrm old: purge",
    "up.postrm old: upgrade 2",
    "up.postinst new: configure 1",
    "fresh.postinst new: configure ",
]
BACK = [
    "fresh.postrm new: abort-install",
    "up.postrm new: abort-upgrade 1 2",
    "up.postinst old: abort-upgrade 2",
    "gone.postinst old: abort-remove",
]
WORD = "listener.postinst old: triggered word"


class Machine:
    """A root with a shell, dpkg's folders and a transaction of three packages that is to be carried out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = Root(str(root))
        for folder in (INFO, "var/lib/dpkg/triggers", "var/lib/unbrick/packages", "behave", "dev"):
            (root / folder).mkdir(parents=True)
        for program in PROGRAMS:
            copy_program(program, root)
        for turn in (UPGRADE, REMOVE, LISTENER):
            self.install(turn, "old")
        for name, text in Interests(DECLARED).texts().items():
            (root / "var/lib/dpkg/triggers" / name).write_bytes(text)

    def install(self, turn: Turn, version: str) -> None:
        for name in SCRIPTS:
            path = self.root / INFO / f"{turn.info}.{name}"
            path.write_text(SCRIPT.format(version=version))
            path.chmod(0o755)

    def remove(self, turn: Turn) -> None:
        for name in SCRIPTS:
            (self.root / INFO / f"{turn.info}.{name}").unlink(missing_ok=True)

    def plan(self) -> ScriptPlan:
        changed = (UPGRADE, INSTALL)
        return make(
            Changes(
                (REMOVE,), changed, changed,
                declared_before=DECLARED, declared_after=DECLARED, listeners={"listener": LISTENER},
            )
        )  # fmt: skip

    def scripts(self, run: scripts.Run | None = None, boot: str | None = None) -> Scripts:
        return Scripts(self.tree, run or runner(str(self.root), SECONDS_MAX), boot)

    def keep(self) -> Scripts:
        kept = {(turn.info, place): files(place) for turn, place in
                ((UPGRADE, "old"), (UPGRADE, "new"), (INSTALL, "new"), (REMOVE, "old"))}  # fmt: skip
        made = self.scripts()
        made.keep(self.plan(), kept)
        return made

    def change_files(self) -> None:
        """What the engine does between before and after."""
        self.install(UPGRADE, "new")
        self.install(INSTALL, "new")
        self.remove(REMOVE)

    def change_back(self) -> None:
        self.install(UPGRADE, "old")
        self.install(REMOVE, "old")
        self.remove(INSTALL)

    def behave(self, name: str, text: str) -> None:
        (self.root / "behave" / name).write_text(text)

    @property
    def said(self) -> list[str]:
        path = self.root / "said"
        return path.read_text().splitlines() if path.exists() else []

    def forget_said(self) -> None:
        (self.root / "said").unlink(missing_ok=True)


def files(version: str) -> dict[str, bytes]:
    return {name: SCRIPT.format(version=version).encode() for name in SCRIPTS}


def copy_program(program: str, root: Path) -> None:
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in [program, *re.findall(r"(/\S+) \(0x", linked)]:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(Path(path).resolve(), target)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.requirement("M10")
def test_scripts_are_called_around_the_change_of_files(machine: Machine) -> None:
    made = machine.keep()
    made.before()
    assert machine.said == BEFORE
    machine.change_files()
    made.after()
    assert machine.said == [*BEFORE, *AFTER, WORD]
    made.forget()
    assert not made.begun()
    assert not list((machine.root / "var/lib/unbrick/packages").iterdir())


@pytest.mark.requirement("M14")
def test_a_script_is_told_what_dpkg_tells(machine: Machine) -> None:
    machine.behave("up.preinst.upgrade", "env >/environment; umask >>/environment; pwd >>/environment")
    machine.keep().before()
    told = set((machine.root / "environment").read_text().splitlines())
    assert told >= {
        "DPKG_MAINTSCRIPT_PACKAGE=up", "DPKG_MAINTSCRIPT_ARCH=amd64", "DPKG_MAINTSCRIPT_NAME=preinst",
        "DPKG_ADMINDIR=/var/lib/dpkg", "DPKG_ROOT=", "DEBIAN_FRONTEND=noninteractive", "0022", "/",
    }  # fmt: skip
    assert any(line.startswith("PATH=") and "/usr/sbin" in line for line in told)
    assert not any(line.startswith("PYTEST") for line in told)


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("place", range(len(BEFORE)))
def test_a_script_that_fails_before_is_named_and_what_was_begun_is_taken_back(machine: Machine, place: int) -> None:
    call = BEFORE[place]
    machine.behave(behaviour(call), "echo a line; echo the reason >&2; exit 7")
    if "prerm" in call:  # the new version knows no better
        machine.behave("up.prerm.failed-upgrade", "echo the reason >&2; exit 7")
    made = machine.keep()
    with pytest.raises(ScriptError, match=r"ended with 7:\n(.*\n)?  the reason$") as caught:
        made.before()
    assert call.split()[0] in str(caught.value)
    assert caught.value.advice
    machine.forget_said()
    assert made.back() == []
    begun = {line.split(".")[0] for line in BEFORE[: place + 1]}
    assert machine.said == [line for line in BACK if line.split(".")[0] in begun]


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("call", [*AFTER, WORD])
def test_a_script_that_fails_after_is_named_and_everything_is_taken_back(machine: Machine, call: str) -> None:
    made = machine.keep()
    made.before()
    machine.change_files()
    machine.behave(behaviour(call), "exit 1")
    machine.behave("up.postrm.failed-upgrade", "exit 1")
    with pytest.raises(ScriptError, match=call.split(maxsplit=1)[0].replace(".", r"\.")):
        made.after()
    machine.change_back()
    machine.forget_said()
    assert made.back() == []
    assert machine.said == BACK


def test_the_new_version_may_know_better_than_the_old_one_that_fails(machine: Machine) -> None:
    machine.behave("up.prerm.upgrade", "exit 1")
    machine.keep().before()
    assert machine.said == [*BEFORE[:2], "up.prerm new: failed-upgrade 1 2", *BEFORE[2:]]


@pytest.mark.requirement("M20")
def test_a_script_that_hangs_is_ended_and_named(machine: Machine) -> None:
    machine.behave("fresh.preinst.install", "echo before it hangs; sleep 1234 & sleep 1234")
    machine.keep()
    with pytest.raises(ScriptError, match=r"fresh\.preinst install did not end in its time:\n  before it hangs"):
        machine.scripts(runner(str(machine.root), HANGING_SECONDS_MAX)).before()


@pytest.mark.requirement("M20")
def test_of_a_huge_output_the_last_lines_are_told(machine: Machine) -> None:
    loop = "i=0; while [ $i -lt 20000 ]; do echo 'a line of some length'; i=$((i+1)); done"
    machine.behave("fresh.preinst.install", f"{loop}; echo the end; exit 1")
    with pytest.raises(ScriptError, match="the end") as caught:
        machine.keep().before()
    assert len(str(caught.value)) < OUTPUT_BYTES_MAX / 4


@pytest.mark.requirement("M20")
def test_a_script_that_cannot_be_started_is_a_script_that_fails(machine: Machine) -> None:
    made = machine.keep()
    made.before()
    machine.change_files()
    (machine.root / INFO / "fresh.postinst").write_text("#!/usr/bin/python9\n")
    with pytest.raises(ScriptError, match=r"fresh\.postinst configure  ended with 127"):
        made.after()


def test_what_cannot_be_taken_back_is_said_and_the_rest_is_taken_back(machine: Machine) -> None:
    made = machine.keep()
    made.before()
    machine.behave("up.postinst.abort-upgrade", "exit 9")
    machine.forget_said()
    assert made.back() == [("", "the script up.postinst abort-upgrade 2 ended with 9")]
    assert machine.said == BACK


@pytest.mark.requirement("M14")
def test_triggers_that_scripts_activate_are_processed_once_for_all(machine: Machine) -> None:
    machine.behave("up.postinst.configure", "dpkg-trigger --no-await /usr/share/watched; dpkg-trigger word")
    machine.behave("fresh.postinst.configure", "dpkg-trigger nobody-listens; dpkg-trigger /usr/share/watched")
    made = machine.keep()
    made.before()
    machine.change_files()
    made.after()
    assert machine.said == [*BEFORE, *AFTER, "listener.postinst old: triggered word /usr/share/watched"]
    assert (machine.root / scripts.UNINCORPORATED).read_bytes() == b""


@pytest.mark.requirement("M20")
def test_triggers_that_activate_themselves_for_ever_are_ended(machine: Machine) -> None:
    made = machine.scripts(run=lambda program, words, environment: activating(machine.root))
    made.keep(machine.plan(), {})
    with pytest.raises(ScriptError, match="there are still triggers: word"):
        made.after()


def activating(root: Path) -> Ended:
    (root / scripts.UNINCORPORATED).write_text("word -\n")
    return Ended(0, b"")


class KilledError(BaseException):
    """Ends this process's work at a moment of our choice."""


def killed_at(machine: Machine, number: int, *, late: bool) -> scripts.Run:
    """Runs scripts until the one with this number: killed before it, or when it is done but nobody noted it."""
    real, count = runner(str(machine.root), SECONDS_MAX), iter(range(1000))

    def run(program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        here = next(count) == number
        if here and not late:
            raise KilledError
        ended = real(program, words, environment)
        if here:
            raise KilledError
        return ended

    return run


@pytest.mark.requirement("M7")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", range(len(AFTER) + 1))
def test_killed_and_run_again_one_call_at_most_is_repeated(machine: Machine, number: int, late: bool) -> None:
    machine.keep().before()
    machine.change_files()
    machine.forget_said()
    with pytest.raises(KilledError):
        machine.scripts(killed_at(machine, number, late=late)).after()
    machine.scripts().after()
    wanted = [*AFTER, WORD]
    again = [wanted[number]] if late else []
    assert machine.said == [*wanted[:number], *again, *wanted[number:]]


@pytest.mark.requirement("M7")
def test_after_a_power_cut_all_of_the_step_is_run_again(machine: Machine) -> None:
    """What the scripts did may have been lost by the cut while their marks were not."""
    machine.keep().before()
    machine.change_files()
    machine.forget_said()
    with pytest.raises(KilledError):
        machine.scripts(killed_at(machine, 3, late=False), boot="first").after()
    machine.scripts(boot="second").after()
    assert machine.said == [*AFTER[:3], *AFTER, WORD]


@pytest.mark.requirement("M7")
@pytest.mark.parametrize(("boot", "told"), [("first", BACK[1:]), ("second", BACK)], ids=["killed", "power cut"])
def test_what_was_left_begun_is_known_and_taken_back(machine: Machine, boot: str, told: list[str]) -> None:
    """A power cut can take the marks of scripts whose effects it left: then all may have begun."""
    machine.keep()
    assert not machine.scripts().begun()
    with pytest.raises(KilledError):
        machine.scripts(killed_at(machine, 1, late=True), boot="first").before()
    machine.forget_said()
    found = machine.scripts(boot=boot)
    assert found.begun()
    assert found.back() == []
    assert machine.said == told


def behaviour(call: str) -> str:
    name, _version, words = call.partition(" ")[0], *call.partition(": ")[::2]
    return f"{name}.{words.split()[0]}"


@pytest.mark.requirement("M14")
def test_a_script_lies_where_dpkg_has_it(machine: Machine) -> None:
    """debconf tells by it which package asks, and where its questions are."""
    for call in ("up.preinst.upgrade", "up.postrm.upgrade", "up.postinst.configure"):
        machine.behave(call, 'echo "$0" >>/places; for file in ${0%/*}/*; do echo "  $file"; done >>/places')
    made = machine.keep()
    made.before()
    machine.change_files()
    made.after()
    places = (machine.root / "places").read_text().splitlines()
    assert [line for line in places if line[0] == "/"] == [
        "/var/lib/dpkg/tmp.ci/preinst",
        "/var/lib/unbrick/packages/scripts/up.postrm",
        "/var/lib/dpkg/info/up.postinst",
    ]
    assert "  /var/lib/dpkg/tmp.ci/control" in places
    assert not (machine.root / scripts.UNPACKED).exists()
