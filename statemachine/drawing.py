"""The documents that are drawn from the tables: docs/states.md and docs/reasons.md. Host only.

Nobody edits those files: a test compares them with what this module returns.
"""

from __future__ import annotations

from statemachine.bound import boots_max
from statemachine.limits import BOOT_ATTEMPTS_DEFAULT, CYCLES_MAX
from statemachine.reasons import REASONS
from statemachine.table import ACTIONS, EFFECTS, EVENTS, GIVING_UP, STATES, TABLE

_QUIET = ("resumed", "journal_unwritable")  # an edge from everywhere: in the table, not in the picture


def states_document() -> str:
    """docs/states.md: the diagram, every state, and the whole table."""
    return "\n".join((
        "# The state machine",
        "",
        "Drawn from `statemachine/table.py` by `unbrick states --markdown`; do not edit.",
        "",
        f"With {BOOT_ATTEMPTS_DEFAULT} boot attempts and at most {CYCLES_MAX} cycles a device whose OS never says that",
        f"it runs well rests in WAITING after at most **K = {boots_max()} boots**, whatever its journal held; a cut",
        "adds one. `statemachine/bound.py` computes K from the table by walking every path, with two slots; a device",
        "with one slot needs no more.",
        "",
        _diagram(),
        "## States",
        "",
        "| state | what is on disk | how it ends without a person |",
        "|---|---|---|",
        *(f"| {state} | {on_disk} | {ends} |" for state, (on_disk, ends) in STATES.items()),
        "",
        "## Transitions",
        "",
        "The record with the effects applied is persisted before the action starts.",
        "",
        "| state | event | next state | action | effects |",
        "|---|---|---|---|---|",
        *(
            f"| {state} | {event} | {following} | {action} | {', '.join(effects) or '–'} |"
            for (state, event), (following, action, effects) in TABLE.items()
        ),
        "",
        "## Giving way",
        "",
        "Where the other slot is good, at or above the floor and not tried in vain, these become `other_slot_good`:",
        "",
        *(f"- {state}: {', '.join(f'`{event}`' for at, event in TABLE if (at, event) in GIVING_UP and at == state)}"
          for state in STATES if any(at == state for at, _event in GIVING_UP)),
        "",
        *_words("Events", EVENTS),
        *_words("Actions", ACTIONS),
        *_words("Effects", EFFECTS),
    ))  # fmt: skip


def reasons_document() -> str:
    """docs/reasons.md: every reason, what it means, what to do."""
    return "\n".join((
        "# Reasons",
        "",
        "Drawn from `statemachine/reasons.py` by `unbrick states --reasons`; do not edit. The same code and word stand",
        "on the console, in the journal, in `unbrick log` and in the command line's output.",
        "",
        "| reason | what it means | what to do |",
        "|---|---|---|",
        *(f"| E{code:03d} {word} | {meaning} | {advice} |" for code, (word, meaning, advice) in REASONS.items()),
        "",
    ))  # fmt: skip


def _diagram() -> str:
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, event), (following, _action, _effects) in TABLE.items():
        if event not in _QUIET:
            edges.setdefault((state, following), []).append(event)
    lines = [f"    {state} --> {following}: {', '.join(events)}" for (state, following), events in edges.items()]
    return "\n".join(("```mermaid", "stateDiagram-v2", *lines, "```", ""))


def _words(title: str, words: dict[str, str]) -> list[str]:
    return [f"## {title}", "", *(f"- `{word}`: {meaning}" for word, meaning in words.items()), ""]
