"""dpkg's database as it is found on old and odd systems."""

from __future__ import annotations

import pytest

from packagemanager.database import DIVERSIONS, Database, Diversions, state_of
from packagemanager.entry import DIRECTORY, FILE, LINK, Entry
from packagemanager.errors import DatabaseError
from packagemanager.tar import DEPTH_MAX
from payload.digest import digest
from tests.simulator.filesystem import FileSystem
from tests.simulator.package_world import system
from tests.simulator.repair_cases import put

STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Conffiles:
 /etc/gone 0123456789abcdef0123456789abcdef

Package: selected
Status: install ok not-installed

Package: dpkg
Status: install ok triggers-pending
Architecture: amd64
Version: 1.21.22
Triggers-Pending: x

Package: half
Status: install reinstreq half-installed
Architecture: all
Version: 1

"""


@pytest.fixture
def tree() -> FileSystem:
    tree = system()
    put(tree, "var/lib/dpkg/status", STATUS)
    for stem in ("libc6:amd64", "dpkg"):
        put(tree, f"var/lib/dpkg/info/{stem}.list", b"/.\n/usr\n")
    put(tree, "var/lib/dpkg/info/libc6:amd64.postinst", b"#!/bin/sh\n")
    return tree


def test_what_is_there_whole_and_what_is_not(tree: FileSystem) -> None:
    database = Database(tree)
    whole = {"libc6:amd64": "2.36-9", "dpkg:amd64": "1.21.22"}
    assert database.installed() == whole
    assert database.state() == state_of(whole) == digest(b"dpkg:amd64 1.21.22\nlibc6:amd64 2.36-9\n")
    assert [package.key for package in database.present()] == ["libc6:amd64", "dpkg:amd64", "half:all"]
    assert database.packages["gone:"].conffiles[0].path == "etc/gone"
    assert database.list(database.packages["half:all"]) == ()


def test_nothing_is_lost_when_it_is_written_again(tree: FileSystem) -> None:
    written = Database(tree).status({"half:all": None})
    assert sorted(written.split(b"\n\n")) == sorted(part for part in STATUS.split(b"\n\n") if b"half" not in part)
    put(tree, "var/lib/dpkg/status", written)
    assert Database(tree).status({}) == written


def test_names_in_info_have_the_architecture_where_several_may_be(tree: FileSystem) -> None:
    database = Database(tree)
    libc = database.packages["libc6:amd64"]
    assert database.info_names(libc) == ["list", "postinst"]
    assert database.list(libc) == ("", "usr")
    assert database.info_path(libc.fields, "list") == "var/lib/dpkg/info/libc6:amd64.list"
    put(tree, "var/lib/dpkg/info/format", b"0\n")
    assert Database(tree).info_path(libc.fields, "list") == "var/lib/dpkg/info/libc6.list"


def test_without_a_format_the_names_tell_which_it_is(tree: FileSystem) -> None:
    tree.unlink("var/lib/dpkg/info/format")
    libc = Database(tree).packages["libc6:amd64"]
    assert Database(tree).lacks_format and Database(tree).list(libc) == ("", "usr")
    for name in ("list", "postinst"):
        tree.rename(f"var/lib/dpkg/info/libc6:amd64.{name}", f"var/lib/dpkg/info/libc6.{name}")
    assert not Database(tree).lacks_format and Database(tree).list(libc) == ("", "usr")


def test_the_native_architecture_is_dpkgs(tree: FileSystem) -> None:
    put(tree, "var/lib/dpkg/arch", b"i386\namd64\n")
    assert Database(tree).architectures() == ("amd64", "i386")


def test_what_dpkg_noted_and_did_not_write_down_counts(tree: FileSystem) -> None:
    put(
        tree,
        "var/lib/dpkg/updates/0001",
        b"Package: half\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n",
    )
    put(tree, "var/lib/dpkg/updates/tmp.i", b"garbage")
    database = Database(tree)
    assert database.packages["half:all"].version == "2"
    assert database.updates == ["0001"]


def test_diversions_do_not_count_for_who_made_them() -> None:
    diversions = Diversions(b"/bin/sh\n/bin/sh.distrib\ndash\n/usr/a\n/usr/b\n:\n")
    assert diversions.actual("bin/sh", "bash") == "bin/sh.distrib"
    assert diversions.actual("bin/sh", "dash") == "bin/sh"
    assert diversions.actual("usr/a", "any") == "usr/b"
    assert diversions.actual("usr/c", "any") == "usr/c"


@pytest.mark.parametrize("text", [b"/a\n/b\n", b"/a\n/b\nc", b"a\n/b\nc\n", b"/a\n\nc\n"])
def test_diversions_that_are_none(text: bytes) -> None:
    with pytest.raises(DatabaseError, match=f"/{DIVERSIONS} is damaged"):
        Diversions(text)


def test_modes_that_the_owner_set(tree: FileSystem) -> None:
    put(tree, "etc/passwd", b"root:x:0:0\nmail:x:8:8:::\nbroken\n")
    put(tree, "etc/group", b"root:x:0:\nmail:x:8:\n")
    put(tree, "var/lib/dpkg/statoverride", b"root mail 2755 /usr/bin/x y\n#7 #9 600 /etc/z\n")
    database = Database(tree)
    found = database.given(Entry("usr/bin/x y", FILE, mode=0o755, size=3))
    assert (found.mode, found.uid, found.gid, found.size) == (0o2755, 0, 8, 3)
    assert database.given(Entry("etc/z", DIRECTORY)).mode == 0o600
    assert database.given(Entry("etc/z", LINK, target="x")).mode == 0o644
    put(tree, "var/lib/dpkg/statoverride", b"nobody root 755 /x\n")
    with pytest.raises(DatabaseError, match="of an unknown user"):
        Database(tree)


def test_owners_of_packages_are_those_of_the_system(tree: FileSystem) -> None:
    lines = b"man:x:6:12::/:\nman:x:7:0::/:\n+::::\n:x:5:5::\nbad\nx:x:y:0:a\nlong:x:" + b"9" * 5000 + b":0::\n"
    put(tree, "etc/passwd", lines)
    database = Database(tree)
    for user, number in (("man", 6), ("", 99), ("long", 99), ("bad", 99)):
        found = database.given(Entry("x", LINK, target="y", uid=99, gid=8, user=user, group="mail"))
        assert (found.uid, found.gid, found.target) == (number, 8, "y")
    tree.make_directory("etc/group")
    assert Database(tree).given(Entry("x", FILE, uid=9, gid=8)).gid == 8
    with pytest.raises(DatabaseError, match="/etc/group cannot be read"):
        Database(tree).given(Entry("x", FILE, group="mail"))


@pytest.mark.fault("R4")
def test_a_path_that_is_too_deep_to_be_walked_is_damage(tree: FileSystem) -> None:
    deepest = b"/a" * DEPTH_MAX
    put(tree, "var/lib/dpkg/info/libc6:amd64.list", b"/.\n" + deepest + b"\n")
    put(tree, "var/lib/dpkg/diversions", deepest + b"\n" + deepest + b"\n:\n")
    libc = Database(tree).packages["libc6:amd64"]
    assert Database(tree).list(libc)[1] == deepest[1:].decode()
    put(tree, "var/lib/dpkg/info/libc6:amd64.list", b"/.\n" + b"/a" * 1500 + b"\n")
    with pytest.raises(DatabaseError, match=r"libc6:amd64\.list is damaged: a path of more than 128 folders"):
        Database(tree).list(libc)
    for lines in ((deepest, b"/a" + deepest), (b"/a" + deepest, deepest)):
        put(tree, "var/lib/dpkg/diversions", b"\n".join((*lines, b":\n")))
        with pytest.raises(DatabaseError, match="diversions is damaged: a path of more than 128 folders"):
            Database(tree)


def test_the_same_package_twice_is_damage(tree: FileSystem) -> None:
    put(tree, "var/lib/dpkg/status", STATUS + STATUS)
    with pytest.raises(DatabaseError, match="libc6:amd64 is there twice"):
        Database(tree)
