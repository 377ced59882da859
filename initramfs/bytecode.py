"""Source text to marshalled bytecode: the same bytes from every process, host and import history.

``marshal.dumps`` is not that: which objects it writes as references depends on reference counts and
on what the process interned before. :class:`_Writer` instead shares every constant that is equal and
of the same type, by first appearance, and interns what CPython itself would. The result is read by
the interpreter's own ``marshal.loads``; the format is ``Python/marshal.c`` of 3.11, version 4.

Line tables keep lines and lose columns, which only draw carets under source text that the device
does not have. Asserts stay.
"""

from __future__ import annotations

import ast
import itertools
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType, EllipsisType
from typing import Any, ClassVar

from initramfs.errors import SysrootError
from initramfs.source_imports import SourceModule, parse

FLAG_REF = 0x80
LOCAL, CELL, FREE = 0x20, 0x40, 0x80
NO_COLUMNS, NO_LOCATION = 13, 15
CODE_UNITS_PER_ENTRY_MAX = 8
DEPTH_MAX = 100
IDENTIFIER = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def compiled(module: SourceModule) -> bytes:
    """The marshalled code object of ``module``, without its docstrings: nothing on a device shows them.

    Raises:
        SysrootError: the source does not compile, or holds a constant that cannot be frozen.
    """
    tree = parse(module)
    drop_docstrings(tree)
    code = compile(tree, f"<frozen {module.name}>", "exec", dont_inherit=True, optimize=0)
    return dumps(code)


def dumps(code: CodeType) -> bytes:
    """``code`` in the format ``marshal.loads`` reads."""
    uses: Counter[object] = Counter()
    _Writer(uses, {}).write(code)
    shared = {key: -1 for key, count in uses.items() if count > 1}
    writer = _Writer(Counter(), shared)
    writer.write(code)
    return bytes(writer.output)


def drop_docstrings(tree: ast.Module) -> None:
    """Take them out of ``tree``; a body that was nothing else becomes ``pass``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.copy_location(ast.Pass(), first)]


class _Writer:
    """Writes one object tree. ``shared`` maps the key of an object used twice to its number, or -1."""

    def __init__(self, uses: Counter[object], shared: dict[object, int]) -> None:
        self.output = bytearray()
        self._uses = uses
        self._shared = shared
        self._numbered = 0
        self._depth = 0

    def write(self, value: object) -> None:
        write = self._WRITERS.get(type(value))
        if write is None:
            raise SysrootError(f"a constant of type {type(value).__name__} cannot be frozen", "rewrite it")
        write(self, value)

    def _tag(self, tag: bytes, key: object) -> bool:
        """Begin an object that may be shared. False: a reference was written, it is done."""
        self._uses[key] += 1
        number = self._shared.get(key)
        if number is None:
            self.output += tag
        elif number < 0:
            self._shared[key] = self._numbered
            self._numbered += 1
            self.output.append(tag[0] | FLAG_REF)
        else:
            self.output += b"r" + struct.pack("<I", number)
            return False
        return True

    def _write_plain(self, value: object) -> None:
        self.output += {None: b"N", True: b"T", False: b"F", ...: b"."}[value]  # type: ignore[index]

    def _write_integer(self, value: int) -> None:
        if -(2**31) <= value < 2**31:
            self.output += b"i" + struct.pack("<i", value)
            return
        digits = [abs(value) >> shift & 0x7FFF for shift in range(0, value.bit_length(), 15)]
        count = len(digits) if value > 0 else -len(digits)
        self.output += b"l" + struct.pack("<i", count) + struct.pack(f"<{len(digits)}H", *digits)

    def _write_float(self, value: float) -> None:
        self.output += b"g" + struct.pack("<d", value)

    def _write_complex(self, value: complex) -> None:
        self.output += b"y" + struct.pack("<dd", value.real, value.imag)

    def _write_bytes(self, value: bytes) -> None:
        if self._tag(b"s", (bytes, value)):
            self.output += struct.pack("<I", len(value)) + value

    def _write_text(self, value: str) -> None:
        interned = IDENTIFIER.issuperset(value)
        if value.isascii() and len(value) < 256:
            if self._tag(b"Z" if interned else b"z", (str, value)):
                self.output += bytes((len(value),)) + value.encode()
            return
        encoded = value.encode("utf-8", "surrogatepass")
        if self._tag(b"u", (str, value)):
            self.output += struct.pack("<I", len(encoded)) + encoded

    def _write_tuple(self, value: tuple[object, ...]) -> None:
        self._depth += 1
        assert self._depth <= DEPTH_MAX
        if self._tag(b")" if len(value) < 256 else b"(", _key(value)):
            self.output += struct.pack("<B" if len(value) < 256 else "<I", len(value))
            for item in value:
                self.write(item)
        self._depth -= 1

    def _write_frozenset(self, value: frozenset[object]) -> None:
        """In the order of the items' own bytes: iteration order depends on the process."""
        if self._tag(b">", _key(value)):
            self.output += struct.pack("<I", len(value))
            for item in sorted(value, key=_order):
                self.write(item)

    def _write_code(self, code: CodeType) -> None:
        names, kinds = _local_names(code)
        self.output += b"c" + struct.pack(
            "<5i", code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_stacksize,
            code.co_flags,
        )  # fmt: skip
        before = (code.co_code, code.co_consts, code.co_names, names, kinds)
        for part in (*before, code.co_filename, code.co_name, code.co_qualname):
            self.write(part)
        self.output += struct.pack("<i", code.co_firstlineno)
        self.write(_line_table(code))
        self.write(code.co_exceptiontable)

    _WRITERS: ClassVar[dict[type, Callable[[_Writer, Any], None]]] = {
        type(None): _write_plain, bool: _write_plain, EllipsisType: _write_plain, int: _write_integer,
        float: _write_float, complex: _write_complex, bytes: _write_bytes, str: _write_text,
        tuple: _write_tuple, frozenset: _write_frozenset, CodeType: _write_code,
    }  # fmt: skip


