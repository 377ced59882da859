"""JSON with one encoding: ASCII, keys sorted, no white space. What the manifest and the roots are written in.

One meaning must have one encoding, or one content would have two digests: :func:`load` takes a text only
if it is byte for byte what :func:`dump` makes of its content. That also rules out duplicate keys, other
spellings of a number and stray white space. Length and nesting are bounded before the parser runs.
"""

from __future__ import annotations

from payload.digest import DIGEST_BYTES
from payload.errors import PayloadFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Check = Callable[[Any], bool]

BRACKETS_MAX = 64  # bounds depth and number of containers before the parser runs
TEXT_CHARACTERS_MAX = 128
TIME_MAX = 253402300799  # seconds since 1970: the end of the year 9999


def dump(fields: Any) -> bytes:
    """The one encoding of ``fields``."""
    import json  # late: the ordinary boot reads none of this

    return json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")


def load(text: bytes, bytes_max: int, what: str) -> Any:
    """The content of ``text``; ``what`` names it in messages.

    Raises:
        PayloadFormatError: it is too long, too deep, not JSON, or not in its one encoding.
    """
    import json

    if len(text) > bytes_max:
        raise PayloadFormatError(f"the {what} has {len(text)} bytes, allowed are {bytes_max}")
    if text.count(b"{") + text.count(b"[") > BRACKETS_MAX:
        raise PayloadFormatError(f"the {what} is nested too deeply")
    try:
        fields = json.loads(text.decode("ascii"))
    except ValueError as error:
        raise PayloadFormatError(f"the {what} is not JSON: {error}") from error
    if dump(fields) != text:
        raise PayloadFormatError(f"the {what} is not in its one encoding")
    return fields


def check_fields(fields: Any, known: dict[str, Check], what: str) -> None:
    """That ``fields`` is an object with exactly the ``known`` keys, each passing its check.

    Raises:
        PayloadFormatError: naming the first key that does not.
    """
    if not isinstance(fields, dict):
        raise PayloadFormatError(f"the {what} is not an object")
    for key in sorted(known.keys() ^ fields.keys()):
        raise PayloadFormatError(f"the {what} {'lacks' if key in known else 'has the unknown key'} {key!r:.80}")
    for key, check in known.items():
        if not check(fields[key]):
            raise PayloadFormatError(f"the {what} has a bad value of {key!r}")


def is_text(value: Any) -> bool:
    """Short and printable: it goes to screens as it is."""
    return isinstance(value, str) and 0 < len(value) <= TEXT_CHARACTERS_MAX and value.isprintable()


def is_name(value: Any) -> bool:
    """A text without white space, separators and surprises."""
    return is_text(value) and all(letter.isalnum() or letter in "._+~-" for letter in value) and value.isascii()


def is_path(value: Any) -> bool:
    is_plain = is_text(value) and value.isascii() and " " not in value
    return is_plain and value.startswith("/") and ".." not in value.split("/")


def is_digest(value: Any) -> bool:
    """32 bytes in lower-case hexadecimal digits: a digest, or a public key."""
    digits = set("0123456789abcdef")
    return isinstance(value, str) and len(value) == 2 * DIGEST_BYTES and digits.issuperset(value)


def between(low: int, high: int, unit: int = 1) -> Check:
    # `type(...) is int`: True and False are ints, too
    return lambda value: type(value) is int and low <= value <= high and value % unit == 0


def one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


is_time = between(0, TIME_MAX)
