"""Updates from a web server in the running OS: what is fetched, who is asked, and what is refused."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from payload import fetch
from payload.bundle import read_header
from payload.create import BundleInput
from payload.errors import FetchError, PayloadCorruptError, PayloadExpiredError, PayloadUnreadableError
from payload.place import keep, missing
from recovery import asked, download, update
from recovery.asked import Asked
from recovery.pace import PacedReader, Terminal, byte_text, received
from recovery.workshop import Workshop
from tests.simulator.devices import FRAMES, HEADER, RELEASE, Device, FarSource, Kind, Version, believe, factory
from tests.simulator.disk import Storage
from tests.unit.payload_samples import COMPATIBLE, FRAME, BytesReader, Sample, make, mixed_image
from tests.unit.test_recovery_network import config
from tests.unit.web_server import StaticFile, WebServer

pytestmark = [pytest.mark.requirement("M6"), pytest.mark.fault("N1", "N3")]

DAY = 86_400


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp("versions")
    return Kind(tuple(Version(folder, number, number) for number in (1, 2, 3)))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE_SECONDS_FIRST", 0.001)
    monkeypatch.setattr(fetch.pause_seconds, "__defaults__", (0.001, 0.001))


class Unused:
    """Hears which URLs are not used, and why."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}

    def __call__(self, name: str, error: Exception) -> None:
        self.errors[name] = error


def workshop_of(device: Device) -> Workshop:
    device.config["network"] = config()
    workshop = device.workshop()
    workshop.recall(device.journal(look_only=True).record)
    return workshop


def install(device: Device, *urls: str, keep_far: bool = False, unused: Unused | None = None) -> tuple[str, int]:
    """What became of it, and how many bytes came in."""
    workshop = workshop_of(device)
    source = download.find(workshop, urls, unused or Unused()).source
    try:
        return update.update(workshop, device.ledger(), source, keep_far=keep_far), received(source) or 0
    finally:
        source.close()


def slot_region(device: Device, number: int) -> dict[str, int]:
    region: dict[str, int] = device.config["slot"]["rootfs"][str(number)]["region"]
    return region


def test_a_version_streams_into_the_other_slot_and_no_place_is_touched(two: Kind) -> None:
    device = factory(two, installed=1)
    static = StaticFile(two.version(2).content)
    with WebServer(static) as server:
        assert install(device, server.url)[0] == update.INSTALLED
    assert device.whole_slot(1) == two.version(2)
    assert device.whole_places() == [two.version(1)]
    assert static.sent <= len(two.version(2).content), "nothing comes twice, the header neither"
    device.boot()
    assert update.commit(device.workshop(), device.ledger()).floor == 1, "no bundle of 2 is here to go back to"


def test_the_whole_bundle_is_kept_where_that_is_asked_for(two: Kind) -> None:
    device = factory(two, installed=1)
    with WebServer(StaticFile(two.version(2).content)) as server:
        assert install(device, server.url, keep_far=True)[0] == update.INSTALLED
    assert (device.whole_slot(1), two.version(2) in device.whole_places()) == (two.version(2), True)


def test_a_long_header_comes_once(two: Kind, tmp_path: Path) -> None:
    fields = BundleInput(COMPATIBLE, 9, "9.0", RELEASE, ())
    static = StaticFile(make(tmp_path, random.Random(9).randbytes(200 * FRAME), fields=fields)[0].read_bytes())
    with WebServer(static) as server:
        found = download.find(workshop_of(factory(two, installed=1)), [server.url], Unused())
        assert len(found.header.raw) > HEADER
        assert read_header(found.source).raw == found.header.raw
        assert static.sent == len(found.header.raw)
        found.source.close()


@pytest.mark.parametrize("keep_far", [True, False])
def test_what_runs_already_is_fetched_only_to_be_kept(two: Kind, keep_far: bool) -> None:
    device = factory(two, installed=1, kept=())
    static = StaticFile(two.version(1).content)
    with WebServer(static) as server:
        assert install(device, server.url, keep_far=keep_far)[0] == update.CURRENT
    assert device.whole_places() == ([two.version(1)] if keep_far else [])
    assert (static.sent > HEADER) is keep_far


def test_one_slot_gets_the_whole_bundle_into_a_place_and_recovery_installs_it(two: Kind) -> None:
    device = factory(replace(two, slots=1), installed=1)
    with WebServer(StaticFile(two.version(2).content)) as server:
        assert install(device, server.url)[0] == update.STAGED
    assert device.boot().installed.version == 2


