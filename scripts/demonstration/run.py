"""Build a device from real packages, boot its real OS to confirmed, break it in seven ways, and watch.

Writes build/demo/report.json and keeps every console in build/demo/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from payload.durable import atomic_replace
from scripts.demonstration.scenarios import SCENARIOS
from scripts.demonstration.stage import CONFIRMED, Outcome, Stage, play
from scripts.virtual.disk import DeviceDisk
from scripts.virtual.kit import Kit, make_kit

FOLDER = Path("build/demo")
VERSION = 1
EXAMPLES = """examples:
  ./scripts/demo                        everything
  ./scripts/demo --only hang,button     two of the scenarios
"""


class Teller:
    """One line a step, with the seconds since the start; a bar over all scenarios."""

    def __init__(self, total: int) -> None:
        self._started = time.monotonic()
        self._total = total
        self._done = 0

    def say(self, text: str) -> None:
        bar = "#" * self._done + "." * (self._total - self._done)
        print(f"{time.monotonic() - self._started:6.1f} s [{bar}] {text}", flush=True)

    def tell(self, outcome: Outcome) -> None:
        self._done += 1
        verdict = "recovered" if outcome.recovered else "NOT RECOVERED"
        told = f"{outcome.name}: {verdict} in {outcome.seconds:.0f} s, {outcome.boots} boots: {outcome.detail}"
        self.say(told)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/demo", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="names of scenarios, separated by commas", default=",".join(SCENARIOS))
    chosen = [name for name in SCENARIOS if name in parser.parse_args().only.split(",")]
    teller = Teller(len(chosen))
    kit = make_kit(FOLDER, "debian", say=teller.say)
    confirmed = first_boot(kit, teller)
    outcomes = []
    for name in chosen:
        teller.say(f"{name}: {' '.join((SCENARIOS[name].__doc__ or '').split())}")
        disk = confirmed.copy(FOLDER / f"{name}.img")
        outcomes.append(play(Stage(name, kit, disk, FOLDER, VERSION, teller.say), SCENARIOS[name]))
        disk.path.unlink()
        teller.tell(outcomes[-1])
    report = FOLDER / "report.json"
    atomic_replace(report, (json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n").encode())
    recovered = sum(outcome.recovered for outcome in outcomes)
    teller.say(f"{recovered} of {len(outcomes)} recovered by themselves; {report} and the consoles are beside it")
    return 0 if recovered == len(outcomes) else 1


def first_boot(kit: Kit, teller: Teller) -> DeviceDisk:
    """A device fresh from the factory, booted until its OS says that it runs well."""
    teller.say("operating system: Debian 12 with systemd, from packages")
    bundle = kit.bundle(VERSION)
    kit.bundle(VERSION + 1, "panic")
    teller.say(f"bundle: {bundle.stat().st_size / 1e6:.1f} MB, signed")
    stage = Stage("first-boot", kit, kit.disk(FOLDER / "device.img", bundle), FOLDER, VERSION, teller.say)
    machine = stage.power_on()
    teller.say(f"first boot; by hand: {machine.command_line()}")
    machine.expect(CONFIRMED, 240.0)
    machine.close()
    teller.say("first boot: the OS runs well and is confirmed")
    return stage.disk


if __name__ == "__main__":
    sys.exit(main())
