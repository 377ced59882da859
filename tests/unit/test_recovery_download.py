"""Recovery's own work with what comes over a network: the real workshop on a disk in a file, a server on loopback."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from payload import fetch, install
from payload.bundle import read_header
from payload.create import BundleInput
from recovery import actions
from recovery.network import Network
from recovery.workshop import Workshop, image_of
from statemachine.reasons import CODES
from statemachine.record import Record, Slot
from tests.unit.payload_samples import COMPATIBLE, FRAME, ROOT, BytesReader, make
from tests.unit.test_recovery_network import LoopbackLink, config
from tests.unit.web_server import Answer, Breaks, StaticFile, WebServer

pytestmark = [pytest.mark.requirement("D7"), pytest.mark.fault("N1", "N3", "N4")]

FRAMES = 120  # so that the header is longer than a first look
RUNNING = os.uname().release
SLOT_AT, HEADERS_AT, PAYLOAD_AT, DISK = 1 << 20, (0, 65536), 131072, 2 << 20


class Sample:
    """A bundle of noise, and what it is made of."""

    def __init__(self, folder: Path, version: int, kernel: str) -> None:
        self.plain = random.Random(version).randbytes(FRAMES * FRAME)
        fields = BundleInput(COMPATIBLE, version, f"{version}.0", kernel, ())
        path, _created = make(folder, self.plain, fields=fields, name=f"v{version}")
        self.content = path.read_bytes()
        self.reader = BytesReader(self.content)
        self.header = read_header(self.reader)
        self.manifest = Bench(folder).workshop.believe(self.header)


class Bench:
    """A device whose slot holds nothing, its disk a file."""

    def __init__(self, folder: Path, *urls: str) -> None:
        self.disk = folder / "disk.img"
        self.disk.write_bytes(bytes(DISK))
        slot = {"region": place(SLOT_AT, FRAMES * FRAME), "headers": [place(at, 65536) for at in HEADERS_AT]}
        device: dict[str, Any] = {
            "compatible": COMPATIBLE,
            "slot": {"rootfs": {"0": slot}},
            "payload": {"region": place(PAYLOAD_AT, 65536)},
            "keyring": {"root": ROOT.hex()},
            "network": config(urls=list(urls)),
        }
        self.intents: list[Record] = []
        self.workshop = Workshop(device, str(self.disk), lambda: None, self.intents.append)
        self.link = LoopbackLink()
        self.workshop._network = Network(device["network"], lambda: None, self.workshop._tell, self.link)
        self.record = Record("REINSTALLING", reason=CODES["slot-unreadable"])
        self.workshop.recall(self.record)

    def reinstall(self) -> actions.Result:
        """From servers alone: what is plugged into the machine that runs this is not looked at."""
        self.workshop.recall(self.record)
        found = self.workshop.remote_candidates(self.record)
        try:
            return actions._write(self.workshop, self.record, 0, found, "image_written")
        finally:
            self.workshop.note_received(found)
            self.workshop.close(found)

    def slot(self) -> bytes:
        return self.disk.read_bytes()[SLOT_AT : SLOT_AT + FRAMES * FRAME]


def place(offset: int, size: int) -> dict[str, int]:
    return {"offset": offset, "size": size}


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A bundle for the kernel that runs this."""
    return Sample(tmp_path, 3, RUNNING)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE_SECONDS_FIRST", 0.001)
    monkeypatch.setattr(fetch.pause_seconds, "__defaults__", (0.001, 0.001))


def test_an_empty_slot_is_filled_and_the_intent_comes_first(tmp_path: Path, sample: Sample) -> None:
    with WebServer(StaticFile(sample.content)) as server:
        bench = Bench(tmp_path, server.url)
        event, reason, fields = bench.reinstall()
    assert (event, reason, fields["frames_written"]) == ("image_written", CODES["installed"], FRAMES)
    assert bench.slot() == sample.plain
    roots, target = bench.intents
    assert roots.root_version == 1, "what is believed is kept before anything is done because of it"
    assert target.target.digest == sample.manifest.digest


def test_a_download_that_ends_early_goes_on_at_the_next_look(tmp_path: Path, sample: Sample) -> None:
    dying = Breaks(sample.content, after=10 * FRAME, times=1)

    def then_nothing(*of: Any) -> bool:
        return dying(*of) if dying.times or len(server.requests) <= 3 else False

    with WebServer(then_nothing) as server:
        bench = Bench(tmp_path, server.url)
        assert bench.reinstall()[:2] == ("source_missing", CODES["server-unreachable"])
        assert bench.workshop.of_no_use == set(), "only the way to it failed"
        written = sum(
            bench.slot()[at : at + FRAME] == sample.plain[at : at + FRAME] for at in range(0, FRAMES * FRAME, FRAME)
        )
        assert 0 < written < FRAMES
        whole = StaticFile(sample.content)
        server.answer = whole
        event, _reason, fields = bench.reinstall()
    assert event == "image_written"
    assert fields["frames_written"] == FRAMES - written
    assert whole.sent <= len(sample.content) - written * FRAME
    assert bench.slot() == sample.plain


