"""Packages that have every construct, as steps that a root goes through: for comparing what it becomes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.programs.dpkg_twin import Content

Change = Callable[[Path], object]
"""What the owner of a system does below its root."""


class Package:
    """What `dpkg_twin.Workbench.deb` is called with."""

    def __init__(self, name: str, version: str, files: dict[str, Any], **more: Any) -> None:
        self.name = name
        self.version = version
        self.files: dict[str, Content] = files
        self.more = more


Step = Change | Package | list[Package] | str
"""A change, packages to install in one transaction, or the name of one to remove."""


def p(version: str, files: dict[str, Any], **more: Any) -> Package:
    return Package("p", version, files, **more)


def q(version: str, files: dict[str, Any], **more: Any) -> Package:
    return Package("q", version, files, **more)


def write(path: str, content: str) -> Change:
    def change(root: Path) -> None:
        (root / path).write_text(content)
        os.utime(root / path, (1, 1))

    return change


def merged(root: Path) -> None:
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")


def overrides(root: Path) -> None:
    (root / "var/lib/dpkg/statoverride").write_text("#77 #78 4711 /f\n#77 #77 1777 /d\n")


def divert(root: Path) -> None:
    (root / "var/lib/dpkg/diversions").write_text("/f\n/f.q\nq\n")
    if (root / "f").exists():
        (root / "f").rename(root / "f.q")


def held(root: Path) -> None:
    path = root / "var/lib/dpkg/status"
    path.write_text(path.read_text().replace("Status: install", "Status: hold"))


def foreign(root: Path) -> None:
    (root / "var/lib/dpkg/arch").write_text("amd64\ni386\n")


def separate(root: Path) -> None:
    """As an editor does that writes a file anew."""
    content = (root / "etc/d").read_text()
    (root / "etc/d").unlink()
    (root / "etc/d").write_text(content)


SAME = "Multi-Arch: same\n"
LIBRARY = {"/doc": "1", "/lib/x": "x", "/etc/c": "c"}
POSTRM = {"postrm": "#!/bin/sh\nexit 0\n"}
MD5SUMS = {"md5sums": "92eb5ffee6ae2fec3ad71c777531578f  b\n"}
TWO, TWO_NAMES, TWO_LINKS = {"/etc/c": "1", "/x": "x"}, ["/etc/c", "/etc/d"], {"/etc/d": "/etc/c"}
CONSTRUCTS: dict[str, list[Step]] = {
    "a folder that becomes a link stays": [p("1", {"/a/d/x": "1"}), p("2", {"/a/e/x": "2", "/a/d": ("e",)})],
    "so it does with files of the owner": [
        p("1", {"/a/d/x": "1"}), write("a/d/user", "u"), p("2", {"/a/e/x": "2", "/a/d": ("e",)})],
    "a folder that becomes a link to nothing stays": [p("1", {"/a/d/x": "1"}), p("2", {"/a/d": ("nowhere",)})],
    "a link that becomes a folder stays": [p("1", {"/a/e/x": "1", "/a/d": ("e",)}), p("2", {"/a/d/x": "2"})],
    "so it does where the folder stays, too": [
        p("1", {"/a/e/x": "1", "/a/d": ("e",)}), p("2", {"/a/e/y": "y", "/a/d/x": "2"})],
    "a folder that becomes a file": [p("1", {"/a/d/x": "1", "/a/d/s/y": "2"}), p("2", {"/a/d": "file"})],
    "files below a link that comes with another package": [
        [p("1", {"/a/real/x": "1", "/a/link": ("real",)}), q("1", {"/a/link/y": "2"})],
        q("2", {"/a/link/y": "3"}), "q", "p"],
    "a file that becomes a folder": [p("1", {"/a/d": "f"}), p("2", {"/a/d/x": "2"})],
    "a link to nothing that becomes a folder": [p("1", {"/a/d": ("no",)}), p("2", {"/a/d/x": "2"})],
    "a file and a link change places": [
        p("1", {"/a/d": "f", "/a/l": ("d",)}), p("2", {"/a/d": ("l",), "/a/l": "f2"})],
    "a link changes its target": [
        p("1", {"/l": ("a",), "/a": "a", "/b": "b"}), p("2", {"/l": ("b",), "/a": "a", "/b": "b"})],
    "a shared folder stays": [p("1", {"/s": None, "/k": "k"}), q("1", {"/s": None}), p("2", {"/k": "k"})],
    "a shared folder stays on removal": [p("1", {"/s": None, "/k": "k"}), q("1", {"/s": None}), "p"],
    "a file is taken over": [
        p("1", {"/f": "p", "/k": "k"}), q("1", {"/f": "q"}, control="Replaces: p\n"),
        p("2", {"/f": "p2", "/k": "k2"}), "q"],
    "a file moves to another package": [
        p("1", {"/f": "p", "/k": "k"}), [q("1", {"/f": "q"}, control="Replaces: p (<< 2)\n"), p("2", {"/k": "k2"})]],
    "a folder takes the place of a file of another package": [
        p("1", {"/f": "p", "/k": "k"}), q("1", {"/f/x": "q"}, control="Replaces: p\n"), p("2", {"/f": "p", "/k": "k2"}),
        "q"],
    "so it does in one transaction": [
        [p("1", {"/f": "p", "/b": "b"}, controls=MD5SUMS), q("1", {"/f/x": "q"}, control="Replaces: p\n")], "q"],
    "a file stays where a folder that it replaces comes": [
        p("1", {"/f": "p"}, control="Replaces: q\n"), q("1", {"/f": None, "/k": "k"}),
        q("2", {"/f": None, "/k": "k2"})],
    "a folder comes where the owner deleted a file of another package": [
        p("1", {"/f": "p", "/k": "k"}), lambda root: (root / "f").unlink(), q("1", {"/f": None})],
    "a folder comes where another package has a link to one": [
        p("1", {"/d": None, "/l": ("d",)}), q("1", {"/l/x": "x"}), "q"],
    "a diverted file": [
        p("1", {"/f": "p", "/k": "k"}), divert, q("1", {"/f": "q"}), p("2", {"/f": "p2", "/k": "k"}), "p"],
    "what the owner set of modes": [overrides, p("1", {"/f": "p", "/d": None}), p("2", {"/f": "p2", "/d": None})],
    "a held package": [p("1", {"/f": "p"}), held, p("2", {"/f": "p2"})],
    "a file that moves along a link": [
        merged, q("1", {"/lib/q": "q"}), p("1", {"/lib/x": "1"}), p("2", {"/usr/lib/x": "2"}), "p"],
    "a conffile that is none any more": [
        p("1", {"/etc/c": "1"}, conffiles=["/etc/c"]), write("etc/c", "mine"), p("2", {"/etc/c": "2"})],
    "a file becomes a conffile": [p("1", {"/etc/c": "1"}), p("2", {"/etc/c": "2"}, conffiles=["/etc/c"])],
    "a conffile that has to go": [
        p("1", {"/etc/c": "1", "/etc/d": "d", "/x": "x"}, conffiles=["/etc/c", "/etc/d"]), write("etc/c", "mine"),
        p("2", {"/x": "x"}, conffiles=["remove-on-upgrade /etc/c", "remove-on-upgrade /etc/d"]),
        p("3", {"/x": "x"})],
    "a conffile moves to another package": [
        p("1", {"/etc/c": "1", "/x": "x"}, conffiles=["/etc/c"]), write("etc/c", "mine"),
        [q("1", {"/etc/c": "1"}, conffiles=["/etc/c"], control="Replaces: p (<< 2)\n"), p("2", {"/x": "x"})]],
    "a conffile is taken over, and taken back": [
        p("1", {"/etc/c": "1", "/etc/d": "1", "/x": "x"}, conffiles=["/etc/c", "/etc/d"]), write("etc/d", "mine"),
        q("1", {"/etc/c": "2", "/etc/d": "2"}, conffiles=["/etc/c", "/etc/d"], control="Replaces: p\n"),
        p("2", {"/etc/c": "3", "/etc/d": "3", "/x": "x"}, conffiles=["/etc/c", "/etc/d"]),
        p("3", {"/x": "x"}), "q", "p"],
    "a conffile becomes a file of another package": [
        p("1", {"/etc/c": "1", "/x": "x"}, conffiles=["/etc/c"]), q("1", {"/etc/c": "2"}, control="Replaces: p\n"),
        p("2", {"/etc/c": "3", "/x": "x"}, conffiles=["/etc/c"])],
    "a conffile that comes is another package's": [
        q("1", {"/etc/c": "q"}, conffiles=["/etc/c"], control="Replaces: p\n"),
        p("1", {"/etc/c": "p", "/x": "x"}, conffiles=["/etc/c"]), "q", p("2", {"/etc/c": "p2"}, conffiles=["/etc/c"])],
    "a conffile that comes is a file of another package": [
        q("1", {"/etc/c": "q"}, control="Replaces: p\n"), p("1", {"/etc/c": "p", "/x": "x"}, conffiles=["/etc/c"])],
    "a conffile that another package has, and its package goes": [
        q("1", {"/etc/s/c": "q"}, conffiles=["/etc/s/c"], control="Replaces: p\n"),
        p("1", {"/etc/s/c": "p", "/x": "x"}, conffiles=["/etc/s/c"]), "p", "q"],
    "a package goes that came without its conffile": [
        p("1", {"/etc/s/c": "1", "/x": "x"}, conffiles=["/etc/s/c"]), p("2", {"/x": "x"}), "p"],
    "another architecture": [p("1", {"/x": "x"}), p("2", {"/x": "y"}, architecture="amd64")],
    "another architecture of what was removed": [
        p("1", {"/etc/x": "x"}, conffiles=["/etc/x"]), "p",
        p("2", {"/etc/x": "y"}, conffiles=["/etc/x"], architecture="amd64")],
    "a script that has to run on purge": [p("1", {"/x": "x"}, controls=POSTRM), "p"],
    "a removed package leaves a folder of the owner": [
        p("1", {"/x/y/z": "x", "/etc/k": "x"}, conffiles=["/etc/k"]), write("x/u", "1"), "p"],
    "so it does without conffiles": [p("1", {"/x/y/z": "x"}), write("x/u", "1"), "p"],
    "conffiles beside those of others": [
        p("1", {"/x/y/z": "x", "/etc/k": "k", "/etc/q": "q"}, conffiles=["/etc/k"], controls=POSTRM),
        q("1", {"/etc/foo": "f"}), "p"],
    "a package that comes without its conffile": [
        p("1", {"/etc/k": "x"}, conffiles=["/etc/k"]), p("2", {"/usr/k": "x"}), "p"],
    "a conffile that was deleted": [
        p("1", {"/etc/k": "x"}, conffiles=["/etc/k"]), lambda root: (root / "etc/k").unlink(), "p"],
    "setuid, and hard links": [
        p("1", {"/b/one": "1", "/b/z": "z"}, modes={"/b/one": 0o4755}, hard_links={"/b/two": "/b/one"}),
        p("2", {"/b/one": "1", "/b/z": "z2"}, modes={"/b/one": 0o4755}, hard_links={"/b/two": "/b/one"}),
        p("3", {"/b/one": "3"}, hard_links={"/b/two": "/b/one", "/b/three": "/b/one"})],
    "another name of a configuration file": [
        p("1", {"/etc/c": "1"}, conffiles=["/etc/c"], hard_links={"/etc/d": "/etc/c"}),
        p("1.1", {"/etc/c": "1"}, conffiles=["/etc/c"], hard_links={"/etc/d": "/etc/c"}),
        p("2", {"/etc/c": "2"}, conffiles=["/etc/c"], hard_links={"/etc/d": "/etc/c"}),
        write("etc/c", "mine"),
        p("3", {"/etc/c": "3"}, conffiles=["/etc/c"], hard_links={"/etc/d": "/etc/c"})],
    "conffiles that are one file": [
        p("1", TWO, conffiles=TWO_NAMES, hard_links=TWO_LINKS),
        p("2", TWO | {"/etc/c": "2"}, conffiles=TWO_NAMES, hard_links=TWO_LINKS),
        separate, write("etc/c", "mine"), write("etc/d", "mine, too"),
        p("3", TWO | {"/etc/c": "3"}, conffiles=TWO_NAMES, hard_links=TWO_LINKS),
        lambda root: (root / "etc/d").unlink(),
        p("4", TWO | {"/etc/c": "4"}, conffiles=TWO_NAMES, hard_links=TWO_LINKS),
        p("5", TWO), p("6", TWO, conffiles=TWO_NAMES, hard_links=TWO_LINKS), "p"],
    "a conffile that is another name of a file": [
        p("1", {"/a": "1"}, conffiles=["/etc/d"], hard_links={"/etc/d": "/a"}), write("etc/d", "mine"),
        p("2", {"/a": "2"}, conffiles=["/etc/d"], hard_links={"/etc/d": "/a"}), "p"],
    "a file gets another name that is a conffile": [
        p("1", {"/a": "1"}), p("2", {"/a": "1"}, conffiles=["/etc/d"], hard_links={"/etc/d": "/a"}),
        p("3", {"/a": "1"}, conffiles=["/etc/d"], hard_links={"/etc/d": "/a"})],
    "so it is with a list of MD5s": [
        p("1", {"/a": "1", "/b": "b"}, conffiles=["/etc/d"], hard_links={"/etc/d": "/a"}, controls=MD5SUMS),
        p("2", {"/a": "2", "/b": "b"}, conffiles=["/etc/d"], hard_links={"/etc/d": "/a"}, controls=MD5SUMS)],
    "two files that were one": [
        p("1", {"/a": "1"}, hard_links={"/b": "/a"}), p("2", {"/a": "1", "/b": "1"}), p("3", {"/a": "1", "/b": "1"})],
    "a file that was one with a conffile": [
        p("1", {"/etc/c": "1"}, conffiles=["/etc/c"], hard_links={"/d": "/etc/c", "/e": "/etc/c"}),
        p("2", {"/etc/c": "2", "/d": "1", "/e": "1"}, conffiles=["/etc/c"])],
    "a file that was one with a conffile that is gone": [
        p("1", {"/d": "1"}, conffiles=["/etc/c"], hard_links={"/etc/c": "/d"}), p("2", {"/d": "1"})],
    "names that are no words": [
        p("1", {"/a b/c%d": "1", "/ä": "2", b"/\xff".decode(errors="surrogateescape"): "3"}), "p"],
    "one package for two architectures": [
        foreign, [p("1", LIBRARY, architecture=one, control=SAME) for one in ("amd64", "i386")],
        [p("2", LIBRARY | {"/doc": "2"}, architecture=one, control=SAME) for one in ("amd64", "i386")], "p:i386", "p"],
    "a library that becomes a package for all, and one again": [
        p("1", LIBRARY, architecture="amd64", control=SAME, conffiles=["/etc/c"]),
        p("2", LIBRARY | {"/doc": "2"}, conffiles=["/etc/c"]),
        p("3", LIBRARY | {"/etc/c": "3"}, architecture="amd64", control=SAME, conffiles=["/etc/c"]),
        p("4", {"/doc": "4"}, architecture="amd64"), p("5", {"/doc": "5"}, architecture="amd64", control=SAME), "p"],
    "a library that left its configuration, and comes for all": [
        p("1", LIBRARY, architecture="amd64", control=SAME, conffiles=["/etc/c"]), "p", write("etc/c", "mine"),
        p("2", LIBRARY | {"/etc/c": "2"}, conffiles=["/etc/c"]), "p",
        p("3", LIBRARY, architecture="amd64", control=SAME, conffiles=["/etc/c"])],
    "triggers": [
        p("1", {"/x": "x"}, controls={"triggers": "interest-noawait /usr/share/x\ninterest word\nactivate other\n"}),
        q("1", {"/y": "y"}, controls={"triggers": "interest /usr/lib\n# comment\ninterest-noawait word\n"}),
        p("2", {"/x": "x"}, controls={"triggers": "interest /usr/share/y\n"}), "q"],
    "what dpkg does not know of fields": [
        p("1", {"/x": "x"}, control="Protected: yes\nBuilt-Using: a (= 1)\nDepends: a:any (<< 1-0) | b (>> 1:0-1)\n"
                            "Provides: a (= 0)\nVcs-Git: x\nEssential: yes\nPriority: Strange\n"),
        p("2", {"/x": "x"})],
}  # fmt: skip
