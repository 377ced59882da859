"""The package manager as a package, in two versions, and a newer dpkg: both are replaced by what is replaced itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.virtual import apt
from scripts.virtual.commands import run

INSTALLED = "usr/lib/unbrick/apply"
CONTROL = """Package: unbrick
Version: {version}
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Description: the package manager that installs it
"""
# It is run while its package is configured: by then it is the new one.
POSTINST = f"#!/bin/sh\nset -e\ntail -c 1 /{INSTALLED} >/var/lib/unbrick-version\n"
NEWER = "+newer1"
HINT = "apt-get install dpkg"


def build(folder: Path, program: Path) -> tuple[Path, Path]:
    """The folders of the first version, and of the second with a newer dpkg. Raises: SetupError."""
    if folder.exists():
        shutil.rmtree(folder)
    first, second = folder / "first", folder / "second"
    for version, packages in (("1", first), ("2", second)):
        packages.mkdir(parents=True)
        tree = folder / f"unbrick-{version}"
        (tree / INSTALLED).parent.mkdir(parents=True)
        (tree / INSTALLED).write_bytes(program.read_bytes() + version.encode())
        (tree / INSTALLED).chmod(0o755)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN" / "control").write_text(CONTROL.format(version=version))
        (tree / "DEBIAN" / "postinst").write_text(POSTINST)
        (tree / "DEBIAN" / "postinst").chmod(0o755)
        _pack(tree, packages / "unbrick.deb")
    _newer_dpkg(folder, second)
    return first, second


def _newer_dpkg(folder: Path, packages: Path) -> None:
    """The same dpkg with a higher version and another copyright."""
    apt.download(folder, ["dpkg"])
    (package,) = folder.glob("dpkg_*.deb")
    run(["dpkg-deb", "--raw-extract", package, folder / "dpkg"], hint=HINT)
    control = folder / "dpkg" / "DEBIAN" / "control"
    lines = (f"{line}{NEWER}" if line.startswith("Version: ") else line for line in control.read_text().splitlines())
    control.write_text("\n".join(lines) + "\n")
    with (folder / "dpkg" / "usr/share/doc/dpkg/copyright").open("a") as file:
        file.write("\nnewer\n")
    _pack(folder / "dpkg", packages / "dpkg.deb")


def _pack(tree: Path, package: Path) -> None:
    run(["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", tree, package], hint=HINT)
