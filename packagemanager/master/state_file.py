"""What a device has, as the master is told: by the device's own words, or by dpkg's database of a root.

`unbrick packages status --json` prints the first; `var/lib/dpkg/status` of the image that devices were made from is
the second. Names and versions are all that the master needs: it has the packages. Where it lacks one, the second says
what that one needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packagemanager.control import Paragraph, paragraphs
from packagemanager.database import Package, state_of
from packagemanager.errors import ArchiveError
from packagemanager.master.errors import RepositoryError, RequestError
from packagemanager.master.package_list import PackageList
from packagemanager.transaction_index import PACKAGES_MAX, is_key, is_version

STATE_BYTES_MAX = 64 << 20


def read_state(path: Path) -> dict[str, str]:
    """``name:architecture`` to version, of the packages that are installed.

    Raises:
        RequestError: it is neither of both, or says what cannot be.
    """
    text = _text(path)
    installed = _of_json(path, text) if _is_json(text) else _of_dpkg(path, text)
    if not installed or len(installed) > PACKAGES_MAX:
        raise RequestError(f"{path}: {len(installed)} packages are installed", _HINT)
    return installed


def packages_of_state(path: Path, architecture: str) -> PackageList:
    """What a device has, with all that its packages say of themselves: of dpkg's database; the other form has nothing.

    Raises:
        RequestError: as :func:`read_state`.
        RepositoryError: a package of it does not read, or one of these is to be fetched.
    """
    text = _text(path)
    complete = [] if _is_json(text) else [one.fields.encode() for one in _packages(path, text) if one.complete]

    def fetch(fields: Paragraph) -> Path:
        name = f"{fields.get('Package')} {fields.get('Version')}"
        raise RepositoryError(f"only devices have {name}", f"Name a place that has it with --old ({path} says it).")

    return PackageList(b"\n".join(complete), architecture, str(path), fetch)


def _text(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(STATE_BYTES_MAX + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}", _HINT) from error
    if len(text) > STATE_BYTES_MAX:
        raise RequestError(f"{path}: more than {STATE_BYTES_MAX} bytes", _HINT)
    return text


def _is_json(text: bytes) -> bool:
    return text.lstrip().startswith(b"{")


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
    return {package.key: package.version for package in _packages(path, text) if package.complete}


def _packages(path: Path, text: bytes) -> list[Package]:
    try:
        return [Package(fields) for fields in paragraphs(text)]
    except (ArchiveError, ValueError) as error:
        raise RequestError(f"{path}: {error}", _HINT) from error


_HINT = "Name what `unbrick packages status --json` printed on a device, or the file var/lib/dpkg/status of its root."
