"""Room on an overlay: what a transaction replaces is copied up to be kept, and that is looked at before."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from packagemanager.errors import RefusedError
from packagemanager.root import Root
from packagemanager.transact import DONE
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
