"""Where in a TOML text a key stands, so that an error can say ``device.toml:12``.

The standard parser gives values and no positions. This is a scan of lines, not a second parser: it
knows table headers, ``key =`` and the position of the n-th inline table of an array, which is what
``device.toml`` is made of. On a text it does not understand it names the nearest line it knows;
it never decides whether a text is valid.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+)\s*=")
_INLINE_KEY = re.compile(r"[{,]\s*([A-Za-z0-9_\"'-]+)\s*=")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'')


def key_lines(text: str) -> dict[str, int]:
    """Line number, from 1, of every dotted key found: ``journal``, ``journal.regions.1``, …"""
    lines: dict[str, int] = {}
    table = key = ""
    element = -1
    for number, raw in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(raw):
            table, key = _plain(header[1]), ""
            _note(lines, table, number)
            continue
        line = _STRING.sub(_blank, raw).split("#", 1)[0]
        if found := _KEY.match(raw):
            key, element = f"{table}.{_plain(found[1])}".strip("."), -1
            _note(lines, key, number)
            line = line[found.end() :]
        if key:
            element = _note_inline(lines, key, element, line, number)
    return lines


def line_of(lines: dict[str, int], key: str) -> int:
    """The line of ``key``, else of the nearest table around it, else 1."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return 1


def _note_inline(lines: dict[str, int], key: str, element: int, line: str, number: int) -> int:
    """Number the inline tables ``{…}`` of a value; returns the index of the last one seen."""
    for part in re.split(r"(?=\{)", line):
        if part.startswith("{"):
            element += 1
            lines.setdefault(f"{key}.{element}", number)
        for found in _INLINE_KEY.finditer(part):
            name = _plain(found[1])
            lines.setdefault(f"{key}.{max(element, 0)}.{name}", number)
            lines.setdefault(f"{key}.{name}", number)
    return element


def _note(lines: dict[str, int], key: str, number: int) -> None:
    """Remember ``key`` and the tables it implies, each at its first line."""
    while key:
        lines.setdefault(key, number)
        key = key.rpartition(".")[0]


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])
