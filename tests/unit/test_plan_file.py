"""The plan and the phase as bytes: whole or known to be damaged, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from packagemanager import plan_file
from packagemanager.operation import ACTS, MAKE_DIRECTORY, PUT, Operation
from packagemanager.phases import PHASES
from packagemanager.plan_file import Plan, decode_phase, decode_plan, encode_phase, encode_plan
from payload.digest import digest

pytestmark = [pytest.mark.requirement("M7"), pytest.mark.fault("R4")]

NUMBERS = some.integers(0, 2**63 - 1)
NAMES = some.text(some.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40)
OPERATIONS = some.builds(
    Operation,
    some.sampled_from(ACTS),
    NAMES | some.just("a\\n\\b\n\n\\") | some.just(b"caf\xe9".decode(errors="surrogateescape")),
    staged=NUMBERS,
    kept=some.booleans(),
    mode=some.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    mtime=some.integers(-(2**40), 2**40),
    nanoseconds=some.integers(0, 10**9 - 1),
    size=NUMBERS,
)


def values(plan: Plan) -> object:
    slots = [[getattr(one, name) for name in one.__slots__] for one in plan.operations]
    return slots, plan.inodes, plan.facts


@given(some.lists(OPERATIONS, max_size=8), some.dictionaries(some.from_regex(r"\A[a-z_]+\Z"), some.text(), max_size=4))
def test_what_is_written_is_read(operations: list[Operation], facts: dict[str, str]) -> None:
    plan = Plan(operations, range(len(operations)), facts)
    raw = encode_plan(plan)
    again = decode_plan(raw)
    assert values(again) == values(plan)
    assert again.digest == digest(raw)


@given(some.binary(max_size=300))
def test_any_bytes_are_a_plan_or_damaged(raw: bytes) -> None:
    sealed = raw + digest(raw).hex().encode() + b"\n"
    for text in (raw, sealed, b"unbrick-plan 1 1 0\n" + sealed):
        for decode in (decode_plan, decode_phase):
            with pytest.raises(ValueError):
                decode(text)


SMALL = encode_plan(Plan([Operation(PUT, "usr/bin/a", staged=3, kept=True)], [77], {"serial": "7"}))
PHASE = encode_phase("forward", digest(SMALL))


@pytest.mark.parametrize(("raw", "decode"), [(SMALL, decode_plan), (PHASE, decode_phase)], ids=["plan", "phase"])
def test_no_changed_and_no_missing_byte_is_taken(raw: bytes, decode: object) -> None:
    assert callable(decode)
    decode(raw)
    for place in range(len(raw)):
        for wrong in (raw[:place], raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :], raw[:place] + b"\0"):
            with pytest.raises(ValueError):
                decode(wrong)
    with pytest.raises(ValueError):
        decode(raw + b"\n")


def sealed(body: bytes) -> bytes:
    return body + digest(body).hex().encode() + b"\n"


@pytest.mark.parametrize(
    "body",
    [
        b"unbrick-plan 2 0 0\n",
        b"unbrick-plan 1 1 0\n",
        b"unbrick-plan 1 0 1\n",
        b"unbrick-plan 1 0 0",
        b"unbrick-plan 1 -1 0\n",
        b"unbrick-plan 1 99999999999999999999999 0\n",
        b"unbrick-plan 1 1 0\nput 0 2 0 0 0 0 0 0 0 a\n",
        b"unbrick-plan 1 1 0\nrename 0 0 0 0 0 0 0 0 0 a\n",
        b"unbrick-plan 1 1 0\nput 0 0 0 0 0 0 0 0 0x0 a\n",
        b"unbrick-plan 1 1 0\nput 0 0 0 0 0 0 0 0 a\n",
        b"unbrick-plan 1 0 1\nword\n",
    ],
)
def test_a_sealed_plan_that_makes_no_sense_is_damaged(body: bytes) -> None:
    with pytest.raises(ValueError):
        decode_plan(sealed(body))


def test_phases_are_read_as_written() -> None:
    for phase in PHASES:
        assert decode_phase(encode_phase(phase, digest(SMALL))) == (phase, digest(SMALL))
        assert len(encode_phase(phase, digest(SMALL))) <= plan_file.PHASE_BYTES_MAX


@pytest.mark.parametrize(
    "body",
    [
        b"unbrick-phase 2 forward " + bytes(32).hex().encode() + b"\n",
        b"unbrick-phase 1 sideways " + bytes(32).hex().encode() + b"\n",
        b"unbrick-phase 1 forward xyz\n",
        b"unbrick-phase 1 forward\n",
    ],
)
def test_a_phase_that_this_version_does_not_know_is_damaged(body: bytes) -> None:
    with pytest.raises(ValueError):
        decode_phase(sealed(body))


def test_bounds() -> None:
    for facts in ({"two words": ""}, {"": ""}, {str(number): "" for number in range(9)}):
        with pytest.raises(ValueError, match="no word"):
            encode_plan(Plan((), (), facts))
    with pytest.raises(ValueError, match="are allowed"):
        encode_plan(Plan((), (), {f"f{number}": "" for number in range(plan_file.FACTS_MAX + 1)}))
    with pytest.raises(ValueError, match="more than"):
        encode_plan(Plan([Operation(MAKE_DIRECTORY, "a" * 9000)], [0], {}))
    with pytest.raises(ValueError, match="more than"):
        decode_plan(bytes(plan_file.PLAN_BYTES_MAX + 1))
