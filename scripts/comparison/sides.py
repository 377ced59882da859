"""The two sides: dpkg in a copy of a root, and this package manager on another copy."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.virtual.commands import run

ENTER = Path(__file__).with_name("enter.sh")
HINT = "run it as root, where namespaces and mounts can be made"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
}
# No answer of a person is compared: there is nobody to ask.
DPKG = ("dpkg", "--force-unsafe-io", "--force-confdef", "--force-confold")
SECONDS_MAX = 900


def copy_root(archive: Path, folder: Path) -> Path:
    """The root in an archive, unpacked as it was. Raises: SetupError."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--preserve-permissions"]
    run(["tar", "--extract", "--file", archive, "--directory", folder, *flags], hint=HINT)
    return folder


def inside(root: Path, packages: Path, command: Sequence[str | Path]) -> str:
    """Run a command that works on ``root``. Returns: what it said. Raises: SetupError."""
    said = run([*around(root, packages), *command], hint=HINT, environment=ENVIRONMENT, seconds_max=SECONDS_MAX)
    return said.decode(errors="replace")


def around(root: Path, packages: Path) -> list[str | Path]:
    """The words in front of a command for which proc, dev and the folder ``packages`` are mounted in ``root``."""
    return ["unshare", "--mount", "--propagation", "private", ENTER, root, packages]


def dpkg(root: Path, packages: Path, *words: str) -> str:
    """The root's own dpkg with these words; the folder ``packages`` is /mnt. Raises: SetupError."""
    return inside(root, packages, ["chroot", root, *DPKG, *words])


def install_all(root: Path, packages: Path) -> str:
    """Every package of a folder in one run of dpkg, which finds the order itself. Raises: SetupError."""
    return dpkg(root, packages, "--install", *(f"/mnt/{package.name}" for package in sorted(packages.iterdir())))
