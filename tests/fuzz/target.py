"""What a fuzzer needs to know of one parser."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """``check`` is called with any bytes; ``seeds`` are good examples for the fuzzer to begin with. ``mutate`` changes
    one where its structure is known, so that what is behind a length or a quotation mark is reached. ``runs`` is how
    many inputs the long run is made of."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, random.Random], bytes]
    runs: int
