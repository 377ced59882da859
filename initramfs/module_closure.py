"""Which Python modules an image must hold, found by reading source; nothing is imported or run.

The closure follows every import statement, those inside functions too (a late import on the device
must not be the first to find out), and ``import_module("literal")``. It does not follow names
computed at run time: list such modules as roots.

Our own modules get all they import. A library gets what it imports at once; what it imports in a
function, in a branch or under ``except ImportError`` is optional: it comes along where it exists,
unless ``exclude`` names it. So nothing is missing that runs at import, and the standard library's
tools and fallbacks do not drag each other in.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from initramfs.errors import MissingFile, SysrootError

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
        "a fallback of what is built in": "_py_abc _pydatetime _pydecimal _pyio",
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
class SourceModule:
    """A module to freeze. ``place`` is its path below the folder it was found in; no absolute path."""

    name: str
    source: bytes
    place: str
    is_package: bool
    reason: str
    own: bool
    """Part of the product, not of a library: its docstrings are kept, all its imports followed."""


@dataclass(frozen=True)
class ModuleSet:
    """The closure. All mappings go from a module's name to the reason it is there, or is not."""

    modules: tuple[SourceModule, ...]
    builtins: Mapping[str, str]
    absent: Mapping[str, str]

    def reasons(self) -> dict[str, str]:
        return {module.name: module.reason for module in self.modules} | dict(self.builtins)


@dataclass(frozen=True)
class Import:
    """One import statement: ``name`` is needed, and each of ``members`` if it is a module."""

    name: str
    members: tuple[str, ...] = ()
    guarded: bool = False
    """A failure is caught by the code around it."""
    at_import: bool = True
    """It runs whenever the module itself is imported: it is in no function and in no branch."""


def module_closure(
    roots: Iterable[str],
    search: Sequence[Path],
    *,
    builtin: Collection[str],
    exclude: Mapping[str, str] = NOT_ON_DEVICE,
    extra: Mapping[str, str] | None = None,
    own: Collection[Path] = (),
) -> ModuleSet:
    """Everything ``roots`` can import, found in ``search`` (first folder wins).

    ``builtin`` are the extension modules the executable can have, ``extra`` is the source of modules
    that exist in no folder (``device_config``), ``own`` the folders of ``search`` that are the product's.

    Raises:
        MissingFile: an import that is not optional is neither found nor built in.
        SysrootError: a source is no Python, or there is no end of modules.
    """
    closure = _Closure(tuple(search), frozenset(builtin), dict(exclude), extra or {}, frozenset(own))
    for name in INTERPRETER_ROOTS:
        closure.need(Import(name), "the interpreter starts with it", by_own=True)
    for name in roots:
        closure.need(Import(name), "asked for", by_own=True)
    return closure.result()


class _Closure:
    def __init__(
        self,
        search: tuple[Path, ...],
        builtin: frozenset[str],
        exclude: dict[str, str],
        extra: Mapping[str, str],
        own: frozenset[Path],
    ) -> None:
        self._search = search
        self._builtin = builtin
        self._exclude = exclude
        self._extra = extra
        self._own = own
        self._found: dict[str, SourceModule] = {}
        self._builtins: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        self._unread: list[SourceModule] = []

    def need(self, wanted: Import, reason: str, *, by_own: bool) -> None:
        """Add a module, its parents, and those of its members that are modules."""
        if wanted.name in MADE_AT_IMPORT:
            wanted = dataclasses.replace(wanted, name=MADE_AT_IMPORT[wanted.name], members=())
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
        while self._unread:
            module = self._unread.pop(0)
            for wanted in imports_of(module):
                self.need(wanted, f"imported by {module.name}", by_own=module.own)
        modules = tuple(self._found[name] for name in sorted(self._found))
        absent = {name: why for name, why in self._absent.items() if name not in self._found}
        return ModuleSet(modules, dict(sorted(self._builtins.items())), dict(sorted(absent.items())))

    def _add(self, name: str, reason: str) -> bool:
        if name in self._found or name in self._builtins:
            return True
        if name in self._builtin:
            self._builtins[name] = reason
            return True
        module = self._find(name, reason)
        if module is None:
            return False
        if len(self._found) >= MODULES_MAX:
            raise SysrootError(f"more than {MODULES_MAX} modules, at {name} ({reason})", "exclude what drags them in")
        self._found[name] = module
        self._unread.append(module)
        return True

    def _why_excluded(self, name: str) -> str:
        return next((self._exclude[parent] for parent in _with_parents(name) if parent in self._exclude), "")

    def _accept_absence(self, name: str, excluded: str, reason: str, optional: bool) -> None:
        """Return if the importer can live without ``name``; raise what the user must read if not."""
        if optional:
            self._absent[name] = f"{reason}; {excluded or 'there is none, which the importer handles'}"
            return
        shared = self._shared_extension(name)
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

    def _find(self, name: str, reason: str) -> SourceModule | None:
        if name in self._extra:
            return SourceModule(name, self._extra[name].encode(), "", False, reason, own=True)
        for folder in self._search:
            base = folder.joinpath(*name.split("."))
            for path in (base / "__init__.py", base.with_name(base.name + ".py")):
                if path.is_file():
                    return SourceModule(
                        name,
                        _read_source(path),
                        path.relative_to(folder).as_posix(),
                        path.name == "__init__.py",
                        reason,
                        folder in self._own,
                    )
        return None

    def _shared_extension(self, name: str) -> Path | None:
        pattern = f"{name.rpartition('.')[2]}.*.so"
        places = (folder / place for folder in self._search for place in ("lib-dynload", "."))
        return next((path for place in places for path in sorted(place.glob(pattern))), None)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _read_source(path: Path) -> bytes:
    with path.open("rb") as file:
        source = file.read(SOURCE_BYTES_MAX + 1)
    if len(source) > SOURCE_BYTES_MAX:
        raise SysrootError(f"{path} is longer than {SOURCE_BYTES_MAX} bytes", "this is no Python module")
    return source


