"""What can go wrong with packages, split by who is at fault; each names its cause and the next step to take.

::

    PackageError
    ├── ArchiveError        a package's bytes: damaged, hostile or beyond a bound
    ├── TransactionError    a transaction's bytes, or one that this device must not take
    ├── UnsupportedError    what a package wants and this package manager does not do, by name
    ├── RefusedError        a plan that cannot be carried out here: conflicts, space, files in the way
    │   └── BusyError       dpkg or apt is at work: later it can be
    ├── BlockedError        a plan that was begun and cannot go on: something is in the way; it can be undone
    ├── DiskError           the disk refused: what this means for the system is said
    ├── DatabaseError       what the device remembers of its packages does not read
    └── ScriptError         a maintainer script that failed or did not end

A refusal (the first four) is made before anything of the system changed.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
UNCHANGED = "the system is as it was"
TOLD_MAX = 8


class PackageError(Exception):
    """``advice`` is what to do next, in words for a person."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


class ArchiveError(PackageError):
    pass


class TransactionError(PackageError):
    pass


class UnsupportedError(PackageError):
    pass


class RefusedError(PackageError):
    pass


class BusyError(RefusedError):
    pass


class BlockedError(PackageError):
    pass


class DiskError(PackageError):
    pass


class DatabaseError(PackageError):
    pass


class ScriptError(PackageError):
    pass


def some_of(problems: Iterable[str], told_max: int = TOLD_MAX) -> list[str]:
    """The first of ``problems``, and how many more there are."""
    found = list(problems)
    more = len(found) - told_max
    return [*found[:told_max], f"and {more} more"] if more > 0 else found


def refuse(problems: Iterable[str], advice: str) -> None:
    """Raises ``RefusedError`` where there are any."""
    if told := some_of(problems):
        raise RefusedError("; ".join(told), f"Nothing was changed. {advice}")


def left_lines(left: Iterable[tuple[str, str]]) -> list[str]:
    """What could not be brought back as it was (`engine.Resumed.left`), in words for a person."""
    return [f"/{path} is not as it was: {reason}" if path else reason for path, reason in left]


def tell_left(error: BaseException, left: Iterable[tuple[str, str]]) -> None:
    """What could not be brought back belongs to what is said of the failure."""
    if isinstance(error, PackageError):
        error.args = ("\n".join((str(error), *left_lines(left))),)


def disk_error(what: str, error: OSError, advice: str) -> PackageError:
    """What the disk said in the middle of ``what``. A full disk before anything changed is no fault of it."""
    if error.errno in NO_ROOM and advice == UNCHANGED:
        return RefusedError(f"{what}: there is no room; {UNCHANGED}", "free some space")
    return DiskError(f"{what}: the disk says: {error.strerror or error}", advice)
