"""A second reader, written from docs/SPEC.md alone, and production: they take the same bundles and the same bytes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from payload.bundle import read_header
from payload.errors import PayloadError
from payload.frames import FrameReader
from payload.root_files import pinned_by
from payload.trust import Trusted, verify
from tests.fuzz.bundle_cases import make_case
from tests.ubk_reader import Device, Known, RefusedError, taken
from tests.unit.payload_samples import BytesReader

SHARE = 5_000

Answer = tuple[dict[str, bytes], Known]


def production(bundle: bytes, device: Device, folder: Path) -> Answer:
    """What `payload` makes of it. Raises ``PayloadError``."""
    pinned = folder / "pinned"
    pinned.write_bytes(device.pinned)
    trusted = Trusted(pinned_by(pinned, device.compatible), device.floor, device.clock_floor)
    reader = BytesReader(bundle)
    header = read_header(reader)
    manifest, trusted = verify(header, trusted, device.compatible, device.kernel_release, network=device.network)
    images = {}
    for image in manifest.images:
        frames = FrameReader(reader, len(header.raw), image.frames())
        images[image.slot_class] = b"".join(frames.frame(index) for index in range(len(frames.table)))
    return images, Known(trusted.root.text, trusted.floor, trusted.clock_floor)


def compare(first: int, count: int, folder: Path) -> Counter[str]:
    """How often each answer was given; both readers gave the same one."""
    answers: Counter[str] = Counter()
    for number in range(first, first + count):
        bundle, device = make_case(number)
        ours: Answer | None = None
        theirs: Answer | None = None
        reason = "taken"
        try:
            ours = production(bundle, device, folder)
        except PayloadError as error:
            reason = error.reason
        try:
            theirs = taken(bundle, device)
        except RefusedError as error:
            assert ours is None, f"case {number}: only production takes it: {error.__cause__}"
        assert ours == theirs, f"case {number}: production says {reason}"
        answers[reason] += 1
    return answers


@pytest.mark.requirement("D6", "M6")
def test_both_readers_give_the_same_answer(tmp_path: Path) -> None:
    answers = compare(0, 2500, tmp_path)
    assert answers["taken"] > 350, answers
    assert len(answers) >= 17, answers  # nearly every reason there is


@pytest.mark.long
def test_both_readers_give_the_same_answer_to_many(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        runs = []
        for first in range(0, 200_000, SHARE):
            folder = tmp_path / str(first)
            folder.mkdir()
            runs.append(pool.submit(compare, first, SHARE, folder))
        assert sum(sum(run.result().values()) for run in runs) == 200_000
