"""The wheel: one top-level name, everything a build needs, and the same image as from the checkout.

It is built without the network, by the hatchling beside this Python, and installed into a folder of its own;
what it depends on is what this Python has. Not here: fetching those from an index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from initramfs.cli import main
from scripts.virtual.kit import CACHE
from scripts.virtual.layout import TINY, device_toml

ROOT = Path(__file__).parents[2]
PACKAGES = ("statemachine", "payload", "packagemanager", "recovery", "initramfs", "qemu")
SECONDS_MAX = 600

pytestmark = pytest.mark.boot


@dataclass(frozen=True)
class Installed:
    """A folder with the wheel's content, for a Python that knows nothing of the checkout."""

    folder: Path

    def run(self, *command: str, check: bool = True) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command,
            cwd=self.folder.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_MAX,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def unbrick(self, *arguments: str) -> str:
        return self.run(sys.executable, str(self.folder / "bin/unbrick"), *arguments)


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder / "wheels", ROOT)
    (wheel,) = (folder / "wheels").glob("unbrick-*-py3-none-any.whl")
    pip("install", "--no-deps", "--no-index", "--target", folder / "installed", wheel)
    return Installed(folder / "installed")


def files_below(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_it_has_one_top_level_name(installed: Installed) -> None:
    names = {path.name for path in installed.folder.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"bin", "unbrick"}
    said = installed.run(sys.executable, "-c", "import unbrick, statemachine", check=False)
    assert "No module named 'statemachine'" in said


@pytest.mark.parametrize("package", PACKAGES)
def test_it_has_every_file_of_the_source_folders(installed: Installed, package: str) -> None:
    assert files_below(installed.folder / "unbrick/lib" / package) == files_below(ROOT / package)


def test_its_command_runs_and_its_plugin_gives_the_lab(installed: Installed) -> None:
    assert "usage: unbrick" in installed.unbrick("--help")
    fixtures = installed.run(sys.executable, "-m", "pytest", "--fixtures", str(installed.folder / "bin"))
    assert re.search(r"^machine .*unbrick/lib/qemu/pytest_plugin.py", fixtures, re.MULTILINE), fixtures


def test_it_builds_the_same_image_as_the_checkout(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(device_toml(TINY))
    (tmp_path / "root.pub").write_text(bytes(range(32)).hex())
    asked = ["build", "-c", str(tmp_path / "device.toml"), "--cache", str(CACHE), "-o"]
    installed.unbrick(*asked, str(tmp_path / "wheel.cpio.zst"))
    assert main([*asked, str(tmp_path / "checkout.cpio.zst")]) == 0
    assert (tmp_path / "wheel.cpio.zst").read_bytes() == (tmp_path / "checkout.cpio.zst").read_bytes()
