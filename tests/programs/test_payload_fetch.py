"""Downloads from servers that are slow, broken, hostile or just plain: what arrives is right, or an error in time."""

from __future__ import annotations

import random
import socket
import time

import pytest

from payload import fetch
from payload.errors import (
    FetchError,
    PayloadChangedError,
    ServerMisbehavesError,
    ServerRefusedError,
    ServerStalledError,
    ServerUnreachableError,
)
from payload.fetch import HttpSource, pause_seconds
from payload.http import Limits
from tests.programs.http_source import OF_ONE_LOOK, Slept, client, source
from tests.unit.web_server import Answer, Breaks, Request, StaticFile, WebServer, head, raw

pytestmark = pytest.mark.requirement("D7", "M3")

CONTENT = random.Random(7).randbytes(300_000)
HASTY = Limits(silence_seconds=0.3, window_seconds=0.3, rate_bytes_per_second_min=1000)


def test_any_part_of_a_file() -> None:
    with WebServer(StaticFile(CONTENT)) as server:
        file = source(server)
        assert file.size == len(CONTENT)
        assert file.name == server.url
        chance = random.Random(1)
        for _read in range(50):
            offset = chance.randrange(len(CONTENT))
            length = chance.randrange(20_000)
            assert file.read(offset, length) == CONTENT[offset : offset + length]
        assert {request.connection for request in server.requests} == {1}, "the connection is kept"


def test_announced_neighbours_are_one_request() -> None:
    with WebServer(StaticFile(CONTENT)) as server:
        file = source(server)
        near = [(10_000 + 5_000 * number, 4_000) for number in range(10)]
        far = [(200_000, 5_000), (205_000, 5_000)]
        file.announce([*near, *far])
        for offset, length in [*near, *far]:
            assert file.read(offset, length) == CONTENT[offset : offset + length]
        assert server.ranges[1:] == [(10_000, 58_999), (200_000, 209_999)]


def test_two_parts_of_the_file_that_are_read_in_turn_are_a_request_each() -> None:
    """As plain frames among frames that are made of the delta part."""
    answer = StaticFile(CONTENT)
    with WebServer(answer) as server:
        file = source(server)
        plain = [(10_000 + 5_000 * number, 5_000) for number in range(8)]
        delta = [(200_000 + 3_000 * number, 3_000) for number in range(8)]
        in_turn = [one for pair in zip(plain, delta, strict=True) for one in pair]
        file.announce(in_turn)
        for offset, length in in_turn:
            assert file.read(offset, length) == CONTENT[offset : offset + length]
        assert server.ranges[1:] == [(10_000, 49_999), (200_000, 223_999)]
        assert answer.sent == OF_ONE_LOOK + 64_000


def test_three_parts_of_the_file_that_are_read_in_turn_are_a_request_each() -> None:
    """As plain frames, blocks that an old version has, and blocks that it lacks."""
    answer = StaticFile(CONTENT)
    with WebServer(answer) as server:
        file = source(server)
        parts = [[(start + 3_000 * number, 3_000) for number in range(8)] for start in (10_000, 100_000, 200_000)]
        in_turn = [one for together in zip(*parts, strict=True) for one in together]
        file.announce(in_turn)
        for offset, length in in_turn:
            assert file.read(offset, length) == CONTENT[offset : offset + length]
        assert server.ranges[1:] == [(10_000, 33_999), (100_000, 123_999), (200_000, 223_999)]
        assert answer.sent == OF_ONE_LOOK + 72_000


def test_runs_before_what_came_already_are_one_request_each() -> None:
    with WebServer(StaticFile(CONTENT)) as server:
        file = source(server)
        order = [(10_000, 5_000), (200_000, 3_000), (50_000, 5_000), (55_000, 5_000), (60_000, 5_000), (250_000, 3_000)]
        file.announce(order)
        for offset, length in order:
            assert file.read(offset, length) == CONTENT[offset : offset + length]
        assert server.ranges[1:] == [(10_000, 14_999), (200_000, 202_999), (50_000, 64_999), (250_000, 252_999)]


