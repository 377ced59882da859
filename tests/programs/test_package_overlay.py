"""The same engine on an overlay: below a squashfs that nobody can write, above an ext4 with what changed.

What is compared is the merged view. Second names of one file in the lower layer become two files when one of them is
copied up (the kernel's `index=off`, as it is by default). What a plan keeps is one file again; a name that it does not
know (of another package) is not, so of those only what is in them is compared.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from packagemanager import places
from packagemanager.damage import Evidence
from packagemanager.engine import Engine
from packagemanager.entry import FILE
from packagemanager.errors import PackageError
from packagemanager.operation import PUT, Operation
from packagemanager.phases import TRYING
from packagemanager.plan_file import decode_plan
from packagemanager.root import Root
from packagemanager.staging import Staging
from qemu.sparse_copy import copy_image
from qemu.write_log import WriteLog, crash_image
from tests.boot.crash_states import power_cuts
from tests.programs.loop_disk import (
    BLOCK_BYTES,
    LoggedDisk,
    break_free_blocks,
    give_all_blocks,
    is_possible,
    make_ext4,
    mended_and_mounted,
    mounted,
    mounted_overlay,
    private_mounts,
    tmpfs,
)
from tests.programs.native_files import fill, native_snapshot, without
from tests.simulator.file_sets import OLD, lay_down
from tests.simulator.package_sweep import FACTS, Judge, Snapshot, apply, apply_and_undo, prepared

pytestmark = [
    pytest.mark.requirement("M7", "M13"),
    pytest.mark.skipif(not is_possible(), reason="needs root, loop devices and FUSE"),
]

UPPER_BYTES = 16 << 20
OF_ANOTHER = "usr/share/was-folder/copyright"  # a second name of a file that the plan does not know
INDEX = pytest.mark.parametrize("index", ["off", "on"])


@dataclass(frozen=True)
class Layers:
    """``image`` is the lower layer, a squashfs with the old set; ``upper`` an empty ext4 for what changes."""

    folder: Path
    image: Path
    upper: Path
    index: str = "off"

    @contextmanager
    def mounted(self, upper: Path | None = None) -> Iterator[Root]:
        below = mounted(self.image, self.folder / "lower", "squashfs")
        above = mounted(upper or self.upper, self.folder / "upper")
        with below as lower, above as changes:
            options = f"index={self.index}"
            merged = mounted_overlay(self.folder / "root", lower, changes / "up", changes / "work", options)
            with merged as point, closing(Root(str(point), str(changes))) as root:
                yield root


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path, private_mounts():
        yield Path(path)


@pytest.fixture(scope="module")
def image(folder: Path) -> Path:
    source, image = folder / "source", folder / "root.squashfs"
    source.mkdir()
    with closing(Root(str(source))) as root:
        lay_down(root, OLD)
        places.make_folders(root, places.FOLDER)
        root.lock(places.LOCK).close()
    subprocess.run(["mksquashfs", source, image, "-quiet", "-no-progress", "-comp", "zstd"], check=True)
    return image


@pytest.fixture
def layers(folder: Path, image: Path) -> Layers:
    make_ext4(folder / "upper.img", UPPER_BYTES)
    return Layers(folder, image, folder / "upper.img")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def is_known_by_its_inodes(root: Root) -> bool:
    """Whether what was put could be told from what was there if the phase were lost."""
    with root.open(places.PLANS[0]) as file:
        evidence = Evidence(root, decode_plan(file.read(-1)))
    return evidence.done and not evidence.not_done and evidence.keeps_all


def apart(root: Root, judge: Judge) -> list[str]:
    """What is not as it was, be it that two names are one file no more."""
    found = native_snapshot(root)
    assert contents(found) == contents(judge.old)
    return [path for path, what in found.items() if what != judge.old[path]]


def contents(found: Snapshot) -> Snapshot:
    """Without which names are one file."""
    return {path: what[:6] for path, what in found.items()}


@INDEX
def test_files_of_the_lower_layer_are_replaced_removed_and_brought_back(
    judge: Judge, layers: Layers, index: str
) -> None:
    layers = Layers(layers.folder, layers.image, layers.upper, index)
    with layers.mounted() as root:
        assert native_snapshot(root) == judge.old
        prepared(root, Engine(root))
        Engine(root).begin()
        Engine(root).forward()
        assert native_snapshot(root) == judge.new
        assert is_known_by_its_inodes(root)
    with layers.mounted() as root:
        assert native_snapshot(root) == judge.new
        assert is_known_by_its_inodes(root)
        assert Engine(root).resume().now == TRYING
        assert Engine(root).back() == ()
        assert contents(native_snapshot(root)) == contents(judge.old)
        assert apart(root, judge) == ([] if index == "on" else [OF_ANOTHER])
        assert root.look(places.TRANSACTION) is None


@INDEX
def test_names_of_one_file_stay_one_when_a_transaction_that_waits_is_called_off(
    judge: Judge, layers: Layers, index: str
) -> None:
    layers = Layers(layers.folder, layers.image, layers.upper, index)
    with layers.mounted() as root:
        prepared(root, Engine(root))
        Engine(root).wait()
    with layers.mounted() as root:
        assert Engine(root).back() == ()
    with layers.mounted() as root:
        assert apart(root, judge) == ([] if index == "on" else [OF_ANOTHER])


@INDEX
def test_what_waited_for_the_start_is_carried_out_where_nothing_changed(
    judge: Judge, layers: Layers, index: str
) -> None:
    """Files of the lower layer are copied up to be kept, and are as they were when it is mounted again."""
    layers = Layers(layers.folder, layers.image, layers.upper, index)
    with layers.mounted() as root:
        prepared(root, Engine(root))
        Engine(root).wait()
        assert contents(native_snapshot(root)) == contents(judge.old)
    with layers.mounted() as root:
        assert Engine(root).resume(at_start=True).now == TRYING
        assert native_snapshot(root) == judge.new


def test_after_it_is_done_the_upper_layer_holds_what_is_new_alone(judge: Judge, layers: Layers) -> None:
    with layers.mounted() as root:
        apply(root)
    with layers.mounted() as root:
        assert native_snapshot(root) == judge.new
        assert Engine(root).resume().found is None
    with mounted(layers.upper, layers.folder / "upper") as upper:
        assert not (upper / "up/usr/share/doc/5").exists()
        assert (upper / "up/usr/bin/tool").read_bytes() == b"tool 2, longer\n"


def cut(judge: Judge, layers: Layers, act: Callable[[Root], None], count: int, seed: int) -> Counter[str | None]:
    """The power goes at any write to the upper layer."""
    logged, log, crashed = (layers.folder / name for name in ("logged.img", "log", "crashed.img"))
    copy_image(layers.upper, logged)
    with LoggedDisk(logged, log) as disk, layers.mounted(disk.path) as root:
        act(root)
        root.sync()
        entries = disk.entries
    written = WriteLog(log, WriteLog.read(log).entries[:entries])
    phases: Counter[str | None] = Counter()
    for number, one in enumerate(power_cuts(written, count, seed)):
        crash_image(written, layers.upper, crashed, one.upto, one.lose, dict(one.torn))
        with mended_and_mounted(crashed, layers.folder / "upper"):
            pass
        with layers.mounted(crashed) as root:
            resumed = Engine(root).resume()
            if resumed.now == TRYING:
                (Engine.done if number % 2 else Engine.back)(Engine(root))
            assert resumed.left == ()
            assert root.look(places.TRANSACTION) is None
            found = contents(native_snapshot(root))
            assert found in (contents(judge.old), contents(judge.new)), one
        phases[resumed.found] += 1
    return phases


@pytest.mark.fault("S1", "S2", "S3", "S4")
@pytest.mark.parametrize("act", [apply, apply_and_undo])
def test_some_cuts_of_an_overlay(judge: Judge, layers: Layers, act: Callable[[Root], None]) -> None:
    assert cut(judge, layers, act, 8, 0).total() == 8


@pytest.mark.long
@pytest.mark.fault("S1", "S2", "S3", "S4")
@pytest.mark.parametrize("act", [apply, apply_and_undo])
def test_many_cuts_of_an_overlay(judge: Judge, layers: Layers, act: Callable[[Root], None]) -> None:
    phases = cut(judge, layers, act, 150, 1)
    print(phases)
    assert phases.total() == 150
    assert len(phases) > 3, "the cuts are not spread"


def test_a_folder_of_the_lower_layer_cannot_be_renamed(layers: Layers) -> None:
    """So no operation does it: a folder becomes a link in another way."""
    with layers.mounted() as root, pytest.raises(OSError, match="cross-device"):
        root.rename("usr/share/was-folder", "usr/share/elsewhere")


def test_what_was_prepared_and_dropped_changed_nothing(judge: Judge, layers: Layers) -> None:
    with layers.mounted() as root:
        prepared(root, Engine(root))
        Engine(root).drop()
        assert contents(native_snapshot(root)) == contents(judge.old)
        assert root.look(places.TRANSACTION) is None


@pytest.mark.fault("S10")
@pytest.mark.parametrize("ending", [Engine.done, Engine.back])
def test_others_take_every_block_and_inode_of_the_upper_layer_after_the_intent(
    judge: Judge, layers: Layers, ending: Callable[[Engine], object]
) -> None:
    with layers.mounted() as root:
        prepared(root, Engine(root))
        Engine(root).begin()
        assert fill(Path(root.folder, "others")) > 100
        Engine(root).forward()
        assert without(native_snapshot(root), "others") == judge.new
        fill(Path(root.folder, "more"))
        ending(Engine(root))
        found = contents(without(native_snapshot(root), "others", "more"))
        assert found in (contents(judge.old), contents(judge.new))
        assert root.look(places.TRANSACTION) is None


@pytest.mark.fault("S7")
def test_a_write_that_fails_below_the_upper_layer_is_noticed(folder: Path, image: Path, judge: Judge) -> None:
    """In the background, long after the writer went on; and the overlay's own flush says that all is well."""
    with tmpfs(folder / "small", 20) as small:
        layers = Layers(folder, image, small / "upper.img")
        make_ext4(layers.upper, UPPER_BYTES)
        give_all_blocks(layers.upper)
        with layers.mounted() as root:
            root.sync()
            break_free_blocks(layers.upper, UPPER_BYTES // BLOCK_BYTES // 2, UPPER_BYTES // BLOCK_BYTES)
            staging = Staging(root)
            number = staging.text("usr/big", bytes(UPPER_BYTES * 3 // 5))
            with pytest.raises(PackageError, match="preparing a transaction"):
                Engine(root).prepare((Operation(PUT, "usr/big", staged=number),), FACTS)
            assert native_snapshot(root) == judge.old


def test_equal_inode_numbers_of_two_layers_are_not_one_file(layers: Layers) -> None:
    with layers.mounted() as root:
        staging = Staging(root)
        paths = {stat.inode[1]: path for path in OLD if (stat := root.look(path)) and stat.kind == FILE}
        inode = number = 0
        while inode not in paths:
            number = staging.text("any", b"new\n")
            staged = root.look(staging.place(number))
            assert staged is not None and number < 500
            inode = staged.inode[1]
        path = paths[inode]
        engine = Engine(root)
        engine.prepare((Operation(PUT, path, staged=number, kept=True),), FACTS)
        assert engine.phase() is None
        engine.begin()
        engine.forward()
        with root.open(path) as file:
            assert file.read(-1) == b"new\n"
        assert engine.back() == ()
