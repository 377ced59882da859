"""What the device has: dpkg's own database below the root, read. Nothing here writes.

Format: dpkg's manual pages and sources. `var/lib/dpkg/status` holds a paragraph per package, `info/<package>.<what>`
its control files and the list of its paths, `diversions` and `statoverride` what the owner of the system changed.
A package is named by its key, ``name:architecture``.
"""

from __future__ import annotations

import errno

from packagemanager import control
from packagemanager.entry import Entry
from packagemanager.errors import ArchiveError, DatabaseError
from packagemanager.status import Conffile, compose, conffiles_of
from packagemanager.tar import DEPTH_MAX
from packagemanager.whole_file import read_whole
from payload.digest import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packagemanager.control import Paragraph
    from packagemanager.tree import Tree
    from packagemanager.whole_file import Files

FOLDER = "var/lib/dpkg"
STATUS, STATUS_OLD, UPDATES = f"{FOLDER}/status", f"{FOLDER}/status-old", f"{FOLDER}/updates"
INFO, FORMAT, ARCHITECTURES = f"{FOLDER}/info", f"{FOLDER}/info/format", f"{FOLDER}/arch"
DIVERSIONS, OVERRIDES = f"{FOLDER}/diversions", f"{FOLDER}/statoverride"

USERS, GROUPS = "etc/passwd", "etc/group"

TEXT_BYTES_MAX = 64 << 20
SMALL_TEXT_BYTES_MAX = 4 << 20
UPDATES_MAX = 10000
PATH_BYTES_MAX = 4096
ID_MAX, ID_DIGITS_MAX = 2**32 - 2, 20

WANTS = ("unknown", "install", "hold", "deinstall", "purge")
FLAGS = ("ok", "reinstreq")
STATES = (
    "not-installed", "config-files", "half-installed", "unpacked", "half-configured", "triggers-awaited",
    "triggers-pending", "installed",
)  # fmt: skip
# What has all its files and was configured; triggers may wait.
COMPLETE = ("installed", "triggers-awaited", "triggers-pending")
# What is to be configured yet.
UNCONFIGURED = ("half-installed", "unpacked")
# What has files at all.
PRESENT = (*COMPLETE, *UNCONFIGURED, "half-configured")


class Package:
    """One paragraph of `status`."""

    __slots__ = ("architecture", "conffiles", "fields", "flag", "name", "state", "version", "want")

    def __init__(self, fields: Paragraph) -> None:
        """Raises ``ArchiveError`` or ``ValueError`` where ``fields`` is no such paragraph."""
        self.fields = fields
        words = fields.get("Status").split(" ")
        if len(words) != 3 or words[0] not in WANTS or words[1] not in FLAGS or words[2] not in STATES:
            raise ValueError(f"no state of a package: {fields.get('Status')[:80]!r}")
        self.want, self.flag, self.state = words
        self.name, self.version = fields.get("Package"), fields.get("Version")
        self.architecture = fields.get("Architecture")
        if self.present:
            control.identity(fields)
        else:
            control.check_name(self.name)  # of what is long gone, dpkg may remember little else
        self.conffiles: tuple[Conffile, ...] = conffiles_of(fields)

    @property
    def key(self) -> str:
        return f"{self.name}:{self.architecture}"

    @property
    def complete(self) -> bool:
        return self.state in COMPLETE and self.flag == "ok"

    @property
    def present(self) -> bool:
        return self.state in PRESENT

    @property
    def configured(self) -> str:
        """The version that was configured last; empty for none."""
        return self.version if self.state in COMPLETE else self.fields.get("Config-Version")

    @property
    def is_known(self) -> bool:
        """Whether dpkg counts it: it is there, or left its configuration."""
        return self.present or self.state == "config-files"

    def __repr__(self) -> str:
        return f"Package({self.key} {self.version}, {self.state})"


