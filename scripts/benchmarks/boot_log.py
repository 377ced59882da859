"""From the console of a benchmark's boot to times. Pure. The format is :file:`first_line.c`'s."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scripts.benchmarks.errors import BenchmarkError

RECORD = re.compile(r"bench-log: (\d+) (.*)")
END = "bench-end"
BEGIN = "Run /init as init process"
MARK = "bench: first line of the real root"


@dataclass(frozen=True)
class Boot:
    """One boot, in seconds of the kernel's clock since its start.

    ``init`` is the line "Run /init", ``first_line`` the first act of the real root's init; ``log`` has what
    the kernel logged in between, as (seconds, text).
    """

    init: float
    first_line: float
    log: tuple[tuple[float, str], ...]

    @property
    def initramfs(self) -> float:
        """The measured time: from one to the other."""
        return self.first_line - self.init


def parse_boot(console: str) -> Boot:
    """Raises: BenchmarkError: the real root's init never got there."""
    if END not in console:
        last = " | ".join(console.split("\n")[-6:]).strip()
        raise BenchmarkError(f"did not reach the real root; the console ends with: {last}")
    log = tuple((int(match[1]) / 1e6, match[2].strip()) for match in RECORD.finditer(console))
    begun = [seconds for seconds, text in log if text.startswith(BEGIN)]
    marks = [seconds for seconds, text in log if text.startswith(MARK)]
    if not begun or not marks:
        raise BenchmarkError(f"the kernel's log has no {MARK if begun else BEGIN!r}")
    return Boot(begun[0], marks[0], log)