@pytest.mark.requirement("M7")
def test_what_a_place_got_before_a_break_does_not_come_again(tmp_path: Path) -> None:
    sample = Sample(tmp_path, random.Random(5).randbytes(40 * FRAME))
    storage = Storage([1 << 20])
    broken = FarSource(BytesReader(sample.content[: HEADER + 25 * FRAME + 7]))
    broken._reader = _Claims(broken._reader, len(sample.content))
    with pytest.raises(PayloadUnreadableError):
        keep(storage.disks[0], broken, sample.header, sample.manifest)
    rest = FarSource(BytesReader(sample.content))
    assert keep(storage.disks[0], rest, sample.header, sample.manifest) > 0
    assert sum(length for _offset, length in rest.read_ranges) == 15 * FRAME
    assert not missing(storage.disks[0], sample.header, sample.manifest, lambda *_: None)


class _Claims:
    """Has fewer bytes than it says: a connection that breaks."""

    def __init__(self, reader: object, size: int) -> None:
        self._reader = reader
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        assert isinstance(self._reader, BytesReader)
        if offset + length > self._reader.size:
            raise FetchError("the connection broke")
        return self._reader.read(offset, length)


def test_frames_of_any_length_find_their_place(tmp_path: Path) -> None:
    """Stored frames begin at any byte, and a medium is written in whole units."""
    sample = Sample(tmp_path, mixed_image(30))
    storage = Storage([1 << 20])
    keep(storage.disks[0], FarSource(BytesReader(sample.content)), sample.header, sample.manifest)
    assert storage.disks[0].peek(0, len(sample.content)) == sample.content


def test_a_place_takes_no_wrong_frame_from_afar(tmp_path: Path) -> None:
    sample = Sample(tmp_path, mixed_image(30))
    storage = Storage([1 << 20])
    keep(storage.disks[0], BytesReader(sample.content), sample.header, sample.manifest)
    storage.disks[0].rot(HEADER + 5, 1)
    wrong = FarSource(BytesReader(sample.content[:HEADER] + bytes(len(sample.content) - HEADER)))
    with pytest.raises(PayloadCorruptError):
        keep(storage.disks[0], wrong, sample.header, sample.manifest)
    assert storage.disks[0].peek(HEADER + FRAME, FRAME) == sample.content[HEADER + FRAME :][:FRAME]


@pytest.mark.requirement("M7")
def test_a_broken_download_goes_on_where_it_broke(two: Kind) -> None:
    device = factory(two, installed=1)
    content = two.version(2).content
    with WebServer(StaticFile(content)) as server:
        workshop = workshop_of(device)
        source = download.find(workshop, [server.url], Unused()).source
        server.answer = lambda *_: False
        with pytest.raises(PayloadUnreadableError) as error:
            update.update(workshop, device.ledger(), source)
        source.close()
        assert error.value.reason == "server-unreachable"
        assert device.journal(look_only=True).record.target.digest == two.version(2).manifest.digest
        server.answer = StaticFile(content)
        assert install(device, server.url)[0] == update.INSTALLED
    assert device.whole_slot(1) == two.version(2)


@pytest.mark.requirement("M3")
def test_old_content_is_not_fetched(tmp_path: Path) -> None:
    """Version 2 differs in one frame of version 1, and its bundle knows that."""
    old, new = Noise(tmp_path, 1), Noise(tmp_path, 2, tmp_path / "v1.ubk")
    device = factory(Kind((old, new)), installed=1, kept=())
    with WebServer(StaticFile(new.content)) as server:
        outcome, came = install(device, server.url)
    assert outcome == update.INSTALLED
    assert device.whole_slot(1) == new
    assert came < len(new.content) - 2 * FRAME


class Noise(Version):
    """Its first frames are ``shared`` with every version, the others its own; for devices with the ``old`` ones."""

    def __init__(self, folder: Path, number: int, *old: Path, shared: int = FRAMES - 1) -> None:
        own = random.Random(number).randbytes((FRAMES - shared) * FRAME)
        self.plain = random.Random(0).randbytes(shared * FRAME) + own
        fields = BundleInput(COMPATIBLE, number, f"{number}.0", RELEASE, (), old_versions=old)
        path, _created = make(folder, self.plain, name=f"v{number}", fields=fields)
        self.content = path.read_bytes()
        self.header = read_header(BytesReader(self.content))
        self.manifest = believe(self.header)
        self.number = number


