"""Which Python modules an image must hold, found by reading source; nothing is imported or run.

The closure follows every import statement, those inside functions too (a late import on the device
must not be the first to find out), and ``import_module("literal")``. It does not follow names
computed at run time: list such modules as roots.

Our own modules get all they import; libraries they import late and only on the build host stand under
``except ImportError`` of what the device has instead. A library gets what it imports at once; what it imports in a
function, in a branch or under ``except ImportError`` is optional: it comes along where it exists,
unless ``exclude`` names it. So nothing is missing that runs at import, and the standard library's
tools and fallbacks do not drag each other in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from initramfs.errors import MissingFile, SysrootError
from initramfs.source_imports import Import, ImportIndex, SourceModule

MODULES_MAX = 2000
SOURCE_BYTES_MAX = 4 * 1024 * 1024

INTERPRETER_ROOTS = (
    "codecs", "encodings", "encodings.ascii", "encodings.latin_1", "encodings.utf_8", "importlib._bootstrap",
    "importlib._bootstrap_external", "io",
)  # fmt: skip
"""What CPython imports by itself before the first line of ours, and the codecs ``open`` asks for."""

NOT_ON_DEVICE: Mapping[str, str] = {
    name: why
    for why, names in {
        "another operating system": "_winapi _winreg encodings.mbcs msvcrt nt ntpath nturl2path org winreg",
        "a tool of developers": "argparse ast cProfile doctest inspect optparse pdb profile pydoc site sysconfig test"
        " tokenize tracemalloc unittest",
        "a shared extension in every sysroot": "bz2 ctypes curses lzma mmap readline ssl termios",
        "large, and of use only to functions that a device does not call": "asyncio concurrent email grp http"
        " importlib.metadata importlib.readers importlib.resources multiprocessing pickle pwd subprocess tarfile"
        " typing unicodedata urllib xml zipfile zipimport",
    }.items()
    for name in names.split()
}
"""Modules that libraries mention and get only if something imports them at once, and why."""

MADE_AT_IMPORT: Mapping[str, str] = {
    "os.path": "posixpath", "six.moves": "six", "typing.io": "typing", "typing.re": "typing",
}  # fmt: skip
"""Modules without a file, made by the one named while that is imported."""


@dataclass(frozen=True)
class ModuleSet:
    """The closure. All mappings go from a module's name to the reason it is there, or is not."""

    modules: tuple[SourceModule, ...]
    builtins: Mapping[str, str]
    absent: Mapping[str, str]

    def reasons(self) -> dict[str, str]:
        return {module.name: module.reason for module in self.modules} | dict(self.builtins)


def module_closure(
    roots: Iterable[str],
    search: Sequence[Path],
    *,
    builtin: Collection[str],
    exclude: Mapping[str, str] = NOT_ON_DEVICE,
    extra: Mapping[str, str] | None = None,
    own: Collection[Path] = (),
    cache_dir: Path | None = None,
) -> ModuleSet:
    """Everything ``roots`` can import, found in the folders ``search``; the first that has it wins.

    ``builtin`` are the extension modules the executable can have, ``extra`` is the source of modules that
    exist in no folder (``device_config``), ``own`` the folders of ``search`` that are ours. A folder should
    hold what may be found in it and no more: an optional import finds whatever a host has installed.

    Raises:
        MissingFile: an import that is not optional is neither found nor built in.
        SysrootError: a source is no Python, or there is no end of modules.
    """
    index = ImportIndex(cache_dir)
    finder = _Finder(search, extra or {}, own)
    closure = _Closure(finder, frozenset(builtin), exclude)
    for name in INTERPRETER_ROOTS:
        closure.need(Import(name), "the interpreter starts with it", by_own=True)
    for name in roots:
        closure.need(Import(name), "asked for", by_own=True)
    while closure.unread:
        module = closure.unread.pop(0)
        for wanted in index.imports_of(module):
            closure.need(wanted, f"imported by {module.name}", by_own=module.own)
    index.save()
    return closure.result()


