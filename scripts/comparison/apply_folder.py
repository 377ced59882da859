"""Bring a root to a set of packages by this package manager: what is measured and compared of ours.

    apply_folder.py ROOT FOLDER [PACKAGE...]

``FOLDER`` holds the packages that replace or join those of ``ROOT``; each ``PACKAGE`` is removed, with its
configuration. The master's part, the order, is done here too, as simply as can be.
"""

from __future__ import annotations

import os
import sys

from packagemanager import scripts
from packagemanager.changes import Wish
from packagemanager.control import Paragraph, paragraph, parse_relations
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.order import Order
from packagemanager.root import Root
from packagemanager.transact import Manager
from payload.sources import FileSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str]) -> int:
    _program, folder, packages, *removed = arguments
    tree = Root(folder)
    brought = dict(_packages(packages))
    wish = _wish(Database(tree), {key: fields for key, (fields, _deb) in brought.items()}, removed)
    manager = Manager(tree, run=scripts.runner(folder), report=lambda *words: None)
    serial = manager.wanted().serial + 1
    order = Order(wish, lambda keys: {key: brought[key][1] for key in keys}, serial, serial.to_bytes(32))
    print(manager.apply(order, settle=True))
    return 0


def _packages(folder: str) -> list[tuple[str, tuple[Paragraph, Deb]]]:
    found = []
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - no pathlib on a device
        deb = Deb(FileSource(f"{folder}/{name}", name))
        fields = paragraph(deb.control()[0])
        found.append((_key(fields), (fields, deb)))
    return found


def _key(fields: Paragraph) -> str:
    return f"{fields.get('Package')}:{fields.get('Architecture')}"


def _wish(database: Database, brought: Mapping[str, Paragraph], removed: Sequence[str]) -> Wish:
    """Everything that is there but ``removed``, with what is brought in its place, dependencies first."""
    wanted = {
        key: package.fields
        for key, package in database.packages.items()
        if package.present and package.name not in removed
    }
    wanted |= brought
    order = _ordered(wanted)
    return Wish({key: wanted[key].get("Version") for key in order}, purge=True)


def _ordered(wanted: Mapping[str, Paragraph]) -> list[str]:
    names: dict[str, list[str]] = {}
    for key, fields in wanted.items():
        names.setdefault(fields.get("Package"), []).append(key)
    order: dict[str, None] = {}
    begun: set[str] = set()

    def visit(key: str) -> None:
        if key in begun:
            return
        begun.add(key)
        for field in ("Pre-Depends", "Depends"):
            for group in parse_relations(wanted[key].get(field)):
                for relation in group:
                    for other in names.get(relation.name, ()):
                        visit(other)
        order[key] = None

    for key in sorted(wanted):
        visit(key)
    return list(order)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
