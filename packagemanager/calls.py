"""Which maintainer scripts a transaction calls, with which words, in which order. Pure.

The words are Debian policy's (chapter 6, "Package maintainer scripts") as dpkg 1.21 says them, and so is what is said
when a change is taken back. Two things differ, because all files change at one moment here: every script that comes
before the files of its package comes before the files of *all*, and nobody is deconfigured in between.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREINST, POSTINST, PRERM, POSTRM = "preinst", "postinst", "prerm", "postrm"
SCRIPTS = (PREINST, POSTINST, PRERM, POSTRM)

# Where a call's script lies: among dpkg's control files, or kept aside because it is not there yet or no more.
INSTALLED, OLD, NEW = "installed", "old", "new"


class Turn:
    """What becomes of one package: ``old`` and ``new`` are versions, empty where there is none.

    ``info`` is the beginning of the names of its files in dpkg's ``info`` (`libc6:amd64`). What there is of it before
    may have another architecture and another such beginning: ``old_architecture``, ``old_info``. ``configured`` is the
    version that was configured last, empty for none; it need not be ``old``. ``unconfigured``: ``old`` is not even half
    configured, so its prerm has nothing to stop. ``left`` is the version that a package had which was removed and left
    its configuration. ``old_scripts`` and ``new_scripts`` are the names of the scripts it has.
    """

    __slots__ = ("architecture", "configured", "info", "left", "name", "new", "new_scripts", "old", "old_architecture",
                 "old_info", "old_scripts", "purge", "unconfigured")  # fmt: skip

    def __init__(
        self,
        name: str,
        architecture: str,
        *,
        old: str = "",
        new: str = "",
        info: str = "",
        old_architecture: str = "",
        old_info: str = "",
        configured: str | None = None,
        unconfigured: bool = False,
        left: str = "",
        old_scripts: Iterable[str] = (),
        new_scripts: Iterable[str] = (),
        purge: bool = False,
    ) -> None:
        self.name = name
        self.architecture = architecture
        self.old = old
        self.new = new
        self.info = info or name
        self.old_architecture = old_architecture or architecture
        self.old_info = old_info or self.info
        self.configured = old if configured is None else configured
        self.unconfigured = unconfigured
        self.left = left
        self.old_scripts = frozenset(old_scripts)
        self.new_scripts = frozenset(new_scripts)
        self.purge = purge

    def is_stopped(self) -> bool:
        """Whether the prerm that is there is called, and the postinst if it is taken back."""
        return bool(self.old) and not self.unconfigured

    def has(self, place: str, script: str) -> bool:
        """Whether there is such a script among those that lie at ``place``, before or after."""
        return script in (self.new_scripts if place == NEW else self.old_scripts)


class Call:
    """One run of one script. ``otherwise`` is what dpkg tries when it fails: the other version may know better.

    ``of_old``: the script is the old version's.
    """

    __slots__ = ("architecture", "info", "otherwise", "package", "place", "script", "words")

    def __init__(
        self,
        turn: Turn,
        place: str,
        script: str,
        words: Sequence[str],
        otherwise: Call | None = None,
        *,
        of_old: bool = False,
    ) -> None:
        self.package = turn.name
        self.architecture = turn.old_architecture if of_old else turn.architecture
        self.info = turn.old_info if of_old else turn.info
        self.place = place
        self.script = script
        self.words = tuple(words)
        self.otherwise = otherwise

    def __repr__(self) -> str:
        return f"Call({self})"

    def __str__(self) -> str:
        return " ".join((f"{self.package}.{self.script}", *self.words))


def before(removed: Iterable[Turn], unpacked: Iterable[Turn]) -> tuple[Call, ...]:
    """The calls before any file changes. ``removed`` and ``unpacked`` are in their orders."""
    calls = [
        Call(turn, INSTALLED, PRERM, ("remove",), of_old=True)
        for turn in removed
        if turn.is_stopped() and PRERM in turn.old_scripts
    ]
    for turn in unpacked:
        calls += _before_unpacking(turn)
    return tuple(calls)


def _before_unpacking(turn: Turn) -> list[Call]:
    calls = []
    if turn.is_stopped() and PRERM in turn.old_scripts:
        second = _if_there(turn, PRERM, ("failed-upgrade", turn.old, turn.new))
        calls.append(Call(turn, INSTALLED, PRERM, ("upgrade", turn.new), second, of_old=True))
    if PREINST in turn.new_scripts:
        words = ("upgrade", turn.old, turn.new) if turn.old else ("install", *_left_behind(turn))
        calls.append(Call(turn, NEW, PREINST, words))
    return calls


def _left_behind(turn: Turn) -> tuple[str, ...]:
    """What is said of a package whose configuration files remained of an earlier installation."""
    return (turn.left, turn.new) if turn.left else ()


def _if_there(turn: Turn, script: str, words: Sequence[str]) -> Call | None:
    return Call(turn, NEW, script, words) if script in turn.new_scripts else None


def after(removed: Iterable[Turn], unpacked: Iterable[Turn], configured: Iterable[Turn]) -> tuple[Call, ...]:
    """The calls once the files are those of the new set, but for the triggers."""
    calls = [call for turn in removed for call in _after_removing(turn)]
    for turn in unpacked:
        if turn.old and POSTRM in turn.old_scripts:
            second = _if_there(turn, POSTRM, ("failed-upgrade", turn.old, turn.new))
            calls.append(Call(turn, OLD, POSTRM, ("upgrade", turn.new), second, of_old=True))
    for turn in configured:
        if POSTINST in turn.new_scripts:
            calls.append(Call(turn, INSTALLED, POSTINST, ("configure", turn.configured)))
    return tuple(calls)


def _after_removing(turn: Turn) -> list[Call]:
    if POSTRM not in turn.old_scripts:
        return []
    words = ("remove", "purge") if turn.purge else ("remove",)
    return [Call(turn, OLD, POSTRM, (word,), of_old=True) for word in words]


def back(removed: Sequence[Turn], unpacked: Sequence[Turn]) -> tuple[Call, ...]:
    """The calls once the old files are in place again (or still are), of turns that were begun; the last first."""
    calls = [call for turn in reversed(unpacked) for call in _back(turn)]
    calls += [
        Call(turn, INSTALLED, POSTINST, ("abort-remove",), of_old=True)
        for turn in reversed(removed)
        if turn.is_stopped() and POSTINST in turn.old_scripts
    ]
    return tuple(calls)


def _back(turn: Turn) -> list[Call]:
    calls = []
    if POSTRM in turn.new_scripts:
        words = ("abort-upgrade", turn.old, turn.new) if turn.old else ("abort-install", *_left_behind(turn))
        calls.append(Call(turn, NEW, POSTRM, words))
    if turn.is_stopped() and POSTINST in turn.old_scripts:
        calls.append(Call(turn, INSTALLED, POSTINST, ("abort-upgrade", turn.new), of_old=True))
    return calls


def triggered(turn: Turn, names: Iterable[str]) -> Call:
    return Call(turn, INSTALLED, POSTINST, ("triggered", " ".join(names)))