@pytest.mark.fault("T3")
def test_what_has_expired_is_refused_from_a_server_and_taken_as_a_file(two: Kind, tmp_path: Path) -> None:
    device, expired = factory(two, installed=1), expired_version(tmp_path)
    journal = device.journal()
    journal.persist(journal.record.but(clock_floor=2 * DAY))
    with WebServer(StaticFile(expired)) as server:
        with pytest.raises(PayloadExpiredError):
            download.find(workshop_of(device), [server.url], Unused())
        far = FarSource(BytesReader(expired))
        with pytest.raises(PayloadExpiredError):
            update.update(device.workshop(), device.ledger(), PacedReader(far, 0))
    assert update.update(device.workshop(), device.ledger(), BytesReader(expired)) == update.INSTALLED


def expired_version(folder: Path, version: int = 2) -> bytes:
    fields = BundleInput(COMPATIBLE, version, f"{version}.0", RELEASE, (), signed_at=0, expires_at=DAY)
    return make(folder, mixed_image(FRAMES, version), name="expired", fields=fields)[0].read_bytes()


@pytest.mark.fault("N6")
def test_the_newest_of_several_is_taken_and_a_lying_mirror_costs_nothing_but_time(two: Kind) -> None:
    device, unused = factory(two, installed=1), Unused()
    lies = bytearray(two.version(3).content)
    lies[HEADER:] = bytes(len(lies) - HEADER)
    liar, honest = StaticFile(bytes(lies)), StaticFile(two.version(3).content)
    older, damaged = StaticFile(two.version(2).content), StaticFile(b"nothing" * 4096)
    with WebServer(liar) as first, WebServer(honest) as second, WebServer(older) as third, WebServer(damaged) as fourth:
        urls = (first.url, second.url, third.url, fourth.url, "http://127.0.0.1:1/os.ubk")
        assert install(device, *urls, unused=unused)[0] == update.INSTALLED
    assert device.whole_slot(1) == two.version(3)
    assert (liar.sent > HEADER, honest.sent > HEADER) == (True, True)
    assert set(unused.errors) == {fourth.url, urls[-1]}


def test_no_server_is_an_error_with_its_reason(two: Kind) -> None:
    with pytest.raises(FetchError) as error:
        install(factory(two, installed=1), "http://127.0.0.1:1/os.ubk")
    assert error.value.reason == "server-unreachable"


def test_https_is_refused_where_the_image_has_none(two: Kind) -> None:
    with pytest.raises(FetchError, match="https is not part of this image"):
        install(factory(two, installed=1), "https://127.0.0.1:1/os.ubk")


def test_a_rate_limit_counts_what_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("recovery.pace.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("recovery.pace.time.sleep", slept.append)
    source = _Counted()
    reader = PacedReader(source, 100)
    for _ in range(3):
        reader.read(0, 50)
    assert slept == [2.0, 4.0], "headers of HTTP count, too"


class _Counted(BytesReader):
    def __init__(self) -> None:
        super().__init__(bytes(1000))
        self.received = 0

    def read(self, offset: int, length: int) -> bytes:
        self.received += 200
        return super().read(offset, length)


def test_progress_says_how_much_came_in(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(sys.stderr)
    terminal.watch = BytesReader(b"")
    terminal("write", 1, 1)
    assert "fetched" not in capsys.readouterr().err
    terminal.watch = _Counted()
    terminal.watch.read(0, 1)
    terminal("write", 1, 1)
    assert capsys.readouterr().err.endswith("100%   200 bytes fetched\n")
    assert [byte_text(count) for count in (1 << 10, 3 << 19, 5 << 30)] == ["1.0 KiB", "1.5 MiB", "5.0 GiB"]


def test_what_was_asked_for_is_remembered(tmp_path: Path) -> None:
    path = str(tmp_path / "made" / "source")
    assert asked.recall(path) is None
    wanted = Asked(["http://one/a", "HTTPS://two/a"], keep=True, rate_limit=5)
    asked.remember(path, wanted)
    found = asked.recall(path)
    assert found is not None
    assert (found.where, found.keep, found.again, found.rate_limit) == (wanted.where, True, False, 5)
    assert found.is_there
    assert not Asked(["absent"]).is_there
    assert Asked(["here"]).where[0].startswith("/")
    asked.forget(path)
    assert asked.recall(path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '"x"',
        '{"where": ["x"]}',
        "[" * 9999,
        '{"where": [1], "keep": false, "again": false, "one_way": false, "rate_limit": 0}',
    ],
)
def test_what_is_no_memory_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "source").write_text(text)
    assert asked.recall(str(tmp_path / "source")) is None
