"""The text of dpkg's `status` (deb822; dpkg's lib/dpkg/parse.c and dump.c say what is in it and in which order).

dpkg reads the whole file and writes it again in its own form: its fields in its order, relations and versions in one
spelling, what it does not know behind them. What is written here is what dpkg itself would write. Values only.
"""

from __future__ import annotations

from packagemanager import version
from packagemanager.control import RELATIONS, WHITE_SPACE, Paragraph, paragraph, parse_relations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# The order in which dpkg writes the fields it knows. The state's field is not taken from a package.
_ORDER = (
    "Package", "Essential", "Protected", "Status", "Priority", "Section", "Installed-Size", "Origin", "Maintainer",
    "Bugs", "Architecture", "Multi-Arch", "Source", "Version", "Config-Version", "Replaces", "Provides", "Depends",
    "Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances", "Conffiles", "Description",
    "Triggers-Pending", "Triggers-Awaited",
)  # fmt: skip
# What dpkg reads but keeps elsewhere, or writes only while something is under way.
_LEFT_OUT = frozenset(
    ("status", "revision", "package_revision", "config-version", "conffiles", "filename", "size", "md5sum",
     "msdos-filename", "triggers-pending", "triggers-awaited")
)  # fmt: skip
_SPACE = WHITE_SPACE + "\r\v\f"
_OLD_OPERATORS = {"<": "<=", ">": ">="}

INSTALLED = "install ok installed"
REMOVED = "deinstall ok config-files"


class Conffile:
    """One line of the field ``Conffiles``: the MD5 of the file as it was shipped, in hex."""

    __slots__ = ("marks", "md5", "path")

    def __init__(self, path: str, md5: str, marks: tuple[str, ...] = ()) -> None:
        self.path = path  # as an entry's: without the slash in front
        self.md5 = md5
        self.marks = marks  # of "obsolete" and "remove-on-upgrade"

    @property
    def obsolete(self) -> bool:
        return "obsolete" in self.marks

    def __str__(self) -> str:
        return " ".join((f"/{self.path}", self.md5, *self.marks))

    def __repr__(self) -> str:
        return f"Conffile({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conffile) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


MARKS = ("obsolete", "remove-on-upgrade")


def conffiles_of(fields: Paragraph) -> tuple[Conffile, ...]:
    """What the field ``Conffiles`` says. Raises ``ValueError`` for a line that is none."""
    return tuple(_conffile(line) for line in fields.lines("Conffiles"))


def _conffile(line: str) -> Conffile:
    words = line.split(" ")
    marks: list[str] = []
    while len(words) > 2 and words[-1] in MARKS:
        marks.insert(0, words.pop())
    path = " ".join(words[:-1])
    if not path.startswith("/") or len(path) < 2:
        raise ValueError(f"no conffile: {line[:80]!r}")
    return Conffile(path[1:], words[-1], tuple(marks))


def stanza(
    fields: Paragraph,
    state: str,
    conffiles: Sequence[Conffile] = (),
    *,
    config_version: str = "",
    before: Paragraph | None = None,
) -> Paragraph:
    """What dpkg writes into `status` for a package whose control file, or whose old paragraph, is ``fields``.

    ``before`` is the paragraph that it replaces: section and priority stay where the new package has none.
    Raises ``ArchiveError`` for a relation or a version that is none.
    """
    values = {
        "status": state,
        "config-version": canonical_version(config_version) if config_version else "",
        "conffiles": "".join(f"\n {conffile}" for conffile in conffiles),
    }
    names = {name.lower(): name for name in _ORDER}
    for name in fields.names():
        if name.lower() not in _LEFT_OUT:
            names.setdefault(name.lower(), name)
            values[name.lower()] = _written(name, fields.get(name).strip(_SPACE))
    for name in ("section", "priority"):
        if before is not None and not values.get(name):
            values[name] = before.get(name)
    lines = [_line(name, values[key]) for key, name in names.items() if _is_written(key, values)]
    return paragraph("".join(lines).encode("utf-8", "surrogateescape"))


def _is_written(key: str, values: dict[str, str]) -> bool:
    """Empty fields are not, but for those that dpkg does not know."""
    return key in values and (bool(values[key]) or key not in _KNOWN)


def _line(name: str, value: str) -> str:
    return f"{name}:{value}\n" if value.startswith("\n") else f"{name}: {value}\n"


def _written(name: str, value: str) -> str:
    change = _SPELLINGS.get(name.lower())
    return change(value) if change and value else value


def _flag(value: str) -> str:
    return "yes" if value.lower() == "yes" else ""


def canonical_version(text: str) -> str:
    """Without an epoch of 0."""
    epoch, upstream, revision = version.split(text)
    before = f"{epoch}:" if epoch or ":" in upstream else ""
    return f"{before}{upstream}-{revision}" if revision else f"{before}{upstream}"


def _relations(text: str) -> str:
    groups = []
    for group in parse_relations(text):
        alternatives = []
        for relation in group:
            name = f"{relation.name}:{relation.architecture}" if relation.architecture else relation.name
            operator = _OLD_OPERATORS.get(relation.operator, relation.operator)
            wanted = f" ({operator} {canonical_version(relation.version)})" if operator else ""
            alternatives.append(name + wanted)
        groups.append(" | ".join(alternatives))
    return ", ".join(groups)


def _multi_arch(value: str) -> str:
    return "" if value.lower() == "no" else value.lower()


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "essential": _flag,
    "protected": _flag,
    "multi-arch": _multi_arch,
    "version": canonical_version,
    **{name.lower(): _relations for name in RELATIONS},
}
_KNOWN = frozenset(name.lower() for name in _ORDER)


def compose(stanzas: Iterable[Paragraph]) -> bytes:
    """The file: paragraphs by name and architecture, an empty line behind each."""
    order = sorted((fields.get("Package"), fields.get("Architecture"), fields.encode()) for fields in stanzas)
    return b"".join(text + b"\n" for _name, _architecture, text in order)
