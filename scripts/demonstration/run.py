"""Build a device from real packages, boot its real OS to confirmed, break it in seven ways, and watch.

Writes build/demo/report.json and keeps every console in build/demo/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from initramfs.errors import BuildError
from payload.durable import atomic_replace
from qemu.errors import LabError
from scripts.demonstration.scenarios import SCENARIOS
from scripts.demonstration.stage import NotShownError, Outcome, Stage, play
from scripts.virtual import debian_root
from scripts.virtual.commands import SetupError
from scripts.virtual.kit import CACHE, Kit, make_kit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.virtual.disk import DeviceDisk

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

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """Say what begins now, and how long it took."""
        self.say(text)
        started = time.monotonic()
        yield
        self.say(f"{text}: {time.monotonic() - started:.0f} s")

    def tell(self, outcome: Outcome) -> None:
        self._done += 1
        verdict = "recovered" if outcome.recovered else "NOT RECOVERED"
        detail = outcome.detail.partition("\n")[0]
        self.say(f"{outcome.name}: {verdict} in {outcome.seconds:.0f} s, {outcome.boots} boots: {detail}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/demo", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="names of scenarios, separated by commas", default=",".join(SCENARIOS))
    chosen = parser.parse_args().only.split(",")
    unknown = set(chosen) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    try:
        outcomes = show([name for name in SCENARIOS if name in chosen])
    except (BuildError, LabError, SetupError, NotShownError) as error:
        print(f"demo: the device does not get as far as the scenarios: {error}", file=sys.stderr)
        return 1
    return 0 if all(outcome.recovered for outcome in outcomes) else 1


def show(names: list[str]) -> list[Outcome]:
    """Make the device, play these scenarios on copies of it, and write the report."""
    teller = Teller(len(names))
    with teller.stage("key, kernel, recovery image"):
        kit = make_kit(FOLDER, "debian", say=teller.say)
    confirmed = first_boot(kit, teller)
    outcomes = []
    for name in names:
        teller.say(f"{name}: {' '.join((SCENARIOS[name].__doc__ or '').split())}")
        disk = confirmed.copy(FOLDER / f"{name}.img")
        outcomes.append(play(Stage(name, kit, disk, FOLDER, VERSION, teller.say), SCENARIOS[name]))
        disk.path.unlink()
        teller.tell(outcomes[-1])
    report = FOLDER / "report.json"
    atomic_replace(report, (json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n").encode())
    recovered = sum(outcome.recovered for outcome in outcomes)
    teller.say(f"{recovered} of {len(outcomes)} recovered by themselves; {report} and the consoles are beside it")
    return outcomes


def first_boot(kit: Kit, teller: Teller) -> DeviceDisk:
    """A device fresh from the factory, booted until its OS says that it runs well."""
    with teller.stage("operating system: Debian 12 with systemd, from packages"):
        debian_root.build_base(CACHE)
    with teller.stage(f"operating system: image and signed bundle of version {VERSION}"):
        bundle = kit.bundle(VERSION)
    with teller.stage(f"operating system: image and signed bundle of version {VERSION + 1}, which panics"):
        kit.bundle(VERSION + 1, "panic")
    stage = Stage("first-boot", kit, kit.disk(FOLDER / "device.img", bundle), FOLDER, VERSION, teller.say)
    with teller.stage(f"first boot of a {bundle.stat().st_size / 1e6:.1f} MB bundle, until the OS is confirmed"):
        machine = stage.power_on()
        teller.say(f"by hand: {machine.command_line()}")
        stage.until_confirmed(machine)
    return stage.disk


if __name__ == "__main__":
    sys.exit(main())