def test_a_frame_that_is_shared_does_not_disturb_what_was_announced() -> None:
    answer = StaticFile(CONTENT)
    with WebServer(answer) as server:
        file = source(server)
        order = [(10_000, 9_000), (19_000, 9_000), (10_000, 9_000), (28_000, 9_000), (12_000, 10), (37_000, 9_000)]
        file.announce(order)
        for offset, length in order:
            assert file.read(offset, length) == CONTENT[offset : offset + length]
        assert sorted(server.ranges[1:]) == [(10_000, 18_999), (10_000, 45_999), (12_000, 12_009)]
        assert answer.sent == OF_ONE_LOOK + 36_000 + 9_000 + 10


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_both_families(family: int) -> None:
    with WebServer(StaticFile(CONTENT), family) as server:
        assert source(server).read(5_000, 10) == CONTENT[5_000:5_010]


def test_a_server_without_ranges_is_read_once_from_its_start() -> None:
    answer = StaticFile(CONTENT)
    answer.has_ranges = False
    with WebServer(answer) as server:
        file = source(server)
        for offset in range(0, 290_000, 30_000):
            assert file.read(offset, 5_000) == CONTENT[offset : offset + 5_000]
        assert len(server.requests) == 1


def test_a_server_without_ranges_is_read_again_for_what_lies_behind() -> None:
    answer = StaticFile(CONTENT)
    answer.has_ranges = False
    with WebServer(answer) as server:
        file = source(server)
        for offset in (250_000, 8_000, 260_000, 20_000):
            assert file.read(offset, 5_000) == CONTENT[offset : offset + 5_000]
        assert len(server.requests) == 2, "what is announced and what is not have a connection each"


@pytest.mark.fault("N3", "N5")
def test_a_server_without_ranges_that_never_gets_there_is_given_up() -> None:
    """What is passed over on the way is no progress."""
    answer = Breaks(CONTENT, after=100_000)
    answer.has_ranges = False
    slept = Slept()
    with WebServer(answer) as server:
        file = HttpSource(client(), server.url, slept)
        with pytest.raises(ServerUnreachableError):
            file.read(250_000, 10)
        assert len(server.requests) == fetch.ROUNDS_MAX


@pytest.mark.fault("N3")
def test_after_a_break_only_what_is_missing_is_asked_for() -> None:
    answer = Breaks(CONTENT, after=50_000)
    with WebServer(answer) as server:
        file = source(server)
        file.announce([(10_000, 280_000)])
        for offset in range(10_000, 290_000, 20_000):
            assert file.read(offset, 20_000) == CONTENT[offset : offset + 20_000]
        starts = [first for first, _last in server.ranges[1:]]
        assert starts == [10_000 + 50_000 * number for number in range(6)]
        assert answer.sent == OF_ONE_LOOK + 280_000, "no byte travels twice"
        assert {request.fields.get("if-range") for request in server.requests[1:]} == {'"one"'}


@pytest.mark.fault("N3")
def test_a_server_that_gets_nowhere_is_given_up_after_pauses() -> None:
    slept = Slept()
    with WebServer(StaticFile(CONTENT)) as server:
        file = source(server, slept)
        server.answer = Breaks(CONTENT, after=100)
        with pytest.raises(ServerUnreachableError):
            file.read(10_000, 5_000)
        assert len(server.requests) == 1 + fetch.ROUNDS_MAX
        asked = len(server.requests)
        with pytest.raises(ServerUnreachableError):
            file.read(20_000, 5_000)
        assert len(server.requests) == asked, "from now on it fails at once"
    assert [round(pause * 2) >= 2**number for number, pause in enumerate(slept.pauses)] == [True] * 3
    assert sum(slept.pauses) < 7.1


@pytest.mark.fault("N1")
def test_a_server_that_goes_away_and_comes_back() -> None:
    with WebServer(StaticFile(CONTENT)) as server, WebServer(StaticFile(CONTENT)) as second:
        file = source(server)
        server.stop()
        with pytest.raises(ServerUnreachableError):
            file.read(10_000, 10)
        assert source(second).read(10_000, 10) == CONTENT[10_000:10_010]


