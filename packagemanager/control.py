"""Control data (deb822(5), deb-control(5)): paragraphs of fields, and what they say of other packages.

A paragraph keeps the bytes of each field, known or not, and their order: what is not changed is written as it was
read. Comments are not allowed: neither a package nor dpkg's database has them.
"""

from __future__ import annotations

from packagemanager import version
from packagemanager.errors import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PARAGRAPH_BYTES_MAX = 8 << 20  # dpkg keeps the conffiles of a package in one field
FIELDS_MAX = 256
FIELD_NAME_CHARACTERS_MAX = 128
NAME_CHARACTERS_MAX = 128
RELATIONS_MAX = 4096  # in one field, alternatives counted
RELATION_CHARACTERS_MAX = 512
LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
IN_NAME = LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-+._")
WHITE_SPACE = " \t\n"
IN_ARCHITECTURE = LOWER | frozenset("-")
MULTI_ARCH = ("", "no", "same", "allowed", "foreign")
WITHOUT_ALTERNATIVES = ("Conflicts", "Breaks", "Provides", "Replaces")
RELATIONS = (
    "Replaces", "Provides", "Depends", "Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances",
)  # fmt: skip
ADVICE = "the package is damaged, or made by a program that does not follow Debian's policy: build it again"


class Paragraph:
    """Fields in order. Names are found in any case; ``raw`` is what stands after the colon, line ends included."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, tuple[str, str]]) -> None:
        self._fields = fields  # lower case -> as it was written, raw

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paragraph) and list(self._fields.values()) == list(other._fields.values())

    def __hash__(self) -> int:
        return hash(self.encode())

    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._fields.values())

    def get(self, name: str, default: str = "") -> str:
        """The value without the white space around it; lines that follow the first keep their indentation."""
        found = self._fields.get(name.lower())
        return default if found is None else found[1].strip(WHITE_SPACE)

    def lines(self, name: str) -> tuple[str, ...]:
        """The lines of a field like ``Conffiles``, without indentation; an empty first line is none."""
        return tuple(line.strip(WHITE_SPACE) for line in self.get(name).split("\n") if line.strip(WHITE_SPACE))

    def changed(self, **fields: str | None) -> Paragraph:
        """Another paragraph, in which these have new values: in their place, or at the end. None removes a field.

        Underscores stand for hyphens. Lines after the first must be indented.
        """
        after = dict(self._fields)
        for key, value in fields.items():
            name = key.replace("_", "-")
            if value is None:
                after.pop(name.lower(), None)
                continue
            written = after.get(name.lower(), (name, ""))[0]
            space = "" if value.startswith("\n") else " "
            after[name.lower()] = (written, f"{space}{value}\n" if value else "\n")
        changed = Paragraph(after)
        assert paragraph(changed.encode()) == changed, "a value that would read as another field"
        return changed

    def encode(self) -> bytes:
        """The lines, without the empty line that ends a paragraph in a file of many."""
        return "".join(f"{name}:{raw}" for name, raw in self._fields.values()).encode("utf-8", "surrogateescape")


def paragraph(content: bytes) -> Paragraph:
    """The one paragraph that ``content`` is.

    Raises:
        ArchiveError: it is none, or has more than one, or is beyond a bound.
    """
    found = list(paragraphs(content))
    if len(found) != 1:
        raise _wrong(f"{len(found)} paragraphs where one is expected")
    return found[0]


def paragraphs(content: bytes) -> Iterator[Paragraph]:
    """Each paragraph of ``content``; they are separated by empty lines. Raises ``ArchiveError`` as it goes."""
    start = 0
    while start < len(content):
        end = content.find(b"\n\n", start)
        end = len(content) if end < 0 else end + 1
        if end - start > PARAGRAPH_BYTES_MAX:
            raise _wrong(f"a paragraph of more than {PARAGRAPH_BYTES_MAX} bytes")
        text = content[start:end].decode("utf-8", "surrogateescape").lstrip("\n")
        if text:
            yield Paragraph(_fields(text))
        start = end


def _fields(text: str) -> dict[str, tuple[str, str]]:
    """Of one paragraph; lower-case name to the name as written and the raw value."""
    if "\0" in text:
        raise _wrong("there is a zero in it")
    fields: dict[str, tuple[str, str]] = {}
    name, raw = "", [""]
    for line in (f"{line}\n" for line in text.removesuffix("\n").split("\n")):
        if line[0] in " \t":
            if not name or not line.strip(WHITE_SPACE):
                raise _wrong(f"a line that belongs to no field: {line[:40]!r}")
            raw.append(line)
            continue
        _keep(fields, name, raw)
        name, value = _named(line)
        raw = [value]
        if name.lower() in fields:
            raise _wrong(f"the field {name} comes twice")
    _keep(fields, name, raw)
    return fields


def _keep(fields: dict[str, tuple[str, str]], name: str, raw: list[str]) -> None:
    if not name:
        return
    if len(fields) >= FIELDS_MAX:
        raise _wrong(f"more than {FIELDS_MAX} fields")
    fields[name.lower()] = (name, "".join(raw))


def _named(line: str) -> tuple[str, str]:
    """The name of a field and what follows its colon."""
    name, colon, value = line.partition(":")
    printable = name.isascii() and all("!" <= character <= "~" for character in name)
    if not (colon and name and printable and len(name) <= FIELD_NAME_CHARACTERS_MAX and name[0] not in "#-"):
        raise _wrong(f"a line that is no field: {line[:40]!r}")
    return name, value


def _wrong(problem: str) -> ArchiveError:
    return ArchiveError(f"control data: {problem}", ADVICE)


# How a version may stand to that of a relation, by operator, as -1, 0 or 1. `<` and `>` are old spellings.
ADMITTED = {
    "": (-1, 0, 1), "<<": (-1,), "<=": (-1, 0), "=": (0,), ">=": (0, 1), ">>": (1,), "<": (-1, 0), ">": (0, 1),
}  # fmt: skip


class Relation:
    """One package that a field asks for or forbids: ``name:architecture (operator version)``."""

    __slots__ = ("architecture", "name", "operator", "version")

    def __init__(self, name: str, architecture: str = "", operator: str = "", version: str = "") -> None:
        self.name = name
        self.architecture = architecture  # as qualified: "any", "native", an architecture, or nothing
        self.operator = operator
        self.version = version

    def admits(self, other: str) -> bool:
        """Whether a package of this name in version ``other`` is meant. Names and architectures are not looked at."""
        return not self.operator or version.compare(other, self.version) in ADMITTED[self.operator]

    def __str__(self) -> str:
        name = f"{self.name}:{self.architecture}" if self.architecture else self.name
        return f"{name} ({self.operator} {self.version})" if self.operator else name

    def __repr__(self) -> str:
        return f"Relation({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Relation) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse_relations(text: str) -> tuple[tuple[Relation, ...], ...]:
    """``Depends`` and the like: groups of alternatives, all of which must hold. Empty text is no group.

    Restrictions to architectures or build profiles are of source packages and refused.

    Raises:
        ArchiveError: the text is no such field, or beyond a bound.
    """
    if not text.strip():
        return ()
    if text.count(",") + text.count("|") >= RELATIONS_MAX:
        raise _wrong(f"more than {RELATIONS_MAX} packages in one field")
    groups = text.strip().removesuffix(",").split(",")  # dpkg forgives one comma at the end
    return tuple(tuple(_relation(alternative) for alternative in group.split("|")) for group in groups)


def _relation(text: str) -> Relation:
    words = text.strip()
    if len(words) > RELATION_CHARACTERS_MAX:
        raise _wrong(f"a relation of more than {RELATION_CHARACTERS_MAX} characters")
    named, bracket, rest = words.partition("(")
    name, colon, architecture = named.rstrip().partition(":")
    operator = wanted = ""
    if bracket:
        inside, closed, after = rest.partition(")")
        wanted = inside.strip().lstrip("<>=").strip()
        operator = inside.strip()[: len(inside.strip()) - len(inside.strip().lstrip("<>="))] or "="
        if not closed or after or operator not in ADMITTED:
            raise _wrong(f"no relation: {words!r}")
        version.split(wanted)
    check_name(name)
    if colon and not (architecture and IN_ARCHITECTURE.issuperset(architecture)):
        raise _wrong(f"no relation: {words!r}")
    return Relation(name, architecture, operator, wanted)


def check_name(name: str) -> None:
    """A package's name becomes part of file names: no slash, no dot in front. Raises ``ArchiveError``."""
    if not (0 < len(name) <= NAME_CHARACTERS_MAX and IN_NAME.issuperset(name) and name[0] not in "-+._"):
        raise _wrong(f"no name of a package: {name[:NAME_CHARACTERS_MAX]!r}")