def _key(value: object) -> object:
    """Equal for constants that may be one object: 1, 1.0 and True are equal but are not the same."""
    if isinstance(value, tuple):
        return (tuple, *map(_key, value))
    if isinstance(value, frozenset):
        return (frozenset, *sorted(map(_order, value)))
    if isinstance(value, CodeType):
        return (CodeType, id(value))
    if isinstance(value, float | complex):
        return (type(value), repr(value))
    return (type(value), value)


def _order(value: object) -> bytes:
    writer = _Writer(Counter(), {})
    writer.write(value)
    return bytes(writer.output)


def _local_names(code: CodeType) -> tuple[tuple[str, ...], bytes]:
    """``co_localsplusnames`` and ``co_localspluskinds``, which a code object does not show."""
    cells = frozenset(code.co_cellvars)
    others = tuple(name for name in code.co_cellvars if name not in code.co_varnames)
    kinds = [LOCAL | CELL if name in cells else LOCAL for name in code.co_varnames]
    kinds += [CELL] * len(others) + [FREE] * len(code.co_freevars)
    return (*code.co_varnames, *others, *code.co_freevars), bytes(kinds)


def _line_table(code: CodeType) -> bytes:
    """``co_linetable`` without columns (``Objects/locations.md`` of CPython 3.11)."""
    table = bytearray()
    line_before = code.co_firstlineno
    for line, entries in itertools.groupby(code.co_lines(), key=lambda entry: entry[2]):
        for units in _entry_lengths(sum(end - start for start, end, _ in entries) // 2):
            kind = NO_LOCATION if line is None else NO_COLUMNS
            table.append(0x80 | kind << 3 | units - 1)
            if line is not None:
                table += _signed_varint(line - line_before)
                line_before = line
    return bytes(table)


def _entry_lengths(units: int) -> Iterator[int]:
    for start in range(0, units, CODE_UNITS_PER_ENTRY_MAX):
        yield min(CODE_UNITS_PER_ENTRY_MAX, units - start)


def _signed_varint(value: int) -> bytes:
    rest = -value << 1 | 1 if value < 0 else value << 1
    encoded = bytearray()
    while rest >= 0x40:
        encoded.append(0x40 | rest & 0x3F)
        rest >>= 6
    encoded.append(rest)
    return bytes(encoded)
