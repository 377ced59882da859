"""A small system of dpkg's on a simulated file system, packages for it, and transactions of the whole flow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from packagemanager import places
from packagemanager.changes import Wish
from packagemanager.deb import Deb
from packagemanager.process import Ended
from packagemanager.scripts import FOLDER as SCRIPTS
from packagemanager.transact import DONE, Manager, Order
from payload.digest import digest
from tests.programs.package_constructs import Package, p, q
from tests.simulator import package_sweep
from tests.simulator.filesystem import FileSystem
from tests.simulator.package_sweep import Snapshot
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of
from tests.unit.payload_samples import BytesReader

if TYPE_CHECKING:
    from packagemanager.incoming import Source
    from packagemanager.tree import Tree

FOLDERS = ("etc", "usr", "usr/bin", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "var/lib/dpkg/updates",
           "var/lib/dpkg/triggers")  # fmt: skip
TEXTS = {"var/lib/dpkg/status": b"", "var/lib/dpkg/info/format": b"1\n", "bin/sh": b"#!"}
# What is no part of the set of files, and of what was done beside.
ASIDE = (*package_sweep.ASIDE, f"{SCRIPTS}/")


def system() -> FileSystem:
    tree = FileSystem()
    for folder in FOLDERS:
        tree.make_directory(folder)
        tree.set_attributes(folder, 0o755, 0, 0, 0)
    tree.make_link("bin", "usr/bin")
    for path, content in TEXTS.items():
        tree.write(path, [content])
        tree.set_attributes(path, 0o755, 0, 0, 0)
    places.make_folders(tree, places.FOLDER)
    tree.sync()
    return tree.restarted()


def deb(package: Package) -> bytes:
    """As `dpkg_twin.Workbench.deb`, without a program."""
    more = package.more
    lines = f"Package: {package.name}\nVersion: {package.version}\nArchitecture: {more.get('architecture', 'all')}\n"
    control = f"{lines}Maintainer: A <a@b>\n{more.get('control', '')}Description: x\n"
    files = {name: text.encode() for name, text in more.get("controls", {}).items()}
    if conffiles := more.get("conffiles", ()):
        files["conffiles"] = "".join(f"{path}\n" for path in conffiles).encode()
    members = _members(package.files, more.get("modes", {}))
    members += [
        member(f".{path}", "hard-link", linkname=f".{first}") for path, first in more.get("hard_links", {}).items()
    ]
    return deb_of(tar_of(members), control_tar(control.encode(), files), "")


def _members(files: Mapping[str, Any], modes: Mapping[str, int]) -> list[Any]:
    folders: dict[str, None] = {}
    for path, content in files.items():
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + (content is None)):
            folders["/".join(parts[:count])] = None
    members = [member("./", "directory")]
    members += [member(f"./{path}", "directory", mode=modes.get(f"/{path}", 0o755)) for path in sorted(folders)]
    for path, content in files.items():
        if isinstance(content, tuple):
            members.append(member(f".{path}", "link", linkname=content[0], mode=0o777))
        elif content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            members.append(member(f".{path}", content=data, mode=modes.get(path, 0o644)))
    return members


class World:
    """What the master wants of the system, step by step."""

    def __init__(self) -> None:
        self.wanted: dict[str, str] = {}
        self.serial = 0
        self._brought: dict[str, bytes] = {}

    def install(self, *packages: Package, remove: Sequence[str] = (), purge: bool = False) -> Order:
        """The order that brings ``packages`` and removes those of these names, from what the last one left."""
        self._brought = {f"{one.name}:{one.more.get('architecture', 'all')}": deb(one) for one in packages}
        names = {one.name for one in packages} | set(remove)
        kept = {key: version for key, version in self.wanted.items() if names.isdisjoint((key, key.partition(":")[0]))}
        self.wanted = kept | {key: one.version for key, one in zip(self._brought, packages, strict=True)}
        self.serial += 1
        brought = dict(self._brought)

        def bring(keys: Sequence[str]) -> dict[str, Source]:
            return {key: Deb(BytesReader(brought[key])) for key in keys}

        return Order(Wish(self.wanted, purge=purge), bring, self.serial, digest(b"%d" % self.serial))


class Scripts:
    """Stands for the programs: remembers what was called; ``failing`` are calls that do not end well."""

    def __init__(self, *failing: str) -> None:
        self.calls: list[str] = []
        self.failing = failing

    def __call__(self, program: str, words: Sequence[str], environment: Mapping[str, str]) -> Ended:
        package, script = environment["DPKG_MAINTSCRIPT_PACKAGE"], environment["DPKG_MAINTSCRIPT_NAME"]
        self.calls.append(" ".join((f"{package}.{script}", *words)))
        return Ended(1 if self.calls[-1] in self.failing else 0, b"said\n")


def apply(tree: Tree, order: Order, **more: Any) -> str:
    return Manager(tree).apply(order, settle=True, **more)


def snapshot(tree: FileSystem) -> Snapshot:
    """What is at every path, but for what is aside; of our own and dpkg's files the time is the moment's."""
    return package_sweep.snapshot(tree, ASIDE, ("var/lib/",))


def is_clean(tree: FileSystem) -> bool:
    """Whether nothing of a transaction is left, and nobody holds the lock."""
    with suppress(BlockingIOError):
        tree.lock(places.LOCK).close()
        return tree.look(places.TRANSACTION) is None and tree.look(SCRIPTS) is None
    return False


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


SCRIPT = "#!/bin/sh\n"
ALL_SCRIPTS = dict.fromkeys(("preinst", "postinst", "prerm", "postrm"), SCRIPT)
OLD = p("1", {"/usr/p": "1", "/etc/p": "c"}, controls=ALL_SCRIPTS, conffiles=["/etc/p"])
NEW = p("2", {"/usr/p": "2", "/etc/p": "d"}, controls=ALL_SCRIPTS, conffiles=["/etc/p"])
OTHER = q("1", {"/usr/q": "q"}, controls=ALL_SCRIPTS)


def before_the_update() -> tuple[FileSystem, World]:
    tree, world = system(), World()
    assert Manager(tree, run=Scripts()).apply(world.install(OLD, OTHER), settle=True) == DONE
    tree.sync()
    return tree.restarted(), world


def differences(found: Snapshot, *sets: Snapshot) -> list[list[str]]:
    """By set, the paths that differ from it."""
    return [[path for path in {*found, *wanted} if found.get(path) != wanted.get(path)] for wanted in sets]
