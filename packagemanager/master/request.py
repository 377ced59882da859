"""What a person asks of the master: a wish, where packages are, what devices have. From a TOML file, options on top."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from packagemanager.master.errors import RequestError
from packagemanager.master.repository import APT
from packagemanager.transaction_index import is_version, is_word

NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-.")


@dataclass(frozen=True)
class Request:
    """``want`` are the roots of the wanted set, ``pin`` is name to version. ``repositories`` are places (see
    `repository.open_repository`); ``old`` are more of them, where only what devices have is looked for."""

    compatible: str = ""
    serial: int = 0
    serial_name: str = ""
    architecture: str = "amd64"
    want: tuple[str, ...] = ()
    pin: Mapping[str, str] = field(default_factory=dict)
    repositories: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    expendable: tuple[str, ...] = ()
    upgrade: bool = False
    downgrade: bool = False
    recommends: bool = False
    essential: bool = True
    full: bool = False
    deltas: bool = True
    purge: bool = False

    def with_options(self, **given: Any) -> Request:
        """``given`` replaces, where it says something; lists and pins are added to."""
        changed: dict[str, Any] = {}
        for name, value in given.items():
            before = getattr(self, name)
            if isinstance(before, tuple):
                changed[name] = (*before, *value)
            elif isinstance(before, Mapping):
                changed[name] = {**before, **value}
            elif value not in (None, ""):
                changed[name] = value
        return replace(self, **changed)

    def checked(self) -> Request:
        """Itself. Raises ``RequestError`` for what lacks."""
        for name in ("compatible", "serial", "want", "repositories", "states"):
            if not getattr(self, name):
                raise RequestError(f"the request names no {name}", _MISSING[name])
        return self


_MISSING = {
    "compatible": "Give --compatible NAME, the kind of device in its device.toml.",
    "serial": "Give --serial N, a whole number above that of the last transaction.",
    "want": "Give --want PACKAGE, a meta-package for example.",
    "repositories": "Give --repository apt, a folder of .deb files, or a line URL SUITE COMPONENT.",
    "states": "Give --state FILE, what a device last said of itself; for devices that nobody knows --full as well.",
}


def load_request(path: Path) -> Request:
    """The request in the TOML file ``path``: the keys are the fields, hyphens for underscores.

    Paths of repositories and states are relative to the file.

    Raises:
        RequestError: it cannot be read, or a key is unknown or has a wrong value.
    """
    try:
        with path.open("rb") as file:
            read = tomllib.load(file)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}", "Name a file like docs/examples/transaction.toml.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: {error}", "See docs/examples/transaction.toml.") from error
    except (ValueError, RecursionError) as error:
        what = (
            "too many tables or lists in each other"
            if isinstance(error, RecursionError)
            else "a number that is too long"
        )
        raise RequestError(f"{path} has {what} to be read", "See docs/examples/transaction.toml.") from error
    known = {one.name.replace("_", "-"): one.name for one in fields(Request)}
    values: dict[str, Any] = {}
    for key, value in read.items():
        if key not in known:
            raise RequestError(f"{path}: the key {key!r} is unknown", f"Known are: {', '.join(sorted(known))}.")
        values[known[key]] = _value(path, key, known[key], value)
    for name in ("repositories", "old"):
        values[name] = tuple(_place(path, place) for place in values.get(name, ()))
    values["states"] = tuple(str(path.parent / place) for place in values.get("states", ()))
    return Request(**values)


def _value(path: Path, key: str, name: str, value: Any) -> Any:
    kind = type(getattr(Request(), name))
    if not _RIGHT[kind](value):
        raise RequestError(f"{path}: {key}{_shown(value)} is not {_WORDS[kind]}", "See docs/examples/transaction.toml.")
    return tuple(value) if kind is tuple else value


def _shown(value: Any) -> str:
    """`` = VALUE``; nothing where it holds a number that Python does not write out."""
    try:
        return f" = {value!r}"
    except ValueError:
        return ""


def _place(path: Path, place: str) -> str:
    return place if place == APT or "://" in place else str(path.parent / place)


def _are_pins(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_word(name, NAME_LETTERS) and is_version(version) for name, version in value.items()
    )


_RIGHT: dict[type, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and value > 0,
    tuple: lambda value: isinstance(value, list) and all(isinstance(one, str) and one for one in value),
    dict: _are_pins,
}
_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number above 0",
    tuple: "a list of texts",
    dict: "a table of names and versions",
}


def pins(texts: list[str]) -> dict[str, str]:
    """``NAME=VERSION`` each. Raises ``RequestError``."""
    found = dict(text.partition("=")[::2] for text in texts)
    if not _are_pins(found):
        raise RequestError(f"--pin {' --pin '.join(texts)}: no name and version", "Write --pin libc6=2.36-9+deb12u14.")
    return found
