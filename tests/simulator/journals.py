"""Journals full of anything, as disk images: for fuzzing whatever opens a journal.

`random_journal` starts from a healthy journal at a random place of its ring, or from nothing, and does
up to six things to it that media, cuts, cloning tools and strangers do. Bodies are the caller's: by
default random bytes. The same seed gives the same images.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from statemachine.journal import encode

IDENTITY = b"unbrick-simulate"
STRANGER = b"another-device--"
RECORD_BYTES = 4096
STREAMS = 24  # healthy journals that are mutated, of each number of slots: encoding is most of the cost

Body = Callable[[random.Random], bytes]


class MemoryRegion:
    """A region without faults over a bytearray; counts its operations."""

    def __init__(self, image: bytearray, write_unit: int = 512) -> None:
        self.image = image
        self.size = len(image)
        self.write_unit = self.erase_unit = write_unit
        self.reads = 0
        self.writes = 0
        self.flushes = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return bytes(self.image[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.writes += 1
        self.image[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1


def random_body(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 40, 300, 3000)))


@dataclass
class Journal:
    """Three copies of a journal in the making, and what mutations draw from."""

    images: list[bytearray]
    slots: int
    chance: random.Random
    body: Body
    stream: int
    count: int
    spared: int | None  # the copy that is never made stale; None: any bytes, forged records too

    def get(self, copy: int, slot: int) -> bytes:
        return bytes(self.images[copy][slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES])

    def put(self, copies: list[int], slot: int, raw: bytes) -> None:
        for copy in copies:
            self.images[copy][slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES] = raw

    def any_slot(self) -> int:
        return self.chance.randrange(self.slots)

    def some_copies(self) -> list[int]:
        return self.chance.sample(range(3), self.chance.choice((1, 1, 2, 3)))

    def forged(self, identity: bytes, sequence: int) -> bytes:
        term, previous = self.chance.randrange(1, 12), self.chance.randbytes(32)
        return encode(RECORD_BYTES, identity, term, sequence, previous, self.body(self.chance))


def random_journal(
    seed: int, slots: int = 4, body: Body = random_body, forged: bool = True
) -> tuple[bytearray, bytearray, bytearray]:
    """Three images of ``slots`` records; the device is `IDENTITY`.

    Without ``forged`` only what media do: no records that nobody wrote, and one copy is never stale.
    """
    chance = random.Random(seed)
    stream = chance.randrange(STREAMS)
    count = chance.randrange(3 * slots + 1)
    base = healthy_image(stream, count, slots, body)
    spared = None if forged else chance.randrange(3)
    journal = Journal([bytearray(base) for _ in range(3)], slots, chance, body, stream, count, spared)
    if chance.random() < 0.02:
        journal.images = [bytearray(chance.randbytes(len(base))) for _ in range(3)]
    mutations = MEDIA_MUTATIONS + FORGERIES if forged else MEDIA_MUTATIONS
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        mutations[chance.randrange(len(mutations))](journal)
    return journal.images[0], journal.images[1], journal.images[2]


def healthy_image(stream: int, count: int, slots: int, body: Body) -> bytes:
    """One copy of a healthy journal after ``count`` records; of one stream, the shorter is the older."""
    raws = _records(stream, slots, body)
    image = bytearray(slots * RECORD_BYTES)
    for sequence in range(max(0, count - slots), count):
        at = sequence % slots * RECORD_BYTES
        image[at : at + RECORD_BYTES] = raws[sequence]
    return bytes(image)


@functools.cache
def _records(stream: int, slots: int, body: Body) -> list[bytes]:
    """Three laps of records; a new term every few."""
    chance = random.Random(stream)
    raws: list[bytes] = []
    previous, term = bytes(32), 1
    for sequence in range(3 * slots):
        term += chance.random() < 0.4
        raws.append(encode(RECORD_BYTES, IDENTITY, term, sequence, previous, body(chance)))
        previous = raws[-1][-32:]
    return raws


def _flip(journal: Journal) -> None:
    """Single bits, half of them in a header."""
    image = journal.chance.choice(journal.images)
    for _ in range(journal.chance.choice((1, 1, 4))):
        inside = journal.chance.randrange(88 if journal.chance.random() < 0.5 else RECORD_BYTES)
        image[journal.any_slot() * RECORD_BYTES + inside] ^= 1 << journal.chance.randrange(8)


def _fill(journal: Journal) -> None:
    """A run of bytes of any length is zeroes, ones or noise."""
    chance = journal.chance
    size = journal.slots * RECORD_BYTES
    start = chance.randrange(size)
    length = min(size - start, chance.choice((1, 512, RECORD_BYTES, size)))
    noise = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    for copy in journal.some_copies():
        if copy != journal.spared or noise[:1] not in (b"\0", b"\xff"):
            journal.images[copy][start : start + length] = noise


def _misplace(journal: Journal) -> None:
    """A slot's bytes are in another slot too, of this copy or of another."""
    source = journal.chance.randrange(3) if journal.spared is None else journal.spared
    raw = journal.get(source, journal.any_slot())
    journal.put([journal.chance.randrange(3)], journal.any_slot(), raw)


