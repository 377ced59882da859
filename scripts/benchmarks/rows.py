"""A measurement as a row, the file of rows that a benchmark leaves, and targets. Pure but for :func:`write`.

Rows are {who, metric, value, unit} in SI units: bytes are ``B``, seconds ``s``, counts and ratios ``1``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from payload.durable import atomic_replace

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ("B", "s", "1")
OURS = "unbrick"
HOST = "host"


@dataclass(frozen=True)
class Row:
    """One measured value of one contender."""

    who: str
    metric: str
    value: float
    unit: str

    def __post_init__(self) -> None:
        assert self.unit in UNITS, self.unit


@dataclass(frozen=True)
class Target:
    """What we said we would reach: ``metric`` of ours at most ``at_most``, times ``peer``'s value if one is named."""

    metric: str
    at_most: float
    peer: str = ""


class Results:
    """The rows of one benchmark, by contender and metric."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._values = {(row.who, row.metric): row for row in self.rows}

    @property
    def contenders(self) -> list[str]:
        """In the order of their first rows; the machine that measures is none."""
        return [who for who in dict.fromkeys(row.who for row in self.rows) if who != HOST]

    def value(self, who: str, metric: str) -> float | None:
        row = self._values.get((who, metric))
        return row.value if row else None

    def unit(self, metric: str) -> str:
        return next((row.unit for row in self.rows if row.metric == metric), "1")


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file of rows. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_replace(path, (json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode())


def host_rows() -> list[Row]:
    """How busy this machine is: absolute times of a loaded host say little, ratios say more."""
    load, _, _ = os.getloadavg()
    return [Row(HOST, "processors", os.cpu_count() or 1, "1"), Row(HOST, "load_average", load, "1")]


def target_rows(results: Results, targets: Iterable[Target]) -> list[Row]:
    """For each target that could be measured: our value over the limit. At most 1 is met."""
    rows = []
    for target in targets:
        ours, limit = results.value(OURS, target.metric), limit_of(results, target)
        if ours is not None and limit:
            rows.append(Row(OURS, f"{target.metric}_over_target", ours / limit, "1"))
    return rows


def limit_of(results: Results, target: Target) -> float | None:
    """The limit as a value of the metric; None where the peer was not measured."""
    if not target.peer:
        return target.at_most
    theirs = results.value(target.peer, target.metric)
    return None if theirs is None else theirs * target.at_most