def identity(fields: Paragraph) -> tuple[str, str, str]:
    """Name, version and architecture of a package, each checked. Raises ``ArchiveError``."""
    name, architecture = fields.get("Package"), fields.get("Architecture")
    check_name(name)
    version.split(fields.get("Version"))
    if not (architecture and IN_ARCHITECTURE.issuperset(architecture) and architecture[0] != "-"):
        raise _wrong(f"{name} has no architecture")
    return name, fields.get("Version"), architecture


def check_package(fields: Paragraph) -> None:
    """A package that dpkg would install, and then read in `status`: it gives up the whole file for one such field.

    Raises ``ArchiveError``.
    """
    name, kind = fields.get("Package"), fields.get("Multi-Arch").lower()
    if kind not in MULTI_ARCH or (kind == "same" and fields.get("Architecture") == "all"):
        raise _wrong(f"{name} is for {fields.get('Architecture')}, and its Multi-Arch is {kind[:80]!r}")
    for field in RELATIONS:
        text = fields.get(field)
        if "|" in text and field in WITHOUT_ALTERNATIVES:
            raise _wrong(f"{name} has alternatives in {field}")
        if ":-" in text and any(one.architecture.startswith("-") for group in parse_relations(text) for one in group):
            raise _wrong(f"{name} names in {field} what is no architecture")
