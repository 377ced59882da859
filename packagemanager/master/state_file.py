"""What a device has, as the master is told: by the device's own words, or by dpkg's database of a root.

`unbrick packages status --json` prints the first; `var/lib/dpkg/status` of the image that devices were made from is
the second. Names and versions are all that the master needs: it has the packages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packagemanager.control import paragraphs
from packagemanager.database import Package, state_of
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import RequestError
from packagemanager.transaction_index import PACKAGES_MAX, is_key, is_version

STATE_BYTES_MAX = 64 << 20


def read_state(path: Path) -> dict[str, str]:
    """``name:architecture`` to version, of the packages that are installed.

    Raises:
        RequestError: it is neither of both, or says what cannot be.
    """
    try:
        with path.open("rb") as file:
            text = file.read(STATE_BYTES_MAX + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}", _HINT) from error
    if len(text) > STATE_BYTES_MAX:
        raise RequestError(f"{path}: more than {STATE_BYTES_MAX} bytes", _HINT)
    installed = _of_json(path, text) if text.lstrip().startswith(b"{") else _of_dpkg(path, text)
    if not installed or len(installed) > PACKAGES_MAX:
        raise RequestError(f"{path}: {len(installed)} packages are installed", _HINT)
    return installed


def _of_json(path: Path, text: bytes) -> dict[str, str]:
    try:
        facts: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: {error}", _HINT) from error
    installed = facts.get("installed")
    right = isinstance(installed, dict) and all(is_key(key) and is_version(one) for key, one in installed.items())
    if not right:
        raise RequestError(f"{path} has no list of installed packages", _HINT)
    if facts.get("state", state_of(installed).hex()) != state_of(installed).hex():
        raise RequestError(f"{path}: its packages are not those of the state that it names", _HINT)
    return dict(installed)


def _of_dpkg(path: Path, text: bytes) -> dict[str, str]:
    try:
        packages = [Package(fields) for fields in paragraphs(text)]
    except (ArchiveError, ValueError) as error:
        raise RequestError(f"{path}: {error}", _HINT) from error
    return {package.key: package.version for package in packages if package.complete}


_HINT = "Name what `unbrick packages status --json` printed on a device, or the file var/lib/dpkg/status of its root."
