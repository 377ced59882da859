"""Where we differ from dpkg on purpose: what either does. The list is in docs/packages.md."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packagemanager.errors import RefusedError
from tests.programs.dpkg_twin import TIME, Twins, Workbench
from tests.programs.package_constructs import LIBRARY, SAME, foreign, merged
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of

TWO = ("amd64", "i386")


def test_a_file_that_is_as_it_shall_be_keeps_its_time(bench: Workbench, twins: Twins) -> None:
    twins.install(bench.deb("p", "1", {"/x": "x", "/y": "1"}))
    twins.both(lambda root: os.utime(root / "x", (1, 1)))
    before = (twins.ours / "x").stat().st_ino
    twins.install(bench.deb("p", "2", {"/x": "x", "/y": "2"}))
    assert [line.partition(":")[0] for line in twins.differences()] == ["x"]
    assert (twins.theirs / "x").stat().st_mtime == TIME
    assert ((twins.ours / "x").stat().st_mtime, (twins.ours / "x").stat().st_ino) == (1, before)


def test_a_folder_with_files_of_nobody_makes_no_place_for_a_file(bench: Workbench, twins: Twins) -> None:
    twins.install(bench.deb("p", "1", {"/a/x": "x"}))
    twins.both(lambda root: (root / "a/mine").write_text("mine"))
    with pytest.raises(RefusedError, match="/a: a folder is there, with files that belong to no package that goes"):
        twins.install(bench.deb("p", "2", {"/a": "file"}))
    assert (twins.theirs / "a").is_file()
    assert (twins.ours / "a/mine").read_text() == "mine"
    assert (twins.ours / "a/x").read_text() == "x"


def test_a_package_whose_files_others_have_stays(bench: Workbench, twins: Twins) -> None:
    twins.install(bench.deb("p", "1", {"/x": "p"}))
    twins.install(bench.deb("q", "1", {"/x": "q"}, control="Replaces: p\n"))
    assert "p:all" in twins.database().installed()
    assert "Package: p\n" not in (twins.theirs / "var/lib/dpkg/status").read_text()
    assert (twins.ours / "var/lib/dpkg/info/p.list").read_text() == "/.\n"
    twins.wanted.pop("p:all")
    twins.apply({"q:all": "1"}, {})
    assert twins.differences() == []


def test_one_file_in_two_packages_by_way_of_a_link(bench: Workbench, twins: Twins) -> None:
    twins.both(merged)
    twins.install(bench.deb("p", "1", {"/lib/x": "p"}))
    with pytest.raises(RefusedError, match="/usr/lib/x of q:all is also in p:all 1"):
        twins.install(bench.deb("q", "1", {"/usr/lib/x": "q"}))
    assert (twins.theirs / "lib/x").read_text() == "q"
    assert (twins.ours / "lib/x").read_text() == "p"


def test_a_library_for_two_architectures_becomes_a_package_for_all(bench: Workbench, twins: Twins) -> None:
    """dpkg wants one of the two to be purged before; we remember no more of it."""
    twins.both(foreign)
    both = [bench.deb("p", "1", LIBRARY, architecture=one, control=SAME, conffiles=["/etc/c"]) for one in TWO]
    twins.install(*both)
    after = bench.deb("p", "2", {"/doc": "2"})
    with pytest.raises(AssertionError, match="which has multiple installed instances"):
        twins.install(after)
    twins.apply({"p:all": "2"}, {"p:all": after})
    theirs, ours = twins.verdicts()
    assert len([line for line in ours if line.startswith("ii  p ")]) == 1 and theirs
    assert sorted(twins.database().packages) == ["p:all"]
    assert not list((twins.ours / "var/lib/dpkg/info").glob("p:*"))
    assert (twins.ours / "etc/c").read_text() == "c"


def test_a_folder_that_no_package_names(bench: Workbench, twins: Twins) -> None:
    text = b"Package: p\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
    package = bench.folder / "p.deb"
    package.write_bytes(deb_of(tar_of([member("./a/b/x", content=b"x")]), control_tar(text)))
    with pytest.raises(AssertionError, match="No such file or directory"):
        twins.dpkg("-i", str(package))
    twins.apply({"p:all": "1"}, {"p:all": package})
    assert (twins.ours / "a/b/x").read_text() == "x"
    assert (twins.ours / "a/b").stat().st_mode & 0o7777 == 0o755
    twins.apply({}, {})
    assert not (twins.ours / "a/b/x").exists()


def test_a_conffile_that_the_owner_made_a_link(bench: Workbench, twins: Twins) -> None:
    twins.install(bench.deb("p", "1", {"/etc/c": "1"}, conffiles=["/etc/c"]))

    def change(root: Path) -> None:
        (root / "etc/c").rename(root / "etc/real")
        (root / "etc/c").symlink_to("/etc/real")

    twins.both(change)
    twins.install(bench.deb("p", "2", {"/etc/c": "2"}, conffiles=["/etc/c"]))
    assert (twins.ours / "etc/real").read_text() == "2"
    assert (twins.ours / "etc/c").readlink() == Path("/etc/real")
    assert (twins.theirs / "etc/real").read_text() == "1"


def test_a_held_package_changes_as_it_is_wanted(bench: Workbench, twins: Twins) -> None:
    twins.install(bench.deb("p", "1", {"/x": "x"}))
    path = twins.ours / "var/lib/dpkg/status"
    path.write_text(path.read_text().replace("Status: install", "Status: hold"))
    twins.install(bench.deb("p", "2", {"/x": "y"}))
    assert "Status: install ok installed" in path.read_text()


def test_the_link_of_a_merged_system_stays(bench: Workbench, twins: Twins) -> None:
    """Also when the last package that had a folder in its place goes: it was no package's."""
    twins.both(merged)
    twins.install(bench.deb("p", "1", {"/lib/x": "x", "/own": ("lib",)}))
    twins.install(bench.deb("p", "2", {"/usr/lib/x": "y"}))
    assert not (twins.theirs / "lib").is_symlink()
    assert (twins.ours / "lib/x").read_text() == "y"
    assert not (twins.ours / "own").is_symlink()
    twins.install(bench.deb("p", "3", {"/lib/x": "x"}))
    twins.apply({}, {})
    assert (twins.ours / "lib").readlink() == Path("usr/lib")
