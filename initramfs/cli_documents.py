"""The verbs that print what the commands know of themselves: completion, and docs/cli.md and docs/device-cli.md."""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from initramfs.cli_registry import COMMON, Option, Verb, show

if TYPE_CHECKING:
    from collections.abc import Sequence


def completion(arguments: Namespace) -> int:
    from initramfs.cli import verbs

    script = bash_completion(verbs())
    show(arguments, {"shell": arguments.shell, "script": script}, [script])
    return 0


def documentation(arguments: Namespace) -> int:
    from initramfs.cli import verbs

    page = device_document() if arguments.device else cli_document(verbs())
    show(arguments, {"markdown": page}, [page.rstrip("\n")])
    return 0


def bash_completion(verbs: Sequence[Verb]) -> str:
    """A script for bash: verbs, their options, the choices of an option, and files elsewhere."""
    words = sorted({verb.name.split()[0] for verb in verbs})
    lines = [
        '# bash completion for unbrick; load it with: eval "$(unbrick completion bash)"',
        "_unbrick() {",
        '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local verb="${COMP_WORDS[1]-}" second="${COMP_WORDS[2]-}" words=""',
        f'    if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return; fi',
        *_second_words(verbs),
        '    case "$verb $previous" in',
        *_choices(verbs),
        "    esac",
        '    if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi',
        '    case "$current" in -*) ;; *) COMPREPLY=($(compgen -f -- "$current")); return ;; esac',
        '    case "$verb $second" in',
        *(f'        {_pattern(verb)}) words="{" ".join(_flags(verb))}" ;;' for verb in verbs),
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o filenames -F _unbrick unbrick",
    ]
    return "\n".join(lines)


def _second_words(verbs: Sequence[Verb]) -> Iterator[str]:
    """``key`` and ``journal`` are followed by a second word."""
    groups: dict[str, list[str]] = {}
    for verb in verbs:
        group, space, word = verb.name.partition(" ")
        if space:
            groups.setdefault(group, []).append(word)
    for group, inner in groups.items():
        yield (
            f'    if [ "$COMP_CWORD" -eq 2 ] && [ "$verb" = {group} ]; then '
            f'COMPREPLY=($(compgen -W "{" ".join(inner)}" -- "$current")); return; fi'
        )


def _choices(verbs: Sequence[Verb]) -> Iterator[str]:
    for verb in verbs:
        for option in (*verb.options, *COMMON):
            if option.choices:
                place = verb.name.split()[0]
                names = ("*",) if option.is_position else option.names
                patterns = "|".join(f'"{place} {name}"' if name != "*" else f'"{place} {place}"' for name in names)
                yield f'        {patterns}) words="{" ".join(option.choices)}" ;;'


def _pattern(verb: Verb) -> str:
    return f'"{verb.name}"' if " " in verb.name else f'"{verb.name} "*'


def _flags(verb: Verb) -> list[str]:
    return [name for option in (*verb.options, *COMMON) if not option.is_position for name in option.names]


def cli_document(verbs: Sequence[Verb]) -> str:
    """docs/cli.md."""
    lines = [
        "# The command line",
        "",
        "Made from the table of verbs by `unbrick docs`; do not edit. These commands run on the build host; the",
        "device has its own `unbrick`: [device-cli.md](device-cli.md).",
        "",
        "Every verb also takes:",
        "",
        *_option_lines(COMMON),
        "",
        "Exit codes: 0 done; 1 an error, or the answer of `verify` and `replay` is no; 2 a command line that means",
        "nothing. `unbrick packages`: 2 also where there is nothing to do, 5 where dpkg or apt is at work in the same",
        "folder. An error is one line that says what, and one that says what to do.",
    ]
    for verb in verbs:
        lines += ["", f"## unbrick {verb.name}", "", verb.summary, *_paragraph(verb.description), ""]
        lines += ["```sh", *(example.replace("\\\n      ", "\\\n    ") for example in verb.examples), "```"]
        lines += ["", *_option_lines(verb.options)] if verb.options else []
    return "\n".join(lines) + "\n"


def device_document() -> str:
    """docs/device-cli.md: what the device's command says for `--help`."""
    lines = [
        "# The command line of the device",
        "",
        "Made by `unbrick docs --device`; do not edit. It is the recovery image's own executable, `/init`, run in",
        "the OS.",
    ]
    for name, text in _device_helps():
        lines += ["", f"## {name}", "", "```", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _device_helps() -> Iterator[tuple[str, str]]:
    """Each command's name and its help, 110 characters wide."""
    sys.modules.setdefault("device_config", _NoDevice("device_config"))
    from recovery.cli import command_parser

    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "112"
    try:
        found = [command_parser()]
        while found:
            parser = found.pop(0)
            inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
            found[:0] = [choice for action in inner for choice in action.choices.values()]
            yield parser.prog, parser.format_help()
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


class _NoDevice(ModuleType):
    """Stands for the configuration that an image has built in."""

    CONFIG: ClassVar[dict[str, object]] = {}


def _paragraph(text: str) -> list[str]:
    return ["", text] if text else []


def _option_lines(options: Sequence[Option]) -> list[str]:
    rows = ["| argument | meaning |", "|---|---|"]
    for option in options:
        names = option.shown_value if option.is_position else ", ".join(option.names)
        value = "" if option.is_position or option.flag else f" {option.shown_value}"
        argument = f"`{names}{value}`".replace("|", "\\|")
        meaning = option.help.replace("|", "\\|")
        rows.append(f"| {argument} | {meaning}{_remark(option)} |")
    return rows


def _remark(option: Option) -> str:
    if option.required:
        return " (required)"
    if option.many:
        return " (may be repeated)"
    return f" (default: `{option.default}`)" if option.default not in (None, "", False) else ""


VERBS = (
    Verb(
        "completion",
        "Print a completion script for a shell.",
        completion,
        (Option(("shell",), "the shell", choices=("bash",)),),
        examples=('eval "$(unbrick completion bash)"',),
    ),
    Verb(
        "docs",
        "Print docs/cli.md.",
        documentation,
        (Option(("--device",), "docs/device-cli.md instead", flag=True),),
        examples=("unbrick docs > docs/cli.md", "unbrick docs --device > docs/device-cli.md"),
    ),
)
