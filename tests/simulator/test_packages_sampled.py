"""Twenty real packages (libc, systemd, Python and Perl among them) over older ones, on a simulated file system.

Constructed sets are cut at every operation (``test_package_sweep.py``, ``test_package_flow.py``). A real one has
some ten thousands of them, so cuts are a sample: of every kind of operation, spread over the whole.
"""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from packagemanager import places
from packagemanager.changes import Wish
from packagemanager.deb import Deb
from packagemanager.master.order import configure_order
from packagemanager.master.repository import deb_file
from packagemanager.order import Order
from packagemanager.transact import DONE, Manager
from payload.sources import FileSource
from scripts.benchmarks.package_place import PACKAGES
from scripts.comparison.real_root import RealRoot, real_root
from tests.boot.debian_packages import Base
from tests.simulator.filesystem import FileSystem, Moment, after_cut, survivors
from tests.simulator.package_world import apply, differences, is_clean, snapshot

if TYPE_CHECKING:
    from packagemanager.incoming import Source

pytestmark = [pytest.mark.long, pytest.mark.requirement("M7"), pytest.mark.fault("S1", "S2", "S3")]

CACHE = Path(__file__).parents[2] / "build" / "cache"
CUTS_OF_A_KIND = 4
RANDOM_SUBSETS = 2


class Sampled(list[Moment]):
    """Keeps the moments of the operations of these numbers alone; ``kinds`` has every one's kind."""

    def __init__(self, wanted: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.wanted = wanted
        self.kinds: list[str] = []

    def append(self, moment: Moment) -> None:
        if len(self.kinds) in self.wanted:
            super().append(moment)
        self.kinds.append(moment.kind)


@pytest.fixture(scope="module")
def real() -> RealRoot:
    return real_root(CACHE)


@pytest.fixture(scope="module")
def root(real: RealRoot) -> FileSystem:
    """The whole root of an archive, durable."""
    tree = FileSystem()
    with tarfile.open(real.archive) as archive:
        for member in archive:
            path = member.name.removeprefix("./").rstrip("/")
            if path not in ("", "."):
                lay_down(tree, archive, member, path)
    places.make_folders(tree, places.FOLDER)
    tree.sync()
    return tree.restarted()


def lay_down(tree: FileSystem, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if member.islnk():
        tree.hard_link(member.linkname.removeprefix("./"), path)
        return
    if member.isdir():
        tree.make_directory(path)
    elif member.issym():
        tree.make_link(path, member.linkname)
    elif member.isreg():
        file = archive.extractfile(member)
        assert file is not None
        tree.write(path, [file.read()])
    else:
        return  # a device: no package has one
    tree.set_attributes(path, member.mode, member.uid, member.gid, int(member.mtime))


@pytest.fixture(scope="module")
def order(real: RealRoot) -> Order:
    """The twenty packages' newer versions, everything else as it is."""
    base = Base(real.archive)
    files = {deb_file(path).key: path for path in real.new.iterdir() if path.name.partition("_")[0] in PACKAGES}
    assert len(files) >= 18
    wanted = base.packages | {key: deb_file(path) for key, path in files.items()}
    keys = [package.key for package in configure_order(wanted.values(), lambda _package: False)]

    def bring(needed: Sequence[str]) -> dict[str, Source]:
        return {key: Deb(FileSource(str(files[key]), key)) for key in needed}

    return Order(Wish({key: wanted[key].version for key in keys}), bring, 1, bytes(range(32)))


def chosen(kinds: Sequence[str]) -> frozenset[int]:
    """Some operations of every kind: the last one, and others anywhere."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, kind in enumerate(kinds):
        numbers[kind].append(number)
    chance = Random(0)
    some = (chance.sample(found, min(CUTS_OF_A_KIND - 1, len(found))) for found in numbers.values())
    return frozenset([found[-1] for found in numbers.values()]).union(*some)


def test_a_cut_of_a_real_update_leaves_a_whole_set(root: FileSystem, order: Order) -> None:
    whole = root.restarted()
    whole.watch = counted = Sampled()
    assert apply(whole, order) == DONE
    old, new = snapshot(root), snapshot(whole)
    assert old != new and is_clean(whole)
    again = root.restarted()
    again.watch = sampled = Sampled(chosen(counted.kinds))
    apply(again, order)
    ends = set()
    for moment in sampled:
        for left in survivors(moment.pending, RANDOM_SUBSETS, 0):
            tree = after_cut(moment.base, left)
            Manager(tree).resume(settle=True)
            found = snapshot(tree)
            assert found in (old, new), f"cut after {moment.kind}: {differences(found, old, new)}"
            assert is_clean(tree)
            ends.add("new" if found == new else "old")
            if found == old:
                apply(tree, order)
                assert snapshot(tree) == new
    assert ends == {"old", "new"}
