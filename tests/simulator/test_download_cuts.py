"""An installation over HTTP whose power is cut again and again: what is durable never travels twice.

The installer, the source and the HTTP are the production code, the server is on loopback; the disk is simulated, and
every cut loses all that was not flushed: the worst that a disk may do to the bytes that were paid for.
"""

from __future__ import annotations

import random

import pytest

from payload import frames, http, install
from payload.bundle import read_header
from payload.errors import PayloadError
from payload.fetch import START_BYTES
from tests.programs.http_source import source
from tests.simulator.disk import Fault, PowerCut, Storage
from tests.unit.payload_samples import FRAME, Sample, believe
from tests.unit.web_server import Breaks, StaticFile, WebServer

pytestmark = [pytest.mark.sweep, pytest.mark.requirement("D7", "M3", "M7"), pytest.mark.fault("S1", "S2", "N3")]

FRAMES = 600
CUTS = 20
RATIO_MAX = 1.6
HEADER_REGION = 64 << 10
ANSWER_BYTES_MAX = 512  # of the header of an answer
ANSWERS_MAX = 4  # in a run without breaks: the first look, the header, the frames


def run(storage: Storage, server: WebServer) -> tuple[int, bool]:
    """One boot's attempt: the bytes that came in, and whether it is done. The target is hashed first: FRAMES reads."""
    disk = storage.disks[0]
    slot = disk.window(2 * HEADER_REGION, FRAMES * FRAME)
    headers = [disk.window(number * HEADER_REGION, HEADER_REGION) for number in (0, 1)]
    file = source(server)
    try:
        header = read_header(file)
        image = believe(header).image("rootfs")
        install.install(slot, headers, file, header, image, target_broken=True)
    except (PowerCut, PayloadError):
        return file.received, False
    finally:
        file.close()
    return file.received, True


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("download"), random.Random(5).randbytes(FRAMES * FRAME))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_broken", [False, True], ids=["a good link", "a link that breaks"])
def test_what_is_durable_never_travels_twice(sample: Sample, seed: int, is_broken: bool) -> None:
    chance = random.Random(seed)
    size = 2 * HEADER_REGION + FRAMES * FRAME
    storage = Storage(images=[bytes(size)])
    file = Breaks(sample.content, after=700_000) if is_broken else StaticFile(sample.content)
    received, cuts, done = 0, 0, False
    with WebServer(file) as server:
        while not done:
            at = [Fault("cut", FRAMES + chance.randrange(50))] if cuts < CUTS else []
            storage = storage.restarted(at)
            came, done = run(storage, server)
            received += came
            cuts += bool(at)
        answers = len(server.requests)
    image = storage.images()[0]
    assert image[2 * HEADER_REGION :] == sample.plain
    assert image[: len(sample.header.raw)] == sample.header.raw
    assert cuts == CUTS
    per_cut = frames.FLUSH_FRAMES * FRAME + http.RECEIVE_BYTES_MAX
    headers = (CUTS + 1) * (len(sample.header.raw) + START_BYTES) + answers * ANSWER_BYTES_MAX
    assert received <= len(sample.content) + CUTS * per_cut + headers
    assert answers <= (CUTS + 1) * ANSWERS_MAX
    assert received < RATIO_MAX * len(sample.content), f"{received / len(sample.content):.2f} times the payload"
