"""What is remembered of scripts: whoever began is told when it is taken back, and nobody else; no trigger is lost."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import pytest

from packagemanager import script_plan, scripts
from packagemanager.calls import POSTINST, SCRIPTS, Turn
from packagemanager.engine import Engine
from packagemanager.errors import DatabaseError, ScriptError
from packagemanager.process import Ended
from packagemanager.transact import DONE, Manager, Order
from packagemanager.triggers import TEXT_BYTES_MAX, Declared
from tests.simulator.filesystem import FileSystem, after_cut, survivors
from tests.simulator.package_world import NEW, OLD, SCRIPT, Scripts, before_the_update, is_clean, snapshot, system

LISTENER = Turn("listener", "all")
BRINGER = Turn("bringer", "all", new="1", new_scripts=SCRIPTS)
DECLARED = {"listener": Declared((("word", False),))}


class Watched(Scripts):
    """Notes what a cut while a script runs could leave: what is durable, and what is not yet."""

    def __init__(self, tree: FileSystem) -> None:
        super().__init__()
        self.moments: list[tuple[list[str], FileSystem]] = []
        self._tree = tree

    def __call__(self, program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        ended = super().__call__(program, words, environment)
        left = after_cut(self._tree.base, ())
        left.pending = list(self._tree.pending)
        self.moments.append((list(self.calls), left))
        return ended


@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.requirement("M7")
def test_whatever_a_cut_takes_of_the_notes_who_began_is_told() -> None:
    """What a script did may have arrived on the disk before anything that we wrote."""
    tree, world = before_the_update()
    watched = Watched(tree)
    Manager(tree, run=watched).apply(world.install(NEW, remove=["q"]), live=False)
    assert len(watched.moments) == 3
    for called, cut in watched.moments:
        begun = {call.partition(".")[0] for call in called}
        for left in survivors(cut.pending, 30):
            again = Scripts()
            scripts.Scripts(after_cut(cut.base, left), again, boot="the next one").back()
            assert begun <= {call.partition(".")[0] for call in again.calls}, called


def before_the_same_again() -> tuple[FileSystem, Order]:
    """The last transaction comes again, as if the owner had dpkg change p since: the wanted set before and after it is
    one.
    """
    tree, world = before_the_update()
    last = world.install(NEW, remove=["q"])
    assert Manager(tree, run=Scripts()).apply(last, settle=True) == DONE
    tree.sync()
    other = world.install(OLD)
    return tree.restarted(), Order(other.wish, other.bring, last.serial, last.transaction)


def before_a_new_one() -> tuple[FileSystem, Order]:
    tree, world = before_the_update()
    return tree, world.install(NEW, remove=["q"])


BEFORE = pytest.mark.parametrize("before", [before_a_new_one, before_the_same_again], ids=["new", "the same again"])


@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.requirement("M7", "M20")
@BEFORE
def test_who_began_for_one_that_was_cut_or_dropped_is_told(
    before: Callable[[], tuple[FileSystem, Order]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, order = before()
    watched = Watched(tree)
    Manager(tree, run=watched).apply(order, live=False)
    tree.sync()
    dropped = tree.restarted()
    dropped.unlink("usr/p")
    assert Engine(dropped).resume(at_start=True).now is None
    monkeypatch.setattr(scripts, "_boot_id", lambda: "the next one")
    for called, cut in [*watched.moments, (watched.calls, dropped)]:
        begun = {call.partition(".")[0] for call in called}
        for left in survivors(cut.pending, 10):
            told = Scripts()
            again = after_cut(cut.base, left)
            Manager(again, run=told).resume()
            assert begun <= {call.partition(".")[0] for call in told.calls}, called
            assert all(" abort-" in call for call in told.calls)
            assert is_clean(again)


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("call", ["p.preinst upgrade 2 1", "p.postinst configure 2"])
def test_a_transaction_that_comes_again_and_fails_is_taken_back_as_a_first_one(call: str) -> None:
    """The wanted set before it and its own are of one transaction: that tells nothing."""
    tree, again = before_the_same_again()
    old = snapshot(tree)
    failing = Scripts(call)
    with pytest.raises(ScriptError, match=call):
        Manager(tree, run=failing).apply(again)
    assert failing.calls[-2:] == ["p.postrm abort-upgrade 2 1", "p.postinst abort-upgrade 1"]
    assert snapshot(tree) == old
    assert is_clean(tree)


@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@BEFORE
def test_nobody_is_told_of_an_undoing_when_the_new_set_stays(before: Callable[[], tuple[FileSystem, Order]]) -> None:
    """Whatever a cut leaves of the notes while they are forgotten."""
    run, order = before()
    run.watch = []
    Manager(run, run=Scripts()).apply(order, settle=True)
    new = run.open("usr/p").read()
    seen = 0
    for moment in run.watch[-30:]:
        for left in survivors(moment.pending, 20):
            tree = after_cut(moment.base, left)
            if Engine(tree).phase() in (None, DONE):
                told = Scripts()
                Manager(tree, run=told).resume()
                assert tree.open("usr/p").read() == new
                assert told.calls == []
                assert is_clean(tree)
                seen += 1
    assert seen > 100


def told_of_a_failure(*unpacked: Turn) -> list[tuple[str, ...]]:
    """What is said, and to which architecture's, when the first script of these turns fails."""
    tree = system()
    told: list[tuple[str, ...]] = []

    def run(_program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        told.append((environment["DPKG_MAINTSCRIPT_ARCH"], environment["DPKG_MAINTSCRIPT_NAME"], words[0]))
        return Ended(1, b"")

    text = SCRIPT.encode()
    for turn in unpacked:
        for name in turn.old_scripts:
            tree.write(f"{scripts.INFO}/{turn.old_info}.{name}", (text,))
    made = scripts.Scripts(tree, run, "boot")
    plan = script_plan.make(script_plan.Changes((), unpacked, unpacked))
    made.keep(plan, {(turn.info, "new"): dict.fromkeys(turn.new_scripts, text) for turn in unpacked})
    with suppress(ScriptError):
        made.before()
    told.clear()
    made.back()
    return told


@pytest.mark.requirement("M20")
def test_of_a_package_for_two_architectures_the_one_that_began_is_told() -> None:
    both = [
        Turn(
            "lib", architecture, old="1", new="2", info=f"lib:{architecture}", old_scripts=SCRIPTS, new_scripts=SCRIPTS
        )
        for architecture in ("amd64", "i386")
    ]
    assert told_of_a_failure(*both) == [("amd64", "postrm", "abort-upgrade"), ("amd64", "postinst", "abort-upgrade")]


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("infos", [("lib", "lib:amd64"), ("lib:amd64", "lib")])
def test_a_package_whose_two_versions_have_two_names_is_told_by_both(infos: tuple[str, str]) -> None:
    turn = Turn("lib", "amd64", old="1", new="2", old_info=infos[0], info=infos[1],
                old_scripts=SCRIPTS, new_scripts=SCRIPTS)  # fmt: skip
    assert told_of_a_failure(turn) == [("amd64", "postrm", "abort-upgrade"), ("amd64", "postinst", "abort-upgrade")]


class Activating(Scripts):
    """Its postinst activates a trigger, as dpkg-trigger does."""

    def __init__(self, tree: FileSystem) -> None:
        super().__init__()
        self._tree = tree

    def __call__(self, program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        if words[0] == "configure":
            self._tree.unlink(scripts.UNINCORPORATED)
            self._tree.write(scripts.UNINCORPORATED, (b"word -\n",))
        return super().__call__(program, words, environment)


def configured() -> tuple[FileSystem, list[str]]:
    """A system on which the files of BRINGER are new and its scripts are to be run."""
    tree = system()
    for name in ("bringer", "listener"):
        tree.write(f"{scripts.INFO}/{name}.{POSTINST}", (SCRIPT.encode(),))
    other = Turn("other", "all")
    declared = {**DECLARED, "other": Declared((("/usr/other", False),))}
    tree.write(f"{scripts.INFO}/other.{POSTINST}", (SCRIPT.encode(),))
    plan = script_plan.make(
        script_plan.Changes(
            (), (BRINGER,), (BRINGER,), declared_after=declared, listeners={"listener": LISTENER, "other": other},
            paths=("usr/other",),
        )
    )  # fmt: skip
    scripts.Scripts(tree, Scripts(), "boot").keep(plan, {})
    triggered = ["other.postinst triggered /usr/other", "listener.postinst triggered word"]
    return tree, ["bringer.postinst configure ", *triggered]


def test_more_triggers_than_fit_are_an_error_and_not_forgotten() -> None:
    tree, _wanted = configured()
    text = b"word -\n" * (TEXT_BYTES_MAX // 7 + 1)
    tree.write(scripts.UNINCORPORATED, (text,))
    with pytest.raises(DatabaseError, match=scripts.UNINCORPORATED):
        scripts.Scripts(tree, Scripts(), "boot").after()
    assert tree.open(scripts.UNINCORPORATED).read() == text


@pytest.mark.fault("S9")
@pytest.mark.requirement("M20")
def test_a_disk_that_is_full_for_a_moment_loses_no_trigger() -> None:
    tree, wanted = configured()
    run = Activating(tree)
    first = tree.operations
    scripts.Scripts(tree, run, "boot").after()
    assert run.calls == wanted
    for number in range(first, tree.operations):
        broken, _wanted = configured()
        broken.errors[number] = errno.ENOSPC
        run = Activating(broken)
        with suppress(OSError):
            scripts.Scripts(broken, run, "boot").after()
        scripts.Scripts(broken, run, "boot").after()
        assert set(run.calls) == set(wanted), number


MADE = "etc/made-by-a-script"


class Making(Scripts):
    """p's postinst writes a file, as often as it is called."""

    def __init__(self, tree: FileSystem) -> None:
        super().__init__()
        self._tree = tree

    def __call__(self, program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        if environment["DPKG_MAINTSCRIPT_PACKAGE"] == "p" and words[0] == "configure":
            if self._tree.look(MADE) is not None:
                self._tree.unlink(MADE)
            self._tree.write(MADE, [b"made"])
        return super().__call__(program, words, environment)


@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.requirement("M7")
@pytest.mark.parametrize("settle", [True, False], ids=["settled at once", "on trial"])
def test_what_a_script_did_is_there_wherever_its_packages_were_called_good(
    settle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, world = before_the_update()
    order = world.install(NEW)
    tree = start.restarted()
    tree.watch = []
    Manager(tree, run=Making(tree)).apply(order, settle=settle)
    if not settle:
        tree.watch.clear()  # from here on the journal may say that it is good, whatever a cut takes
        Manager(tree, run=Making(tree)).settle()
    monkeypatch.setattr(scripts, "_boot_id", lambda: "the next one")
    ends = set()
    for moment in tree.watch:
        for left in survivors(moment.pending, 2, 4):
            again = after_cut(moment.base, left)
            manager = Manager(again, run=Making(again))
            manager.resume(settle=True) if settle else manager.settle()
            is_new = manager.wanted().serial == order.serial
            ends.add(is_new)
            found = again.open(MADE).read() if again.look(MADE) is not None else b""
            assert not is_new or found == b"made", f"cut after {moment.kind}"
    assert True in ends
