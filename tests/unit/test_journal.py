"""The bytes of one record: what is written is read, and nothing else is taken for a record."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import journal
from tests.simulator.journal_oracle import Found, parse

IDENTITY = b"0123456789abcdef"
PREVIOUS = bytes(range(32))
ON_THE_BOOT_PATH = {"_blake2", "_struct", "statemachine"} | {
    f"statemachine.{name}" for name in ("journal", "ring", "merge", "store")
}


ROOT = Path(__file__).parents[2]


def encoded(body: bytes = b"state", size: int = 4096, term: int = 7, sequence: int = 300) -> bytes:
    return journal.encode(size, IDENTITY, term, sequence, PREVIOUS, body)


def forged(start: int, data: bytes) -> bytes:
    """A record with other bytes from ``start`` and a digest that fits."""
    content = bytearray(encoded()[:-32])
    content[start : start + len(data)] = data
    return bytes(content) + hashlib.blake2b(content, digest_size=32).digest()


@pytest.mark.parametrize("size", [4096, 8192, 16384, 65536])
@pytest.mark.parametrize("length", [0, 1, 500, None])
def test_a_record_comes_back(size: int, length: int | None) -> None:
    body = b"\xa5" * (journal.body_bytes_max(size) if length is None else length)
    raw = encoded(body, size)
    record, word = journal.decode(raw)
    assert record is not None
    assert word == "valid"
    assert len(raw) == size
    assert (record.identity, record.term, record.sequence) == (IDENTITY, 7, 300)
    assert (record.previous, record.body, record.raw) == (PREVIOUS, body, raw)
    assert record.digest == hashlib.blake2b(raw[:-32], digest_size=32).digest()


def test_the_bytes_are_those_of_the_specification() -> None:
    raw = encoded()
    assert raw[:24] == b"UNBRKJNL" + bytes.fromhex("01000000 00100000 05000000 00000000")
    assert raw[24:40] == IDENTITY
    assert raw[40:56] == bytes.fromhex("0700000000000000 2c01000000000000")
    assert raw[56:88] == PREVIOUS
    assert raw[88:96] == b"state\0\0\0"
    assert raw[-32:].hex() == "6a23b2d51eec9d7ed83281cf203c9dcf98aaf9bf6cbcf0f0dc89bc7cacd1e174"
    assert parse(raw, IDENTITY) == Found(7, 300, b"state")


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "length"),
        (bytes(4095), "length"),
        (bytes(65537), "length"),
        (bytes(4096), "blank"),
        (b"\xff" * 8192, "blank"),
        (bytes(4095) + b"\1", "magic"),
        (b"UNBRKGAP" + bytes(4088), "gap"),
        (b"UNBRKGAP" + bytes(4087) + b"\1", "magic"),
        (forged(0, b"UNBRKJNM"), "magic"),
        (forged(8, b"\2"), "format"),
        (forged(12, b"\0\x20"), "size"),
        (encoded(size=8192)[:4096], "size"),
        (encoded()[:-1] + b"\0", "digest"),
        (forged(16, b"\xff\xff\xff\xff"), "fields"),
        (forged(16, (3977).to_bytes(4, "little")), "fields"),
        (forged(20, b"\1"), "fields"),
        (forged(40, bytes(8)), "fields"),
        (forged(40, b"\xff" * 8), "fields"),
        (forged(48, b"\xff" * 8), "fields"),
        (forged(93, b"x"), "fields"),
        (forged(4063, b"x"), "fields"),
    ],
)
def test_what_is_not_a_record_has_a_word(raw: bytes, word: str) -> None:
    assert journal.decode(raw) == (None, word)
    assert parse(raw, IDENTITY) is None


def test_no_flipped_bit_passes() -> None:
    raw = bytearray(encoded(b"x" * 3000))
    for bit in range(len(raw) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        assert journal.decode(bytes(raw))[0] is None, f"bit {bit}"
        raw[bit // 8] ^= 1 << bit % 8


@given(st.binary(max_size=100), st.integers(0, 4096), st.booleans())
def test_any_bytes_decode_as_in_the_second_reader(noise: bytes, start: int, right_digest: bool) -> None:
    raw = forged(0, b"")
    content = (raw[:start] + noise + raw[start + len(noise) :])[:4064].ljust(4064, b"\0")
    raw = content + (hashlib.blake2b(content, digest_size=32).digest() if right_digest else raw[-32:])
    record, word = journal.decode(raw)
    expected = parse(raw, raw[24:40])
    assert (record is None) == (expected is None), word
    if record is not None:
        assert Found(record.term, record.sequence, record.body) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"record_bytes": 512},
        {"record_bytes": 1 << 20},
        {"identity": b"short"},
        {"previous": b""},
        {"term": 0},
        {"term": 1 << 62},
        {"sequence": -1},
        {"sequence": 1 << 62},
        {"body": bytes(3977)},
    ],
)
def test_nothing_is_encoded_that_decode_would_refuse(change: dict[str, int | bytes]) -> None:
    fields: dict[str, int | bytes] = {
        "record_bytes": 4096,
        "identity": IDENTITY,
        "term": 1,
        "sequence": 0,
        "previous": PREVIOUS,
        "body": b"",
    }
    journal.encode(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\d"):
        journal.encode(**(fields | change))  # type: ignore[arg-type]


def test_the_header_alone_claims_a_sequence_of_this_device_only() -> None:
    start = encoded()[:512]
    assert journal.header_sequence(start, 4096, IDENTITY) == 300
    assert journal.header_sequence(start, 8192, IDENTITY) == -1
    assert journal.header_sequence(start, 4096, b"another-device--") == -1
    assert journal.header_sequence(random.Random(1).randbytes(512), 4096, IDENTITY) == -1
    assert journal.header_sequence(forged(48, b"\xff" * 8)[:512], 4096, IDENTITY) == -1


def test_the_boot_path_imports_next_to_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import statemachine.store; print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, cwd=ROOT)
    assert set(done.stdout.split()) - {"__future__"} == ON_THE_BOOT_PATH