def test_a_bundle_with_wrong_frames_is_of_no_use_until_it_changes(tmp_path: Path, sample: Sample) -> None:
    wrong = sample.content[:-100] + bytes(100)
    with WebServer(StaticFile(wrong)) as server:
        bench = Bench(tmp_path, server.url)
        assert bench.reinstall()[:2] == ("source_missing", CODES["payload-corrupt"])
        assert bench.workshop.of_no_use == {(server.url, sample.manifest.digest)}


def test_a_page_to_log_in_at_does_not_keep_a_wrong_lease(tmp_path: Path, sample: Sample) -> None:
    with WebServer(StaticFile(b"<html>Welcome</html>" * 1000)) as server:
        bench = Bench(tmp_path, server.url)
        for looks in range(4):
            assert bench.reinstall()[0] == "source_missing"
            assert bench.link.downs == looks, "after every look but the first"
        downs = bench.link.downs
        server.answer = StaticFile(sample.content)
        assert bench.reinstall()[0] == "image_written"
        assert bench.link.downs == downs


def test_a_validator_that_no_request_can_hold_is_none(tmp_path: Path, sample: Sample) -> None:
    """RFC 9110 allows an ETag bytes beyond ASCII."""
    answer = StaticFile(sample.content)
    answer.etag = '"caf\xe9"'
    with WebServer(answer) as server:
        bench = Bench(tmp_path, server.url)
        assert bench.reinstall()[0] == "image_written"
        assert all("if-range" not in request.fields for request in server.requests)


def test_out_of_reach_is_the_reason_where_nothing_else_is_here(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "http://127.0.0.1:1/os.ubk")
    assert bench.reinstall()[:2] == ("source_missing", CODES["server-unreachable"])


@pytest.mark.fault("N6", "T4")
def test_what_servers_offer_is_chosen_as_what_sticks_offer(tmp_path: Path, sample: Sample) -> None:
    newer, other = Sample(tmp_path, 9, RUNNING), Sample(tmp_path, 10, "6.6.6")
    with (
        WebServer(StaticFile(sample.content)) as first,
        WebServer(StaticFile(newer.content)) as second,
        WebServer(StaticFile(other.content)) as third,
    ):
        bench = Bench(tmp_path, first.url, second.url, third.url)

        def versions(record: Record) -> list[int]:
            bench.workshop.recall(record)
            found = bench.workshop.remote_candidates(record)
            bench.workshop.close(found)
            return [one.manifest.version for one in found]

        assert versions(bench.record) == [9, 3]
        assert versions(bench.record.but(floor=5)) == [9]
        assert versions(bench.record.but(floor=10)) == []
        assert versions(bench.record.but(tried=(newer.manifest.digest,))) == [3]
        assert versions(bench.record.but(target=image_of(sample.manifest))) == [3, 9]


@pytest.mark.fault("N4", "N6")
def test_a_damaged_header_is_asked_for_from_another_mirror(tmp_path: Path, sample: Sample) -> None:
    assert len(sample.header.raw) > fetch.START_BYTES
    wrong = bytearray(sample.content)
    wrong[5000] ^= 1

    def lies_later(whole: StaticFile) -> Answer:
        def answer(*of: Any) -> bool:
            whole.content = bytes(wrong) if len(server.requests) > 1 else sample.content
            return whole(*of)

        return answer

    with WebServer(lies_later(StaticFile(sample.content))) as server, WebServer(StaticFile(sample.content)) as honest:
        bench = Bench(tmp_path, server.url, honest.url)
        assert bench.reinstall()[0] == "image_written"
    assert bench.slot() == sample.plain


def test_a_slot_for_another_kernel_is_not_given_up_for_a_promise(tmp_path: Path, sample: Sample) -> None:
    """G4: it may be as good as ever, so every frame is seen to come before the first one is written."""
    installed = Sample(tmp_path, 2, "6.6.6")
    with WebServer(StaticFile(sample.content[:-FRAME] + bytes(FRAME))) as server:
        bench = Bench(tmp_path, server.url)
        bench.record = bench.record.but(slots=(Slot(image_of(installed.manifest)),), reason=CODES["kernel-mismatch"])
        image = installed.manifest.image("rootfs")
        slot, headers = bench.workshop.slots[0].region, bench.workshop.slots[0].headers
        install.install(slot, headers, installed.reader, installed.header, image, target_broken=True)
        assert bench.reinstall()[0] == "source_missing"
        assert bench.slot() == installed.plain, "the server lacked one frame: none was written"
        bench.workshop.slots[0].region.write(0, bytes(FRAME))
        assert bench.reinstall()[0] == "source_missing"
        assert bench.slot()[: 10 * FRAME] == sample.plain[: 10 * FRAME], "what is broken anyway is streamed into"
