"""The differences between dpkg's root and ours that have a reason. Whatever is not here is a defect.

docs/packages.md has the same list in words.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from scripts.comparison.tree_difference import Difference


@dataclass(frozen=True)
class Reason:
    """Why an aspect of a path (a shell's pattern, which may cross folders) may differ."""

    pattern: str
    aspects: tuple[str, ...]
    text: str


REASONS = (
    Reason("var/lib/unbrick*", ("absent",), "what we remember beside dpkg's database"),
    Reason("var/log/dpkg.log", ("absent", "content", "time"), "dpkg's diary; ours is the journal"),
    Reason("var/log/*", ("content", "time"), "lines that begin with the time"),
    Reason("etc/machine-id", ("content", "time"), "a random number: systemd's postinst makes one"),
    Reason("var/cache/ldconfig/aux-cache", ("content", "time"), "the numbers and times of inodes"),
    Reason("var/lib/dpkg/status-old", ("content", "time"), "the status before: dpkg's of its last step, ours of all"),
    Reason("var/cache/debconf/*-old", ("content", "time"), "the state before the last question that was asked"),
    Reason("*", ("time",), "a file that is already as it shall be is not touched; what scripts make has their time"),
)


def sort_out(found: Iterable[Difference]) -> tuple[list[tuple[Reason, list[Difference]]], list[Difference]]:
    """Differences by their reason, in the order of REASONS, and those that have none."""
    explained: dict[Reason, list[Difference]] = {reason: [] for reason in REASONS}
    unexplained: list[Difference] = []
    for one in found:
        reason = next((reason for reason in REASONS if _explains(reason, one)), None)
        (unexplained if reason is None else explained[reason]).append(one)
    return [(reason, some) for reason, some in explained.items() if some], unexplained


def _explains(reason: Reason, one: Difference) -> bool:
    return one.aspect in reason.aspects and fnmatch.fnmatchcase(one.path, reason.pattern)