class _Finder:
    """Sources by module name."""

    def __init__(self, search: Iterable[Path], extra: Mapping[str, str], own: Collection[Path]) -> None:
        self._search = tuple(search)
        self._extra = extra
        self._own = frozenset(own)

    def find(self, name: str, reason: str) -> SourceModule | None:
        if name in self._extra:
            return SourceModule(name, self._extra[name].encode(), "", False, reason, own=True)
        for folder in self._search:
            base = folder.joinpath(*name.split("."))
            for path in (base / "__init__.py", base.with_name(base.name + ".py")):
                if path.is_file():
                    place = path.relative_to(folder).as_posix()
                    is_package = path.name == "__init__.py"
                    return SourceModule(name, _read_source(path), place, is_package, reason, folder in self._own)
        return None

    def shared_extension(self, name: str) -> Path | None:
        """A library for the dynamic loader, found instead of a source."""
        pattern = f"{name.rpartition('.')[2]}.*.so"
        places = (folder / place for folder in self._search for place in ("lib-dynload", "."))
        return next((path for place in places for path in sorted(place.glob(pattern))), None)


class _Closure:
    """What has been found so far. ``unread`` are the modules whose imports are still to be followed."""

    def __init__(self, finder: _Finder, builtin: frozenset[str], exclude: Mapping[str, str]) -> None:
        self.unread: list[SourceModule] = []
        self._finder = finder
        self._builtin = builtin
        self._exclude = exclude
        self._found: dict[str, SourceModule] = {}
        self._builtins: dict[str, str] = {}
        self._absent: dict[str, str] = {}

    def need(self, wanted: Import, reason: str, *, by_own: bool) -> None:
        """Add a module, its parents, and those of its members that are modules."""
        if wanted.name in MADE_AT_IMPORT:
            wanted = dataclasses.replace(wanted, name=MADE_AT_IMPORT[wanted.name], members=())
        if wanted.instead_of and all(map(self._is_there, wanted.instead_of)):
            return
        optional = wanted.guarded or not (by_own or wanted.at_import)
        excluding = optional and not by_own
        for name in reversed(list(_with_parents(wanted.name))):
            why = self._why_excluded(name) if excluding else ""
            if why or not self._add(name, reason):
                self._accept_absence(name, why, reason, optional)
                return
        if wanted.name in self._found and self._found[wanted.name].is_package:
            for member in wanted.members:
                if not (excluding and self._why_excluded(f"{wanted.name}.{member}")):
                    self._add(f"{wanted.name}.{member}", reason)

    def result(self) -> ModuleSet:
        modules = tuple(self._found[name] for name in sorted(self._found))
        absent = {name: why for name, why in self._absent.items() if name not in self._found}
        return ModuleSet(modules, dict(sorted(self._builtins.items())), dict(sorted(absent.items())))

    def _is_there(self, name: str) -> bool:
        return name in self._found or name in self._builtins

    def _add(self, name: str, reason: str) -> bool:
        if self._is_there(name):
            return True
        if name in self._builtin:
            self._builtins[name] = reason
            return True
        module = self._finder.find(name, reason)
        if module is None:
            return False
        if len(self._found) >= MODULES_MAX:
            raise SysrootError(f"more than {MODULES_MAX} modules, at {name} ({reason})", "exclude what drags them in")
        self._found[name] = module
        self.unread.append(module)
        return True

    def _why_excluded(self, name: str) -> str:
        return next((self._exclude[parent] for parent in _with_parents(name) if parent in self._exclude), "")

    def _accept_absence(self, name: str, excluded: str, reason: str, optional: bool) -> None:
        """Return if the importer can live without ``name``; raise what the user must read if not."""
        if optional:
            self._absent[name] = f"{reason}; {excluded or 'there is none, which the importer handles'}"
            return
        shared = self._finder.shared_extension(name)
        problem = (
            f"is a shared extension ({shared.name}), which a static executable cannot load"
            if shared
            else "is neither found nor built in"
        )
        raise MissingFile(
            f"module {name} ({reason}) {problem}",
            "add the folder or package that has it, guard the import by `except ImportError`, or exclude it",
            kind="module",
            name=name,
        )


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _read_source(path: Path) -> bytes:
    with path.open("rb") as file:
        source = file.read(SOURCE_BYTES_MAX + 1)
    if len(source) > SOURCE_BYTES_MAX:
        raise SysrootError(f"{path} is longer than {SOURCE_BYTES_MAX} bytes", "this is no Python module")
    return source
