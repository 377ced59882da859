"""The verbs of the device's command that change what runs: install, commit, rollback, resume, check.

Thin: what they do is `recovery.update`. One installation runs at a time, held by a kernel lock that dies with its
holder, so nobody ever has a lock to delete. Where a bundle comes from is one function, :func:`open_source`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from device_config import CONFIG

from payload.errors import PayloadError
from recovery import update
from recovery.console import tell_console
from recovery.device_journal import lock_update
from recovery.disks import find_disk
from recovery.pace import PacedReader, Terminal, byte_count
from recovery.workshop import Workshop
from statemachine.reasons import CODES, advice, label
from statemachine.record import NO_DIGEST, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from payload.bundle import Reader
    from payload.sources import FileSource

    Run = Callable[[argparse.Namespace], int]

DONE, ERROR, NOTHING_TO_DO, RESTART_NEEDED = 0, 1, 2, 4
SOURCE_FILE = "/run/unbrick/data/update-source"  # not in the system state: another version starts with its own
SOURCE_TEXT_BYTES_MAX = 4096
NICE = 19  # the disk's scheduler follows: the lowest of its best-effort levels
_OUTCOMES = {
    update.INSTALLED: (RESTART_NEEDED, "installed; restart to try it: unbrick reboot"),
    update.STAGED: (RESTART_NEEDED, "on the disk and verified; restart to install it: unbrick reboot"),
    update.WAITS_FOR_RESTART: (RESTART_NEEDED, "waits for a restart: unbrick reboot"),
    update.CURRENT: (DONE, "runs already, and is kept for repairs"),
}


_INSTALL_EXAMPLES = """examples:
  unbrick install /data/os.ubk                 a newer or an older version, at or above the floor
  unbrick install /dev/sda1                    from a disk or partition that begins with a bundle
  unbrick install --background --rate-limit 2M os.ubk
  unbrick reboot                               try it; without a commit the device comes back by itself
  unbrick resume                               after a power cut or a kill: go on where it was

exit codes: 0 done, 1 error, 4 done, and a restart is needed
"""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them to the device's parser."""
    install = _verb(verbs, "install", "install a version from a bundle; it runs after a restart", _install)
    install.epilog, install.formatter_class = _INSTALL_EXAMPLES, argparse.RawDescriptionHelpFormatter
    install.add_argument("file", metavar="FILE", help="the bundle (.ubk), or a disk or partition that begins with one")
    install.add_argument("--again", action="store_true", help="also a version that failed on this device")
    install.add_argument("--one-way", action="store_true", help="also where the version that runs could not come back")
    _pace(install)
    _pace(_verb(verbs, "resume", "go on with an installation that was interrupted", _resume))
    for name, text in (("mark-good", "the OS runs well: confirm its image"), ("commit", "the same as mark-good")):
        _verb(verbs, name, text, _commit)
    _verb(verbs, "rollback", "back to the other version that ran well; it runs after a restart", _rollback)
    check = _verb(verbs, "check", "verify everything that is kept, or whether a bundle would be taken", _check)
    check.add_argument("file", metavar="FILE", nargs="?", help="a bundle: is it for this device?")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: Run
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="say the result as JSON")
    parser.set_defaults(run=lambda chosen: _explained(run, chosen))
    return parser


