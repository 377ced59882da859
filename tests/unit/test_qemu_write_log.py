"""The write log: what is read from it, what is refused, and the images that are built from it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu.errors import WriteLogError
from qemu.sparse_copy import copy_image
from qemu.write_log import Flag, WriteLog, crash_image, lost_sets, replay

SECTOR = 512
DISK_SECTORS = 16
Request = tuple[int, bytes, int]  # sector, data, flags

WRITE = 0
files_of_one_test = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


def sector_of(letter: str, count: int = 1) -> bytes:
    return letter.encode() * SECTOR * count


def log_bytes(requests: list[Request], count: int | None = None) -> bytes:
    """A log as the emulator writes it."""
    parts = [struct.pack("<QQQI", 0x6A736677736872, 1, len(requests) if count is None else count, SECTOR)]
    for sector, data, flags in requests:
        parts += [struct.pack("<QQQQ", sector, len(data) // SECTOR, flags, 0), data]
    return b"".join(part + bytes(-len(part) % SECTOR) for part in parts)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(sector_of(".", DISK_SECTORS))
    return path


def read_log(tmp_path: Path, content: bytes) -> WriteLog:
    path = tmp_path / "log"
    path.write_bytes(content)
    return WriteLog.read(path)


def letters(image: Path) -> str:
    """The first byte of every sector."""
    return image.read_bytes()[::SECTOR].decode()


REQUESTS: list[Request] = [
    (0, sector_of("A", 2), WRITE),
    (0, b"", Flag.FLUSH),
    (4, sector_of("B"), WRITE),
    (5, sector_of("C"), Flag.FUA),
    (0, sector_of("D"), WRITE),
]


def test_entries_say_where_and_what(tmp_path: Path) -> None:
    log = read_log(tmp_path, log_bytes(REQUESTS))
    assert [(entry.offset, entry.length, entry.flags) for entry in log.entries] == [
        (0, 1024, Flag(0)),
        (0, 0, Flag.FLUSH),
        (2048, 512, Flag(0)),
        (2560, 512, Flag.FUA),
        (0, 512, Flag(0)),
    ]


def test_what_no_flush_has_followed_is_not_durable(tmp_path: Path) -> None:
    log = read_log(tmp_path, log_bytes(REQUESTS))
    assert [log.not_durable(upto) for upto in range(6)] == [(), (0,), (), (2,), (2,), (2, 4)]


def test_a_flush_with_data_does_not_cover_its_own_data(tmp_path: Path) -> None:
    log = read_log(tmp_path, log_bytes([(1, sector_of("A"), WRITE), (2, sector_of("B"), Flag.FLUSH)]))
    assert log.not_durable(2) == (1,)


def test_a_power_cut_loses_all_that_was_not_durable(tmp_path: Path, base: Path) -> None:
    log = read_log(tmp_path, log_bytes(REQUESTS))
    crash_image(log, base, tmp_path / "crashed")
    assert letters(tmp_path / "crashed") == "AA...C.........."
    crash_image(log, base, tmp_path / "crashed", lose={2})
    assert letters(tmp_path / "crashed") == "DA...C.........."
    crash_image(log, base, tmp_path / "crashed", upto=3, lose=())
    assert letters(tmp_path / "crashed") == "AA..B..........."


def test_what_was_durable_cannot_be_lost_or_torn(tmp_path: Path, base: Path) -> None:
    log = read_log(tmp_path, log_bytes(REQUESTS))
    with pytest.raises(WriteLogError, match=r"cannot be lost or torn: \[0, 3\]"):
        crash_image(log, base, tmp_path / "crashed", lose={0, 3, 4})
    with pytest.raises(WriteLogError, match=r"cannot be lost or torn: \[1\]"):
        crash_image(log, base, tmp_path / "crashed", tear={1: 512})


def test_a_torn_write_arrives_up_to_a_sector(tmp_path: Path, base: Path) -> None:
    log = read_log(tmp_path, log_bytes([(3, sector_of("A", 4), WRITE)]))
    crash_image(log, base, tmp_path / "crashed", tear={0: 1024})
    assert letters(tmp_path / "crashed") == "...AA..........."
    with pytest.raises(WriteLogError, match="multiples of 512"):
        crash_image(log, base, tmp_path / "crashed", tear={0: 100})


def test_a_sweep_can_go_on_from_a_later_base(tmp_path: Path, base: Path) -> None:
    log = read_log(tmp_path, log_bytes(REQUESTS))
    replay(log, base, tmp_path / "later", upto=2)
    replay(log, tmp_path / "later", tmp_path / "whole", start=2)
    replay(log, base, tmp_path / "at once")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "at once").read_bytes()


def test_a_discard_has_no_data_in_the_log_and_reads_as_zeros(tmp_path: Path, base: Path) -> None:
    content = log_bytes([(1, b"", WRITE), (8, sector_of("Z"), WRITE)])
    discard = struct.pack("<QQQQ", 1, 3, Flag.DISCARD, 0)
    log = read_log(tmp_path, content[:SECTOR] + discard + content[SECTOR + len(discard) :])
    replay(log, base, tmp_path / "out")
    assert letters(tmp_path / "out") == ".\0\0\0....Z......."


def test_a_log_of_a_larger_disk_is_refused(tmp_path: Path, base: Path) -> None:
    log = read_log(tmp_path, log_bytes([(DISK_SECTORS - 1, sector_of("A", 2), WRITE)]))
    with pytest.raises(WriteLogError, match="entry 0 ends behind"):
        replay(log, base, tmp_path / "out")


def test_a_prefix_longer_than_the_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteLogError, match="no prefix of 6 entries"):
        read_log(tmp_path, log_bytes(REQUESTS)).not_durable(6)


def test_every_truncated_log_is_refused(tmp_path: Path) -> None:
    content = log_bytes(REQUESTS)
    for length in range(0, len(content), 64):
        with pytest.raises(WriteLogError, match=r"cut short|no write log"):
            read_log(tmp_path, content[:length])


def test_an_entry_that_was_never_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteLogError, match="entry 5 is damaged"):
        read_log(tmp_path, log_bytes(REQUESTS, count=6) + bytes(SECTOR))


def test_a_log_of_absurd_length_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(WriteLogError, match="entries are more than"):
        read_log(tmp_path, log_bytes(REQUESTS, count=1 << 60))


@files_of_one_test
@given(bit=st.integers(0, len(log_bytes(REQUESTS)) * 8 - 1))
def test_a_flipped_bit_gives_a_log_or_a_clear_error(tmp_path: Path, base: Path, bit: int) -> None:
    damaged = bytearray(log_bytes(REQUESTS))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        log = read_log(tmp_path, bytes(damaged))
        replay(log, base, tmp_path / "out")
    except WriteLogError as error:
        assert str(tmp_path / "log") in str(error)
    else:
        assert (tmp_path / "out").stat().st_size == DISK_SECTORS * SECTOR


@pytest.mark.parametrize("byte", [0, 9, 24, SECTOR + 23, SECTOR + 24, SECTOR + 40, 2 * SECTOR - 1])
def test_damage_that_makes_an_entry_impossible_is_seen(tmp_path: Path, byte: int) -> None:
    damaged = bytearray(log_bytes(REQUESTS))
    damaged[byte] ^= 0x81
    with pytest.raises(WriteLogError):
        read_log(tmp_path, bytes(damaged))


requests = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, DISK_SECTORS - 4),
            st.tuples(st.sampled_from("ABCDEFG"), st.integers(1, 4)).map(lambda pair: sector_of(*pair)),
            st.sampled_from([WRITE, WRITE, WRITE, int(Flag.FUA)]),
        ),
        st.just((0, b"", int(Flag.FLUSH))),
    ),
    max_size=12,
)


@files_of_one_test
@given(made=requests, data=st.data())
def test_crash_images_are_those_of_a_simple_model(
    tmp_path: Path, base: Path, made: list[Request], data: st.DataObject
) -> None:
    log = read_log(tmp_path, log_bytes(made))
    upto = data.draw(st.integers(0, len(made)))
    volatile = log.not_durable(upto)
    lose = data.draw(st.sets(st.sampled_from(volatile))) if volatile else set()
    model = bytearray(base.read_bytes())
    for number, (sector, content, _) in enumerate(made[:upto]):
        if number not in lose:
            model[sector * SECTOR : sector * SECTOR + len(content)] = content
    crash_image(log, base, tmp_path / "crashed", upto, lose)
    assert (tmp_path / "crashed").read_bytes() == bytes(model)


def test_few_candidates_give_every_subset() -> None:
    assert len(set(lost_sets([3, 5, 8], 8))) == 8


def test_many_candidates_give_the_telling_sets_first_and_the_same_ones_again() -> None:
    sets = list(lost_sets(range(40), 100, seed=7))
    assert len(set(sets)) == 100
    assert sets[:4] == [frozenset(range(40)), frozenset(), frozenset({0}), frozenset(range(1, 40))]
    assert sets == list(lost_sets(range(40), 100, seed=7))


def test_holes_stay_holes(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    with base.open("wb") as image:
        image.truncate(1 << 30)
        image.seek(700 << 20)
        image.write(b"far")
    copy_image(base, out)
    zeros = read_log(tmp_path, log_bytes([(2048, bytes(SECTOR * 2048), WRITE)]))
    replay(zeros, base, out)
    assert out.stat().st_size == 1 << 30
    assert out.stat().st_blocks * 512 <= 64 * 1024
    with out.open("rb") as image:
        image.seek(700 << 20)
        assert image.read(4) == b"far\0"