def parse(module: SourceModule) -> ast.Module:
    """The module's syntax tree. Raises ``SysrootError`` naming file and line."""
    try:
        return ast.parse(module.source, module.place or module.name)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        raise SysrootError(f"{module.place or module.name}:{line}: {error}", "repair the source") from error


def imports_of(module: SourceModule) -> tuple[Import, ...]:
    """Every import ``module`` may make, in the order of its text."""
    return _imports_of_text(module.source, module.name, module.is_package, module.place)


@functools.lru_cache(maxsize=MODULES_MAX)
def _imports_of_text(source: bytes, name: str, is_package: bool, place: str) -> tuple[Import, ...]:
    tree = parse(SourceModule(name, source, place, is_package, "", own=False))
    package = name if is_package else name.rpartition(".")[0]
    reader = _ImportReader(package)
    for statement in tree.body:
        reader.visit(statement)
    return tuple(reader.found)


class _ImportReader(ast.NodeVisitor):
    """Collects imports together with what surrounds them."""

    def __init__(self, package: str) -> None:
        self.found: list[Import] = []
        self._package = package
        self._guarded = False
        self._at_import = True

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        name = node.module or ""
        if node.level:
            parents = self._package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1])
            name = f"{base}.{name}" if name else base
        self._add(name, tuple(alias.name for alias in node.names if alias.name != "*"))

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if function in ("import_module", "__import__") and node.args:
            name = getattr(node.args[0], "value", None)
            if isinstance(name, str) and name and not name.startswith("."):
                self._add(name)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._visit_within([node], at_import=False)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 — the name is ast's
    visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        if not _is_never_true(node.test):
            self._visit_within(node.body, at_import=False, children=False)
        self._visit_within(node.orelse, at_import=False, children=False)

    def visit_Try(self, node: ast.Try) -> None:
        guarded = self._guarded or any(_catches_import_error(handler) for handler in node.handlers)
        self._visit_within(node.body, guarded=guarded, children=False)
        self._visit_within(node.handlers, at_import=False, children=False)
        for statement in (*node.orelse, *node.finalbody):
            self.visit(statement)

    def visit_With(self, node: ast.With) -> None:
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        names = {getattr(argument, "id", "") for call in calls for argument in call.args}
        self._visit_within(node.body, guarded=self._guarded or "ImportError" in names, children=False)

    def _visit_within(
        self,
        nodes: Sequence[ast.AST],
        *,
        guarded: bool | None = None,
        at_import: bool | None = None,
        children: bool = True,
    ) -> None:
        before = self._guarded, self._at_import
        self._guarded = before[0] if guarded is None else guarded
        self._at_import = before[1] if at_import is None else at_import
        for node in nodes:
            (self.generic_visit if children else self.visit)(node)
        self._guarded, self._at_import = before

    def _add(self, name: str, members: tuple[str, ...] = ()) -> None:
        self.found.append(Import(name, members, self._guarded, self._at_import))


def _is_never_true(test: ast.expr) -> bool:
    """``TYPE_CHECKING`` in any spelling, and ``__name__ == "__main__"``."""
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__"
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {"*" if kind is None else getattr(kind, "id", getattr(kind, "attr", "")) for kind in kinds}
    return bool(names & {"*", "ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
