"""dpkg's triggers: who is interested in what, and what a transaction activates. Pure.

A package's control file ``triggers`` says in what it is interested and what its changes activate (deb-triggers(5)). A
trigger whose name begins with a slash is a path: it is activated by every change of a package that has that path, or
one below it. dpkg keeps the interests of all installed packages in ``var/lib/dpkg/triggers``, for ``dpkg-trigger`` to
look into: paths in ``File``, and one file for each other name (dpkg's doc/triggers.txt). What scripts activate
``dpkg-trigger`` adds to ``Unincorp``. Whether somebody waits for a trigger changes nothing here: all are processed
before a transaction is good.
"""

from __future__ import annotations

from packagemanager.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INTEREST, ACTIVATE = "interest", "activate"
# The variants differ in who waits for whom.
DIRECTIVES = {f"{word}{variant}": word for word in (INTEREST, ACTIVATE) for variant in ("", "-await", "-noawait")}
NO_AWAIT = "-noawait"
TEXT_BYTES_MAX = 1 << 20
FILE_TRIGGERS = "File"
UNINCORPORATED = "Unincorp"


class Declared:
    """What one package says of triggers. ``interests`` are (name, whether nobody shall wait), ``activations`` names."""

    __slots__ = ("activations", "interests")

    def __init__(self, interests: tuple[tuple[str, bool], ...] = (), activations: tuple[str, ...] = ()) -> None:
        self.interests = interests
        self.activations = activations


NOTHING = Declared()


def parse(text: bytes, package: str) -> Declared:
    """The control file ``triggers`` of ``package``. Raises: UnsupportedError for a directive that nobody knows."""
    if len(text) > TEXT_BYTES_MAX:
        raise UnsupportedError(f"{package}: its triggers have {len(text)} bytes, allowed are {TEXT_BYTES_MAX}")
    interests: dict[str, bool] = {}
    activations: dict[str, None] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in DIRECTIVES or not is_name(words[1]):
            raise UnsupportedError(f"{package}: its triggers have a line {line.strip()!r:.80}", "leave the package out")
        if DIRECTIVES[words[0]] == INTEREST:
            interests[words[1]] = words[0].endswith(NO_AWAIT)
        else:
            activations[words[1]] = None
    return Declared(tuple(interests.items()), tuple(activations))


def is_name(word: str) -> bool:
    """A path, or a word that can name a file among dpkg's."""
    if word.startswith("/"):
        return "/../" not in f"{word}/"
    return word.isprintable() and word.isascii() and "/" not in word and word not in ("", ".", "..")


class Interests:
    """Who is interested in what, over all packages of a system."""

    def __init__(self, declared: Mapping[str, Declared]) -> None:
        """``declared`` is by package, as dpkg names it in its files: with its architecture where several may be."""
        self._by_name: dict[str, list[str]] = {}
        self._lines: dict[str, list[str]] = {FILE_TRIGGERS: []}
        for package, said in declared.items():
            for name, nobody_waits in said.interests:
                self._by_name.setdefault(name.rstrip("/") or "/", []).append(package)
                self._note(name, f"{package}/noawait" if nobody_waits else package)

    def _note(self, name: str, package: str) -> None:
        if name.startswith("/"):
            self._lines[FILE_TRIGGERS].append(f"{name} {package}\n")
        else:
            self._lines.setdefault(name, []).append(f"{package}\n")

    def texts(self) -> dict[str, bytes]:
        """The files in ``var/lib/dpkg/triggers``, by name. A file that is there and not in this is to be removed."""
        return {name: "".join(lines).encode() for name, lines in self._lines.items()}

    def by_name(self) -> dict[str, list[str]]:
        """By the name of a trigger, the packages that are interested in it."""
        return {name: list(dict.fromkeys(packages)) for name, packages in self._by_name.items()}

    def named(self, name: str) -> list[str]:
        """The packages that are interested in a trigger by its name."""
        return self._by_name.get(name, [])

    def of_paths(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """By package the names of the triggers that changes of these paths activate (relative, as entries have)."""
        found: dict[str, dict[str, None]] = {}
        seen: set[str] = set()
        for path in paths:
            above = path
            while above not in seen:
                seen.add(above)
                for package in self._by_name.get(f"/{above}", ()):
                    found.setdefault(package, {})[f"/{above}"] = None
                above = above.rpartition("/")[0]
        return {package: list(names) for package, names in found.items()}


def unincorporated(text: bytes) -> list[str]:
    """The names of the triggers in the file ``Unincorp``: each line has one, and who waits for it."""
    names: dict[str, None] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words and is_name(words[0]):
            names[words[0]] = None
    return list(names)


def merge(*many: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """By package, every name once, in the order they came."""
    merged: dict[str, dict[str, None]] = {}
    for one in many:
        for package, names in one.items():
            merged.setdefault(package, {}).update(dict.fromkeys(names))
    return {package: list(names) for package, names in merged.items()}
