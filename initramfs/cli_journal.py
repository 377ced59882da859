"""The verbs of the machine's memory and of its table: journal show, replay, states."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initramfs.cli_registry import Option, Verb, show

if TYPE_CHECKING:
    from initramfs.journal_files import JournalCopies


def journal_show(arguments: Namespace) -> int:
    from initramfs.journal_files import record_facts
    from statemachine.reasons import label

    journal = _open(arguments)
    records = [
        {"term": entry.term, "sequence": entry.sequence, **record_facts(entry.record)} for entry in journal.entries
    ]

    def lines() -> Iterator[str]:
        yield f"{journal.opening.verdict}: copies {', '.join(copy.state for copy in journal.opening.copies)}"
        for entry in journal.entries:
            record = entry.record
            yield (
                f"{entry.term:>6}.{entry.sequence:<6} boot {record.boots:<5} {record.state:<14} "
                f"{record.attempts_left} attempts left  {label(record.reason) if record.reason else ''}"
            ).rstrip()

    show(arguments, {**journal.facts(), "history": records}, lines())
    return 0


def replay(arguments: Namespace) -> int:
    from initramfs.journal_files import replay as steps

    told = list(steps(_open(arguments).entries))
    unexplained = [step for step in told if not step["events"]]

    def line(step: dict[str, Any]) -> str:
        how = " or ".join(step["events"]) or "NO EVENT OF THE TABLE LEADS HERE"
        return f"{step['sequence']:>6} {step['before']:<14} -> {step['after']:<14} {step['reason']:<26} {how}"

    summary = f"{len(told)} steps, {len(unexplained)} that the table does not explain"
    show(arguments, {"steps": told, "unexplained": len(unexplained)}, [*map(line, told), summary])
    return 1 if unexplained else 0


def states(arguments: Namespace) -> int:
    from statemachine.bound import boots_max
    from statemachine.drawing import reasons_document, states_document
    from statemachine.limits import BOOT_ATTEMPTS_DEFAULT
    from statemachine.table import TABLE

    bound = boots_max(BOOT_ATTEMPTS_DEFAULT)
    rows = [
        {"state": state, "event": event, "next": following, "action": action, "effects": list(effects)}
        for (state, event), (following, action, effects) in TABLE.items()
    ]
    texts = {"markdown": states_document, "reasons": reasons_document}
    wanted = [name for name in texts if getattr(arguments, name)]
    if wanted:
        lines = [texts[wanted[0]]().rstrip("\n")]
    else:
        lines = [f"{row['state']:<18} {row['event']:<24} -> {row['next']:<14} {row['action']}" for row in rows]
        lines.append(f"K = {bound}: at rest after at most {bound} boots, with {BOOT_ATTEMPTS_DEFAULT} boot attempts")
    show(arguments, {"boots_max": bound, "boot_attempts": BOOT_ATTEMPTS_DEFAULT, "table": rows}, lines)
    return 0


def _open(arguments: Namespace) -> JournalCopies:
    from initramfs import config, journal_files

    if arguments.config is not None:
        return journal_files.open_disk(arguments.files[0], config.load(arguments.config))
    return journal_files.open_copies(arguments.files)


_FILES = (
    Option(
        ("files",),
        "dumped copies; with -c, the image of a whole disk",
        kind=Path,
        metavar="FILE",
        many=True,
    ),
    Option(("-c", "--config"), "the device whose disk it is", kind=Path, metavar="DEVICE.TOML"),
)

VERBS = (
    Verb(
        "journal show",
        "Show a journal, oldest record first.",
        journal_show,
        _FILES,
        "Reads as the device does and changes nothing.",
        ("unbrick journal show disk.img -c device.toml", "unbrick journal show copy0.bin copy1.bin copy2.bin"),
    ),
    Verb(
        "replay",
        "Hold a journal's steps against the state table.",
        replay,
        _FILES,
        "For each step, the events by which the table leads there. The exit code is 1 where there is none.",
        ("unbrick replay disk.img -c device.toml",),
    ),
    Verb(
        "states",
        "Print the state table, and K: how many boots until the device is at rest.",
        states,
        (
            Option(("--markdown",), "as docs/states.md", flag=True),
            Option(("--reasons",), "docs/reasons.md instead", flag=True),
        ),
        examples=("unbrick states", "unbrick states --markdown > docs/states.md"),
    ),
)
