"""What ends a rest: a source that was not there, or a button that was let go and is held again.

Asked between the waits of a resting device, those for servers included: a person with a stick is not to wait for them.
"""

from __future__ import annotations

import time

from recovery.evidence import button_held
from recovery.workshop import Workshop, identity
from statemachine.reasons import CODES
from statemachine.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from payload.sources import Candidate

REST_POLL_SECONDS = 2.0


class Watch:
    """``known`` are the sources that are no news. ``result`` is how the rest ends, as an action's result, or None."""

    def __init__(self, workshop: Workshop, record: Record, known: set[tuple[str, bytes]]) -> None:
        self.result: tuple[str, int, dict[str, Any]] | None = None
        self._workshop = workshop
        self._record = record
        self._known = known
        self._button: dict[str, Any] | None = workshop.config.get("button")
        self._released = self._button is not None and not button_held(self._button)
        self._next_look = time.monotonic() + REST_POLL_SECONDS

    def __call__(self) -> bool:
        """Look, if that was a while ago. Whether the rest is over."""
        if self.result is None and time.monotonic() >= self._next_look:
            self.result = self._source() or self._held_button()
            self._next_look = time.monotonic() + REST_POLL_SECONDS
        return self.result is not None

    def _source(self) -> tuple[str, int, dict[str, Any]] | None:
        here = usable(self._workshop, self._workshop.candidates(self._record))
        if here - self._known:
            return "source_appeared", looked_again(self._record, CODES["resumed"]), {}
        self._known &= here  # what is pulled out and plugged in again, better copied perhaps, is new
        return None

    def _held_button(self) -> tuple[str, int, dict[str, Any]] | None:
        if self._button is None or self._record.state != "WAITING":
            return None
        held = button_held(self._button)
        if held and self._released:
            return "recovery_requested", CODES["button-held"], {}
        self._released = self._released or not held
        return None


def looked_again(record: Record, reason: int) -> int:
    """Why the slot is looked at after a rest: ``reason``, but for a journal that took no writes, which says nothing of
    the slot.
    """
    return record.reason if record.reason == CODES["journal-unwritable"] else reason


def usable(workshop: Workshop, here: list[Candidate]) -> set[tuple[str, bytes]]:
    """Which sources these are; they are closed."""
    workshop.close(here)
    return {identity(candidate) for candidate in here}
