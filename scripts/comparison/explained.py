"""The differences between dpkg's root and ours that have a reason. Whatever is not here is a defect.

docs/packages.md has the same list in words.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from scripts.comparison.tree_difference import Difference

# Times that differ are told apart by what was there before.
UNTOUCHED, MADE = "time of an untouched file", "time of a made file"


@dataclass(frozen=True)
class Reason:
    """Why an aspect of a path (a shell's pattern, which may cross folders) may differ."""

    pattern: str
    aspects: tuple[str, ...]
    text: str


REASONS = (
    Reason("var/lib/unbrick*", ("absent",), "what we remember beside dpkg's database"),
    Reason("var/log/dpkg.log", ("absent", "content", MADE), "dpkg's diary; ours is the journal"),
    Reason("var/log/*", ("content", UNTOUCHED, MADE), "lines that begin with the time"),
    Reason("etc/machine-id", ("content", UNTOUCHED, MADE), "a random number: systemd's postinst makes one"),
    Reason("var/cache/ldconfig/aux-cache", ("content", UNTOUCHED, MADE), "the numbers and times of inodes"),
    Reason(
        "var/lib/dpkg/status-old",
        ("content", UNTOUCHED, MADE),
        "the status before: dpkg's of its last step, ours of all",
    ),
    Reason(
        "var/cache/debconf/*-old", ("content", UNTOUCHED, MADE), "the state before the last question that was asked"
    ),
    Reason(
        "etc/hosts.*",
        ("absent",),
        "libwrap0's postrm purge asks dpkg whether it is the last instance: it is gone by then",
    ),
    Reason(
        "etc/runit*", ("absent",), "openssh-server's postrm purge asks runit-helper, which goes in the same transaction"
    ),
    Reason(
        "var/lib/ucf", ("absent",), "ucf's postrm purge empties it when the folders of packages were removed already"
    ),
    Reason("*", (UNTOUCHED,), "a file that was as it shall be is not touched: it keeps its time"),
    Reason("*", (MADE,), "no package's: a script made it, and it has the time of that"),
)


def sort_out(found: Iterable[Difference]) -> tuple[list[tuple[Reason, list[Difference]]], list[Difference]]:
    """Differences by their reason, in the order of REASONS, and those that have none."""
    explained: dict[Reason, list[Difference]] = {reason: [] for reason in REASONS}
    unexplained: list[Difference] = []
    for one in found:
        reason = next((reason for reason in REASONS if _explains(reason, one)), None)
        (unexplained if reason is None else explained[reason]).append(one)
    return [(reason, some) for reason, some in explained.items() if some], unexplained


def with_its_time(one: Difference, before: Mapping[str, str], owned: Container[str]) -> Difference:
    """What kind of time it is that differs, if one does. ``owned`` are the paths of packages, as they list them."""
    if one.aspect != "time":
        return one
    if before.get("time") == one.ours:
        return dataclasses.replace(one, aspect=UNTOUCHED)
    return one if one.path in owned else dataclasses.replace(one, aspect=MADE)


def _explains(reason: Reason, one: Difference) -> bool:
    return one.aspect in reason.aspects and fnmatch.fnmatchcase(one.path, reason.pattern)
