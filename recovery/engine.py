"""The table as a `transitions` machine: the engine that recovery runs.

``auto_transitions`` is off: its default adds an edge from everywhere to everywhere. No effect lives in a
callback: an exception in one would leave the machine in a state whose record was never persisted. The
ordinary boot does not import this; it steps the same table by look-up (`statemachine.step`), and a test
compares the two for every state and event.
"""

from __future__ import annotations

from transitions import Machine, MachineError

from statemachine.record import Record
from statemachine.step import IllegalEventError, step
from statemachine.table import STATES, TABLE


class Engine:
    """Steps records through the table. ``state`` is the machine's own, set from the record."""

    state: str

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._machine = Machine(
            model=self,
            states=list(STATES),
            transitions=[
                {"trigger": event, "source": state, "dest": following}
                for (state, event), (following, _action, _effects) in TABLE.items()
            ],
            initial="WAITING",
            auto_transitions=False,
            send_event=False,
        )

    def step(self, record: Record, event: str, **fields: object) -> tuple[Record, str]:
        """As `statemachine.step.step`. Raises ``IllegalEventError``, and then nothing changed."""
        self._machine.set_state(record.state)
        try:
            self.trigger(event)  # type: ignore[attr-defined]  # added to the model by transitions
        except (MachineError, AttributeError) as error:
            raise IllegalEventError(f"{event} is not possible in {record.state}") from error
        following, action = step(record, event, self._attempts, **fields)
        assert following.state == self.state, "the engine and the table disagree"
        return following, action
