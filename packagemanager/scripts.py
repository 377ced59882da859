"""Maintainer scripts: they are called around a change of files, at least once, each for a bounded time.

Before the intent is durable prerm and preinst run; once the files are new, postrm, postinst and the triggers. What is
to be called, and the scripts that do not lie among dpkg's files at that moment, are kept in a folder of their own,
beside the transaction's: it outlives a transaction that was dropped by recovery, which runs no scripts, so that what
had begun can be taken back in the OS.

All of that is durable before the first script runs: whatever a cut leaves of what scripts did, the notes that take it
back are there. A call that ended well leaves a mark. Marks are not flushed: what a script did may be lost by a power
cut, too, so they count only as long as the kernel runs that they were made under. A killed process repeats one call at
most; a power cut, all of its step, and everything that its step may have begun is taken back.
"""

from __future__ import annotations

import time

from packagemanager import discarded, places, process, script_plan, taken_away, triggers
from packagemanager.calls import INSTALLED, NEW, OLD, POSTRM, PREINST, PRERM, Call, triggered
from packagemanager.errors import DatabaseError, ScriptError
from packagemanager.whole_file import read_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from packagemanager.process import Ended
    from packagemanager.script_plan import ScriptPlan
    from packagemanager.tree import Tree

    Answer = TypeVar("Answer")
    Run = Callable[[str, Sequence[str], Mapping[str, str]], Ended]

FOLDER = places.SCRIPTS
INFO = "var/lib/dpkg/info"
TRIGGERS = "var/lib/dpkg/triggers"
UNINCORPORATED = f"{TRIGGERS}/{triggers.UNINCORPORATED}"
UNPACKED = "var/lib/dpkg/tmp.ci"
# Of a package that goes or is replaced, and of one that comes; debconf asks for the last two.
KEPT = {OLD: (POSTRM,), NEW: (PREINST, PRERM, POSTRM, "config", "templates")}
PLAN, BEGUN, ACTIVATED = "plan", "begun", "activated"
FINISHED = "finished"  # a mark: after a restart, what scripts did may be lost, and they run again
NEXT = ".next"
SCRIPT_MODE = 0o755
SCRIPT_SECONDS_MAX = 600.0
# After that no further script is told that it is taken back: all of it ends before a start's unit does.
BACK_SECONDS_MAX = 300.0
TRIGGER_CALLS_MAX = 200  # triggers that activate each other for ever
MESSAGE_LINES, MESSAGE_CHARACTERS_MAX = 5, 800
TEXT_BYTES_MAX = 16 << 20
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# The version of dpkg whose rules these are; some scripts ask.
DPKG_VERSION = "1.21.22"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "DPKG_ADMINDIR": "/var/lib/dpkg",
    "DPKG_ROOT": "",
    "DPKG_RUNNING_VERSION": DPKG_VERSION,
    "DPKG_MAINTSCRIPT_DEBUG": "0",
    "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
}


def runner(root: str, seconds_max: float = SCRIPT_SECONDS_MAX) -> Run:
    """What runs scripts below the folder ``root``; of "/", in the running system."""
    return lambda program, words, environment: process.run(root, program, words, environment, seconds_max)


