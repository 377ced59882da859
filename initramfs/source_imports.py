"""What one Python source imports, and under what circumstances. The text is read, never run."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from initramfs.errors import SysrootError
from payload.durable import atomic_replace

INDEX_BYTES_MAX = 16 * 1024 * 1024


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
class Import:
    """One import statement: ``name`` is needed, and each of ``members`` if it is a module."""

    name: str
    members: tuple[str, ...] = ()
    guarded: bool = False
    """A failure is caught by the code around it."""
    at_import: bool = True
    """It runs whenever the module itself is imported: it is in no function and in no branch."""
    instead_of: tuple[str, ...] = ()
    """It runs only where one of these cannot be imported: it is in their ``except ImportError``."""


def parse(module: SourceModule) -> ast.Module:
    """The module's syntax tree. Raises ``SysrootError`` naming file and line."""
    try:
        return ast.parse(module.source, module.place or module.name)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        raise SysrootError(f"{module.place or module.name}:{line}: {error}", "repair the source") from error


def imports_of(module: SourceModule) -> tuple[Import, ...]:
    """Every import ``module`` may make, in the order of its text. Raises ``SysrootError``."""
    reader = _ImportReader(module.name if module.is_package else module.name.rpartition(".")[0])
    for statement in parse(module).body:
        reader.visit(statement)
    return tuple(reader.found)


class ImportIndex:
    """:func:`imports_of`, remembered between builds. Parsing a hundred sources takes half a second.

    ``folder`` may be ``None``: then nothing is remembered. What cannot be read back counts as empty.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "imports.json" if folder else None
        self._salt = Path(__file__).read_bytes()
        self._known = self._load()
        self._used: dict[str, list[object]] = {}

    def imports_of(self, module: SourceModule) -> tuple[Import, ...]:
        """As the function of this name."""
        digest = hashlib.blake2b(self._salt, digest_size=16)
        digest.update(f"{module.name}\0{module.is_package}\0".encode() + module.source)
        key = digest.hexdigest()
        rows = self._known.get(key)
        found = imports_of(module) if rows is None else tuple(map(_import_from, rows))
        self._used[key] = [list(astuple(wanted)) for wanted in found]
        return found

    def save(self) -> None:
        """Keep what this build used, and only that, so that the index does not grow for ever."""
        if self._file and self._used.keys() != self._known.keys():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            atomic_replace(self._file, json.dumps(self._used).encode())

    def _load(self) -> dict[str, list[list[object]]]:
        if self._file is None or not self._file.is_file() or self._file.stat().st_size > INDEX_BYTES_MAX:
            return {}
        try:
            known = json.loads(self._file.read_bytes())
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}


def _import_from(row: Sequence[object]) -> Import:
    name, members, guarded, at_import, instead_of = row
    assert isinstance(members, list) and isinstance(instead_of, list)
    return Import(str(name), tuple(members), bool(guarded), bool(at_import), tuple(instead_of))


class _ImportReader(ast.NodeVisitor):
    """Collects imports together with what surrounds them."""

    def __init__(self, package: str) -> None:
        self.found: list[Import] = []
        self._package = package
        self._guarded = False
        self._at_import = True
        self._instead_of: tuple[str, ...] = ()

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
        guarded = any(_catches_import_error(handler) for handler in node.handlers)
        first = len(self.found)
        self._visit_within(node.body, guarded=guarded or self._guarded, children=False)
        tried = tuple(wanted.name for wanted in self.found[first:])
        for handler in node.handlers:
            instead_of = tried if _catches_import_error(handler) else ()
            self._visit_within(handler.body, at_import=False, instead_of=instead_of, children=False)
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
        instead_of: tuple[str, ...] = (),
        children: bool = True,
    ) -> None:
        before = self._guarded, self._at_import, self._instead_of
        self._guarded = before[0] if guarded is None else guarded
        self._at_import = before[1] if at_import is None else at_import
        self._instead_of = before[2] or instead_of
        for node in nodes:
            (self.generic_visit if children else self.visit)(node)
        self._guarded, self._at_import, self._instead_of = before

    def _add(self, name: str, members: tuple[str, ...] = ()) -> None:
        self.found.append(Import(name, members, self._guarded, self._at_import, self._instead_of))


def _is_never_true(test: ast.expr) -> bool:
    """``TYPE_CHECKING`` in any spelling, and ``__name__ == "__main__"``."""
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__"
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {"*" if kind is None else getattr(kind, "id", getattr(kind, "attr", "")) for kind in kinds}
    return bool(names & {"*", "ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
