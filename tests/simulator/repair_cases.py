"""A small system with two packages on a simulated file system, and everything that can happen to its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from packagemanager import files, verify
from packagemanager.changes import Wish
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.repair_plan import damage
from packagemanager.transact import DONE, Manager, Order
from payload.digest import digest
from tests.simulator.filesystem import FileSystem
from tests.simulator.package_sweep import is_left, snapshot
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of
from tests.unit.payload_samples import BytesReader

if TYPE_CHECKING:
    from packagemanager.incoming import Source

BASE, OTHER = "base:all", "other:all"
VERSIONS = {BASE: "1.0-1", OTHER: "2:3"}
TOOL = b"a program " * 500
STATUS, OLD_STATUS = "var/lib/dpkg/status", "var/lib/dpkg/status-old"
RECORDS = "var/lib/unbrick/packages/files"


def control(name: str, version: str) -> bytes:
    lines = (f"Package: {name}", f"Version: {version}", "Architecture: all", "Maintainer: A B <a@b>", "Description: x")
    return "".join(f"{line}\n" for line in lines).encode()


def base(tool: bytes = TOOL, version: str = VERSIONS[BASE]) -> bytes:
    data = tar_of([
        member("./", "directory"), member("./etc/", "directory"), member("./usr/", "directory"),
        member("./usr/bin/", "directory"), member("./usr/lib/", "directory"), member("./usr/lib/data/", "directory"),
        member("./etc/base.conf", content=b"setting = 1\n"),
        member("./usr/bin/tool", content=tool, mode=0o4755, gid=5),
        member("./usr/bin/again", "hard-link", linkname="./usr/bin/tool"),
        member("./usr/bin/link", "link", linkname="../lib/data/text"),
        member("./usr/lib/data/text", content=b"text\n", uid=33, gid=33),
        member("./usr/lib/data/empty"),
        member("./usr/lib64", "link", linkname="lib"),
    ])  # fmt: skip
    files = {"conffiles": b"/etc/base.conf\n", "postinst": b"#!/bin/sh\n", "md5sums": b""}
    return deb_of(data, control_tar(control("base", version), files), ".gz")


def other() -> bytes:
    data = tar_of([
        member("./", "directory"), member("./usr/", "directory"), member("./usr/lib/", "directory"),
        member("./usr/lib/other/", "directory", mode=0o750),
        member("./usr/lib/other/deep/", "directory"),
        member("./usr/lib/other/deep/file", content=b"deep"),
        member("./usr/lib64/through", content=b"by way of a link"),
        member("./usr/lib64/folder/", "directory"), member("./usr/lib64/folder/link", "link", linkname="x"),
        member("./lib/", "directory"), member("./lib/deep/", "directory"),
        member("./opt/app/file", content=b"in folders that nobody lists"),
        member("./lib/merged", content=b"in a merged /usr"),
    ])  # fmt: skip
    return deb_of(data, control_tar(control("other", VERSIONS[OTHER])), ".gz")


PACKAGES: Mapping[str, bytes] = {BASE: base(), OTHER: other()}


def nothing(keys: Sequence[str]) -> dict[str, Source]:
    raise AssertionError(f"asked for {keys}")


def seen(tree: FileSystem) -> dict[str, tuple[object, ...]]:
    """Everything; of the database not the times, and not what it was one change earlier."""
    assert not is_left(tree)
    return {path: (*values[:4], *values[5:]) if path.startswith("var/") else values
            for path, values in snapshot(tree).items() if not path.endswith("status-old")}  # fmt: skip


def problems(tree: FileSystem) -> list[verify.Finding]:
    return damage(verify.verify(Database(tree)))


def sources(keys: Sequence[str]) -> dict[str, Source]:
    return opened(PACKAGES, keys)


def opened(packages: Mapping[str, bytes], keys: Sequence[str]) -> dict[str, Source]:
    return {key: Deb(BytesReader(packages[key])) for key in keys}


def installed() -> FileSystem:
    """A merged system, on which both packages were installed by transactions."""
    tree = FileSystem()
    for folder in ("usr", "usr/lib", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
        tree.make_directory(folder)
        tree.set_attributes(folder, 0o755, 0, 0, 0)
    tree.make_link("lib", "usr/lib")
    put(tree, STATUS, b"")
    put(tree, "var/lib/dpkg/info/format", b"1\n")
    put(tree, "var/lib/dpkg/diversions", b"")
    tree.sync()
    for count in (1, 2):  # one has files below a link of the other
        order = Order(Wish(dict(list(VERSIONS.items())[:count])), sources, count, digest(b"%d" % count))
        assert Manager(tree).apply(order, settle=True) == DONE
    tree.sync()
    return tree.restarted()


def put(tree: FileSystem, path: str, content: bytes, mode: int = 0o644, uid: int = 0) -> None:
    if tree.look(path) is not None:
        tree.unlink(path)
    tree.write(path, [content])
    tree.set_attributes(path, mode, uid, 0, 1)


def link(tree: FileSystem, path: str, target: str) -> None:
    tree.unlink(path)
    tree.make_link(path, target)


def remove_all(tree: FileSystem, path: str) -> None:
    found = tree.look(path)
    if found is not None and found.kind == "directory":
        for name in tree.list(path):
            remove_all(tree, f"{path}/{name}")
        tree.remove_directory(path)
    else:
        tree.unlink(path)


Damage = Callable[[FileSystem], None]


def attributes(path: str, mode: int, uid: int, gid: int) -> Damage:
    return lambda tree: tree.set_attributes(path, mode, uid, gid, 1_700_000_000)


def all_of(*several: Damage) -> Damage:
    def damage(tree: FileSystem) -> None:
        for one in several:
            one(tree)

    return damage


# What needs no package: the record and what is still there say it all.
BY_ITSELF: Mapping[str, Damage] = {
    "a mode": attributes("usr/lib/data/text", 0o600, 33, 33),
    "an owner": attributes("usr/lib/data/text", 0o644, 0, 33),
    "setuid is gone": attributes("usr/bin/tool", 0o755, 0, 5),
    "a link is gone": lambda tree: tree.unlink("usr/bin/link"),
    "a link leads elsewhere": lambda tree: link(tree, "usr/bin/link", "/etc/shadow"),
    "a file is in the place of a link": lambda tree: put(tree, "usr/bin/link", b"x"),
    "the owner of a link": attributes("usr/bin/link", 0o777, 7, 7),
    "a second name is gone": lambda tree: tree.unlink("usr/bin/again"),
    "a second name is another file": lambda tree: put(tree, "usr/bin/again", TOOL, 0o4755),
    "the link that others lie below": lambda tree: tree.unlink("usr/lib64"),
    "the link of a merged /usr": lambda tree: tree.unlink("lib"),
    "dpkg's list": lambda tree: put(tree, "var/lib/dpkg/info/base.list", b"/.\n/usr"),
    "dpkg's list is gone": lambda tree: tree.unlink("var/lib/dpkg/info/base.list"),
    "dpkg's status": lambda tree: put(tree, STATUS, b"\0" * 700),
    "dpkg's status is torn": lambda tree: put(tree, STATUS, b"Package: other\nStatus: install ok inst"),
    "dpkg's status is empty": lambda tree: put(tree, STATUS, b""),
    "dpkg's status and its copy": all_of(
        lambda tree: tree.unlink(STATUS), lambda tree: put(tree, OLD_STATUS, b"Package\n")
    ),
}
# What can only come from the package.
FROM_PACKAGE: Mapping[str, Damage] = {
    "a file is gone": lambda tree: tree.unlink("usr/lib/data/text"),
    "a byte of a file": lambda tree: put(tree, "usr/lib/data/text", b"tExt\n", uid=33),
    "a file is cut": lambda tree: put(tree, "usr/lib/data/text", b"te"),
    "an empty file has content": lambda tree: put(tree, "usr/lib/data/empty", b"x"),
    "a file with two names": lambda tree: put(tree, "usr/bin/tool", bytes(len(TOOL)), 0o4755),
    "a link is in the place of a file": lambda tree: link(tree, "usr/lib/data/text", "/etc/shadow"),
    "a folder is in the place of a file": all_of(
        lambda tree: tree.unlink("usr/lib/data/text"), lambda tree: tree.make_directory("usr/lib/data/text")
    ),
    "a folder is gone": lambda tree: remove_all(tree, "usr/lib/other"),
    "a file is in the place of a folder": all_of(
        lambda tree: remove_all(tree, "usr/lib/other"), lambda tree: put(tree, "usr/lib/other", b"x")
    ),
    "a link in circles in the place of a folder": all_of(
        lambda tree: remove_all(tree, "usr/lib/other"), lambda tree: tree.make_link("usr/lib/other", "other")
    ),
    "below a link": lambda tree: tree.unlink("usr/lib/through"),
    "below a link that is gone too": all_of(
        lambda tree: tree.unlink("usr/lib/through"), lambda tree: tree.unlink("usr/lib64")
    ),
    "a folder and a link below a link that is gone too": all_of(
        lambda tree: remove_all(tree, "usr/lib/folder"), lambda tree: tree.unlink("usr/lib64")
    ),
    "a file and a control file": all_of(
        lambda tree: tree.unlink("usr/lib/data/text"),
        lambda tree: put(tree, "var/lib/dpkg/info/base.postinst", b"#!/bin/false\n", 0o755),
    ),
    "folders that nobody lists": lambda tree: remove_all(tree, "opt"),
    "a record of another version": lambda tree: other_version(tree, f"{RECORDS}/base"),
    "no record": lambda tree: tree.unlink(f"{RECORDS}/base"),
    "a torn record, and more": all_of(
        lambda tree: put(tree, f"{RECORDS}/base", b"unbrick-files 1\nPackage: base\n"),
        lambda tree: remove_all(tree, "usr/lib/data"),
        lambda tree: tree.unlink("usr/bin/link"),
    ),
    "everything": all_of(
        lambda tree: remove_all(tree, "usr"),
        lambda tree: tree.unlink(STATUS),
        lambda tree: tree.unlink("lib"),
        lambda tree: tree.unlink(f"{RECORDS}/base"),
    ),
}


def other_version(tree: FileSystem, path: str) -> None:
    record = files.decode(tree.open(path).read(), path)
    put(tree, path, files.encode(record.fields.changed(Version="0.9"), record.entries))


# What the owner of the system may do.
ALLOWED: Mapping[str, Damage] = {
    "a conffile": lambda tree: put(tree, "etc/base.conf", b"setting = 2\n", 0o600, 9),
    "a conffile is gone": lambda tree: tree.unlink("etc/base.conf"),
    "a conffile is a link": lambda tree: link(tree, "etc/base.conf", "/srv/base.conf"),
    "a folder's attributes": attributes("usr/lib/other", 0o777, 3, 3),
    "a folder in the place of a link": all_of(
        lambda tree: tree.unlink("usr/bin/link"), lambda tree: tree.make_directory("usr/bin/link")
    ),
    "other files": lambda tree: put(tree, "usr/bin/mine", b"mine"),
}
