"""All that the scripts of one transaction will be called for, as one value and as the text that keeps it. Pure.

The text is lines of fields separated by tabs. It is written by this device for itself; what does not read is an error
and is never guessed at.
"""

from __future__ import annotations

from packagemanager import calls, triggers
from packagemanager.calls import Call, Turn
from packagemanager.errors import DatabaseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TEXT_BYTES_MAX = 8 << 20
BEFORE, AFTER, BACK = "before", "after", "back"
OTHERWISE, PENDING, LISTENER, INTEREST, END = "otherwise", "pending", "listener", "interest", "end"
CALL_FIELDS = 6
SEPARATORS = frozenset("\t\n\r\v\f\0")


class ScriptPlan:
    """``pending`` are the triggers that the change of files activates, by who is interested; ``listeners`` are those
    who are interested in anything afterwards, and ``interests`` the names of their triggers, as dpkg names packages.
    """

    __slots__ = ("after", "back", "before", "interests", "listeners", "pending")

    def __init__(self) -> None:
        self.before: list[Call] = []
        self.after: list[Call] = []
        self.back: list[Call] = []
        self.pending: dict[str, list[str]] = {}
        self.listeners: dict[str, Turn] = {}
        self.interests: dict[str, list[str]] = {}


class Changes:
    """What the planner knows: turns in the orders of removing, unpacking, configuring, and triggers by package.

    ``declared_before`` and ``declared_after`` are what the packages installed before and after say of triggers, by the
    names that dpkg has for them; ``listeners`` tells more of those after. ``paths`` are all that are unpacked or
    removed.
    """

    __slots__ = ("configured", "declared_after", "declared_before", "listeners", "paths", "removed", "unpacked")

    def __init__(
        self,
        removed: Sequence[Turn],
        unpacked: Sequence[Turn],
        configured: Sequence[Turn],
        *,
        declared_before: Mapping[str, triggers.Declared] | None = None,
        declared_after: Mapping[str, triggers.Declared] | None = None,
        listeners: Mapping[str, Turn] | None = None,
        paths: Iterable[str] = (),
    ) -> None:
        self.removed = removed
        self.unpacked = unpacked
        self.configured = configured
        self.declared_before = declared_before or {}
        self.declared_after = declared_after or {}
        self.listeners = listeners or {}
        self.paths = paths


def make(changes: Changes) -> ScriptPlan:
    """Everything that is known before the first script ran."""
    plan = ScriptPlan()
    plan.before += calls.before(changes.removed, changes.unpacked)
    plan.after += calls.after(changes.removed, changes.unpacked, changes.configured)
    plan.back += calls.back(changes.removed, changes.unpacked)
    interests = triggers.Interests(changes.declared_after)
    plan.pending = _pending(changes, interests)
    plan.interests = interests.by_name()
    plan.listeners = {key: changes.listeners[key] for keys in plan.interests.values() for key in keys}
    return plan


def _pending(changes: Changes, interests: triggers.Interests) -> dict[str, list[str]]:
    """dpkg's rule: to be configured is to have all triggers processed that were activated up to then.

    A package's own activations come with its unpacking or removal, and again when it is configured.
    """
    waiting = {turn.info: place for place, turn in enumerate(changes.configured)}
    first = [name for turn in (*changes.removed, *changes.unpacked) for name in _activations(changes, turn)]
    found = triggers.merge(interests.of_paths(changes.paths), _by_listener(interests, first))
    found = {key: names for key, names in found.items() if key not in waiting}
    for place, turn in enumerate(changes.configured):
        activated = _by_listener(interests, _activations(changes, turn))
        ready = {key: names for key, names in activated.items() if waiting.get(key, -1) < place}
        found = triggers.merge(found, ready)
    return found


def _activations(changes: Changes, turn: Turn) -> Iterable[str]:
    yield from changes.declared_before.get(turn.old_info, triggers.NOTHING).activations
    yield from changes.declared_after.get(turn.info, triggers.NOTHING).activations


