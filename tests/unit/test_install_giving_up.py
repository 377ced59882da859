"""A source that gives up in the middle of an installation: what came is kept, and nobody is asked for ever."""

from __future__ import annotations

import pytest

from payload import frames
from payload.errors import PayloadUnreadableError
from payload.install import Report, install
from payload.seeded import Reuse
from tests.simulator.devices import FarSource
from tests.simulator.disk import Storage
from tests.unit.payload_samples import FRAME, BytesReader, Sample, believe, mixed_image

FRAMES = 40
GOOD = 10
HEADER = 8192
SLOT_AT = 2 * HEADER


class Failing(BytesReader):
    """Cannot be read from byte ``broken_from`` on, so many ``times``. ``refused`` is what it did not give."""

    def __init__(self, content: bytes, broken_from: int, times: int = 1 << 30) -> None:
        super().__init__(content)
        self.refused: list[int] = []
        self._broken_from = broken_from
        self._times = times

    def read(self, offset: int, length: int) -> bytes:
        if offset >= self._broken_from and len(self.refused) < self._times:
            self.refused.append(offset)
            raise OSError("pulled out")
        return super().read(offset, length)


class Target:
    """An empty slot."""

    def __init__(self) -> None:
        self.storage = Storage([SLOT_AT + FRAMES * FRAME])
        self.slot = self.storage.disks[0].window(SLOT_AT, FRAMES * FRAME)

    def install(self, sample: Sample, source: BytesReader | FarSource, *, reused: bool = False) -> Report:
        headers = [self.storage.disks[0].window(number * HEADER, HEADER) for number in (0, 1)]
        reuse = Reuse(believe(sample.header), []) if reused else None
        return install(self.slot, headers, source, sample.header, sample.image, target_broken=True, reuse=reuse)

    def looks(self) -> int:
        """How often the whole slot was read."""
        last = SLOT_AT + (FRAMES - 1) * FRAME
        return sum(one.kind == "read" and one.offset == last for one in self.storage.trace)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("giving-up"), mixed_image(FRAMES))


def first_missing(sample: Sample) -> int:
    return len(sample.header.raw) + sample.image.frames()[GOOD].offset


@pytest.mark.requirement("M3")
@pytest.mark.fault("N1", "N3")
@pytest.mark.parametrize("reused", [False, True])
def test_servers_that_gave_up_are_not_asked_again_and_nothing_is_read_back(sample: Sample, reused: bool) -> None:
    target = Target()
    broken = Failing(sample.content, first_missing(sample))
    with pytest.raises(PayloadUnreadableError):
        target.install(sample, FarSource(broken), reused=reused)
    assert len(broken.refused) == len(set(broken.refused)) > 0
    assert target.looks() == 1
    assert target.storage.unflushed == 0, "what came is not durable"
    assert set(range(GOOD)).isdisjoint(frames.verify(target.slot, sample.image.frames()))


@pytest.mark.fault("R5")
def test_a_stick_that_is_pulled_out_is_asked_twice(sample: Sample) -> None:
    target = Target()
    broken = Failing(sample.content, first_missing(sample))
    with pytest.raises(PayloadUnreadableError):
        target.install(sample, broken)
    # Each frame is read ahead once, and once to say why not.
    assert {broken.refused.count(offset) for offset in broken.refused} == {4}
    assert target.looks() == 2


@pytest.mark.fault("R5")
def test_a_stick_that_hiccups_once_is_enough(sample: Sample) -> None:
    target = Target()
    target.install(sample, Failing(sample.content, first_missing(sample), times=2))
    assert frames.verify(target.slot, sample.image.frames()) == []
