"""From what the TOML parser gave to frozen dataclasses: types, bounds, and errors that name the line.

A dataclass is a table, a field is a key, the field's type is the type demanded, :func:`limited` its
bounds. Knows nothing of devices: that is :mod:`initramfs.config`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from initramfs.errors import ConfigError
from initramfs.toml_lines import line_of

LIST_ITEMS_MAX = 1024
TEXT_CHARACTERS_MAX = 256
NUMBER_BITS_SHOWN_MAX = 128

Table = TypeVar("Table")


@dataclass(frozen=True)
class Source:
    """The text a configuration came from: makes errors that name file, line and key."""

    file: Path
    lines: Mapping[str, int]

    def error(self, key: str, message: str, hint: str = "") -> ConfigError:
        """An error at ``key``, given in the file's spelling: ``journal.regions.1``."""
        line = line_of(dict(self.lines), key)
        return ConfigError(message, hint, file=self.file, line=line, key=key)


def limited(
    *,
    default: Any = dataclasses.MISSING,
    at_least: int | None = None,
    at_most: int | None = None,
    items: int | None = None,
    pattern: str = "",
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with bounds. ``pattern`` and ``choices`` hold for a text or for each text of a list."""
    limits = _Limits(at_least, at_most, items, pattern, choices)
    return field(default=default, metadata={"limits": limits})


@dataclass(frozen=True)
class _Limits:
    at_least: int | None = None
    at_most: int | None = None
    items: int | None = None
    pattern: str = ""
    choices: tuple[str, ...] = ()


def read_table(cls: type[Table], value: object, source: Source) -> Table:
    """``value`` as an instance of the dataclass ``cls``; a field named ``source`` is no key.

    Raises:
        ConfigError: unknown or missing key, wrong type, value out of its bounds.
    """
    return typing.cast(Table, _Reader(source).table(cls, value, ""))


def spelling(name: str) -> str:
    """A field's name as it stands in the file."""
    return name.replace("_", "-")


class _Reader:
    """One walk down the tables. ``key`` is always the dotted place, for errors."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def fail(self, key: str, message: str, hint: str = "") -> NoReturn:
        raise self.source.error(key, message, hint)

    def table(self, cls: type[Any], value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            self.fail(key, f"must be a table, not {_kind(value)}")
        fields = {spelling(item.name): item for item in dataclasses.fields(cls) if item.name != "source"}
        for name in value:
            if name not in fields:
                self.fail(f"{key}.{name}".strip("."), "unknown key", _known(name, list(fields)))
        annotations = typing.get_type_hints(cls)
        result = {}
        for name, item in fields.items():
            place = f"{key}.{name}".strip(".")
            if name in value:
                limits = item.metadata.get("limits", _Limits())
                result[item.name] = self.value(annotations[item.name], value[name], place, limits)
            elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                self.fail(place, "missing", f"Add it: every device has {_article(annotations[item.name])}.")
        return cls(**result)

    def value(self, kind: Any, value: Any, key: str, limits: _Limits) -> Any:
        origin = typing.get_origin(kind)
        if origin is types.UnionType:
            return self.value(next(part for part in kind.__args__ if part is not types.NoneType), value, key, limits)
        if origin is tuple:
            return self.items(kind.__args__[0], value, key, limits)
        if origin is dict:
            return self.named(kind.__args__[1], value, key, limits)
        if dataclasses.is_dataclass(kind):
            return self.table(typing.cast(type[Any], kind), value, key)
        return _SCALARS[kind](self, value, key, limits)

    def items(self, kind: Any, value: Any, key: str, limits: _Limits) -> tuple[Any, ...]:
        if not isinstance(value, list):
            self.fail(key, f"must be a list, not {_kind(value)}")
        if limits.items is not None and len(value) != limits.items:
            self.fail(key, f"must have {limits.items} entries, has {len(value)}")
        if len(value) > LIST_ITEMS_MAX:
            self.fail(key, f"has {len(value)} entries; at most {LIST_ITEMS_MAX} are read")
        return tuple(self.value(kind, item, f"{key}.{index}", limits) for index, item in enumerate(value))

    def named(self, kind: Any, value: Any, key: str, limits: _Limits) -> dict[str, Any]:
        """A table whose keys are names the author chose: slot classes and slot numbers."""
        if not isinstance(value, dict) or not value:
            self.fail(key, f"must be a table with at least one entry, not {_kind(value)}")
        for name in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
                self.fail(f"{key}.{name}", "a name has 1 to 32 of a-z, 0-9 and -")
        return {name: self.value(kind, item, f"{key}.{name}", limits) for name, item in value.items()}

    def integer(self, value: Any, key: str, limits: _Limits) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"must be an integer, not {_kind(value)}")
        if limits.at_least is not None and value < limits.at_least:
            self.fail(key, f"is {_number(value)}; must be at least {limits.at_least}")
        if limits.at_most is not None and value > limits.at_most:
            self.fail(key, f"is {_number(value)}; must be at most {limits.at_most}")
        return value

    def text(self, value: Any, key: str, limits: _Limits) -> str:
        if not isinstance(value, str):
            self.fail(key, f"must be a text, not {_kind(value)}")
        if len(value) > TEXT_CHARACTERS_MAX:
            self.fail(key, f"has {len(value)} characters; at most {TEXT_CHARACTERS_MAX} are read")
        if limits.choices and value not in limits.choices:
            self.fail(
                key,
                f'is "{value}"; must be one of {", ".join(limits.choices)}',
                _known(value, list(limits.choices)),
            )
        if limits.pattern and not re.fullmatch(limits.pattern, value):
            self.fail(key, f'is "{value}"; must match {limits.pattern}')
        return value

    def flag(self, value: Any, key: str, limits: _Limits) -> bool:
        if not isinstance(value, bool):
            self.fail(key, f"must be true or false, not {_kind(value)}")
        return value

    def path(self, value: Any, key: str, limits: _Limits) -> Path:
        return self.source.file.parent / self.text(value, key, limits)


_SCALARS: dict[Any, Any] = {bool: _Reader.flag, int: _Reader.integer, str: _Reader.text, Path: _Reader.path}


def _known(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(known)}."


def _kind(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "an integer",
        float: "a fraction",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _number(value: int) -> str:
    return str(value) if value.bit_length() <= NUMBER_BITS_SHOWN_MAX else f"a number of {value.bit_length()} bits"


def _article(kind: Any) -> str:
    return "this table" if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict else "this key"
