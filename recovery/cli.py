"""The device's command, run in the OS: the same binary as the recovery image's /init.

It reads the journal and tells, says that the OS runs well, asks for recovery, and makes updates
(`recovery.cli_update`). Exit codes: 0 done, 1 error, 2 nothing to do, 4 a restart is needed; of `packages` also 5:
dpkg or apt is at work.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from device_config import CONFIG

from recovery import cli_update
from recovery.device_journal import DeviceJournal, lock_journal
from recovery.disks import DiskMissingError, find_disk
from recovery.history import Entry, entries
from statemachine.reasons import advice, label
from statemachine.record import NO_DIGEST, Record, Slot
from statemachine.store import JournalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DONE, ERROR, NOTHING_TO_DO, RESTART_NEEDED = 0, 1, 2, 4
_REBOOT_COMMANDS = (("/usr/bin/systemctl", "reboot"), ("/sbin/reboot",))
_PACKAGES = "the packages of the system that runs"
_STATUS_EXAMPLES = """examples:
  unbrick status
  unbrick status --json
  eval "$(unbrick status --output-format=shell)"; echo "$UNBRICK_STATE"
"""
_EXAMPLES = """examples:
  unbrick status                     what the device is and why
  unbrick status --output-format=shell
  unbrick mark-good                  the OS runs well: confirm it
  unbrick install os.ubk             install another version: newer or older, all the same
  unbrick install http://updates.example.org/os.ubk
  unbrick install --background --rate-limit 2M os.ubk
  unbrick packages apply t.ubk       bring the device to the packages of a transaction
  unbrick rollback                   back to the other version that ran well
  unbrick check                      read and verify everything that is kept
  unbrick check http://updates.example.org/os.ubk
                                     is there something newer?
  unbrick reboot --recovery          verify the slot at the next start
  unbrick log                        what happened, oldest first
  unbrick journal show --json        every record of the journal

exit codes: 0 done, 1 error, 2 nothing to do, 4 done, and a restart is needed; of `unbrick packages` also 5: dpkg or
apt is at work
"""


def main(arguments: list[str]) -> int:
    """``arguments`` are the process's, its name first."""
    chosen = command_parser(arguments[1:2] == ["packages"]).parse_args(arguments[1:])
    try:
        return int(chosen.run(chosen))
    except (OSError, DiskMissingError, JournalError) as error:
        print(f"unbrick: {error}", file=sys.stderr)
        print("unbrick: what to do: run this as root on the device itself; see `unbrick log`", file=sys.stderr)
        return ERROR


def command_parser(with_packages: bool = True) -> argparse.ArgumentParser:
    """The package manager is imported only where one of its verbs is asked for: `mark-good` runs at every start."""
    parser = argparse.ArgumentParser(
        prog="unbrick",
        description="What the recovery of this device knows, and what the OS has to tell it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    status = _verb(verbs, "status", "the state of the device, its reason, its image", _status, ("json", "shell"))
    status.epilog = _STATUS_EXAMPLES
    cli_update.add_verbs(verbs)
    if with_packages:
        from recovery import cli_packages

        cli_packages.add_verbs(verbs, _PACKAGES)
    else:
        verbs.add_parser("packages", help=_PACKAGES)
    reboot = _verb(verbs, "reboot", "restart the device", _reboot)
    reboot.add_argument("--recovery", action="store_true", help="verify the slot before the next start of the OS")
    reboot.add_argument("--later", action="store_true", help="only note the request; restart when you like")
    _verb(verbs, "log", "what happened, from the journal, oldest first", _log, ("json",))
    journal = verbs.add_parser("journal", help="the journal's records").add_subparsers(required=True, metavar="VERB")
    _verb(journal, "show", "every record, oldest first", _journal_show, ("json",))
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
    formats: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=run)
    if formats:
        choices = ("readable", *formats)
        parser.add_argument("--output-format", choices=choices, default="readable", help="default: %(default)s")
        parser.add_argument("--json", action="store_const", const="json", dest="output_format", help="short form")
    return parser


