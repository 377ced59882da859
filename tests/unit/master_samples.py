"""Repositories of a few lines, for what the master decides."""

from __future__ import annotations

from pathlib import Path

from packagemanager.control import Paragraph
from packagemanager.master.package_list import PackageList
from packagemanager.master.repository import Repositories
from packagemanager.master.resolve import resolve
from packagemanager.master.wish import Wish

SHORT = {"D": "Depends", "P": "Pre-Depends", "R": "Recommends", "C": "Conflicts", "B": "Breaks", "V": "Provides"}


def no_package(fields: Paragraph) -> Path:
    raise AssertionError("nobody needs its bytes")


def packages_list(text: str) -> bytes:
    """A line is a package: ``name version D: a (>= 1), b | c; C: d; Essential: yes``; see SHORT."""
    paragraphs = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, version, *rest = line.split(" ", 2)
        fields = {"Package": name, "Version": version, "Architecture": "amd64"}
        for part in filter(None, (rest or [""])[0].split(";")):
            key, _, value = part.strip().partition(": ")
            fields[SHORT.get(key, key)] = value
        paragraphs.append("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return "\n".join(paragraphs).encode()


def repository(text: str) -> Repositories:
    """See :func:`packages_list`."""
    return Repositories([PackageList(packages_list(text), "amd64", "the test", no_package)])


def chosen(text: str, *roots: str, **wish: object) -> list[str]:
    """``name version`` of the full wanted set."""
    given = {"pins": {}, "installed": {}, **wish}
    return [str(package) for package in resolve(Wish(roots, **given), repository(text))]  # type: ignore[arg-type]