@pytest.mark.fault("N2")
@pytest.mark.parametrize("in_header", [True, False], ids=["header", "body"])
def test_a_drip_is_given_up(in_header: bool) -> None:
    """Each byte comes in time, and the whole never would."""

    def drip(connection: socket.socket, request: Request) -> bool:
        answer = StaticFile(CONTENT)
        header = answer.header(request)
        connection.sendall(b"" if in_header else header)
        for number in range(5000):
            connection.sendall((header if in_header else CONTENT)[number : number + 1])
            time.sleep(0.02)
        return False

    with WebServer(drip) as server:
        started = time.monotonic()
        with pytest.raises(ServerStalledError):
            HttpSource(client(HASTY), server.url)
        assert time.monotonic() - started < 10.0


@pytest.mark.fault("N2")
def test_silence_is_given_up() -> None:
    def silent(connection: socket.socket, request: Request) -> bool:
        connection.sendall(StaticFile(CONTENT).header(request))
        time.sleep(10)
        return False

    with WebServer(silent) as server, pytest.raises(ServerStalledError):
        HttpSource(client(HASTY), server.url)


@pytest.mark.fault("N5")
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (raw(b"\0" * 65536, repeat=True), ServerMisbehavesError),
        (raw(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 4096, repeat=True), ServerMisbehavesError),
        (raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", repeat=True), ServerMisbehavesError),
        (raw(b"HTTP/1.1 100 Continue\r\n\r\n", repeat=True), ServerMisbehavesError),
        (raw(head(302, Location="/again", Content_Length=0), stays=True), ServerMisbehavesError),
        (raw(head(302, Content_Length=0)), ServerMisbehavesError),
        (raw(head(302, Location="ftp://elsewhere/")), ServerMisbehavesError),
        (raw(head(302, Location="http://a b/")), ServerMisbehavesError),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), ServerMisbehavesError),
        (raw(head(206, Content_Length=10, Content_Range="bytes 5-14/100")), ServerMisbehavesError),
        (raw(head(206, Content_Length=5000, Content_Range="bytes 0-4999/10000")), ServerMisbehavesError),
        (raw(head(206, Content_Length=10, Content_Range="bytes 0-4095/10000")), ServerMisbehavesError),
        (raw(head(206, Content_Length=4096, Content_Range="bytes 0-4095/100")), ServerMisbehavesError),
        (raw(head(206, Content_Length=10)), ServerMisbehavesError),
        (raw(head(206, Content_Length=10, Content_Type="multipart/byteranges")), ServerMisbehavesError),
        (raw(head(200, Content_Length="-1")), ServerMisbehavesError),
        (raw(head(200, Content_Length="1" * 30)), ServerMisbehavesError),
        (raw(head(200, Content_Length="5, 6")), ServerMisbehavesError),
        (raw(head(200, Content_Length=5, Transfer_Encoding="chunked")), ServerMisbehavesError),
        (raw(head(200, Transfer_Encoding="gzip, chunked")), ServerMisbehavesError),
        (raw(head(200, Content_Length=5, Content_Encoding="gzip")), ServerMisbehavesError),
        (raw(head(200, Transfer_Encoding="chunked"), b"fffffffffffffffffffff\r\n"), ServerMisbehavesError),
        (raw(head(200, Transfer_Encoding="chunked"), b"-5\r\n"), ServerMisbehavesError),
        (raw(head(200, Transfer_Encoding="chunked"), b"1;", b"x" * 4096, repeat=True), ServerMisbehavesError),
        (raw(head(200, Transfer_Encoding="chunked"), b"1\r\nab\r\n"), ServerMisbehavesError),
        (raw(head(200, Transfer_Encoding="chunked"), b"0\r\n", b"X: y\r\n", repeat=True), ServerMisbehavesError),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n"), ServerMisbehavesError),
        (raw(b"HTTP/1.1 200 OK\r\n folded\r\n\r\n"), ServerMisbehavesError),
        (raw(head(304), stays=True), ServerRefusedError),
        (raw(head(404, Content_Length=0)), ServerRefusedError),
        (raw(head(416, Content_Length=0)), ServerRefusedError),
        (raw(head(503, Content_Length=0)), ServerRefusedError),
        (raw(b""), ServerUnreachableError),
        (raw(b"HTTP/1.1 200"), ServerUnreachableError),
        (raw(head(200, Content_Length=10), b"abc"), ServerUnreachableError),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error_in_time(answer: Answer, error: type[FetchError]) -> None:
    with WebServer(answer) as server, pytest.raises(error):
        source(server)


