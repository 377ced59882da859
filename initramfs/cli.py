"""The command ``unbrick`` on the build host: parse, run one verb, say what went wrong in one line.

The verbs are in ``cli_*.py``; a verb is imported only when it is asked for, and what it needs to work
only when it runs. Exit codes: 0 done, 1 an error that was printed, 2 a command line that means nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from initramfs.cli_registry import COMMON, Option, Verb
from initramfs.errors import BuildError, ToolError

VERB_MODULES = (
    "initramfs.cli_build",
    "initramfs.cli_image",
    "initramfs.cli_payload",
    "initramfs.cli_bundle",
    "initramfs.cli_packages",
    "initramfs.cli_transaction",
    "initramfs.cli_keys",
    "initramfs.cli_journal",
    "initramfs.cli_machine",
    "initramfs.cli_documents",
)
DESCRIPTION = "Build, look into, sign and try recovery images: a device that always comes back."
INTERRUPTED_EXIT_CODE = 130


def verbs() -> tuple[Verb, ...]:
    """Every verb, in the order of the documentation."""
    return tuple(verb for name in VERB_MODULES for verb in importlib.import_module(name).VERBS)


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs; the chosen one is in ``verb`` of what it returns."""
    top = argparse.ArgumentParser(
        prog="unbrick", description=DESCRIPTION, epilog="`unbrick VERB --help` shows options and examples."
    )
    top.add_argument("--version", action="version", version=f"unbrick {_version()}")
    level = top.add_subparsers(metavar="VERB", required=True)
    groups: dict[str, argparse._SubParsersAction[argparse.ArgumentParser]] = {}
    for verb in verbs():
        group, _, word = verb.name.rpartition(" ")
        if group and group not in groups:
            inner = level.add_parser(group, help=f"{group} …", description=f"Commands of `unbrick {group}`.")
            groups[group] = inner.add_subparsers(metavar="VERB", required=True)
        _add_verb(groups[group] if group else level, word, verb)
    return top


def _add_verb(level: argparse._SubParsersAction[argparse.ArgumentParser], word: str, verb: Verb) -> None:
    description = f"{verb.summary}\n\n{verb.description}".strip()
    added = level.add_parser(
        word,
        help=verb.summary,
        description=description,
        epilog="examples:\n" + "\n".join(f"  {example}" for example in verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in (*verb.options, *COMMON):
        _add_option(added, option)
    added.set_defaults(verb=verb)


def _add_option(added: argparse.ArgumentParser, option: Option) -> None:
    if option.flag:
        added.add_argument(*option.names, help=option.help, action="store_true")
        return
    settings = {"help": option.help, "type": option.kind, "metavar": option.shown_value}
    if option.choices and not option.many:
        settings |= {"choices": option.choices}
    if option.is_position and option.default is not None:
        settings |= {"nargs": "*" if option.many else "?", "default": option.default}
    elif option.is_position and option.many:
        settings |= {"nargs": "+"}
    elif not option.is_position:
        settings |= {"required": option.required, "dest": option.destination, "default": option.default}
        settings |= {"action": "append", "default": []} if option.many else {}
    added.add_argument(*option.names, **settings)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (without the program's name); returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    given = parser().parse_args(arguments)
    if given.json:
        given.output_format = "json"
    verb: Verb = given.verb
    try:
        return verb.run(given)
    except BrokenPipeError:
        # Whoever read us has gone (`| head`): the interpreter's own flush must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("unbrick: stopped", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except ModuleNotFoundError as error:
        hint = "Install the toolkit with its dependencies: pip install unbrick, or pip install -e . in a checkout."
        return _report(ToolError(f"the Python package {error.name} is not installed", hint), given.debug)
    except Exception as error:
        return _report(error, given.debug)


def _report(error: Exception, debug: bool) -> int:
    """One line what, one line what to do. What is not of a known kind is our defect: always in full."""
    if debug or not _is_expected(error):
        traceback.print_exception(error)
    lines = str(error).splitlines() or [type(error).__name__]
    hint = getattr(error, "hint", "")
    if hint and hint not in lines[-1]:
        lines.append(f"  {hint}")
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}unbrick: {lines[0]}{plain}", *lines[1:], sep="\n", file=sys.stderr)
    return getattr(error, "exit_code", 1)


def _is_expected(error: Exception) -> bool:
    """Errors of the worlds below that the command line may meet; imported only if they were raised there."""
    worlds = (("payload.errors", "PayloadError"), ("qemu.errors", "LabError"))
    known: list[type[BaseException]] = [BuildError, OSError]
    known += [getattr(sys.modules[name], tree) for name, tree in worlds if name in sys.modules]
    return isinstance(error, tuple(known))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("unbrick")
    except PackageNotFoundError:
        return "(a checkout)"


def command() -> NoReturn:
    sys.exit(main())
