"""The order of Debian's versions (Debian policy 5.6.12, deb-version(7)).

``[epoch:]upstream[-revision]``. Two texts may name the same version: ``1.0``, ``1.00`` and ``0:1.0-0`` are equal.
"""

from __future__ import annotations

from packagemanager.errors import ArchiveError

VERSION_CHARACTERS_MAX = 256
EPOCH_MAX = 2**31 - 1
LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGITS = frozenset("0123456789")
IN_REVISION = LETTERS | DIGITS | frozenset("+.~")
IN_UPSTREAM = IN_REVISION | frozenset("-:")
SMALLEST, END, AFTER_LETTERS = -1, 0, 256  # a tilde, the end of a part, and what is added to all but letters


def compare(a: str, b: str) -> int:
    """-1, 0 or 1: whether ``a`` is earlier than ``b``, the same, or later. Raises as :func:`key`."""
    first, second = key(a), key(b)
    return (first > second) - (first < second)


def key(text: str) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """What sorts as the version does: ``sorted(versions, key=key)``.

    Raises:
        ArchiveError: ``text`` is no version.
    """
    epoch, upstream, revision = split(text)
    return epoch, _part(upstream), _part(revision)


def split(text: str) -> tuple[int, str, str]:
    """Epoch, upstream version and revision, of which the last may be empty.

    A version that does not begin with a digit is let through, as dpkg does. Raises as :func:`key`.
    """
    if not 0 < len(text) <= VERSION_CHARACTERS_MAX:
        raise _no_version(text)
    epoch, colon, rest = text.partition(":")
    if not colon:
        epoch, rest = "0", text
    upstream, hyphen, revision = rest.rpartition("-")
    if not hyphen:
        upstream, revision = rest, ""
    right = DIGITS.issuperset(epoch) and IN_UPSTREAM.issuperset(upstream) and IN_REVISION.issuperset(revision)
    if not (right and epoch and upstream and (revision or not hyphen) and int(epoch) <= EPOCH_MAX):
        raise _no_version(text)
    return int(epoch), upstream, revision


def _no_version(text: str) -> ArchiveError:
    return ArchiveError(f"{text[:VERSION_CHARACTERS_MAX]!r} is no version", "it must be like 1:2.3-4 (deb-version(7))")


def _part(text: str) -> tuple[int, ...]:
    """Turns of characters that are no digits, the end of these, and a number; at last the end once more.

    Equal beginnings leave both texts at the same kind of turn, so comparing number by number is what policy describes.
    """
    order: list[int] = []
    at = 0
    while at < len(text) or not order:
        start = at
        while at < len(text) and text[at] not in DIGITS:
            at += 1
        order += [_place(character) for character in text[start:at]]
        start = at
        while at < len(text) and text[at] in DIGITS:
            at += 1
        order += (END, int(text[start:at] or "0"))
    return (*order, END)


def _place(character: str) -> int:
    if character == "~":
        return SMALLEST
    return ord(character) if character in LETTERS else ord(character) + AFTER_LETTERS
