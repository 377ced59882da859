"""What PID 1's child runs: open the journal, decide, and either hand over or recover.

The ordinary boot (confirmed or trying, nothing suspicious) ends in this file: one record is appended
and the OS gets the machine. Only what that needs is imported here; recovery is imported when it works.
"""

from __future__ import annotations

from device_config import CONFIG

from recovery.console import note, say
from recovery.device_journal import DeviceJournal, uncharged
from recovery.disks import DiskMissingError, Opened, ToldRegion, find_disk
from recovery.evidence import gather
from recovery.hand_over import BootFailedError, mount_root
from recovery.supervisor import Supervisor
from statemachine.decide import decide, give_way
from statemachine.reasons import CODES
from statemachine.step import step
from statemachine.store import JournalMoved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from statemachine.record import Record
    from statemachine.region import Region

OPENINGS_MAX = 3


def main(arguments: list[str]) -> int:
    """``arguments`` are the process's: its name, and how often it crashed in this boot.

    Returns only where there is nothing to work on: PID 1 starts this again, later and later.
    """
    supervisor = Supervisor()
    supervisor.wait_for_modules()
    _watch(supervisor)
    crashes = int(arguments[1]) if len(arguments) > 1 else 0
    moved, before = 0, None
    while moved < OPENINGS_MAX:
        opened = Opened()
        try:
            before = _start(supervisor, find_disk(CONFIG["disk"]["serial"]), opened, crashes, before)
        except DiskMissingError as error:
            say(CODES["disk-missing"], str(error), with_advice=True)
            return 1
        except JournalMoved as error:
            say(CODES["journal-moved"], str(error))
            moved += 1
        finally:
            opened.close()
    return 1


def _start(supervisor: Supervisor, disk: str, opened: Opened, crashes: int, before: Record | None) -> Record | None:
    """Open the journal, decide, persist, act. Comes back after a rest without a journal, to be done again.

    ``before`` is what that one gave: the record that was found, where no boot was tried with it.
    Raises ``JournalMoved``, and then it is to be done again at once.
    """

    def told(disk: str, place: dict[str, int], writable: bool) -> Region:
        return ToldRegion(opened(disk, place, writable), supervisor.progress)

    journal = DeviceJournal(CONFIG, disk, opener=told)
    if journal.reason != CODES["journal-intact"]:
        say(journal.reason)
    found = uncharged(journal.record, before)
    record = found.but(boots=found.boots + (crashes == 0))
    event, reason = decide(record, gather(record, CONFIG, journal_writable=True))
    following, action = step(record, give_way(record, event), CONFIG["boot_attempts"], reason=reason)
    if not journal.try_persist(following):
        event, reason = decide(record, gather(record, CONFIG, journal_writable=False))
        following, action = step(record, event, CONFIG["boot_attempts"], reason=reason)
    boots = action in ("boot", "boot_pristine")
    if boots:
        try:
            hand_over(supervisor, following, disk, action == "boot_pristine", event != "uncounted_boot_allowed")
        except BootFailedError as error:
            say(error.reason, str(error))
            reason = error.reason
            event = give_way(following, error.event)
            following, action = step(following, event, CONFIG["boot_attempts"], reason=reason)
            if not journal.try_persist(following):
                reason = CODES["journal-unwritable"]
                following, action = step(following, "journal_unwritable", CONFIG["boot_attempts"], reason=reason)
    _recover(supervisor, disk, opened, journal, following, action)
    return None if boots else found


def hand_over(supervisor: Supervisor, record: Record, disk: str, pristine: bool, counted: bool = True) -> NoReturn:
    """Does not return unless it raises ``BootFailedError``."""
    root = mount_root(record, CONFIG, disk, pristine, supervisor.progress)
    image = record.installed
    attempt = CONFIG["boot_attempts"] - record.attempts_left
    note(f"{record.state}: handing over to version {image.version}, attempt {attempt} of {CONFIG['boot_attempts']}")
    supervisor.hand_over(root, image.init, image.watchdog_owner, counted=counted)


def _watch(supervisor: Supervisor) -> None:
    watchdog = CONFIG.get("watchdog")
    if watchdog:
        supervisor.watch(watchdog["device"], watchdog["timeout_seconds"])


def _recover(
    supervisor: Supervisor, disk: str, opened: Opened, journal: DeviceJournal, record: Record, action: str
) -> None:
    from recovery.conductor import Conductor, load_recovery_modules

    def boot(record: Record, pristine: bool) -> tuple[str, int, dict[str, Any]]:
        try:
            return hand_over(supervisor, record, disk, pristine)
        except BootFailedError as error:
            note(str(error))
            return error.event, error.reason, {}

    say(record.reason, record.state, with_advice=record.state == "WAITING")
    load_recovery_modules()
    Conductor(CONFIG, disk, journal, record, supervisor.progress, boot, opener=opened).run(action)