def _status(chosen: argparse.Namespace) -> int:
    journal = _open_journal(look_only=True)
    facts = describe(journal.record) | {"journal": journal.verdict.lower()}
    _show(facts, chosen.output_format)
    return DONE


def _reboot(chosen: argparse.Namespace) -> int:
    if chosen.recovery:
        lock = lock_journal()
        try:
            journal = _open_journal()
            journal.persist(journal.record.but(requested=True))
        finally:
            os.close(lock)
        print("unbrick: the slot is verified at the next start")
    return DONE if chosen.later else restart()


def restart() -> int:
    """Restart the device; the exit code of the command that was to do it."""
    for command in _REBOOT_COMMANDS:
        if os.access(command[0], os.X_OK):
            process = os.posix_spawn(command[0], command, dict(os.environ))
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print("unbrick: no command to restart was found; restart the device by hand", file=sys.stderr)
    return ERROR


def _log(chosen: argparse.Namespace) -> int:
    history = [entry for entry in _history() if entry.changed]
    if chosen.output_format == "json":
        print(json.dumps([_facts(entry) for entry in history], indent=1))
        return DONE
    for entry in history:
        record = entry.record
        print(f"boot {record.boots:5d}  {record.state:<14} {label(record.reason)}")
    return DONE


def _journal_show(chosen: argparse.Namespace) -> int:
    if chosen.output_format == "json":
        print(json.dumps([_facts(entry) for entry in _history()], indent=1))
        return DONE
    for entry in _history():
        facts = _facts(entry)
        print("  ".join(f"{name}={value}" for name, value in facts.items()))
    return DONE


def describe(record: Record) -> dict[str, object]:
    """The record as names and values for a person or a script."""
    return {
        "state": record.state,
        "reason": label(record.reason),
        "advice": advice(record.reason),
        "entered": label(record.entered),
        "boots": record.boots,
        "attempts-left": record.attempts_left,
        "cycles": record.cycles,
        "floor": record.floor,
        "root-version": record.root_version,
        "clock-floor": record.clock_floor,
        "slot": record.primary,
        "version": record.installed.version,
        "image": _short(record.installed.digest),
        "kind": record.installed.kind,
        "booted-slot": record.booted,
        "slots": "; ".join(f"{number} {_slot_text(slot)}" for number, slot in enumerate(record.slots)),
        "confirmed-version": record.confirmed_version,
        "confirmed": _short(record.confirmed),
        "target": _short(record.target.digest),
        "target-version": record.target.version,
        "tried": len(record.tried),
        "packages-serial": record.packages_serial,
        "packages-good": record.packages_good,
        "packages-on-trial": _short(record.packages_digest),
        "upper-generation": record.upper_generation,
        "frames-written": record.frames_written,
        "requested": record.requested,
    }


def _facts(entry: Entry) -> dict[str, object]:
    return {"term": entry.term, "sequence": entry.sequence} | describe(entry.record)


def _slot_text(slot: Slot) -> str:
    return f"version {slot.image.version} {slot.condition}" if slot.image.digest != NO_DIGEST else slot.condition


def _short(digest: bytes) -> str:
    return "none" if digest == NO_DIGEST else digest[:8].hex()


def _show(facts: dict[str, object], output_format: str) -> None:
    if output_format == "json":
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if output_format == "shell":
            text = str(value).replace("'", "'\\''")
            print(f"UNBRICK_{name.upper().replace('-', '_')}='{text}'")
        else:
            print(f"{name + ':':<18} {value}")


def _open_journal(look_only: bool = False) -> DeviceJournal:
    return DeviceJournal(CONFIG, find_disk(CONFIG["disk"]["serial"]), look_only)


def _history() -> list[Entry]:
    return entries(_open_journal(look_only=True).store)
