"""What a command of the toolkit is: the one table that the parser, docs/cli.md and completion come from.

A verb names its options, its examples and the function that does it. Nothing is parsed or run here.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """One argument. ``names`` with dashes are options, a name without is a position.

    ``kind`` turns the text into a value; ``flag`` takes none; ``many`` may be given several times. Where an option
    is ``many``, ``choices`` only suggest: its verb checks them.
    """

    names: tuple[str, ...]
    help: str
    kind: Callable[[str], Any] = str
    metavar: str = ""
    default: Any = None
    choices: tuple[str, ...] = ()
    required: bool = False
    flag: bool = False
    many: bool = False

    @property
    def is_position(self) -> bool:
        return not self.names[0].startswith("-")

    @property
    def destination(self) -> str:
        longest = max(self.names, key=len)
        return longest.lstrip("-").replace("-", "_")

    @property
    def shown_value(self) -> str:
        """The name of its value in help texts."""
        if self.flag:
            return ""
        return self.metavar or ("|".join(self.choices) if self.choices else self.destination.upper())


@dataclass(frozen=True)
class Verb:
    """One command. ``name`` may have two words (``key new``); ``run`` returns the exit code."""

    name: str
    summary: str
    run: Callable[[Namespace], int]
    options: tuple[Option, ...] = ()
    description: str = ""
    examples: tuple[str, ...] = field(default=())


def position(name: str, help: str, *, kind: Callable[[str], Any] = Path) -> Option:
    return Option((name,), help, kind=kind, metavar=name.upper())


CONFIG = Option(
    ("-c", "--config"), "the device's description", kind=Path, metavar="DEVICE.TOML", default=Path("device.toml")
)
JUDGE = (
    Option(("--root",), "what the device pins: a public key or a file of roots", kind=Path, metavar="FILE"),
    Option(
        ("-c", "--config"), "the device that is to take it: its root, kind and floor", kind=Path, metavar="DEVICE.TOML"
    ),
)
COMMON = (
    Option(
        ("--output-format",),
        "for people, or one JSON document on standard output",
        choices=("readable", "json"),
        default="readable",
    ),
    Option(("--json",), "short for --output-format=json", flag=True),
    Option(("--debug",), "on an error, print the traceback as well", flag=True),
)


def show(arguments: Namespace, document: Any, lines: Iterable[str]) -> None:
    """A verb's result on standard output: ``document`` as JSON, or ``lines`` for a person."""
    if arguments.output_format == "json":
        print(json.dumps(document, indent=2, ensure_ascii=True))
    else:
        for line in lines:
            print(line)
