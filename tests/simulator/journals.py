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

from statemachine.journal import encode

IDENTITY = b"unbrick-simulate"
STRANGER = b"another-device--"
RECORD_BYTES = 4096
BASES = 48  # healthy journals that are mutated, of each number of slots: encoding is most of the cost

Body = Callable[[random.Random], bytes]
Images = list[bytearray]


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


def random_journal(seed: int, slots: int = 4, body: Body = random_body) -> tuple[bytearray, bytearray, bytearray]:
    """Three images of ``slots`` records; the device is `IDENTITY`."""
    chance = random.Random(seed)
    number = chance.randrange(BASES)
    base = healthy_images(number, slots, body)
    images = [bytearray(base) for _ in range(3)]
    if chance.random() < 0.02:
        images = [bytearray(chance.randbytes(len(base))) for _ in range(3)]
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        MUTATIONS[chance.randrange(len(MUTATIONS))](images, slots, chance, body)
    return images[0], images[1], images[2]


@functools.cache
def healthy_images(number: int, slots: int, body: Body) -> bytes:
    """One copy of a healthy journal of ``number % (3 * slots)`` records; a new term every few."""
    chance = random.Random(number)
    image = bytearray(slots * RECORD_BYTES)
    previous, term = bytes(32), 1
    count = number % (3 * slots) if slots <= BASES // 3 else chance.randrange(3 * slots)
    for sequence in range(count):
        term += chance.random() < 0.4
        raw = encode(RECORD_BYTES, IDENTITY, term, sequence, previous, body(chance))
        previous = raw[-32:]
        _put(image, sequence % slots, raw)
    return bytes(image)


def _put(image: bytearray, slot: int, raw: bytes) -> None:
    image[slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES] = raw


def _get(image: bytearray, slot: int) -> bytes:
    return bytes(image[slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES])


def _some_copies(images: Images, chance: random.Random) -> Images:
    return chance.sample(images, chance.choice((1, 1, 2, 3)))


def _flip(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """Single bits, half of them in a header."""
    image = chance.choice(images)
    for _ in range(chance.choice((1, 1, 4))):
        inside = chance.randrange(88 if chance.random() < 0.5 else RECORD_BYTES)
        image[chance.randrange(slots) * RECORD_BYTES + inside] ^= 1 << chance.randrange(8)


def _fill(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """A run of bytes of any length is zeroes, ones or noise."""
    size = slots * RECORD_BYTES
    start = chance.randrange(size)
    length = min(size - start, chance.choice((1, 512, RECORD_BYTES, size)))
    noise = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    for image in _some_copies(images, chance):
        image[start : start + length] = noise


def _misplace(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """A slot's bytes are in another slot too, of this copy or of another."""
    source = _get(chance.choice(images), chance.randrange(slots))
    _put(chance.choice(images), chance.randrange(slots), source)


def _stale(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """Some copies, or some slots of them, are of another time of this (or another) journal."""
    other = healthy_images(chance.randrange(BASES), slots, body)
    first = chance.randrange(slots)
    count = chance.choice((1, 2, slots))
    span = slice(first * RECORD_BYTES, min(slots, first + count) * RECORD_BYTES)
    for image in _some_copies(images, chance):
        image[span] = other[span]


def _tear(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """A record is half written over another one."""
    raw = _forged(chance, IDENTITY, chance.randrange(3 * slots), body)
    cut = 512 * chance.randrange(1, 8)
    slot = chance.randrange(slots)
    image = chance.choice(images)
    old = _get(image, slot)
    _put(image, slot, raw[:cut] + old[cut:] if chance.random() < 0.5 else old[:cut] + raw[cut:])


def _foreign(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    slot = chance.randrange(slots)
    raw = _forged(chance, STRANGER, slot + slots * chance.randrange(4), body)
    for image in _some_copies(images, chance):
        _put(image, slot, raw)


def _fork(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """A valid record that nobody appended here."""
    slot = chance.randrange(slots)
    raw = _forged(chance, IDENTITY, slot + slots * chance.randrange(4), body)
    for image in _some_copies(images, chance):
        _put(image, slot, raw)


def _forge(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """One field of a valid record is anything at all, and the digest is right."""
    raw = bytearray(_forged(chance, IDENTITY, chance.randrange(3 * slots), body))
    start, length = chance.choice(((8, 4), (12, 4), (16, 4), (20, 4), (24, 16), (40, 8), (48, 8), (4000, 8)))
    raw[start : start + length] = chance.choice((chance.randbytes(length), b"\xff" * length, bytes(length)))
    raw[-32:] = hashlib.blake2b(raw[:-32], digest_size=32).digest()
    for image in _some_copies(images, chance):
        _put(image, chance.randrange(slots), bytes(raw))


def _huge(images: Images, slots: int, chance: random.Random, body: Body) -> None:
    """A valid record near the end of the numbers."""
    sequence = (1 << 62) - 1 - chance.randrange(2 * slots)
    term = chance.choice((1, (1 << 62) - 1))
    raw = encode(RECORD_BYTES, IDENTITY, term, sequence, bytes(32), body(chance))
    for image in _some_copies(images, chance):
        _put(image, sequence % slots, raw)


def _forged(chance: random.Random, identity: bytes, sequence: int, body: Body) -> bytes:
    return encode(RECORD_BYTES, identity, chance.randrange(1, 12), sequence, chance.randbytes(32), body(chance))


MUTATIONS: tuple[Callable[[Images, int, random.Random, Body], None], ...] = (
    _flip,
    _flip,
    _fill,
    _misplace,
    _stale,
    _stale,
    _tear,
    _foreign,
    _fork,
    _forge,
    _huge,
)
