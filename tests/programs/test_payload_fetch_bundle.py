"""Bundles installed from web servers and their mirrors, some of which lie or end: the image is right, or an error."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from payload import fetch, frames
from payload.bundle import read_header
from payload.errors import (
    PayloadCorruptError,
    PayloadUnreadableError,
    ServerMisbehavesError,
    ServerUnreachableError,
)
from payload.fetch import HttpSource, open_sources
from tests.programs.http_source import OF_ONE_LOOK, client, source
from tests.unit.payload_samples import Sample, mixed_image
from tests.unit.web_server import Breaks, StaticFile, WebServer

pytestmark = pytest.mark.requirement("D7", "M3")


def bundle_of(tmp_path: Path, frames_count: int = 30) -> Sample:
    return Sample(tmp_path, mixed_image(frames_count))


def install(file: HttpSource, sample: Sample) -> tuple[bytes, frames.Outcome]:
    """Every frame from ``file`` by the production code: what the target holds then."""
    target = Target(len(sample.plain))
    header = read_header(file)
    reader = frames.FrameReader(file, len(header.raw), sample.image.frames())
    outcome = frames.write(target, reader, range(len(reader.table)))
    return bytes(target.content), outcome


class Target:
    """A region in memory."""

    write_unit = erase_unit = 512

    def __init__(self, size: int) -> None:
        self.size = size
        self.content = bytearray(size)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.content[offset : offset + len(data)] = data

    def flush(self) -> None:
        """It is durable anyway."""


def test_a_bundle_is_installed_from_a_plain_server(tmp_path: Path) -> None:
    sample = bundle_of(tmp_path)
    answer = StaticFile(sample.content)
    with WebServer(answer) as server:
        content, outcome = install(source(server), sample)
    assert content == sample.plain
    assert not outcome.unavailable
    assert answer.sent <= len(sample.content), "no byte travels twice"


@pytest.mark.fault("N4", "N6")
def test_a_mirror_that_lies_is_set_behind_and_another_is_asked(tmp_path: Path) -> None:
    sample = bundle_of(tmp_path)
    lying = bytearray(sample.content)
    for offset in range(8192, len(lying), 50):
        lying[offset] ^= 1
    liar, honest = StaticFile(bytes(lying)), StaticFile(sample.content)
    with WebServer(liar) as first, WebServer(honest) as second:
        found, refused = open_sources([first.url, second.url], client)
        assert not refused
        assert len(found) == 1, "mirrors of one bundle are one source"
        content, outcome = install(found[0], sample)
        assert content == sample.plain
        assert not outcome.unavailable
        assert len(first.requests) <= 4, "who lied is not asked again while another one answers"


@pytest.mark.fault("N4")
def test_a_connection_that_corrupts_once_is_asked_again(tmp_path: Path) -> None:
    class CorruptsOnce(StaticFile):
        def send(self, connection: socket.socket, body: bytes) -> None:
            if len(body) > OF_ONE_LOOK and not corrupted:
                corrupted.append(len(body))
                body = body[:20_000] + bytes(10_000) + body[30_000:]
            super().send(connection, body)

    corrupted: list[int] = []
    sample = bundle_of(tmp_path)
    with WebServer(CorruptsOnce(sample.content)) as server:
        content, outcome = install(source(server), sample)
    assert corrupted
    assert content == sample.plain
    assert not outcome.unavailable


@pytest.mark.fault("N4", "N6")
def test_lies_without_end_end(tmp_path: Path) -> None:
    sample = bundle_of(tmp_path, 300)
    wrong = bytearray(sample.content)
    wrong[len(sample.header.raw) :] = bytes(len(wrong) - len(sample.header.raw))
    with WebServer(StaticFile(bytes(wrong))) as server:
        _content, outcome = install(source(server), sample)
        assert len(outcome.unavailable) == 200, "all but the frames of zeroes"
        assert len(server.requests) < 3 * fetch.LIES_MAX
    errors = list(outcome.unavailable.values())
    assert isinstance(errors[0], PayloadCorruptError)
    assert isinstance(errors[-1], PayloadUnreadableError)
    assert errors[-1].reason == "server-misbehaves"
    tried = sum(isinstance(error, PayloadCorruptError) for error in errors)
    assert tried >= fetch.LIES_MAX // fetch.DOUBTS_MAX, "one bad frame does not use up the patience for the others"


@pytest.mark.fault("N1", "N3")
def test_a_mirror_takes_over_where_another_one_ends(tmp_path: Path) -> None:
    sample = bundle_of(tmp_path)
    dying, other = Breaks(sample.content, after=9_000), StaticFile(sample.content)
    with WebServer(dying) as first, WebServer(other) as second:
        found, _refused = open_sources([first.url, "http://127.0.0.1:1/os.ubk", second.url], client)
        content, outcome = install(found[0], sample)
    assert content == sample.plain
    assert not outcome.unavailable
    assert dying.sent + other.sent <= len(sample.content) + OF_ONE_LOOK


def test_mirrors_with_other_bundles_are_sources_of_their_own(tmp_path: Path) -> None:
    one, two = Sample(tmp_path, mixed_image(5)), Sample(tmp_path, mixed_image(5, seed=2), name="two", version=8)
    with WebServer(StaticFile(one.content)) as first, WebServer(StaticFile(two.content)) as second:
        found, refused = open_sources([first.url, second.url, "http://127.0.0.1:1/", "gopher://x/"], client)
    assert [source.name for source in found] == [first.url, second.url]
    assert [(url, type(error)) for url, error in refused] == [
        ("http://127.0.0.1:1/", ServerUnreachableError),
        ("gopher://x/", ServerMisbehavesError),
    ]
