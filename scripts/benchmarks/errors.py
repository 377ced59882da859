"""What can go wrong while measuring; see :class:`scripts.virtual.commands.SetupError` for what comes before."""

from __future__ import annotations


class BenchmarkError(Exception):
    """One contender could not be measured; the others go on and the run ends with an error code."""
