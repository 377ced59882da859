"""Changes that keep the structure around them right: lengths, encodings, digests. What has none is changed bytewise."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

from payload.bundle import CHECKED_FROM, FORMAT, MAGIC, header_length
from payload.digest import digest
from payload.errors import PayloadError
from payload.roots import ROOT_VERSION_MAX, Link, decode_chain, encode_chain
from tests.fuzz.bundle_cases import encode, odd_fields

LENGTHS = struct.Struct("<4I")
LENGTHS_AT = CHECKED_FROM + 4
SECTIONS_AT = 64
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """A bit, a byte, a run of bytes, or the length."""
    changed = bytearray(data or b"\0")
    at = chance.randrange(len(changed))
    change = chance.randrange(5)
    if change == 0:
        changed[at] ^= 1 << chance.randrange(8)
    elif change == 1:
        changed[at] = chance.choice(INTERESTING)
    elif change == 2:
        changed[at : at + chance.choice((1, 4, 48, 96))] = b""
    elif change == 3:
        changed[at:at] = changed[at : at + chance.choice((1, 4, 48, 96))]
    else:
        changed[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 4096, 1 << 24, 2**31, 2**32 - 1)))
    return bytes(changed)


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    """Another value, a key too few or too many, in the one encoding."""
    try:
        content = json.loads(data)
        odd_fields(chance, chance.choice(list(_objects(content))))
        return encode(content)
    except (ValueError, IndexError, RecursionError):
        return mutate_bytes(data, chance)


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    """The objects that have fields, this one and those of its lists."""
    if isinstance(content, dict) and content:
        yield content
        for inner in content.values():
            yield from (each for each in (inner if isinstance(inner, list) else ()) if isinstance(each, dict) and each)


def mutate_chain(data: bytes, chance: random.Random) -> bytes:
    """A root's fields, its number, its signatures, or one link too many or too few."""
    try:
        chain = list(decode_chain(data))
        at = chance.randrange(len(chain))
    except (PayloadError, ValueError):
        return mutate_bytes(data, chance)
    link = chain[at]
    changes: tuple[Callable[[], list[Link]], ...] = (
        lambda: [Link(link.version, mutate_json(link.text, chance), link.signatures)],
        lambda: [Link(link.version, link.text, tuple(_odd(name, value) for name, value in link.signatures))],
        lambda: [Link(link.version, link.text, link.signatures[1:])],
        lambda: [Link(chance.choice((0, min(link.version + 1, ROOT_VERSION_MAX))), link.text, link.signatures)],
        lambda: [link, link],
        list,
    )
    chain[at : at + 1] = chance.choice(changes)()
    return encode_chain(chain)


def _odd(name: bytes, signature: bytes) -> tuple[bytes, bytes]:
    """Right becomes wrong and wrong right, where `parser_targets.signatures_hold`."""
    return name, bytes([not signature[0]]) + signature[1:]


def mutate_header(data: bytes, chance: random.Random) -> bytes:
    """One section, with the lengths and the digest of the frame tables made right afterwards."""
    if len(data) < SECTIONS_AT or sum(LENGTHS.unpack_from(data, LENGTHS_AT)) > len(data):
        return mutate_bytes(data, chance)
    sections, at = [], SECTIONS_AT
    for length in LENGTHS.unpack_from(data, LENGTHS_AT):
        sections.append(data[at : at + length])
        at += length
    which = chance.randrange(len(sections))
    sections[which] = (mutate_json, mutate_bytes, mutate_chain, mutate_bytes)[which](sections[which], chance)
    if which == 3:
        sections[0] = _with_table(sections[0], sections[3])
    lengths = [len(section) for section in sections]
    content = struct.pack("<I", FORMAT) + LENGTHS.pack(*lengths) + bytes(4) + b"".join(sections)
    return MAGIC + bytes(CHECKED_FROM - len(MAGIC)) + content.ljust(header_length(*lengths) - CHECKED_FROM, b"\0")


def _with_table(text: bytes, tables: bytes) -> bytes:
    """The manifest with the digests of these tables, as far as it is one."""
    try:
        content = json.loads(text)
        for image in content["images"]:
            length = 48 * -(-image["size"] // image["frame-size"])
            image["table-digest"] = digest(tables[:length]).hex()
            tables = tables[length:]
        return encode(content)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return text