def _pace(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(again=False, one_way=False)
    parser.add_argument("--background", action="store_true", help="give way to everything else that runs")
    parser.add_argument("--rate-limit", metavar="BYTES", type=byte_count, default=0, help="per second; 500K, 2M")


def _explained(run: Run, chosen: argparse.Namespace) -> int:
    """Run it; an error is one line with its reason and one with what to do."""
    try:
        return run(chosen)
    except update.UpdateError as error:
        return _fail(chosen, error.reason, str(error))
    except PayloadError as error:
        reason = CODES.get(error.reason, CODES["slot-write-failed"])
        return _fail(chosen, reason, f"{label(reason)}: {error}")


def _fail(chosen: argparse.Namespace, reason: int, text: str) -> int:
    if chosen.json:
        print(json.dumps({"outcome": "failed", "reason": label(reason), "detail": text, "advice": advice(reason)}))
    print(f"unbrick: {text}\nunbrick: what to do: {advice(reason)}", file=sys.stderr)
    return ERROR


def _install(chosen: argparse.Namespace) -> int:
    with _Alone():
        _remember_source(os.path.abspath(chosen.file))
        return _update_from_file(chosen, chosen.file)


def _update_from_file(chosen: argparse.Namespace, where: str) -> int:
    source = open_source(where)
    try:
        return _update(chosen, _workshop(), source)
    finally:
        source.close()


def _update(chosen: argparse.Namespace, workshop: Workshop, source: Reader) -> int:
    if chosen.background:
        os.nice(NICE)
    ledger = _ledger()
    outcome = update.update(workshop, ledger, PacedReader(source, chosen.rate_limit), chosen.again, chosen.one_way)
    record = ledger.look()
    image = record.target if record.target.digest != NO_DIGEST else record.installed
    if outcome == update.CURRENT or update.is_kept(workshop, image.digest):
        _forget_source()
    code, text = _OUTCOMES[outcome]
    return _report(chosen, code, outcome, image.version, f"version {image.version} {text}")


def open_source(where: str) -> FileSource:
    """The bundle at ``where``: a path. Another kind of place is added here. Raises ``OSError``."""
    from payload.sources import FileSource

    return FileSource(os.path.realpath(where), where)


def _resume(chosen: argparse.Namespace) -> int:
    with _Alone():
        record, workshop = _ledger().look(), _workshop()
        if update.waits_for_restart(record):
            text = "nothing is left to do but a restart: unbrick reboot"
            return _report(chosen, RESTART_NEEDED, update.WAITS_FOR_RESTART, record.installed.version, text)
        workshop.recall(record)
        for candidate in workshop.kept():
            if candidate is not None and candidate.manifest.digest == record.target.digest:
                return _update(chosen, workshop, candidate.source)
        where = _remembered_source()
        if where and os.path.exists(where):
            return _update_from_file(chosen, where)
    return _report(chosen, NOTHING_TO_DO, "nothing", record.installed.version, "no installation was interrupted")


def _commit(chosen: argparse.Namespace) -> int:
    try:
        record = update.commit(_workshop(), _ledger())
    except update.NotPossibleError as error:
        print(f"unbrick: nothing to confirm: {error}", file=sys.stderr)
        return NOTHING_TO_DO
    except update.UpdateError as error:
        if error.reason != CODES["not-booted"]:
            raise
        return _report(chosen, RESTART_NEEDED, update.WAITS_FOR_RESTART, 0, str(error))
    line = f"{label(record.reason)}: version {record.confirmed_version}"
    tell_console(f"unbrick: {line}")
    code = _report(chosen, DONE, "confirmed", record.confirmed_version, line)
    if _remembered_source():
        _refresh()
    return code


def _refresh() -> None:
    """Keep the bundle of what was just confirmed, if it came from a file that is still there."""
    try:
        with _Alone():
            source = open_source(_remembered_source())
            try:
                update.refresh(_workshop(), _ledger().look(), source)
            finally:
                source.close()
            _forget_source()
    except (OSError, PayloadError, update.UpdateError) as error:
        print(f"unbrick: the bundle is not kept for repairs yet: {error}", file=sys.stderr)
        print("unbrick: what to do: install the same version again, from where it is now", file=sys.stderr)


def _rollback(chosen: argparse.Namespace) -> int:
    with _Alone():
        record = update.rollback(_workshop(), _ledger())
    image = record.target if record.state == "STAGED" else record.installed
    line = f"{label(record.reason)}: version {image.version}; restart to run it: unbrick reboot"
    return _report(chosen, RESTART_NEEDED, "rolled-back", image.version, line)


def _check(chosen: argparse.Namespace) -> int:
    workshop, record = _workshop(), _ledger().look()
    if chosen.file:
        return _check_bundle(chosen, workshop, record)
    found = update.findings(workshop, record)
    bad = [one for one in found if one["damaged"]]
    if chosen.json:
        print(json.dumps(found))
        return ERROR if bad else DONE
    for one in found:
        state = "no header" if one["damaged"] is None else f"{one['damaged']} frames damaged"
        print(f"{one['what']}: version {one['version']}, {one['condition']}: {state}")
    if bad:
        print("unbrick: what to do: `unbrick reboot --recovery` repairs the slot that runs", file=sys.stderr)
    return ERROR if bad else DONE


def _check_bundle(chosen: argparse.Namespace, workshop: Workshop, record: Record) -> int:
    from payload.bundle import read_header

    source = open_source(chosen.file)
    try:
        workshop.recall(record)
        manifest = workshop.installable(read_header(source))
    finally:
        source.close()
    relation = {-1: "a downgrade", 0: "the same version", 1: "an upgrade"}
    order = (manifest.version > record.installed.version) - (manifest.version < record.installed.version)
    text = f"version {manifest.version} would be taken: {relation[order]}"
    return _report(chosen, DONE, "accepted", manifest.version, text)


def _report(chosen: argparse.Namespace, code: int, outcome: str, version: int, text: str) -> int:
    if chosen.json:
        restart = code == RESTART_NEEDED
        print(json.dumps({"outcome": outcome, "version": version, "restart-needed": restart, "detail": text}))
    else:
        print(f"unbrick: {text}")
    return code


class _Alone:
    """The update lock. Raises ``UpdateError`` where another installation is at work."""

    def __enter__(self) -> None:
        try:
            self._lock = lock_update()
        except BlockingIOError as error:
            raise update.UpdateError("update-busy", "one installation at a time") from error

    def __exit__(self, *_error: object) -> None:
        os.close(self._lock)


def _workshop() -> Workshop:
    def refuse(_record: Record) -> None:
        raise AssertionError("only recovery persists intents this way")

    return Workshop(CONFIG, _disk(), lambda: None, refuse, show=Terminal(sys.stderr))


def _ledger() -> update.Ledger:
    return update.Ledger(CONFIG, _disk())


def _disk() -> str:
    return find_disk(CONFIG["disk"]["serial"])


def _remember_source(path: str) -> None:
    """Where the bundle is, for `resume` and for keeping it after the commit. A hint: losing it loses no update."""
    from payload.durable import atomic_replace

    try:
        os.makedirs(os.path.dirname(SOURCE_FILE), exist_ok=True)
        atomic_replace(SOURCE_FILE, os.fsencode(path))
    except OSError:
        return


def _remembered_source() -> str:
    try:
        with open(SOURCE_FILE, "rb") as file:
            return os.fsdecode(file.read(SOURCE_TEXT_BYTES_MAX))
    except OSError:
        return ""


def _forget_source() -> None:
    try:
        os.unlink(SOURCE_FILE)
    except OSError:
        return
