"""How often a transaction makes the disk write: a number that does not grow with files, packages or scripts."""

import pytest

from packagemanager.calls import SCRIPTS
from packagemanager.transact import Manager
from tests.programs.package_constructs import Package
from tests.simulator.package_world import Scripts, World, system

FLUSHES_MAX = 10
SCRIPT = "#!/bin/sh\n"


def package(name: str, version: str, files: int) -> Package:
    content = {f"/usr/share/{name}/{number}": f"{version} {number}" for number in range(files)}
    return Package(name, version, content, controls=dict.fromkeys(SCRIPTS, SCRIPT))


@pytest.mark.requirement("M13")
@pytest.mark.parametrize(("packages", "files"), [(1, 1), (20, 5)])
@pytest.mark.parametrize("scripts", [True, False])
def test_a_transaction_flushes_a_handful_of_times(packages: int, files: int, scripts: bool) -> None:
    tree, world = system(), World()
    for version in ("1", "2"):
        order = world.install(*(package(f"package-{number}", version, files) for number in range(packages)))
        before, run = tree.flushes, Scripts()
        Manager(tree, run=run if scripts else None).apply(order, settle=True)
        assert tree.flushes - before <= FLUSHES_MAX
        assert len(run.calls) >= packages * scripts