class Scripts:
    """The scripts of the transaction that is under way."""

    def __init__(self, tree: Tree, run: Run, boot: str | None = None) -> None:
        """``boot`` names the kernel's run that marks count in."""
        self._tree = tree
        self._run = run
        self._boot = (boot or _boot_id()).encode()

    def begun(self) -> bool:
        """Whether scripts of a transaction may have run that is neither done nor taken back."""
        return self._tree.look(places.SCRIPTS_BEGUN) is not None

    def has_any(self) -> bool:
        """Whether the list has a script to call, or does not read."""
        try:
            plan = self._plan()
        except DatabaseError:
            return True
        return bool(plan.before or plan.after or plan.pending)

    def keep(self, plan: ScriptPlan, kept: Mapping[tuple[str, str], Mapping[str, bytes]]) -> None:
        """Write down what will be called. ``kept`` are control files by (info name, "old" or "new"); of them those are
        kept that dpkg's own folder has not at the time. Raises: OSError.
        """
        self.forget()
        _make_folder(self._tree, FOLDER)
        for (info, place), files in kept.items():
            names = [name for name in KEPT[place] if name in files]
            if names and place == NEW:
                _make_folder(self._tree, f"{FOLDER}/{info}.{NEW}")
            for name in names:
                path = _kept(info, place, name)
                self._tree.write(path, (files[name],))
                self._tree.set_attributes(path, SCRIPT_MODE, 0, 0, 0)
        self._tree.write(f"{FOLDER}/{PLAN}", (script_plan.encode(plan),))

    def before(self) -> None:
        """prerm and preinst, of all. Raises: ScriptError: take it back (:meth:`back`)."""
        plan = self._plan()
        self._begin()
        if plan.before:
            self._tree.sync()
        self._all(script_plan.BEFORE, plan.before)

    def _begin(self) -> None:
        if self._tree.look(places.SCRIPTS_BEGUN) is None:
            self.mark(BEGUN)
        if self._tree.look(UNINCORPORATED) is None:
            _empty_unincorporated(self._tree)

    def after(self) -> None:
        """postrm and postinst, of all, then triggers until there are none. Raises: ScriptError."""
        plan = self._plan()
        self._begin()
        self._all(script_plan.AFTER, plan.after)
        _Triggers(self, self._tree, plan).process()

    def back(self) -> list[tuple[str, str]]:
        """Tell the packages that it is taken back, once the old files are in place; then bring back what is still gone.

        Returns: what failed, as `engine.Resumed.left` has it.
        """
        try:
            begun = _twice(self.begun)
        except OSError:
            begun = True  # nobody knows; a script that did nothing has nothing to take back
        return [*self._tell_back(), *taken_away.bring_back(self._tree)] if begun else []

    def _tell_back(self) -> list[tuple[str, str]]:
        try:
            plan = self._plan()
        except (DatabaseError, OSError) as error:
            return [("", str(error))]  # nobody knows what ran, and the files are the old set
        left = []
        began = time.monotonic()
        for call in _to_take_back(plan, self._before_done_max(plan)):
            if time.monotonic() - began > BACK_SECONDS_MAX:
                left.append(("", f"the script {call} was not called: those before it took their time"))
                continue
            try:
                self.call(call)
            except (ScriptError, OSError) as error:
                left.append(("", str(error)))
        return left

    def forget(self) -> list[tuple[str, str]]:
        """Remove the folder: nothing is under way any more. First what a cut left where scripts are run from.

        Returns: what cannot be removed, as `engine.Resumed.left` has it.
        """
        self._end_for_good()
        left: list[tuple[str, str]] = []
        for path in (UNPACKED, FOLDER):
            left += discarded.remove(self._tree, path)
        return left

    def _end_for_good(self) -> None:
        """Nobody tells scripts any more: else a cut could leave the mark that they began, and not what is kept."""
        try:
            if self.begun():
                places.remove(self._tree, places.SCRIPTS_BEGUN)
                self._tree.sync()
        except OSError:
            return  # what cannot be removed is seen to by who called

    def call(self, call: Call) -> None:
        """Run a script, if there is one, and what is to be tried when it fails. Raises: ScriptError."""
        ended = self._run_one(call)
        if ended and not ended.good and call.otherwise:
            call = call.otherwise
            ended = self._run_one(call)
        if ended and not ended.good:
            raise ScriptError(message(call, ended), "look at what it said; the transaction was taken back")

    def _run_one(self, call: Call) -> Ended | None:
        """From where dpkg would run it: debconf knows by that whose questions are asked."""
        path = (
            f"{INFO}/{call.info}.{call.script}"
            if call.place == INSTALLED
            else _kept(call.info, call.place, call.script)
        )
        if self._tree.look(path) is None:
            return None
        if call.place == NEW:
            self._as_unpacked(call)
            path = f"{UNPACKED}/{call.script}"
        try:
            return self._run(f"/{path}", call.words, environment(call))
        finally:
            places.remove(self._tree, UNPACKED)

    def _as_unpacked(self, call: Call) -> None:
        """The control files of a package that comes, where dpkg has them while it unpacks it."""
        places.remove(self._tree, UNPACKED)
        _make_folder(self._tree, UNPACKED)
        folder = f"{FOLDER}/{call.info}.{NEW}"
        for name in self._tree.list(folder):
            self._tree.hard_link(f"{folder}/{name}", f"{UNPACKED}/{name}")
        self._tree.write(f"{UNPACKED}/control", (f"Package: {call.package}\n".encode(),))

    def marked(self, name: str) -> bytes | None:
        """What a mark says that was made under this kernel. One that does not read says nothing."""
        try:
            text = _read(self._tree, f"{FOLDER}/{name}")
        except (OSError, DatabaseError):
            return None
        if text is None or not text.startswith(self._boot + b"\n"):
            return None
        return text[len(self._boot) + 1 :]

    def mark(self, name: str, content: bytes = b"") -> None:
        """At every moment there is the mark as it was or as it shall be: the disk may be full, or we are killed."""
        path = f"{FOLDER}/{name}"
        places.remove(self._tree, f"{path}{NEXT}")
        self._tree.write(f"{path}{NEXT}", (self._boot, b"\n", content))
        self._tree.rename(f"{path}{NEXT}", path)

    def _plan(self) -> ScriptPlan:
        text = _read(self._tree, f"{FOLDER}/{PLAN}")
        if text is None:
            raise DatabaseError("the list of the transaction's scripts is not there", "run: unbrick packages repair")
        return script_plan.decode(text)

    def _all(self, kind: str, listed: Sequence[Call]) -> None:
        for number, call in enumerate(listed):
            if self.marked(f"{kind}.{number}") is None:
                self.call(call)
                self.mark(f"{kind}.{number}")

    def _before_done_max(self, plan: ScriptPlan) -> int:
        """How many of the calls before may have ended well: after a power cut all, as it may have taken the marks."""
        if self.marked(BEGUN) is None:
            return len(plan.before)
        numbers = range(len(plan.before))
        done = (self._tree.look(f"{FOLDER}/{script_plan.BEFORE}.{number}") for number in numbers)
        return next((number for number, mark in zip(numbers, done, strict=True) if mark is None), len(plan.before))


