"""The OS's dpkg changes nothing while a transaction may still be undone: by the hook in `recovery/os/dpkg.cfg.d`."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from packagemanager.engine import Engine
from packagemanager.root import Root
from packagemanager.transact import ON_TRIAL, WAITS_FOR_RESTART, Manager
from tests.programs.dpkg_twin import Workbench, empty_database
from tests.programs.package_constructs import p
from tests.simulator.package_world import World

HOOK = Path(__file__).parents[2] / "recovery/os/dpkg.cfg.d/unbrick"


def dpkg(home: Path, root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The real dpkg, whose configuration is the hook alone."""
    words = ("dpkg", f"--root={root}", "--force-script-chrootless", "--log=/dev/null", *arguments)
    environment = {**os.environ, "HOME": str(home)}
    return subprocess.run(words, capture_output=True, check=False, text=True, env=environment, timeout=60)


@pytest.mark.requirement("M20")
@pytest.mark.parametrize("live", [True, False])
def test_dpkg_is_refused_while_a_transaction_may_be_undone(tmp_path: Path, live: bool) -> None:
    home, root, world = tmp_path / "home", tmp_path / "root", World()
    home.mkdir()
    (home / ".dpkg.cfg").write_bytes(HOOK.read_bytes())
    empty_database(root)
    other = Workbench(tmp_path / "bench").deb("other", "1", {"/usr/other": "1"})
    with closing(Root(str(root))) as tree:
        outcome = Manager(tree).apply(world.install(p("1", {"/usr/p": "1"})), live=live)
        assert outcome == (ON_TRIAL if live else WAITS_FOR_RESTART)
        status = (root / "var/lib/dpkg/status").read_bytes()
        for words in (("-i", other), ("--configure", "-a")):
            refused = dpkg(home, root, *words)
            assert refused.returncode != 0
            assert "unbrick packages undo" in refused.stderr
        assert (root / "var/lib/dpkg/status").read_bytes() == status
        assert not (root / "usr/other").exists()
        assert dpkg(home, root, "--list").returncode == 0, "looking is always possible"
        Engine(tree).back()
    done = dpkg(home, root, "-i", other)
    assert (done.returncode, (root / "usr/other").exists()) == (0, True), done.stderr
