"""A second reader of the journal, written from ``docs/SPEC.md`` alone and as plainly as possible.

Tests compare the production code with it. It shares no code with the product, reads every slot of
every copy and hashes with `hashlib`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

LIMIT = 1 << 62


class Found(NamedTuple):
    """A valid record; comparing two compares (term, sequence) first."""

    term: int
    sequence: int
    body: bytes


@functools.lru_cache(4096)  # a sweep judges the same bytes again and again
def parse(raw: bytes, identity: bytes) -> Found | None:
    """The record in the bytes of one slot, if it is a valid one of this device."""
    if raw[:8] != b"UNBRKJNL":
        return None
    form, size, length, reserved = (int.from_bytes(raw[at : at + 4], "little") for at in (8, 12, 16, 20))
    term, sequence = (int.from_bytes(raw[at : at + 8], "little") for at in (40, 48))
    content, digest = raw[:-32], raw[-32:]
    sane = form == 1 and size == len(raw) and reserved == 0 and length <= len(raw) - 120
    sane = sane and 1 <= term < LIMIT and sequence < LIMIT and raw[24:40] == identity
    if not sane or any(content[88 + length :]) or hashlib.blake2b(content, digest_size=32).digest() != digest:
        return None
    return Found(term, sequence, content[88 : 88 + length])


def records(image: bytes, identity: bytes, record_bytes: int = 4096) -> dict[int, Found]:
    """The valid records of one copy that lie in their own slot, by slot."""
    slots = min(4096, len(image) // record_bytes)
    found = {}
    for slot in range(slots):
        record = parse(image[slot * record_bytes : (slot + 1) * record_bytes], identity)
        if record is not None and record.sequence % slots == slot:
            found[slot] = record
    return found


def newest(images: Sequence[bytes], identity: bytes, record_bytes: int = 4096) -> list[Found]:
    """The records with the highest (term, sequence) over all copies; more than one after a fork."""
    found = {record for image in images for record in records(image, identity, record_bytes).values()}
    best = max((record[:2] for record in found), default=None)
    return [record for record in found if record[:2] == best]
