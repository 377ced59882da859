"""The same packages, given to dpkg and to us: the same files, modes, owners, links, and the same database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs.dpkg_twin import Twins, Workbench, needs_dpkg

pytestmark = pytest.mark.skipif(not needs_dpkg(), reason="needs dpkg and root")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    (tmp_path / "debs").mkdir()
    return Workbench(tmp_path / "debs")


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    return Twins(tmp_path)


def same(twins: Twins) -> None:
    assert twins.differences() == []
    theirs, ours = twins.verdicts()
    assert ours == theirs


@pytest.mark.requirement("M4")
@pytest.mark.requirement("M9")
def test_install_upgrade_downgrade_remove(bench: Workbench, twins: Twins) -> None:
    old = bench.deb(
        "one", "0:1.0-1", {"/usr/share/one/x": "1", "/usr/share/one/sub/y": "y", "/opt/empty": None, "/l": ("usr",)},
        control="Depends: two (>=0:1)|three( = 2 ) ,four:any\nHomepage: http://example.org\nPriority: optional\n"
        "section: misc\nX-Word: 1\nInstalled-Size: 3\nEssential: no\nMulti-Arch: no\nRecommends:\nTag: a\n",
    )  # fmt: skip
    new = bench.deb("one", "2", {"/usr/share/one/x": "2", "/usr/share/one/z": "z", "/l": ("opt",)})
    two = bench.deb("two", "3", {"/usr/share/doc/two": "t"}, control="Provides: four (= 1)\nMulti-Arch: allowed\n")
    twins.install(two, old)
    same(twins)
    assert (twins.ours / "usr/share/one/sub/y").read_text() == "y"
    twins.install(new)
    same(twins)
    twins.install(old)
    same(twins)
    twins.install(remove=["one"])
    same(twins)
    assert not (twins.ours / "usr/share/one").exists()


def test_conffiles_as_dpkg_without_asking(bench: Workbench, twins: Twins) -> None:
    names = ("a", "b", "c", "d", "gone")
    paths = [f"/etc/{name}.conf" for name in names]
    old = bench.deb("one", "1", {path: f"{path}\n" for path in paths} | {"/x": "x"}, conffiles=paths[::-1])
    after = {"/etc/a.conf": "2\n", "/etc/b.conf": "2\n", "/etc/c.conf": "/etc/c.conf\n", "/etc/d.conf": "2\n",
             "/etc/new.conf": "n\n", "/etc/before.conf": "p\n", "/x": "x2"}  # fmt: skip
    new = bench.deb("one", "2", after, conffiles=[path for path in after if path != "/x"])
    twins.install(old)
    same(twins)

    def change(root: Path) -> None:
        (root / "etc/a.conf").write_text("mine\n")
        (root / "etc/a.conf").chmod(0o600)
        (root / "etc/b.conf").unlink()
        (root / "etc/c.conf").write_text("mine, too\n")
        (root / "etc/d.conf").chmod(0o640)
        os.chown(root / "etc/d.conf", 7, 8)
        (root / "etc/before.conf").write_text("there before\n")
        for path in ("a.conf", "c.conf", "before.conf"):
            os.utime(root / "etc" / path, (1, 1))

    twins.both(change)
    twins.install(new)
    same(twins)
    assert (twins.ours / "etc/a.conf").read_text() == "mine\n"
    assert (twins.ours / "etc/a.conf.dpkg-dist").read_text() == "2\n"
    assert not (twins.ours / "etc/b.conf").exists()
    twins.install(old)
    same(twins)
    twins.install(remove=["one"])
    same(twins)
    twins.install(new)
    same(twins)
    twins.install(remove=["one"], purge=True)
    same(twins)
    assert not (twins.ours / "etc").exists()


def simple(files: dict[str, str | None | tuple[str]], **more: object) -> dict[str, object]:
    return {"files": files, **more}


def write(path: str, content: str):  # type: ignore[no-untyped-def]
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


POSTRM = {"postrm": "#!/bin/sh\nexit 0\n"}
P1 = ("p", "1")
P2 = ("p", "2")
Q1 = ("q", "1")
CASES = {
    "a folder that becomes a link stays": [P1 + ({"/a/d/x": "1"},), P2 + ({"/a/e/x": "2", "/a/d": ("e",)},)],
    "so it does with files of the owner": [
        P1 + ({"/a/d/x": "1"},), write("a/d/user", "u"), P2 + ({"/a/e/x": "2", "/a/d": ("e",)},)],
    "a folder that becomes a link to nothing stays": [P1 + ({"/a/d/x": "1"},), P2 + ({"/a/d": ("nowhere",)},)],
    "a link that becomes a folder stays": [P1 + ({"/a/e/x": "1", "/a/d": ("e",)},), P2 + ({"/a/d/x": "2"},)],
    "so it does where the folder stays, too": [
        P1 + ({"/a/e/x": "1", "/a/d": ("e",)},), P2 + ({"/a/e/y": "y", "/a/d/x": "2"},)],
    "a folder that becomes a file": [P1 + ({"/a/d/x": "1", "/a/d/s/y": "2"},), P2 + ({"/a/d": "file"},)],
    "a file that becomes a folder": [P1 + ({"/a/d": "f"},), P2 + ({"/a/d/x": "2"},)],
    "a link to nothing that becomes a folder": [P1 + ({"/a/d": ("no",)},), P2 + ({"/a/d/x": "2"},)],
    "a file and a link change places": [
        P1 + ({"/a/d": "f", "/a/l": ("d",)},), P2 + ({"/a/d": ("l",), "/a/l": "f2"},)],
    "a link changes its target": [P1 + ({"/l": ("a",), "/a": "a", "/b": "b"},), P2 + ({"/l": ("b",), "/a": "a", "/b": "b"},)],
    "a shared folder stays": [P1 + ({"/s": None, "/k": "k"},), Q1 + ({"/s": None},), P2 + ({"/k": "k"},)],
    "a shared folder stays on removal": [P1 + ({"/s": None, "/k": "k"},), Q1 + ({"/s": None},), "p"],
    "a file is taken over": [
        P1 + ({"/f": "p", "/k": "k"},), Q1 + ({"/f": "q"}, {"control": "Replaces: p\n"}),
        P2 + ({"/f": "p2", "/k": "k2"},), "q"],
    "a file moves to another package": [
        P1 + ({"/f": "p", "/k": "k"},), [Q1 + ({"/f": "q"}, {"control": "Replaces: p (<< 2)\n"}), P2 + ({"/k": "k2"},)]],
    "a diverted file": [P1 + ({"/f": "p", "/k": "k"},), divert, Q1 + ({"/f": "q"},), P2 + ({"/f": "p2", "/k": "k"},), "p"],
    "what the owner set of modes": [overrides, P1 + ({"/f": "p", "/d": None},), P2 + ({"/f": "p2", "/d": None},)],
    "a held package": [P1 + ({"/f": "p"},), held, P2 + ({"/f": "p2"},)],
    "a file that moves along a link": [merged, P1 + ({"/lib/x": "1"},), P2 + ({"/usr/lib/x": "2"},), "p"],
    "a conffile that is none any more": [
        P1 + ({"/etc/c": "1"}, {"conffiles": ["/etc/c"]}), write("etc/c", "mine"), P2 + ({"/etc/c": "2"},)],
    "a file becomes a conffile": [P1 + ({"/etc/c": "1"},), P2 + ({"/etc/c": "2"}, {"conffiles": ["/etc/c"]})],
    "a conffile that has to go": [
        P1 + ({"/etc/c": "1", "/etc/d": "d", "/x": "x"}, {"conffiles": ["/etc/c", "/etc/d"]}), write("etc/c", "mine"),
        P2 + ({"/x": "x"}, {"conffiles": ["remove-on-upgrade /etc/c", "remove-on-upgrade /etc/d"]}),
        ("p", "3", {"/x": "x"})],
    "a conffile moves to another package": [
        P1 + ({"/etc/c": "1", "/x": "x"}, {"conffiles": ["/etc/c"]}), write("etc/c", "mine"),
        [Q1 + ({"/etc/c": "1"}, {"conffiles": ["/etc/c"], "control": "Replaces: p (<< 2)\n"}), P2 + ({"/x": "x"},)]],
    "another architecture": [P1 + ({"/x": "x"},), P2 + ({"/x": "y"}, {"architecture": "amd64"})],
    "another architecture of what was removed": [
        P1 + ({"/etc/x": "x"}, {"conffiles": ["/etc/x"]}), "p",
        P2 + ({"/etc/x": "y"}, {"conffiles": ["/etc/x"], "architecture": "amd64"})],
    "a script that has to run on purge": [P1 + ({"/x": "x"}, {"controls": POSTRM}), "p"],
    "a removed package leaves a folder of the owner": [
        P1 + ({"/x/y/z": "x", "/etc/k": "x"}, {"conffiles": ["/etc/k"]}), write("x/u", "1"), "p"],
    "so it does without conffiles": [P1 + ({"/x/y/z": "x"},), write("x/u", "1"), "p"],
    "conffiles beside those of others": [
        P1 + ({"/x/y/z": "x", "/etc/k": "k", "/etc/q": "q"}, {"conffiles": ["/etc/k"], "controls": POSTRM}),
        Q1 + ({"/etc/foo": "f"},), "p"],
    "a package that comes without its conffile": [
        P1 + ({"/etc/k": "x"}, {"conffiles": ["/etc/k"]}), P2 + ({"/usr/k": "x"},), "p"],
    "a conffile that was deleted": [
        P1 + ({"/etc/k": "x"}, {"conffiles": ["/etc/k"]}), lambda root: (root / "etc/k").unlink(), "p"],
    "setuid, and hard links": [
        P1 + ({"/b/one": "1", "/b/z": "z"}, {"modes": {"/b/one": 0o4755}, "hard_links": {"/b/two": "/b/one"}}),
        P2 + ({"/b/one": "1", "/b/z": "z2"}, {"modes": {"/b/one": 0o4755}, "hard_links": {"/b/two": "/b/one"}}),
        ("p", "3", {"/b/one": "3"}, {"hard_links": {"/b/two": "/b/one", "/b/three": "/b/one"}})],
    "names that are no words": [P1 + ({"/a b/c%d": "1", "/ä": "2", b"/\xff".decode(errors="surrogateescape"): "3"},), "p"],
    "triggers": [
        P1 + ({"/x": "x"}, {"controls": {"triggers": "interest-noawait /usr/share/x\ninterest word\nactivate other\n"}}),
        Q1 + ({"/y": "y"}, {"controls": {"triggers": "interest /usr/lib\n# comment\ninterest-noawait word\n"}}),
        P2 + ({"/x": "x"}, {"controls": {"triggers": "interest /usr/share/y\n"}}), "q"],
    "what dpkg does not know of fields": [
        P1 + ({"/x": "x"}, {"control": "Protected: yes\nBuilt-Using: a (= 1)\nDepends: a:any (<< 1-0) | b (>> 1:0-1)\n"
                            "Provides: a (= 0)\nVcs-Git: x\nEssential: yes\nPriority: Strange\n"}),
        P2 + ({"/x": "x"},)],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_construct(name: str, bench: Workbench, twins: Twins) -> None:
    for step in CASES[name]:
        if callable(step):
            twins.both(step)
        elif isinstance(step, str):
            twins.install(remove=[step])
            same(twins)
        else:
            wanted = step if isinstance(step, list) else [step]
            debs = [bench.deb(*words[:3], **(words[3] if len(words) > 3 else {})) for words in wanted]
            twins.install(*debs)
            same(twins)
