"""Whatever is on the disk in the place of dpkg's database or of our texts: a `DatabaseError` that names the file, or an
answer. Never another exception, and never an answer for ever."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from packagemanager import files, verify
from packagemanager.adopt import entries_of
from packagemanager.database import Database, read_text
from packagemanager.errors import DatabaseError, PackageError
from packagemanager.ground import Ground
from packagemanager.transact import Manager
from packagemanager.wanted import PATH as WANTED
from tests.simulator.filesystem import FileSystem
from tests.simulator.repair_cases import installed, put

TEXTS = {
    "var/lib/dpkg/status": b"",
    "var/lib/dpkg/updates/0001": b"Package: more\nStatus: install ok unpacked\nVersion: 1\nArchitecture: all\n",
    "var/lib/dpkg/diversions": b"/usr/bin/tool\n/usr/bin/tool.real\nother\n",
    "var/lib/dpkg/statoverride": b"root #7 4755 /usr/bin/tool\n#1 #2 600 /etc/base.conf\n",
    "var/lib/dpkg/info/base.list": b"",
    "var/lib/dpkg/info/base.md5sums": b"d41d8cd98f00b204e9800998ecf8427e  usr/lib/data/empty\n",
    "var/lib/dpkg/info/format": b"1\n",
    "var/lib/dpkg/arch": b"amd64\ni386\n",
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
    "etc/group": b"root:x:0:\n",
    WANTED: b"",
    files.path_of("base"): b"",
}
ROUNDS = 60


def world() -> FileSystem:
    tree = installed()
    for path, content in TEXTS.items():
        if content:
            put(tree, path, content)
    return tree


def ask_everything(tree: FileSystem) -> None:
    database = Database(tree)
    database.state()
    database.status({})
    database.architectures()
    manager = Manager(tree)
    manager.wanted()
    ground = Ground(tree, database)
    for package in database.present():
        database.info_names(package)
        for path in database.list(package):
            ground.place(path, package.name)
        entries_of(package, database, ground, [])
    verify.verify(database)
    for name in tree.list(files.FOLDER):
        files.decode(read_text(tree, f"{files.FOLDER}/{name}") or b"", f"{files.FOLDER}/{name}")


def flipped(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def zeroed(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))


def doubled(content: bytearray, chance: random.Random) -> None:
    lines = bytes(content).split(b"\n")
    at = chance.randrange(len(lines))
    content[:] = b"\n".join([*lines[: at + 1], *lines[at:]])


def worded(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    words = (b"\n", b" ", b":", b"/", b"..", b"\0", b"\xff", b"/.\n", b"-1", b"9" * 5000, b"#", b"(", b"%", b"\r\n")
    content[at:at] = chance.choice(words)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flipped, cut, zeroed, doubled, worded)


def test_it_reads_as_it_is() -> None:
    tree = world()
    ask_everything(tree)
    assert "more:all" in Database(tree).packages


@pytest.mark.parametrize("path", TEXTS)
def test_a_damaged_text_is_an_error_with_its_name(path: str) -> None:
    tree = world()
    right = tree.open(path).read()
    named = 0
    for number in range(ROUNDS):
        chance = random.Random(f"{path} {number}")
        content = bytearray(right)
        for _mutation in range(chance.choice((1, 1, 3))):
            if content:
                chance.choice(MUTATIONS)(content, chance)
        put(tree, path, bytes(content))
        try:
            ask_everything(tree)
        except DatabaseError as error:
            named += f"/{path}" in str(error)
            assert error.advice
            assert "/var/lib/" in str(error), error
    # Some damage cannot be seen: another digit in a version. Of a text with a digest all of it is.
    assert named or path in ("var/lib/dpkg/arch", "var/lib/dpkg/info/format", "etc/passwd", "etc/group")


@pytest.mark.parametrize("path", TEXTS)
def test_something_else_in_the_place_of_a_text(path: str) -> None:
    for make in (FileSystem.make_directory, lambda tree, name: tree.make_link(name, "/nowhere")):
        tree = world()
        tree.unlink(path)
        make(tree, path)
        try:
            ask_everything(tree)
        except PackageError as error:
            assert isinstance(error, DatabaseError)
