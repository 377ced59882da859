"""A meta-package that takes another's place, and what nothing wants afterwards. Both are empty but for their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packagemanager.control import Paragraph, parse_relations
from scripts.virtual.commands import run

CONTROL = """Package: {name}
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Depends: {depends}
{more}Description: what a device is to have
"""
OLD, NEW = "device-old", "device-new"
OLD_WANTS, NEW_WANTS = ("bind9-dnsutils", "curl", "openssh-server"), ("curl", "vim-tiny")
TAKES_OVER = f"Conflicts: {OLD}\nReplaces: {OLD}\nProvides: {OLD}\n"
HINT = "apt-get install dpkg"


def build(folder: Path) -> tuple[Path, Path]:
    """The folders of the old meta-package and of the new one. Raises: SetupError."""
    made = []
    for name, depends, more in ((OLD, OLD_WANTS, ""), (NEW, NEW_WANTS, TAKES_OVER)):
        control = folder / f"{name}.tree" / "DEBIAN" / "control"
        control.parent.mkdir(parents=True, exist_ok=True)
        control.write_text(CONTROL.format(name=name, depends=", ".join(depends), more=more))
        (folder / name).mkdir(exist_ok=True)
        run(["dpkg-deb", "--root-owner-group", "--build", control.parents[1], folder / name / f"{name}.deb"], hint=HINT)
        made.append(folder / name)
    return made[0], made[1]


def leftovers(packages: Mapping[str, Paragraph]) -> list[str]:
    """The names that are there for the old meta-package alone, those that need others first. ``packages`` by name."""
    wanted = _reachable(packages, [name for name in packages if not _needed_by(packages, name)], without=OLD)
    gone = [name for name in packages if name not in wanted and name != OLD]
    return sorted(gone, key=lambda name: (-_depth(packages, name, gone), name))


def _needed_by(packages: Mapping[str, Paragraph], name: str) -> bool:
    return any(name in _dependencies(fields) for other, fields in packages.items() if other != name)


def _reachable(packages: Mapping[str, Paragraph], roots: Iterable[str], without: str) -> set[str]:
    """What these need, and what is there for its own sake, but for what only ``without`` needs."""
    ours = {name for name in packages if _is_own(packages[name])} | {*roots, *NEW_WANTS}
    ours -= {without, *(set(OLD_WANTS) - set(NEW_WANTS))}
    todo = list(ours)
    while todo:
        for name in _dependencies(packages[todo.pop()]):
            if name in packages and name not in ours:
                ours.add(name)
                todo.append(name)
    return ours


def _is_own(fields: Paragraph) -> bool:
    return fields.get("Essential") == "yes" or fields.get("Priority") in ("required", "important")


def _dependencies(fields: Paragraph) -> Sequence[str]:
    relations = (parse_relations(fields.get(field)) for field in ("Pre-Depends", "Depends"))
    return [relation.name for groups in relations for group in groups for relation in group]


def _depth(packages: Mapping[str, Paragraph], name: str, among: Sequence[str]) -> int:
    """How long the chain of those that need others is, from this one on. There are no circles among leftovers."""
    below = [other for other in _dependencies(packages[name]) if other in among and other != name]
    return 1 + max((_depth(packages, other, among) for other in below), default=0)