def _by_listener(interests: triggers.Interests, names: Iterable[str]) -> dict[str, list[str]]:
    return triggers.merge(*({key: [name]} for name in names for key in interests.named(name)))


def encode(plan: ScriptPlan) -> bytes:
    lines: list[Sequence[str]] = []
    for kind, listed in ((BEFORE, plan.before), (AFTER, plan.after), (BACK, plan.back)):
        for call in listed:
            lines.append(_call_line(kind, call))
            if call.otherwise:
                lines.append(_call_line(OTHERWISE, call.otherwise))
    lines += [(LISTENER, key, turn.name, turn.architecture, turn.info) for key, turn in plan.listeners.items()]
    lines += [(INTEREST, name, *keys) for name, keys in plan.interests.items()]
    lines += pending_lines(plan.pending)
    return text_of(lines)


def pending_lines(pending: Mapping[str, Iterable[str]]) -> list[Sequence[str]]:
    return [(PENDING, key, *names) for key, names in pending.items()]


def text_of(lines: Iterable[Sequence[str]]) -> bytes:
    """Raises: DatabaseError for a field that would be read as two, or more than would be read."""
    lines = list(lines)
    for line in lines:
        for field in line:
            if SEPARATORS.intersection(field):
                raise DatabaseError(f"{field!r:.80} cannot be written down")
    joined = [*("\t".join(line) for line in lines), END]
    text = "".join(f"{line}\n" for line in joined).encode("utf-8", "surrogateescape")
    _check_length(text)
    return text


def _check_length(text: bytes) -> None:
    if len(text) > TEXT_BYTES_MAX:
        raise DatabaseError(f"a list of scripts has {len(text)} bytes, allowed are {TEXT_BYTES_MAX}")


def _call_line(kind: str, call: Call) -> Sequence[str]:
    return (kind, call.package, call.architecture, call.info, call.place, call.script, *call.words)


def decode(text: bytes) -> ScriptPlan:
    """Raises: DatabaseError."""
    plan = ScriptPlan()
    readers: dict[str, Callable[[ScriptPlan, list[str]], None]] = {
        BEFORE: lambda plan, fields: plan.before.append(_call(fields)),
        AFTER: lambda plan, fields: plan.after.append(_call(fields)),
        BACK: lambda plan, fields: plan.back.append(_call(fields)),
        OTHERWISE: _read_otherwise,
        PENDING: lambda plan, fields: plan.pending.update({fields[1]: fields[2:]}),
        LISTENER: lambda plan, fields: plan.listeners.update({fields[1]: Turn(fields[2], fields[3], info=fields[4])}),
        INTEREST: lambda plan, fields: plan.interests.update({fields[1]: fields[2:]}),
    }
    for fields in fields_of(text):
        try:
            readers[fields[0]](plan, fields)
        except (KeyError, IndexError):
            raise DatabaseError(f"the transaction's list of scripts has a line {fields!r:.80}") from None
    return plan


def fields_of(text: bytes) -> list[list[str]]:
    """The lines of a text that was written whole. Raises: DatabaseError."""
    _check_length(text)
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    if lines[-2:] != [END, ""]:
        raise DatabaseError("a list of scripts has no end")
    return [line.split("\t") for line in lines[:-2]]


def _call(fields: list[str]) -> Call:
    if len(fields) < CALL_FIELDS:
        raise IndexError(fields)
    _kind, package, architecture, info, place, script = fields[:CALL_FIELDS]
    return Call(Turn(package, architecture, info=info), place, script, fields[CALL_FIELDS:])


def _read_otherwise(plan: ScriptPlan, fields: list[str]) -> None:
    """It belongs to the call on the line above: one of those before, or after them one of those after."""
    (plan.after or plan.before)[-1].otherwise = _call(fields)
