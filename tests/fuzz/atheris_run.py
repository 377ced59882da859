"""One target under atheris: ``python -m tests.fuzz.atheris_run TARGET [options of libFuzzer] [corpus folder | file]``.

A program of its own: libFuzzer ends the process that it runs in. The target's seeds are written into the folder first;
a file is played alone.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["packagemanager", "payload", "statemachine"]):
        from tests.fuzz.parser_targets import INPUT_BYTES_MAX, TARGETS, signatures_hold
    target = TARGETS[name]
    for folder in (Path(option) for option in options if not option.startswith("-")):
        if folder.is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (folder / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, bytes_max: int, seed: int) -> bytes:
        """Half of the time by structure, half of the time as libFuzzer thinks best."""
        chance = random.Random(seed)
        changed = target.mutate(data, chance) if chance.random() < 0.5 else atheris.Mutate(data, bytes_max)
        return bytes(changed[:bytes_max])

    with signatures_hold():
        atheris.Setup([sys.argv[0], f"-max_len={INPUT_BYTES_MAX}", *options], target.check, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