class Database:
    """dpkg's database below ``tree``; the lists of files are read when they are asked for.

    Raises:
        DatabaseError: a file is missing, damaged or cannot be read. It is named, with what to do.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.packages = _packages(tree)
        self.updates = _updates(tree)
        self.diversions = Diversions(read_text(tree, DIVERSIONS) or b"")
        self.overrides = _overrides(tree)
        self._ids: dict[str, dict[str, int]] = {}
        self._lists: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, list[str]] | None = None
        text = read_text(tree, FORMAT, SMALL_TEXT_BYTES_MAX)
        self.lacks_format = text is None and _is_new(_by_stem(tree))
        self._qualified = self.lacks_format or (text or b"").strip() == b"1"

    def installed(self) -> dict[str, str]:
        """Key to version of what is there whole: the state of the device."""
        return {key: package.version for key, package in self.packages.items() if package.complete}

    def state(self) -> bytes:
        """The digest that names what is installed: over the sorted lines ``name:architecture version``."""
        return state_of(self.installed())

    def present(self) -> list[Package]:
        """What may have files, complete or not."""
        return [package for package in self.packages.values() if package.present]

    def architectures(self) -> tuple[str, ...]:
        """The native one first, then the foreign ones that packages may have. Empty where nothing tells."""
        text = read_text(self.tree, ARCHITECTURES, SMALL_TEXT_BYTES_MAX) or b""
        listed = text.decode("ascii", "replace").split()
        of_dpkg = [package.architecture for package in self.present() if package.name == "dpkg"]
        return tuple(dict.fromkeys([*of_dpkg, *listed]))

    def stem(self, fields: Paragraph) -> str:
        """What the names of a package's files in `info` begin with."""
        name = fields.get("Package")
        is_qualified = self._qualified and fields.get("Multi-Arch").lower() == "same"
        return f"{name}:{fields.get('Architecture')}" if is_qualified else name

    def info_names(self, package: Package) -> list[str]:
        """The names of its control files in `info`, without the package's, `list` among them."""
        if self._names is None:
            self._names = _by_stem(self.tree)
        return self._names.get(self.stem(package.fields), [])

    def info_path(self, fields: Paragraph, name: str) -> str:
        return f"{INFO}/{self.stem(fields)}.{name}"

    def info(self, package: Package, name: str) -> bytes:
        """A control file of an installed package; empty where it has none."""
        return read_text(self.tree, self.info_path(package.fields, name)) or b""

    def list(self, package: Package) -> tuple[str, ...]:
        """The paths of a package in dpkg's order, as an entry's; the root itself is the empty one."""
        if package.key not in self._lists:
            path = self.info_path(package.fields, "list")
            self._lists[package.key] = _paths(path, read_text(self.tree, path), package)
        return self._lists[package.key]

    def given(self, entry: Entry) -> Entry:
        """The entry with the owner and mode that it gets here: `statoverride` says it, or the owner's names do."""
        uid, gid, mode = (
            self._number(entry.user, USERS, entry.uid),
            self._number(entry.group, GROUPS, entry.gid),
            entry.mode,
        )
        if entry.kind in ("file", "directory"):
            uid, gid, mode = self.overrides.get(entry.path, (uid, gid, mode))
        if (uid, gid, mode) == (entry.uid, entry.gid, entry.mode):
            return entry
        return Entry(entry.path, entry.kind, mode=mode, uid=uid, gid=gid, mtime=entry.mtime, size=entry.size,
                     digest=entry.digest, target=entry.target)  # fmt: skip

    def _number(self, name: str, path: str, number: int) -> int:
        """As dpkg has it: that of the name on this system, else the archive's."""
        if not name:
            return number
        if path not in self._ids:
            self._ids[path] = ids(self.tree, path)
        return self._ids[path].get(name, number)

    def status(self, changed: Mapping[str, Paragraph | None]) -> bytes:
        """The text of `status` in which the packages ``changed`` have these paragraphs, or none."""
        kept = {key: package.fields for key, package in self.packages.items()}
        after = {**kept, **changed}
        return compose(fields for fields in after.values() if fields is not None)


def state_of(installed: Mapping[str, str]) -> bytes:
    """The state id of a device that has these packages, key to version."""
    lines = sorted(f"{key} {version}\n" for key, version in installed.items())
    return digest("".join(lines).encode("utf-8", "surrogateescape"))


class Diversions:
    """Which paths of packages lie somewhere else (dpkg-divert(1)): three lines each, from, to, by whom."""

    def __init__(self, text: bytes) -> None:
        """Raises ``DatabaseError``."""
        lines = text.decode("utf-8", "surrogateescape").split("\n")
        if lines[-1] or len(lines) % 3 != 1:
            raise damaged(DIVERSIONS, "it does not have three lines for each diversion")
        self._to: dict[str, tuple[str, str]] = {}
        for at in range(0, len(lines) - 1, 3):
            source, target, owner = lines[at : at + 3]
            if not (source.startswith("/") and target.startswith("/")):
                raise damaged(DIVERSIONS, f"no diversion: {source[:80]!r}")
            _check_depth(DIVERSIONS, source)
            _check_depth(DIVERSIONS, target)
            self._to[source[1:]] = (target[1:], owner)

    def actual(self, path: str, name: str) -> str:
        """Where the file ``path`` of the package ``name`` lies."""
        target, owner = self._to.get(path, (path, name))
        return path if owner == name else target

    def owned(self) -> list[tuple[str, str]]:
        """Every path, and the package that diverted it; the owner of the system himself is ``:``."""
        return [(path, owner) for path, (_target, owner) in self._to.items()]


def read_text(tree: Files, path: str, bytes_max: int = TEXT_BYTES_MAX) -> bytes | None:
    """A whole file, or None where there is none. Raises ``DatabaseError``."""
    try:
        return read_whole(tree, path, bytes_max)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> DatabaseError:
    return DatabaseError(f"/{path} cannot be read: {error.strerror}", _ADVICE)


def damaged(path: str, problem: str, advice: str = "") -> DatabaseError:
    return DatabaseError(f"/{path} is damaged: {problem}", advice or _ADVICE)


_ADVICE = "`unbrick packages repair` brings back what dpkg and this device remember twice; else ask the master."


