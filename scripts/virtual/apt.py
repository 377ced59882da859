"""This machine's own apt settings, for a tool that installs Debian packages into another folder.

Nothing here names a mirror: where packages come from is the machine's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.virtual.commands import SetupError, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUITE = "bookworm"
HINT = "run: apt-get update"
DOWNLOAD_HINT = "see that apt-get download works here, then try again"
# How to reach the mirrors and how strict to be with their dates; everything else is left at its default.
CARRIED_SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::Retries", "Acquire::Check")


def sources() -> list[str]:
    """One-line-style entries for all of Debian 12 that apt knows here.

    Raises: SetupError when it knows none.
    """
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(CODENAME)"
    text = run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"], hint=HINT).decode()
    rows = [line.split() for line in text.splitlines()]
    found = {
        f"deb {row[0]} {row[1]} {row[2]}"
        for row in rows
        if len(row) >= 4 and row[3] == "Debian" and row[1].startswith(SUITE)
    }
    if not found:
        raise SetupError(f"apt has no package lists of Debian 12 ({SUITE})", HINT)
    return sorted(found)


def settings() -> list[str]:
    """The lines of apt's configuration that matter for reaching its mirrors from another root."""
    lines = run(["apt-config", "dump"], hint=HINT).decode().splitlines()
    carried = [line for line in lines if line.startswith(CARRIED_SETTINGS) and not line.endswith(' "";')]
    return [*carried, 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d/";']


def download(folder: Path, packages: Sequence[str]) -> None:
    """Fetch packages, each ``name`` or ``name=version``, into ``folder``. Raises: SetupError."""
    words = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]
    run([*words, *packages], hint=DOWNLOAD_HINT, folder=folder)
