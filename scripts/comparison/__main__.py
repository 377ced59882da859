"""Compare this package manager with dpkg on a real Debian root: the same packages into two copies, then every entry.

    python -m scripts.comparison [update] [downgrade] [meta-package] [itself]

Needs root. The copies stay in build/comparison.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from initramfs.errors import BuildError
from scripts.comparison.cases import CASES, Compared, Workshop
from scripts.virtual.commands import SetupError

CHECKOUT = Path(__file__).parents[2]


def main(names: Sequence[str]) -> int:
    """0: every difference has a reason. 1: one has none, or something could not be done."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no case is called {', '.join(unknown)}; there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    workshop = Workshop(CHECKOUT / "build" / "comparison", CHECKOUT / "build" / "cache")
    try:
        results = [CASES[name](workshop) for name in names or CASES]
    except (SetupError, BuildError) as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 1
    for one in results:
        print("\n".join(report(one)))
    return 1 if any(one.unexplained for one in results) else 0


def report(one: Compared) -> list[str]:
    lines = [f"{one.name}: {one.packages} packages changed, {one.entries} entries compared"]
    for reason, some in one.explained:
        lines.append(
            f"  {len(some):6}  {reason.pattern:30} {', '.join(sorted({x.aspect for x in some}))}: {reason.text}"
        )
    lines += [f"  WITHOUT A REASON  {difference}" for difference in one.unexplained]
    return [*lines, f"  {len(one.unexplained)} differences without a reason", ""]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
