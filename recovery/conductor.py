"""Recovery at work: persist the intent, act, feed the result back as the next event, until the OS boots.

Off the ordinary boot's path. One :class:`Conductor` lives for one boot. It never ends by itself: it
hands over, or rests in WAITING.
"""

from __future__ import annotations

import _unbrick

from recovery import actions
from recovery.console import note, say
from recovery.device_journal import DeviceJournal
from recovery.engine import Engine
from recovery.hand_over import BootFailedError, mount_root
from recovery.supervisor import Supervisor
from recovery.workshop import Workshop
from statemachine.reasons import CODES
from statemachine.record import Record
from statemachine.store import JournalUnwritable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Nothing is tried uncounted, and nothing is written whose intent could not be persisted.
_UNWRITABLE: actions.Result = ("journal_unwritable", CODES["journal-unwritable"], {})
MODULE_LIST = "/etc/unbrick/modules.recovery"
_MODULE_LINES_MAX = 256


class Conductor:
    def __init__(
        self, config: dict[str, Any], supervisor: Supervisor, disk: str, journal: DeviceJournal, record: Record
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._disk = disk
        self._journal = journal
        self._record = record
        self._engine = Engine(config["boot_attempts"])
        self._workshop = Workshop(config, disk, supervisor.progress, self._intend)

    def run(self, action: str) -> None:
        """Do ``action`` and whatever follows from it. Returns only when the process ends."""
        say(self._record.reason, self._record.state, with_advice=self._record.state == "WAITING")
        load_recovery_modules()
        while True:
            self._supervisor.progress()
            action = self._follow(*self._perform(action))
            if not self._journal.try_persist(self._record) and action != "rest":
                action = self._follow(*_UNWRITABLE)

    def _follow(self, event: str, reason: int, fields: dict[str, Any]) -> str:
        """Step the machine, say where it is now, and return what it does next."""
        self._record, action = self._engine.step(self._record, event, reason=reason, **fields)
        say(reason, self._record.state, with_advice=self._record.state == "WAITING")
        return action

    def _perform(self, action: str) -> actions.Result:
        if action in ("boot", "boot_pristine"):
            return self._boot(pristine=action == "boot_pristine")
        self._workshop.recall(self._record)
        try:
            return actions.ACTIONS[action](self._workshop, self._record)
        except JournalUnwritable:
            return _UNWRITABLE

    def _boot(self, pristine: bool) -> actions.Result:
        try:
            root = mount_root(self._record, self._config, self._disk, pristine, self._supervisor.progress)
        except BootFailedError as error:
            note(str(error))
            return "boot_failed", error.reason, {}
        self._workshop.leave()
        image = self._record.installed
        note(f"{self._record.state}: handing over to version {image.version}{', pristine' if pristine else ''}")
        return self._supervisor.hand_over(root, image.init, image.watchdog_owner)

    def _intend(self, record: Record) -> None:
        """Persist what an action is about to do, before it does it."""
        self._journal.persist(record)
        self._record = record


def load_recovery_modules() -> None:
    """Load what only recovery needs (USB, FAT), in the build's order. A module that fails is named."""
    import os

    try:
        with open(MODULE_LIST, encoding="ascii") as lines:
            wanted = lines.read().splitlines()[:_MODULE_LINES_MAX]
    except OSError:
        return
    for line in wanted:
        path, _, parameters = line.partition(" ")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _unbrick.finit_module(descriptor, parameters)
            finally:
                os.close(descriptor)
        except FileExistsError:
            continue
        except OSError as error:
            say(CODES["module-failed"], f"{path}: {error.strerror}")
