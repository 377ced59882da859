"""Debian 12 installed into a folder or an archive of its own, by mmdebstrap and this machine's apt settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from scripts.virtual import apt
from scripts.virtual.commands import run
from scripts.virtual.layer import SOURCE_DATE_EPOCH


def bootstrap(
    target: Path, packages: Sequence[str], options: Sequence[str] = (), sources: Sequence[str] | None = None
) -> None:
    """Install ``packages`` into ``target``: a folder, or an archive if it ends in ``.tar``.

    ``options`` are mmdebstrap's, ``sources`` lines of apt's (default: all of Debian 12 that apt knows here). Its
    configuration stays beside ``target``. Raises: SetupError.
    """
    configuration = target.with_name("apt.conf")
    configuration.write_text("\n".join(apt.settings()) + "\n")
    command = [
        "mmdebstrap",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={','.join(packages)}",
        f"--aptopt={configuration}",
        *options,
        apt.SUITE,
        str(target),
        *(apt.sources() if sources is None else sources),
    ]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "LC_ALL": "C.UTF-8"}
    run(command, hint=apt.DOWNLOAD_HINT, environment=environment)


# What a machine leaves in a root that it made: paths in it, as the shell expands them.
TRACES = ("var/cache/ldconfig", "var/log/*.log", "var/log/apt")


def removing(paths: Sequence[str]) -> str:
    """The option that removes files of the root when all is installed."""
    return f"--customize-hook=rm -rf {' '.join(f'$1/{path}' for path in paths)}"


def without(paths: Sequence[str]) -> list[str]:
    """The options that leave files out: dpkg's own (``path-exclude=…``)."""
    return [f"--dpkgopt={path}" for path in paths]
