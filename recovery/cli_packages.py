"""The verb `packages` of the device's command, where the device's state is concerned: apply, resume, undo, restore.

Thin: the work is `recovery.package_update`, which is imported when a verb runs. One installation at a time, of an image
or of packages.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from packagemanager.errors import PackageError
from payload.errors import FetchError, PayloadError
from recovery import cli_update
from recovery.update import UpdateError
from statemachine.reasons import CODES, advice, label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from recovery.package_update import Packages

    Run = Callable[[argparse.Namespace], int]

DONE, ERROR, NOTHING_TO_DO, RESTART_NEEDED = 0, 1, 2, 4
DATA, LOWER, SCRATCH = "/run/unbrick/data", "/run/unbrick/lower", "/run/unbrick/scratch"
STORE = f"{DATA}/packages"
_EXAMPLES = """examples:
  unbrick packages apply /data/t.ubk           bring the device to the transaction's packages at the next start
  unbrick packages apply --live /data/t.ubk    at once, in the running system
  unbrick packages undo                        back to the packages before, while they are not confirmed
  unbrick mark-good                            the OS runs well with them: confirm them

exit codes: 0 done, 1 error, 2 nothing to do, 4 done, and a restart is needed
"""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `packages` and its verbs to the device's parser."""
    text = "the packages of the system that runs"
    parser = verbs.add_parser("packages", help=text, description=text, epilog=_EXAMPLES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    own = parser.add_subparsers(required=True, metavar="VERB")
    apply = _verb(own, "apply", "bring the device to the packages that a transaction wants", _apply)
    apply.add_argument("where", metavar="FILE", nargs=1, help="a transaction (.ubk)")
    apply.add_argument("--live", action="store_true", help="in the running system; without it, at the next start")
    _verb(own, "resume", "run the scripts that are left of a transaction", _resume)
    _verb(own, "undo", "back to the packages before the transaction that is not confirmed yet", _undo)
    restore = _verb(own, "restore", "bring back the packages that ran well, where this system lost them", _restore)
    restore.add_argument("--restart", action="store_true", help="restart where that is needed")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: Run
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="say the result as JSON")
    parser.set_defaults(run=lambda chosen: _explained(run, chosen))
    return parser


def _explained(run: Run, chosen: argparse.Namespace) -> int:
    try:
        with cli_update.Alone():
            return run(chosen)
    except PackageError as error:
        return _fail(chosen, str(error), error.advice)
    except (UpdateError, PayloadError, FetchError) as error:
        reason = error.reason if isinstance(error.reason, int) else CODES[error.reason]
        return _fail(chosen, f"{label(reason)}: {error}", advice(reason))


def _fail(chosen: argparse.Namespace, text: str, step: str) -> int:
    if chosen.json:
        print(json.dumps({"outcome": "failed", "detail": text, "advice": step}))
    print(f"unbrick: {text}\nunbrick: what to do: {step or 'see `unbrick log`'}", file=sys.stderr)
    return ERROR


def _apply(chosen: argparse.Namespace) -> int:
    from payload.sources import FileSource

    source = FileSource(os.path.realpath(chosen.where[0]), chosen.where[0])
    try:
        outcome = _packages().apply(source, live=chosen.live)
    finally:
        source.close()
    return _report(chosen, outcome)


def _resume(chosen: argparse.Namespace) -> int:
    resumed = _packages().manager().resume()
    if resumed.found is None:
        return _report(chosen, "nothing")
    return _report(chosen, "on-trial" if resumed.now else "undone")


def _undo(chosen: argparse.Namespace) -> int:
    for path, reason in _packages().manager().undo():
        print(f"unbrick: /{path} is not as it was: {reason}", file=sys.stderr)
    return _report(chosen, "undone")


def _restore(chosen: argparse.Namespace) -> int:
    outcome = _packages().restore()
    code = _report(chosen, outcome)
    if code == RESTART_NEEDED and chosen.restart:
        from recovery.cli import restart

        return restart()
    return code


_OUTCOMES = {
    "nothing": (NOTHING_TO_DO, "nothing to do"),
    "waits-for-restart": (RESTART_NEEDED, "staged; restart to have them: unbrick reboot"),
    "on-trial": (DONE, "the packages are there; unbrick mark-good confirms them"),
    "done": (DONE, "the packages are there and confirmed"),
    "undone": (DONE, "the packages before are back"),
    "restart": (RESTART_NEEDED, "this start has a temporary system state: unbrick reboot"),
    "staged": (RESTART_NEEDED, "the packages that ran well come back at the next start: unbrick reboot"),
}


def _report(chosen: argparse.Namespace, outcome: str) -> int:
    code, text = _OUTCOMES[outcome]
    if chosen.json:
        print(json.dumps({"outcome": outcome, "restart-needed": code == RESTART_NEEDED, "detail": text}))
    else:
        print(f"unbrick: {text}")
    return code


def _packages() -> Packages:
    from packagemanager.root import Root
    from packagemanager.scripts import runner
    from packagemanager.store import Store
    from recovery.package_update import Packages

    has_base = os.path.ismount(LOWER) and os.path.ismount(DATA)
    return Packages(
        cli_update.make_workshop(),
        cli_update.make_ledger(),
        Root("/"),
        run=runner("/"),
        base=Root(LOWER) if has_base else None,
        store=Store(STORE) if has_base else None,
        is_scratch=os.path.ismount(SCRATCH),
    )
