"""The plan and the phase as bytes: docs/SPEC.md, "A transaction under way".

Both are bounded text with a digest at the end, so that what does not read is known to be damaged. Paths and values are
escaped, so that a line is a line whatever is in a file's name. Nothing here touches a disk.
"""

from __future__ import annotations

from packagemanager.operation import ACTS, Operation
from packagemanager.phases import PHASES
from payload.digest import DIGEST_BYTES, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PLAN_MAGIC = b"unbrick-plan 1"
PHASE_MAGIC = b"unbrick-phase 1"
PLAN_BYTES_MAX = 64 << 20
OPERATIONS_MAX = 400_000
FACTS_MAX = 64
FACT_BYTES_MAX = 1 << 20
PATH_BYTES_MAX = 4095
NUMBER_DIGITS_MAX = 20
PHASE_BYTES_MAX = 256
_SEAL_BYTES = 2 * DIGEST_BYTES + 1


class Plan:
    """``inodes`` has for each operation the inode number of the file that it puts, or 0.

    ``digest`` is that of its bytes: the phase names it.
    """

    __slots__ = ("digest", "facts", "inodes", "operations")

    def __init__(
        self, operations: Sequence[Operation], inodes: Sequence[int], facts: dict[str, str], plan_digest: bytes = b""
    ) -> None:
        self.operations = tuple(operations)
        self.inodes = tuple(inodes)
        self.facts = facts
        self.digest = plan_digest


def encode_plan(plan: Plan) -> bytes:
    """Raises: ValueError: beyond a bound, or a fact's name is no word."""
    _check_counts(len(plan.operations), len(plan.facts))
    lines = [b"%s %d %d" % (PLAN_MAGIC, len(plan.operations), len(plan.facts))]
    lines += [_fact_line(name, value) for name, value in sorted(plan.facts.items())]
    lines += [_operation_line(one, inode) for one, inode in zip(plan.operations, plan.inodes, strict=True)]
    return _sealed(b"\n".join(lines) + b"\n", PLAN_BYTES_MAX)


def decode_plan(raw: bytes) -> Plan:
    """Raises: ValueError: not one whole plan."""
    head, *lines = _opened(raw, PLAN_BYTES_MAX).split(b"\n")
    magic, operation_count, fact_count = _fields(head, 3, b" ", from_the_right=True)
    operations, facts = _number(operation_count), _number(fact_count)
    _check_counts(operations, facts)
    if magic != PLAN_MAGIC or not lines or lines.pop() != b"" or len(lines) != operations + facts:
        raise ValueError("not a plan of this version, or not all of it")
    read = [_operation(line) for line in lines[facts:]]
    return Plan(
        [operation for operation, _inode in read],
        [inode for _operation_, inode in read],
        dict(_fact(line) for line in lines[:facts]),
        digest(raw),
    )


def encode_phase(phase: str, plan_digest: bytes) -> bytes:
    return _sealed(b"%s %s %s\n" % (PHASE_MAGIC, phase.encode(), plan_digest.hex().encode()), PHASE_BYTES_MAX)


def decode_phase(raw: bytes) -> tuple[str, bytes]:
    """The phase, and the digest of the plan that it is about. Raises: ValueError: not a whole phase."""
    magic, phase, plan_digest = _fields(_opened(raw, PHASE_BYTES_MAX).rstrip(b"\n"), 3, b" ", from_the_right=True)
    name = phase.decode()
    if magic != PHASE_MAGIC or name not in PHASES:
        raise ValueError("not a phase of this version")
    return name, bytes.fromhex(plan_digest.decode())


def _sealed(body: bytes, size_max: int) -> bytes:
    raw = body + digest(body).hex().encode() + b"\n"
    if len(raw) > size_max:
        raise ValueError(f"{len(raw)} bytes; {size_max} are allowed")
    return raw


def _opened(raw: bytes, size_max: int) -> bytes:
    if len(raw) > size_max:
        raise ValueError(f"more than {size_max} bytes")
    body = raw[:-_SEAL_BYTES]
    if raw != body + digest(body).hex().encode() + b"\n":
        raise ValueError("the digest is another")
    return body


def _check_counts(operations: int, facts: int) -> None:
    if operations > OPERATIONS_MAX or facts > FACTS_MAX:
        raise ValueError(f"{operations} operations and {facts} facts; {OPERATIONS_MAX} and {FACTS_MAX} are allowed")


def _fact_line(name: str, value: str) -> bytes:
    if not name.isidentifier() or len(value) > FACT_BYTES_MAX:
        raise ValueError(f"the fact {name!r} is no word, or has more than {FACT_BYTES_MAX} bytes")
    return name.encode() + b" " + _escaped(value)


def _fact(line: bytes) -> tuple[str, str]:
    name, value = _fields(line, 2, b" ")
    return name.decode(), _plain(value)


def _operation_line(one: Operation, inode: int) -> bytes:
    path = _escaped(one.path)
    if len(path) > 2 * PATH_BYTES_MAX:
        raise ValueError(f"a path has more than {PATH_BYTES_MAX} bytes: {one.path[:80]!r}")
    numbers = (one.staged, one.kept, inode, one.mode, one.uid, one.gid, one.mtime, one.nanoseconds, one.size)
    return b" ".join((one.act.encode(), *(b"%d" % number for number in numbers), path))


def _operation(line: bytes) -> tuple[Operation, int]:
    act, staged, kept, inode, mode, uid, gid, mtime, nanoseconds, size, path = _fields(line, 11, b" ")
    name = act.decode()
    if name not in ACTS or kept not in (b"0", b"1"):
        raise ValueError("an operation that this version does not know")
    operation = Operation(
        name,
        _plain(path),
        staged=_number(staged),
        kept=kept == b"1",
        mode=_number(mode),
        uid=_number(uid),
        gid=_number(gid),
        mtime=_number(mtime),
        nanoseconds=_number(nanoseconds),
        size=_number(size),
    )
    return operation, _number(inode)


def _fields(line: bytes, count: int, separator: bytes, from_the_right: bool = False) -> list[bytes]:
    fields = line.rsplit(separator, count - 1) if from_the_right else line.split(separator, count - 1)
    if len(fields) != count:
        raise ValueError(f"a line of {len(fields)} fields; {count} belong there")
    return fields


def _number(text: bytes) -> int:
    """A decimal number; a time may be negative."""
    if len(text) > NUMBER_DIGITS_MAX or not text.removeprefix(b"-").isdigit():
        raise ValueError(f"not a number: {text[:NUMBER_DIGITS_MAX]!r}")
    return int(text)


def _escaped(text: str) -> bytes:
    return text.encode(errors="surrogateescape").replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def _plain(text: bytes) -> str:
    parts = [part.replace(b"\\n", b"\n") for part in text.split(b"\\\\")]
    return b"\\".join(parts).decode(errors="surrogateescape")