def call_good(tree: Tree) -> None:
    """Scripts that began are not taken back from now on. Takes no room: it is the mark that they began that goes, and
    that comes again where they have to run once more.
    """
    places.remove(tree, places.SCRIPTS_BEGUN)


def waiting(tree: Tree, run: Run) -> Scripts | None:
    """The scripts of what is under way, where not all that come after the files ran under this kernel."""
    if tree.look(FOLDER) is None:
        return None
    scripts = Scripts(tree, run)
    return scripts if scripts.marked(FINISHED) is None else None


def _to_take_back(plan: ScriptPlan, done: int) -> list[Call]:
    """What belongs to turns that were begun: of those whose call was the next, nobody knows how far it came."""
    if done >= len(plan.before):
        return plan.back
    begun = plan.before[: done + 1]
    return [call for call in plan.back if any(_of_one_turn(call, one) for one in begun)]


def _of_one_turn(one: Call, other: Call) -> bool:
    """Of a package for two architectures, each has its turn (`lib:amd64`, `lib:i386`). Of one that becomes such a
    package, or is it no more, the two versions have two names: its own (`lib`) and one of those.
    """
    return one.package == other.package and (one.info == other.info or one.package in {one.info, other.info})


class _Triggers:
    """The triggers that wait, from what the plan says and what scripts activated, until there are none."""

    def __init__(self, scripts: Scripts, tree: Tree, plan: ScriptPlan) -> None:
        self._scripts = scripts
        self._tree = tree
        self._plan = plan
        earlier = scripts.marked(ACTIVATED)
        self._waiting = plan.pending if earlier is None else _waiting(earlier)

    def process(self) -> None:
        for _call in range(TRIGGER_CALLS_MAX):
            self._take_activated()
            if not self._waiting:
                return
            key = next(iter(self._waiting))
            self._scripts.call(triggered(self._plan.listeners[key], self._waiting[key]))
            del self._waiting[key]
            self._note()
        self._take_activated()
        names = " ".join(dict.fromkeys(name for names in self._waiting.values() for name in names))
        raise ScriptError(
            f"after {TRIGGER_CALLS_MAX} calls there are still triggers: {names}",
            "look at what these packages activate; the transaction was taken back",
        )

    def _take_activated(self) -> None:
        """Move what ``dpkg-trigger`` noted to what waits: written down there before it goes here."""
        text = _read(self._tree, UNINCORPORATED, triggers.TEXT_BYTES_MAX)
        names = triggers.unincorporated(text or b"")
        if not names:
            return
        listeners = ({key: [name]} for name in names for key in self._plan.interests.get(name, ()))
        self._waiting = triggers.merge(self._waiting, *listeners)
        self._note()
        _empty_unincorporated(self._tree)

    def _note(self) -> None:
        self._scripts.mark(ACTIVATED, script_plan.text_of(script_plan.pending_lines(self._waiting)))


