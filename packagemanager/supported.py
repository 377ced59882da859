"""What maintainer scripts may want: the list of docs/packages.md. Everything else is refused by name, before anything
changed. Pure.

A script is a program, and nobody can tell what it does without running it. What can be told is whether there is
something to run it, which of dpkg's facilities its package uses, and whether a line of it calls what cannot work while
a transaction is under way. That is looked for in commands, not in comments and messages; a script that hides such a
call fails when it is run, and the transaction is taken back.
"""

from __future__ import annotations

from packagemanager.calls import NEW, OLD, PREINST, PRERM, SCRIPTS
from packagemanager.errors import UnsupportedError, some_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from packagemanager.calls import Turn

    Controls = Mapping[tuple[str, str], Mapping[str, bytes]]

# Besides scripts: what dpkg keeps and never runs, and debconf's two.
CONTROL_FILES = frozenset(
    {*SCRIPTS, "control", "conffiles", "md5sums", "sha256sums", "shlibs", "symbols", "triggers", "templates", "config"}
)
SCRIPT_BYTES_MAX = 1 << 20
INTERPRETER_LINE_BYTES_MAX = 256  # the kernel's BINPRM_BUF_SIZE
REASONS_MAX = 20
# Programs that would start a second transaction inside of ours, and the words of dpkg that do.
PACKAGE_PROGRAMS = frozenset((b"apt", b"apt-get", b"aptitude", b"dselect", b"unbrick"))
DPKG_WORDS = frozenset(
    (b"-i", b"--install", b"--unpack", b"--configure", b"-r", b"--remove", b"-P", b"--purge", b"--triggers-only",
     b"-A", b"--record-avail", b"--set-selections", b"--clear-selections", b"--add-architecture")
)  # fmt: skip
BEFORE_A_COMMAND = frozenset(
    (b"if", b"then", b"else", b"elif", b"while", b"until", b"do", b"exec", b"command", b"!", b"{")
)
SEPARATORS = (b"&&", b"||", b";", b"|", b"&", b"(", b")", b"`")


class Facts:
    """What the rules need to know of the system. ``runs_before`` and ``runs_after`` say whether there is such a program
    before and after the change of files (absolute path); ``diversions`` are (path, package); ``unmet`` says which
    Pre-Depends of a new package the system does not fulfil *now*, as text.
    """

    __slots__ = ("diversions", "runs_after", "runs_before", "unmet")

    def __init__(
        self,
        runs_before: Callable[[str], bool],
        runs_after: Callable[[str], bool],
        diversions: Iterable[tuple[str, str]] = (),
        unmet: Callable[[Turn], str] = lambda turn: "",
    ) -> None:
        self.runs_before = runs_before
        self.runs_after = runs_after
        self.diversions = tuple(diversions)
        self.unmet = unmet


def refuse(turns: Sequence[Turn], controls: Controls, facts: Facts) -> None:
    """Refuse what is not supported, all of it at once. ``controls`` are control files by (info name, "old" or "new").

    Raises: UnsupportedError.
    """
    reasons = [*_of_names(turns), *_of_removals(turns, facts)]
    for turn in turns:
        for place, info in ((OLD, turn.old_info), (NEW, turn.info)):
            reasons += _of_files(turn, place, controls.get((info, place), {}), facts)
        if PREINST in turn.new_scripts and (relation := facts.unmet(turn)):
            reasons.append(f"{turn.name}: its preinst wants {relation} before the transaction")
    if reasons:
        told = "\n".join(some_of(reasons, REASONS_MAX))
        raise UnsupportedError(told, "leave these packages out, or split the transaction on the master")


def _of_names(turns: Sequence[Turn]) -> list[str]:
    """Scripts of packages that are there for several architectures are told how many: we do not count."""
    seen: dict[str, str] = {}
    for turn in turns:
        if seen.setdefault(turn.name, turn.architecture) != turn.architecture and turn.old_scripts | turn.new_scripts:
            return [f"{turn.name}: installed for {seen[turn.name]} and {turn.architecture}, and it has scripts"]
    return []


def _of_removals(turns: Sequence[Turn], facts: Facts) -> list[str]:
    """Its postrm would rename what it had diverted, and that could not be undone."""
    removed = {turn.name for turn in turns if not turn.new}
    return [
        f"{package}: it is to be removed and diverts {path}" for path, package in facts.diversions if package in removed
    ]


def _of_files(turn: Turn, place: str, files: Mapping[str, bytes], facts: Facts) -> list[str]:
    reasons = []
    if place == NEW:
        reasons += [
            f"{turn.name}: its control file {name!r:.80} is not known" for name in files if name not in CONTROL_FILES
        ]
    for script in SCRIPTS:
        if script in files:
            early = script == PRERM if place == OLD else script == PREINST
            runs = facts.runs_before if early else facts.runs_after
            reasons += [f"{turn.name}.{script} ({place}): {reason}" for reason in _of_script(files[script], runs)]
    return reasons


def _of_script(text: bytes, runs: Callable[[str], bool]) -> list[str]:
    if len(text) > SCRIPT_BYTES_MAX:
        return [f"it has {len(text)} bytes, allowed are {SCRIPT_BYTES_MAX}"]
    program = interpreter(text)
    if not program:
        return ["it is no script"]
    if not runs(program):
        return [f"there is no {program} to run it"]
    return [f"it calls {command}" for command in refused_commands(text)]


def interpreter(text: bytes) -> str:
    """The program that the script's first line names; empty if it names none."""
    line = text[:INTERPRETER_LINE_BYTES_MAX].partition(b"\n")[0]
    words = line[2:].split() if line.startswith(b"#!") else []
    return words[0].decode("utf-8", "replace") if words and words[0].startswith(b"/") else ""


def refused_commands(text: bytes) -> list[str]:
    """The commands of a shell script that start another package manager, or this one again."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        for words in _commands(line):
            if _is_refused(words):
                found[b" ".join(words[:3]).decode("utf-8", "replace")] = None
    return list(found)


def _commands(line: bytes) -> Iterable[list[bytes]]:
    """The commands of one line, each as its words: as far as can be told without being a shell."""
    if line.lstrip().startswith(b"#"):
        return
    text = line.replace(b"``", b"")  # of messages: two are a quotation mark
    for separator in SEPARATORS:
        text = text.replace(separator, b"\n")
    for command in text.split(b"\n"):
        words = command.split()
        while words and (words[0] in BEFORE_A_COMMAND or b"=" in words[0]):
            words = words[1:]
        if words:
            yield words


def _is_refused(words: Sequence[bytes]) -> bool:
    program = words[0].rpartition(b"/")[2]
    return program in PACKAGE_PROGRAMS or (program == b"dpkg" and not DPKG_WORDS.isdisjoint(words[1:]))