def _packages(tree: Tree) -> dict[str, Package]:
    text = read_text(tree, STATUS)
    if text is None:
        raise DatabaseError(f"/{STATUS} is not there", _evidence(tree))
    packages = parse_status(tree, text, STATUS)
    for name in _updates(tree):
        text = read_text(tree, f"{UPDATES}/{name}") or b""
        packages.update(parse_status(tree, text, f"{UPDATES}/{name}"))
    return packages


def parse_status(tree: Tree, text: bytes, path: str) -> dict[str, Package]:
    """Key to package, of `status` or a text like it. Raises ``DatabaseError``."""
    packages: dict[str, Package] = {}
    try:
        for fields in control.paragraphs(text):
            package = Package(fields)
            if package.key in packages:
                raise ValueError(f"{package.key} is there twice")
            packages[package.key] = package
    except (ArchiveError, ValueError) as error:
        raise damaged(path, str(error), _evidence(tree)) from error
    return packages


def _evidence(tree: Tree) -> str:
    """What to do about a `status` that does not read: is the one before it any better?"""
    try:
        old = tree.look(STATUS_OLD)
    except OSError:
        old = None
    if old is None or not old.size:
        return _ADVICE
    return f"/{STATUS_OLD} is what it was one change earlier. {_ADVICE}"


def _updates(tree: Tree) -> list[str]:
    """What dpkg noted and did not bring to `status` yet, because it was interrupted: names of files, in order."""
    try:
        names = [name for name in tree.list(UPDATES) if name.isascii() and name.isdigit()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise _unreadable(UPDATES, error) from error
    if len(names) > UPDATES_MAX:
        raise damaged(UPDATES, f"more than {UPDATES_MAX} files")
    return sorted(names)


def _by_stem(tree: Tree) -> dict[str, list[str]]:
    """The files of `info` by what their names begin with; the last dot separates."""
    try:
        names = tree.list(INFO)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return {}
        raise _unreadable(INFO, error) from error
    found: dict[str, list[str]] = {}
    for name in names:
        stem, dot, what = name.rpartition(".")
        if dot and stem and what:
            found.setdefault(stem, []).append(what)
    return found


def _is_new(stems: Iterable[str]) -> bool:
    """Whether one whose `format` is not there has dpkg's newer names, or none at all: then it begins with them."""
    names = list(stems)
    return not names or any(":" in name for name in names)


def _paths(path: str, text: bytes | None, package: Package) -> tuple[str, ...]:
    if text is None:
        if package.state == "installed":
            raise damaged(path, "it is not there")
        return ()
    if text and not text.endswith(b"\n"):
        raise damaged(path, "its last line is cut")
    lines = text.decode("utf-8", "surrogateescape").split("\n")[:-1]
    return tuple(_path(path, line) for line in lines)


def _path(source: str, line: str) -> str:
    """`/.` is the root, written as the empty path."""
    if line == "/.":
        return ""
    right = line.startswith("/") and len(line) <= PATH_BYTES_MAX and "\0" not in line
    if not right or any(part in ("", ".", "..") for part in line[1:].split("/")):
        raise damaged(source, f"no path: {line[:80]!r}")
    _check_depth(source, line)
    return line[1:]


def _check_depth(source: str, line: str) -> None:
    """As of a package's own: folders are walked one below the other."""
    if line.count("/") > DEPTH_MAX:
        raise damaged(source, f"a path of more than {DEPTH_MAX} folders: {line[:80]!r}")


def _overrides(tree: Tree) -> dict[str, tuple[int, int, int]]:
    """Path to owner, group and mode, of dpkg-statoverride(1): names, or numbers behind a ``#``."""
    text = (read_text(tree, OVERRIDES, SMALL_TEXT_BYTES_MAX) or b"").decode("utf-8", "surrogateescape")
    if not text:
        return {}
    users, groups = ids(tree, USERS), ids(tree, GROUPS)
    found: dict[str, tuple[int, int, int]] = {}
    for line in text.removesuffix("\n").split("\n"):
        words = line.split(" ", 3)
        try:
            user, group, mode, path = words
            found[_path(OVERRIDES, path)] = (_id(user, users), _id(group, groups), int(mode, 8) & 0o7777)
        except (ValueError, KeyError) as error:
            raise damaged(OVERRIDES, f"no override, or of an unknown user: {line[:80]!r}") from error
    return found


def _id(text: str, known: Mapping[str, int]) -> int:
    number = int(text[1:]) if text.startswith("#") else known[text]
    if not 0 <= number <= ID_MAX:
        raise ValueError(text)
    return number


def ids(tree: Files, path: str) -> dict[str, int]:
    """Name to number, of `etc/passwd` or `etc/group`; lines that are none are left out, as the C library does."""
    text = (read_text(tree, path, SMALL_TEXT_BYTES_MAX) or b"").decode("utf-8", "surrogateescape")
    found: dict[str, int] = {}
    for line in text.split("\n"):
        words = line.split(":")
        number = words[2] if len(words) > 2 and words[0] else ""
        if number.isascii() and number.isdigit() and len(number) <= ID_DIGITS_MAX and int(number) <= ID_MAX:
            found.setdefault(words[0], int(number))
    return found