def _stale(journal: Journal) -> None:
    """Some slots, or all, of some copies are as they were earlier."""
    older = healthy_image(journal.stream, journal.chance.randrange(journal.count + 1), journal.slots, journal.body)
    first = journal.any_slot()
    span = slice(first * RECORD_BYTES, (first + journal.chance.choice((1, 2, journal.slots))) * RECORD_BYTES)
    for copy in journal.some_copies():
        if copy != journal.spared:
            journal.images[copy][span] = older[span]


def _tear(journal: Journal) -> None:
    """A record is half written over another one."""
    raw = journal.forged(IDENTITY, journal.chance.randrange(3 * journal.slots))
    cut = 512 * journal.chance.randrange(1, 8)
    copy, slot = journal.chance.randrange(3), journal.any_slot()
    old = journal.get(copy, slot)
    journal.put([copy], slot, raw[:cut] + old[cut:] if journal.chance.random() < 0.5 else old[:cut] + raw[cut:])


def _foreign(journal: Journal) -> None:
    """A record of another device."""
    slot = journal.any_slot()
    raw = journal.forged(STRANGER, slot + journal.slots * journal.chance.randrange(4))
    journal.put(journal.some_copies(), slot, raw)


def _fork(journal: Journal) -> None:
    """A valid record that nobody appended here."""
    slot = journal.any_slot()
    raw = journal.forged(IDENTITY, slot + journal.slots * journal.chance.randrange(4))
    journal.put(journal.some_copies(), slot, raw)


def _forge(journal: Journal) -> None:
    """One field of a valid record is anything at all, and the digest is right."""
    chance = journal.chance
    raw = bytearray(journal.forged(IDENTITY, chance.randrange(3 * journal.slots)))
    start, length = chance.choice(((8, 4), (12, 4), (16, 4), (20, 4), (24, 16), (40, 8), (48, 8), (4000, 8)))
    raw[start : start + length] = chance.choice((chance.randbytes(length), b"\xff" * length, bytes(length)))
    raw[-32:] = hashlib.blake2b(raw[:-32], digest_size=32).digest()
    journal.put(journal.some_copies(), journal.any_slot(), bytes(raw))


def _huge(journal: Journal) -> None:
    """A valid record near the end of the numbers."""
    sequence = (1 << 62) - 1 - journal.chance.randrange(2 * journal.slots)
    term = journal.chance.choice((1, (1 << 62) - 1))
    raw = encode(RECORD_BYTES, IDENTITY, term, sequence, bytes(32), journal.body(journal.chance))
    journal.put(journal.some_copies(), sequence % journal.slots, raw)


Mutations = tuple[Callable[[Journal], None], ...]
MEDIA_MUTATIONS: Mutations = (_flip, _flip, _fill, _misplace, _stale, _stale, _tear, _foreign)
FORGERIES: Mutations = (_fork, _forge, _huge)
