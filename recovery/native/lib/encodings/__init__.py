"""Finds codecs on the device: the part of the standard library's ``encodings`` that the interpreter needs.

Every start imports this. The original then builds its table of 300 aliases, although the names that
are asked for are modules' own; this one looks there first and imports the table when that fails.
Both find the same codecs, of those that are in the image. Nothing is cached here: CPython does that.
"""

import _codecs
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codecs import CodecInfo


def normalize_encoding(encoding: str | bytes) -> str:
    """``encoding`` with each run of other characters than letters, digits and dots as one underscore."""
    if isinstance(encoding, bytes):
        encoding = str(encoding, "ascii")
    words = "".join(
        character if (character.isalnum() and character.isascii()) or character == "." else " "
        for character in encoding
    )
    return "_".join(words.split())


def search_function(encoding: str) -> "CodecInfo | None":
    """The ``CodecInfo`` of ``encoding``, or ``None`` where the image has no such codec."""
    name = normalize_encoding(encoding)
    return _registered(name) or _registered(_alias(name))


def _alias(name: str) -> str:
    from encodings.aliases import aliases

    return aliases.get(name) or aliases.get(name.replace(".", "_")) or ""


def _registered(name: str) -> "CodecInfo | None":
    if not name or "." in name:
        return None
    place = f"encodings.{name}"
    try:
        __import__(place)
    except ImportError:
        return None
    register = getattr(sys.modules[place], "getregentry", None)
    return register() if register else None


_codecs.register(search_function)
