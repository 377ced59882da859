"""Packages on an overlay: what a transaction replaces is copied up to be kept; there has to be room, and names of one
file stay that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from packagemanager.database import Database
from packagemanager.errors import PackageError, RefusedError
from packagemanager.process import Ended
from packagemanager.root import Root
from packagemanager.transact import DONE, ON_TRIAL, Manager
from packagemanager.verify import verify
from tests.programs.dpkg_twin import empty_database
from tests.programs.loop_disk import is_possible, mounted_overlay, private_mounts, tmpfs
from tests.programs.package_constructs import p
from tests.simulator.package_world import World, apply

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root and an overlay")

OLD_BYTES = 6 << 20
UPPER_MIB = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path, private_mounts():
        yield Path(path)


@pytest.mark.fault("S10")
def test_what_is_replaced_has_to_fit_beside_the_new(folder: Path) -> None:
    world = World()
    lower = folder / "lower"
    empty_database(lower)
    with closing(Root(str(lower))) as root:
        assert apply(root, world.install(p("1", {"/big": bytes(OLD_BYTES), "/small": "s"}))) == DONE
    with tmpfs(folder / "changes", UPPER_MIB) as changes:
        merged = mounted_overlay(folder / "root", lower, changes / "up", changes / "work", "index=off")
        with merged as point, closing(Root(str(point))) as root:
            with pytest.raises(
                RefusedError, match=r"is kept as a copy here, as the root is an overlay: that needs 61\d\d"
            ):
                apply(root, world.install(p("2", {"/big": "little", "/small": "s"})))
            assert (point / "big").stat().st_size == OLD_BYTES
            assert not (changes / "up/big").exists()
            assert not (point / "var/lib/unbrick/packages/transaction").exists()
            # What is not touched costs nothing.
            assert apply(root, world.install(p("3", {"/big": bytes(OLD_BYTES), "/small": "t"}))) == DONE
            assert not (changes / "up/big").exists()
            assert (point / "small").read_text() == "t"
    # On one file system the second name of a file costs nothing.
    with tmpfs(folder / "plain", UPPER_MIB) as plain, closing(Root(str(plain))) as root:
        empty_database(plain)
        first = World()
        assert apply(root, first.install(p("1", {"/big": bytes(3 << 20)}))) == DONE
        assert apply(root, first.install(p("2", {"/big": "little"}))) == DONE


@pytest.mark.requirement("M13")
@pytest.mark.parametrize("new", [b"same", b"more"])
@pytest.mark.parametrize("ends", ["undone", "good", "failed"])
def test_names_of_one_file_of_the_lower_layer_stay_one(folder: Path, new: bytes, ends: str) -> None:
    """All of the package is kept before its scripts run, as nobody can tell what those call the helper with."""
    world, names = World(), {"/lib/b": "/lib/a", "/lib/c": "/lib/a"}
    script = '#!/bin/sh\ndpkg-maintscript-helper rm_conffile "$OLD" 2~ -- "$@"\n'
    lower = folder / "lower"
    empty_database(lower)
    (lower / "bin").mkdir()
    (lower / "bin/sh").touch()
    with closing(Root(str(lower))) as root:
        assert apply(root, world.install(p("1", {"/lib/a": b"same"}, hard_links=names))) == DONE
    second = p("2", {"/lib/a": new}, hard_links=names, controls={"preinst": script, "postinst": script})
    code = 1 if ends == "failed" else 0

    def run(_script: str, words: Sequence[str], _environment: Mapping[str, str]) -> Ended:
        return Ended(code if words[0] == "configure" else 0, b"")

    with tmpfs(folder / "changes", UPPER_MIB) as changes:

        def mounted() -> AbstractContextManager[Path]:
            return mounted_overlay(folder / "root", lower, changes / "up", changes / "work", "index=off")

        with mounted() as point, closing(Root(str(point))) as root:
            manager = Manager(root, run=run)
            if ends == "failed":
                with pytest.raises(PackageError, match="postinst"):
                    manager.apply(world.install(second))
            else:
                assert manager.apply(world.install(second)) == ON_TRIAL
            if ends == "good":
                manager.settle()
            elif ends == "undone":
                assert manager.undo() == ()
        with mounted() as point, closing(Root(str(point))) as root:
            assert [str(one) for one in verify(Database(root)) if not one.allowed] == []
            assert (point / "lib/c").read_bytes() == (new if ends == "good" else b"same")
