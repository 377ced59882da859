"""What the last `unbrick install` was asked for, in a file: for `unbrick resume`, and for the bundle after a commit.

A hint and no state: whoever loses it loses no update, and nothing in it is believed.
"""

from __future__ import annotations

import json
import os

from payload.durable import atomic_replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE_BYTES_MAX = 64 << 10


class Asked:
    """``where`` are the URLs of one bundle, or one path; the rest are the options of the command."""

    __slots__ = ("again", "keep", "one_way", "rate_limit", "where")

    def __init__(
        self, where: list[str], keep: bool = False, again: bool = False, one_way: bool = False, rate_limit: int = 0
    ) -> None:
        self.where = where if is_far(where) else [os.path.abspath(where[0])]
        self.keep = keep
        self.again = again
        self.one_way = one_way
        self.rate_limit = rate_limit

    @property
    def is_there(self) -> bool:
        """Whether it makes sense to look there. A server is always worth a look."""
        return is_far(self.where) or os.path.exists(self.where[0])


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def is_far(where: list[str]) -> bool:
    """Whether these are URLs."""
    return all(map(is_url, where))


def remember(path: str, asked: Asked) -> None:
    """Make it durable, if that is possible."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        atomic_replace(path, json.dumps({name: getattr(asked, name) for name in Asked.__slots__}).encode())
    except OSError:
        return


def recall(path: str) -> Asked | None:
    """What was remembered; None where there is nothing, or nothing that can be read."""
    try:
        with open(path, "rb") as file:
            fields = json.loads(file.read(FILE_BYTES_MAX))
        return Asked(**fields) if _is_whole(fields) else None
    except (OSError, ValueError, RecursionError):
        return None


def _is_whole(fields: Any) -> bool:
    if not isinstance(fields, dict) or set(fields) != set(Asked.__slots__):
        return False
    where, limit = fields["where"], fields["rate_limit"]
    flags = [fields[name] for name in ("keep", "again", "one_way")]
    is_limit = isinstance(limit, int) and limit >= 0
    is_where = isinstance(where, list) and bool(where) and all(isinstance(one, str) for one in where)
    return is_where and is_limit and all(isinstance(flag, bool) for flag in flags)


def forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
