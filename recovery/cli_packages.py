"""The verb `packages` of the device's command: the package manager's own verbs, and those that need the journal.

Thin: the work is `packagemanager.cli` and `recovery.package_update`. Nothing that changes packages runs beside an
installation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from packagemanager import cli
from packagemanager.errors import left_lines
from recovery import cli_update
from recovery.asked import is_url
from recovery.console import tell_console
from recovery.package_commit import commit_confirmed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from packagemanager.ledger import Ledger
    from packagemanager.opened import Opened
    from packagemanager.order import Order
    from packagemanager.root import Root
    from packagemanager.scripts import Run
    from packagemanager.transact import Report
    from packagemanager.tree import Tree
    from recovery.package_update import Packages

SYSTEM = cli_update.SYSTEM
SCRATCH = "/run/unbrick/scratch"
_LOOKING = ("status", "plan", "verify")
_EXIT_CODES = """
exit codes: 0 done, 1 error, or something is damaged, 2 nothing to do, 4 done, and a restart is needed,
5 dpkg or apt is at work
"""
_EXAMPLES = f"""examples:
  unbrick packages status --json               all that a master has to know of this device
  unbrick packages plan /data/t.ubk            what would change, step by step
  unbrick packages apply /data/t.ubk           bring the device to the transaction's packages
  unbrick packages undo                        back to the packages before, while they are not confirmed
  unbrick mark-good                            the OS runs well with them: confirm them
{_EXIT_CODES}"""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], text: str) -> None:
    """Add `packages` and its verbs to the device's parser."""
    parser = verbs.add_parser("packages", help=text, description=text, epilog=_EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    own = parser.add_subparsers(required=True, metavar="VERB")
    for verb in (*cli.VERBS, *VERBS):
        described = "\n\n".join(filter(None, (verb.summary, verb.description)))
        added = own.add_parser(verb.name, help=verb.summary, description=described, epilog=_epilog(verb))
        added.formatter_class = argparse.RawDescriptionHelpFormatter
        added.add_argument("--json", action="store_true", help="say the result as JSON")
        for option in verb.options:
            _add(added, option)
        added.set_defaults(run=lambda chosen, verb=verb: _run(verb, chosen), root=SYSTEM, then="")


def _epilog(verb: cli.Verb) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in verb.examples), _EXIT_CODES])


def _add(parser: argparse.ArgumentParser, option: cli.Option) -> None:
    if option.flag:
        parser.add_argument(option.name, help=option.help, action="store_true")
    elif option.is_position:
        parser.add_argument(option.name, help=option.help, metavar=option.metavar, nargs="*" if option.many else "?")
    else:
        parser.add_argument(option.name, help=option.help, metavar=option.metavar)


def _run(verb: cli.Verb, chosen: argparse.Namespace) -> int:
    def run(chosen: argparse.Namespace) -> int:
        if verb.name in _LOOKING:
            return cli.run(verb, chosen, Device())
        with cli_update.Alone():
            if chosen.root == SYSTEM:
                commit_confirmed(cli_update.make_ledger(), SYSTEM)
            return cli.run(verb, chosen, Device())

    return cli_update.explained(run, chosen)


class Device:
    """The device as `packagemanager.cli` wants it: whom to believe, the journal, what runs scripts."""

    def root(self, folder: str) -> Root:
        from packagemanager.root import Root
        from recovery.running_root import running_root

        return running_root(folder) if folder == SYSTEM else Root(folder)

    def order(
        self, chosen: argparse.Namespace, tree: Tree, last_serial: int, opened: Opened, *, take: bool = False
    ) -> Order:
        from recovery.package_source import open_transaction

        if is_url(chosen.transaction):
            cli_update.check_url(chosen.transaction)
        workshop, ledger = cli_update.make_workshop(), cli_update.make_ledger()
        source = open_transaction(chosen.transaction, workshop, ledger.look(), last_serial)
        opened.add(source.close)
        packages = packages_of(tree)
        if chosen.root == SYSTEM and take:
            return packages.take(source)
        return packages.look(source, last_serial)

    def ledger(self, folder: str) -> Ledger | None:
        from recovery.package_ledger import PackageLedger

        return PackageLedger(cli_update.make_ledger()) if folder == SYSTEM else None

    def run(self, folder: str) -> Run:
        from packagemanager.scripts import runner

        return runner(os.path.realpath(folder))

    def report(self) -> Report:
        from recovery.pace import Terminal

        return Terminal(sys.stderr)

    def alive(self) -> None:
        pass


def packages_of(tree: Tree) -> Packages:
    """The packages of the running system, whose root is ``tree``."""
    from packagemanager.root import Root
    from packagemanager.scripts import runner
    from packagemanager.store import Store
    from recovery.package_update import Packages
    from recovery.running_root import DATA, LOWER, is_layered

    has_base = is_layered()
    return Packages(
        cli_update.make_workshop(),
        cli_update.make_ledger(),
        tree,
        run=runner(SYSTEM),
        base=Root(LOWER) if has_base else None,
        store=Store(f"{DATA}/packages") if has_base else None,
        is_scratch=os.path.ismount(SCRATCH),
    )


# What the journal makes possible.


def _undo(chosen: argparse.Namespace, _place: cli.Place) -> int:
    from recovery.running_root import running_root

    for line in left_lines(packages_of(running_root(SYSTEM)).undo()):
        print(f"unbrick: {line}", file=sys.stderr)
    return _say(chosen, "undone", cli.EXIT_DONE, "the packages before are back")


def _restore(chosen: argparse.Namespace, _place: cli.Place) -> int:
    from recovery.running_root import running_root

    outcome = packages_of(running_root(SYSTEM)).restore()
    code, text = _OUTCOMES[outcome]
    _say(chosen, outcome, code, text)
    if code != cli.EXIT_RESTART:
        return code
    tell_console(f"unbrick: packages: {text}")
    if not chosen.restart or outcome == "staged-again":
        return code
    from recovery.cli import restart

    return restart()


def _say(chosen: argparse.Namespace, outcome: str, code: int, text: str) -> int:
    if chosen.json:
        print(json.dumps({"outcome": outcome, "detail": text, "restart-needed": code == cli.EXIT_RESTART}))
    else:
        print(f"unbrick: {text}")
    return code


_OUTCOMES = {
    "nothing": (cli.EXIT_NOTHING, "nothing to do"),
    "restart": (cli.EXIT_RESTART, "this start has a temporary system state: unbrick reboot"),
    "staged": (cli.EXIT_RESTART, "the packages that ran well come back at the next start: unbrick reboot"),
    "staged-again": (
        cli.EXIT_RESTART,
        "the packages that ran well were dropped here once; they are tried again at the next start: unbrick reboot",
    ),
}
_RESTART = cli.Option("--restart", "restart where that is needed, once for the same set", flag=True)
VERBS = (
    cli.Verb(
        "undo",
        "back to the packages before the transaction that is not confirmed yet",
        _undo,
        examples=("unbrick packages undo",),
        has_root=False,
    ),
    cli.Verb(
        "restore",
        "bring back the packages that ran well, where this system lost them",
        _restore,
        (_RESTART,),
        examples=("unbrick packages restore --restart",),
        has_root=False,
    ),
)