@pytest.mark.fault("N5")
def test_data_without_end_is_read_as_far_as_it_is_wanted() -> None:
    with WebServer(raw(head(200), b"z" * 4096, repeat=True)) as server:
        file = source(server)
        assert file.read(100_000, 1_000) == b"z" * 1_000
        assert file.received < 1_000_000
        file.close()


def test_chunks_of_a_file_whose_size_is_not_said() -> None:
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (1000, CONTENT[at : at + 1000]) for at in range(0, 50_000, 1000))
    with WebServer(raw(head(200, Transfer_Encoding="chunked"), chunks, b"0\r\nTrailer: 1\r\n\r\n")) as server:
        file = source(server)
        assert file.read(7_500, 2_000) == CONTENT[7_500:9_500]
        assert file.read(49_000, 2_000) == CONTENT[49_000:50_000], "it ends where it ends"
        assert file.size == 50_000


@pytest.mark.fault("N3")
def test_a_file_that_changes_is_an_error_and_no_mixture() -> None:
    answer = Breaks(CONTENT, after=30_000, times=1)
    with WebServer(answer) as server:
        file = source(server)
        file.announce([(0, 200_000)])
        file.read(5_000, 1_000)
        answer.etag, answer.content = '"two"', bytes(len(CONTENT))
        with pytest.raises(PayloadChangedError):
            file.read(10_000, 100_000)


def test_a_server_that_ignores_if_range_is_seen_through() -> None:
    class Ignores(StaticFile):
        def span(self, request: Request) -> tuple[int, int, bool]:
            request.fields.pop("if-range", None)
            return super().span(request)

    answer = Ignores(CONTENT)
    with WebServer(answer) as server:
        file = source(server)
        answer.etag = '"two"'
        with pytest.raises(PayloadChangedError):
            file.read(10_000, 100)


def test_a_few_redirects_are_followed_and_remembered() -> None:
    static = StaticFile(CONTENT)

    def moved(connection: socket.socket, request: Request) -> bool:
        hop = int(request.target.partition("hop=")[2] or 0)
        if hop == fetch_redirects():
            return static(connection, request)
        connection.sendall(head(302, Location=f"?hop={hop + 1}", Content_Length=0))
        return True

    with WebServer(moved) as server:
        file = source(server)
        assert file.read(100_000, 10) == CONTENT[100_000:100_010]
        assert len(server.requests) == fetch_redirects() + 2
        assert {request.connection for request in server.requests} == {1}


def fetch_redirects() -> int:
    from payload.http_client import REDIRECTS_MAX

    return REDIRECTS_MAX


def test_pauses_grow_to_a_bound_and_differ() -> None:
    assert all(0.5 <= pause_seconds(0) <= 1.0 for _try in range(20))
    assert all(30.0 <= pause_seconds(100) <= 60.0 for _try in range(20))
    assert len({pause_seconds(3) for _try in range(20)}) > 10


def test_somebody_is_told_that_a_long_wait_is_on_purpose() -> None:
    told: list[float] = []
    fetch.Pause(lambda: told.append(time.monotonic()))(0.01)
    assert told


def test_https_without_tls_is_refused() -> None:
    with pytest.raises(ServerRefusedError, match="not part of this image"):
        HttpSource(client(), "https://127.0.0.1:1/os.ubk")
