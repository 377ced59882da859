"""The same packages, given to dpkg and to us: the same files, modes, owners, links, and the same database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs.dpkg_twin import Twins, Workbench, needs_dpkg
from tests.programs.package_constructs import CONSTRUCTS

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


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_one_construct(name: str, bench: Workbench, twins: Twins) -> None:
    for step in CONSTRUCTS[name]:
        if callable(step):
            twins.both(step)
        elif isinstance(step, str):
            twins.install(remove=[step])
            same(twins)
        else:
            packages = step if isinstance(step, list) else [step]
            debs = [bench.deb(one.name, one.version, one.files, **one.more) for one in packages]
            twins.install(*debs)
            same(twins)
