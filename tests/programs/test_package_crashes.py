"""Transactions on a real ext4 of this machine's kernel: cut at any write of a logged disk, twice, and killed.

The log of a whole transaction (and of one that is undone) gives every disk that a cut can leave: any prefix, any
subset of what no flush followed, one of the writes torn. Each is mounted, so that ext4 replays its own journal, and
resumed; what is there then must be the old set or the new one, to the byte.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from packagemanager import places
from packagemanager.engine import Engine, Resumed
from packagemanager.phases import BACK, DONE, FORWARD, TRYING, UNDONE
from packagemanager.root import Root
from payload.durable import flush_file_system
from qemu.sparse_copy import copy_image
from qemu.write_log import WriteLog, crash_image
from tests.boot.crash_states import PowerCut, power_cuts
from tests.programs.loop_disk import LoggedDisk, is_possible, make_ext4, mended_and_mounted, mounted, private_mounts
from tests.programs.native_files import fill, native_snapshot, without
from tests.simulator.file_sets import OLD, lay_down
from tests.simulator.package_sweep import Judge, prepared

pytestmark = [
    pytest.mark.requirement("M7", "M8", "M13", "M20"),
    pytest.mark.skipif(not is_possible(), reason="needs root, loop devices and FUSE"),
]

DISK_BYTES = 16 << 20
CUTS_A_RECORDING = 50
RECORDINGS = 20  # so 1,000 cuts
BUSY = 0.3  # after how many of our operations somebody else flushes the file system
KILLS = 1000
Say = Callable[[str], None]
Act = Callable[[Root, Say], None]


@dataclass(frozen=True)
class Recording:
    """What was written to ``base`` in a run; ``marks`` says how long the log was when a step had returned."""

    base: Path
    log: WriteLog
    marks: dict[str, int]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory: thousands of flushes shall not wait for this machine's disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path, private_mounts():
        yield Path(path)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    image = folder / "base.img"
    make_ext4(image, DISK_BYTES)
    with mounted(image, folder / "root") as point, closing(Root(str(point))) as root:
        lay_down(root, OLD)
        places.make_folders(root, places.FOLDER)
        root.lock(places.LOCK).close()
        root.sync()
    return image


class Watched(Root):
    """``step`` is called after every change."""

    def __init__(self, folder: str, step: Callable[[], None]) -> None:
        super().__init__(folder)
        self.step = step

    def write(self, path: str, content: Iterable[bytes]) -> None:
        super().write(path, content)
        self.step()

    def set_attributes(self, path: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        super().set_attributes(path, mode, uid, gid, mtime)
        self.step()

    def make_directory(self, path: str) -> None:
        super().make_directory(path)
        self.step()

    def make_link(self, path: str, target: str) -> None:
        super().make_link(path, target)
        self.step()

    def hard_link(self, old: str, new: str) -> None:
        super().hard_link(old, new)
        self.step()

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self.step()

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.step()

    def remove_directory(self, path: str) -> None:
        super().remove_directory(path)
        self.step()

    def replace(self, path: str, content: bytes, *, after_all: bool = False) -> None:
        super().replace(path, content, after_all=after_all)
        self.step()

    def sync(self) -> None:
        super().sync()
        self.step()


def record(base: Path, folder: Path, act: Act, seed: int = 0) -> Recording:
    """Runs ``act`` on a logged copy of ``base``. It says the names of its steps as they are done.

    With a ``seed`` others work on the same file system and flush it in between: so every mixture gets to the disk.
    """
    image, log = folder / "recorded.img", folder / "recorded.log"
    copy_image(base, image)
    marks: dict[str, int] = {}
    chance = random.Random(seed)
    with LoggedDisk(image, log) as disk, mounted(disk.path, folder / "root") as point:
        descriptor = os.open(point, os.O_RDONLY)

        def busy() -> None:
            if seed and chance.random() < BUSY:
                flush_file_system(descriptor)

        with closing(Watched(str(point), busy)) as root:
            act(root, lambda step: marks.update({step: disk.entries}))
        os.close(descriptor)
        marks["end"] = disk.entries
    entries = WriteLog.read(log).entries[: marks["end"]]
    image.unlink()
    return Recording(base, WriteLog(log, entries), marks)


def apply_and_say(root: Root, say: Say) -> None:
    engine = Engine(root)
    with closing(engine.lock()):
        prepared(root, engine)
        engine.begin()
        say("begun")
        engine.forward()
        say("forward")
        engine.done()
        # The end is made durable by whoever comes next: ext4 writes it sooner or later.
        root.sync()
        say("done")


def undo_and_say(root: Root, say: Say) -> None:
    engine = Engine(root)
    with closing(engine.lock()):
        prepared(root, engine)
        engine.begin()
        engine.forward()
        say("forward")
        engine.back()
        root.sync()
        say("back")


def resume_and_say(root: Root, say: Say) -> None:
    Engine(root).resume()
    root.sync()


ACTS: tuple[Act, ...] = (apply_and_say, undo_and_say)


def comes_back(judge: Judge, root: Root, ending: Callable[[Engine], object]) -> tuple[Resumed, str]:
    """What the next start finds, and which set is there when the transaction is at its end. Asserts that it is one."""
    resumed = Engine(root).resume()
    assert resumed.left == ()
    if resumed.now == TRYING:
        assert native_snapshot(root) == judge.new
        ending(Engine(root))
    assert root.look(places.TRANSACTION) is None
    root.lock(places.LOCK).close()
    found = native_snapshot(root)
    names = [name for name, wanted in (("old", judge.old), ("new", judge.new)) if found == wanted]
    assert names, sorted(path for path in {*found, *judge.new} if found.get(path) not in
                         (judge.new.get(path), judge.old.get(path))) or "a mixture"  # fmt: skip
    return resumed, names[0]


ENDINGS = ((Engine.done, "new"), (Engine.back, "old"))


def crash(recording: Recording, cut: PowerCut, image: Path) -> None:
    crash_image(recording.log, recording.base, image, cut.upto, cut.lose, dict(cut.torn))


def sweep(judge: Judge, recording: Recording, cuts: list[PowerCut], folder: Path) -> Counter[str | None]:
    """Every one of these cuts, and what was found there by the next start."""
    image = folder / "crashed.img"
    phases: Counter[str | None] = Counter()
    for number, cut in enumerate(cuts):
        crash(recording, cut, image)
        ending, wanted = ENDINGS[number % 2]
        with mended_and_mounted(image, folder / "root") as point, closing(Root(str(point))) as root:
            resumed, name = comes_back(judge, root, ending)
        check(recording, cut, resumed, name, wanted)
        phases[resumed.found] += 1
    return phases


def check(recording: Recording, cut: PowerCut, resumed: Resumed, name: str, wanted: str) -> None:
    """What had been promised when the power went was kept."""
    reached = {step for step, entries in recording.marks.items() if cut.upto >= entries}
    if resumed.now == TRYING:
        assert name == wanted, cut
    if "done" in reached:
        assert name == "new", cut
    elif "forward" in reached and "back" not in recording.marks:
        assert resumed.now == TRYING or name == "new", cut
    elif "begun" in reached:
        assert resumed.found is not None, cut
    if "back" in reached:
        assert name == "old", cut


@pytest.mark.fault("S1", "S2", "S3", "S4")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("seed", [0, 1], ids=["alone", "on a busy system"])
def test_some_cuts_of_a_real_disk(judge: Judge, base: Path, folder: Path, act: Act, seed: int) -> None:
    recording = record(base, folder, act, seed)
    phases = sweep(judge, recording, power_cuts(recording.log, 8), folder)
    assert phases.total() == 8
    assert len(phases) > 1 or not seed, "the cuts are not spread"


@pytest.mark.long
@pytest.mark.fault("S1", "S2", "S3", "S4")
def test_1000_cuts_of_a_real_disk(judge: Judge, base: Path, folder: Path) -> None:
    phases: Counter[str | None] = Counter()
    for number in range(RECORDINGS):
        recording = record(base, folder, ACTS[number % 2], seed=number // 2)
        phases += sweep(judge, recording, power_cuts(recording.log, CUTS_A_RECORDING, number), folder)
    print(phases)
    assert phases.total() == CUTS_A_RECORDING * RECORDINGS
    assert set(phases) == {None, FORWARD, TRYING, BACK, DONE, UNDONE}


def second_cuts(judge: Judge, base: Path, folder: Path, number: int, count: int) -> Counter[str | None]:
    """The power goes while a start puts in order what a first cut left."""
    first = record(base, folder, ACTS[number % 2], seed=number + 1)
    chance = random.Random(number)
    cut = chance.choice([cut for cut in power_cuts(first.log, 60, number) if cut.upto > first.marks.get("begun", 0)])
    crashed = folder / "first.img"
    crash(first, cut, crashed)
    again = record(crashed, folder, resume_and_say, seed=number + 1)
    return sweep(judge, again, power_cuts(again.log, count, number), folder)


@pytest.mark.fault("S1", "S2", "S3", "S4")
def test_a_second_cut_of_a_real_disk(judge: Judge, base: Path, folder: Path) -> None:
    assert second_cuts(judge, base, folder, 1, 8).total() == 8


@pytest.mark.long
@pytest.mark.fault("S1", "S2", "S3", "S4")
def test_1000_second_cuts_of_a_real_disk(judge: Judge, base: Path, folder: Path) -> None:
    phases: Counter[str | None] = Counter()
    number = 0
    while phases.total() < CUTS_A_RECORDING * RECORDINGS:
        phases += second_cuts(judge, base, folder, number, CUTS_A_RECORDING)
        number += 1
    print(phases, number)
    assert set(phases) == {None, FORWARD, TRYING, BACK, DONE, UNDONE}


def killed(point: Path, act: Act, after: int, seconds: float) -> bool:
    """A process that does ``act`` is killed (9) at its operation ``after``, or that late; whether it was."""
    child = os.fork()
    if child == 0:
        left = iter(range(after))

        def step() -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            act(Watched(str(point), step), lambda _step: None)
        finally:
            os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kills(judge: Judge, base: Path, folder: Path, count: int) -> Counter[str | None]:
    """Every second one at an operation, the others at a moment."""
    image = folder / "killed.img"
    chance = random.Random(count)
    phases: Counter[str | None] = Counter()
    deaths = 0
    operations, seconds = measured(base, folder)
    for number in range(count):
        act = ACTS[number // 2 % 2]
        copy_image(base, image)
        with mounted(image, folder / "root") as point:
            at = chance.randrange(operations) if number % 2 else 1 << 30
            deaths += killed(point, act, at, 0.0 if number % 2 else chance.random() * seconds)
            with closing(Root(str(point))) as root:
                phases[comes_back(judge, root, ENDINGS[number // 4 % 2][0])[0].found] += 1
    assert deaths >= count // 2, "who is to be killed at an operation comes to it"
    return phases


def measured(base: Path, folder: Path) -> tuple[int, float]:
    """How many operations applying has, and how many seconds a process takes for it here and now."""
    image = folder / "killed.img"
    copy_image(base, image)
    steps: list[None] = []
    with mounted(image, folder / "root") as point:
        started = time.monotonic()
        with closing(Watched(str(point), lambda: steps.append(None))) as root:
            apply_and_say(root, lambda _step: None)
    return len(steps), time.monotonic() - started


def test_some_kills(judge: Judge, base: Path, folder: Path) -> None:
    assert kills(judge, base, folder, 16).total() == 16


@pytest.mark.long
def test_1000_kills(judge: Judge, base: Path, folder: Path) -> None:
    phases = kills(judge, base, folder, KILLS)
    print(phases)
    assert phases.total() == KILLS
    assert set(phases) >= {None, FORWARD, TRYING, BACK}


def test_the_sweep_sees_an_engine_that_does_not_sync(
    judge: Judge, base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 keeps the order of names, and gives a file its bytes later: so files are there, and empty."""
    with monkeypatch.context() as patch:
        patch.setattr(Watched, "sync", lambda _root: None)
        recording = record(base, folder, apply_and_say)
    with pytest.raises(AssertionError):
        sweep(judge, recording, power_cuts(recording.log, 60), folder)


@pytest.mark.fault("S10")
@pytest.mark.parametrize(("ending", "wanted"), ENDINGS, ids=["done", "back"])
def test_others_take_every_block_and_inode_after_the_intent(
    judge: Judge, base: Path, folder: Path, ending: Callable[[Engine], object], wanted: str
) -> None:
    image = folder / "full.img"
    copy_image(base, image)
    with mounted(image, folder / "root") as point, closing(Root(str(point))) as root:
        prepared(root, Engine(root))
        Engine(root).begin()
        taken = fill(point / "others")
        assert taken > 100
        Engine(root).forward()
        assert without(native_snapshot(root), "others") == judge.new
        fill(point / "more")
        ending(Engine(root))
        found = without(native_snapshot(root), "others", "more")
        assert found == (judge.new if wanted == "new" else judge.old)
        assert root.look(places.TRANSACTION) is None
