"""Recovery at work: persist the intent, act, feed the result back as the next event, until the OS boots.

Off the ordinary boot's path. One :class:`Conductor` lives for one opening of the journal: it hands over, or rests in
WAITING.
"""

from __future__ import annotations

import os

from recovery import actions
from recovery.console import say
from recovery.device_journal import DeviceJournal
from recovery.engine import Engine
from recovery.workshop import Workshop
from statemachine.decide import give_way
from statemachine.reasons import CODES
from statemachine.record import Record
from statemachine.store import JournalUnwritable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # mounts the primary slot and hands over; comes back with an event only where that failed
    Boot = Callable[[Record, bool], actions.Result]

# Nothing is tried uncounted, and nothing is written whose intent could not be persisted.
_UNWRITABLE: actions.Result = ("journal_unwritable", CODES["journal-unwritable"], {})
MODULE_LIST = "/etc/unbrick/modules.recovery"
_MODULE_LINES_MAX = 256


class Conductor:
    """``alive`` tells PID 1 that work goes on; ``boot`` hands over; ``world`` is for the workshop."""

    def __init__(
        self,
        config: dict[str, Any],
        disk: str,
        journal: DeviceJournal,
        record: Record,
        alive: Callable[[], None],
        boot: Boot,
        **world: Any,
    ) -> None:
        self._journal = journal
        self._record = record
        self._alive = alive
        self._boot = boot
        self._engine = Engine(config["boot_attempts"])
        self._workshop = Workshop(config, disk, alive, self._intend, **world)

    def run(self, action: str) -> None:
        """Do ``action`` and whatever follows from it, until the OS has the machine.

        Returns after a rest that the journal does not know of: opened anew, it may take records again. Raises
        ``JournalMoved`` where it has to be opened anew at once.
        """
        self._workshop.has_worked = self._record != self._journal.record  # as far as it could be
        while True:
            self._alive()
            result = self._perform(action)
            if action == "rest" and self._record != self._journal.record:
                self._workshop.leave()
                return
            action = self._follow(*result)
            if not self._journal.try_persist(self._record) and action != "rest":
                action = self._follow(*_UNWRITABLE)

    def _follow(self, event: str, reason: int, fields: dict[str, Any]) -> str:
        """Step the machine, say where it is now, and return what it does next."""
        event = give_way(self._record, event)
        self._record, action = self._engine.step(self._record, event, reason=reason, **fields)
        say(reason, self._record.state, with_advice=self._record.state == "WAITING")
        return action

    def _perform(self, action: str) -> actions.Result:
        if action in ("boot", "boot_pristine"):
            self._workshop.leave()
            return self._boot(self._record, action == "boot_pristine")
        self._workshop.recall(self._record)
        try:
            if action != "rest":
                self._workshop.has_worked = True
                if self._workshop.keyring.lacking(self._record):
                    self._record = self._workshop.keep_trust(self._record)
            return actions.ACTIONS[action](self._workshop, self._record)
        except JournalUnwritable:
            return _UNWRITABLE

    def _intend(self, record: Record) -> None:
        """Persist what an action is about to do, before it does it."""
        self._journal.persist(record)
        self._record = record


def load_recovery_modules() -> None:
    """Load what only recovery needs (USB, FAT), in the build's order. A module that fails is named."""
    import _unbrick

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