def _empty_unincorporated(tree: Tree) -> None:
    """``dpkg-trigger`` does nothing, and says nothing, where there is no such file."""
    if tree.look(UNINCORPORATED) is not None:
        tree.unlink(UNINCORPORATED)
    if tree.look(TRIGGERS) is not None:
        tree.write(UNINCORPORATED, ())
        tree.set_attributes(UNINCORPORATED, 0o644, 0, 0, int(time.time()))


def _waiting(text: bytes) -> dict[str, list[str]]:
    return {fields[1]: fields[2:] for fields in script_plan.fields_of(text)}


def environment(call: Call) -> dict[str, str]:
    """What dpkg tells a script; see dpkg(1), "ENVIRONMENT". Nothing of the caller's gets through."""
    return {
        **ENVIRONMENT,
        "DPKG_MAINTSCRIPT_PACKAGE": call.package,
        "DPKG_MAINTSCRIPT_ARCH": call.architecture,
        "DPKG_MAINTSCRIPT_NAME": call.script,
    }


def message(call: Call, ended: Ended) -> str:
    """One line for what happened, then the last lines that the script said."""
    how = "did not end in its time" if ended.ended_by_us else f"ended with {ended.code}"
    said = [line for line in ended.output.decode("utf-8", "replace").splitlines() if line.strip()]
    text = "\n".join(f"  {line}" for line in said[-MESSAGE_LINES:])[-MESSAGE_CHARACTERS_MAX:]
    return f"the script {call} {how}" + (f":\n{text}" if text else "")


def _kept(info: str, place: str, name: str) -> str:
    return f"{FOLDER}/{info}.{name}" if place == OLD else f"{FOLDER}/{info}.{NEW}/{name}"


def _read(tree: Tree, path: str, bytes_max: int = TEXT_BYTES_MAX) -> bytes | None:
    """A small file, or None where there is none. Raises: DatabaseError: too long for one. OSError."""
    try:
        return read_again(tree, path, bytes_max)
    except ValueError as error:
        raise DatabaseError(f"/{path} is damaged: {error}", "look what wrote it") from None


def _twice(look: Callable[[], Answer]) -> Answer:
    """A disk that refuses once is asked again."""
    try:
        return look()
    except OSError:
        return look()


def _make_folder(tree: Tree, path: str) -> None:
    tree.make_directory(path)
    tree.set_attributes(path, SCRIPT_MODE, 0, 0, 0)


def _boot_id() -> str:
    with open(BOOT_ID) as file:
        return file.read().strip()
