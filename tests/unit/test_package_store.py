"""Which transactions are kept to be applied again, and that a copy is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packagemanager.store import Store, way_back
from payload.errors import PayloadError
from tests.unit.payload_samples import BytesReader

pytestmark = pytest.mark.requirement("D8")


def kept(folder: Path, *serials: int) -> Store:
    store = Store(str(folder / "packages"))
    for serial in serials:
        content = b"%d" % serial
        store.keep(serial, BytesReader(content), len(content))
    return store


def test_what_is_kept_is_whole_and_listed_by_its_serial(tmp_path: Path) -> None:
    store = kept(tmp_path, 12, 3)
    assert store.serials() == [3, 12]
    assert Path(store.path(12)).read_bytes() == b"12"
    assert Store(str(tmp_path / "nothing")).serials() == []


def test_the_name_of_a_new_folder_is_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    kept(tmp_path, 3)
    assert flushed == [tmp_path, tmp_path / "packages/.3.ubk.new", tmp_path / "packages"]


def test_a_source_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    store = kept(tmp_path, 3)
    with pytest.raises(PayloadError):
        store.keep(4, BytesReader(b"short"), 4096)
    assert store.serials() == [3]


def test_names_that_are_none_of_ours_are_no_transactions(tmp_path: Path) -> None:
    store = kept(tmp_path, 3)
    names = {"04.ubk", "0.ubk", "-5.ubk", "x.ubk", "6", "9" * 40 + ".ubk", "٣.ubk", ".04.ubk.new", ".notes.new"}
    for name in names:
        (tmp_path / "packages" / name).write_bytes(b"")
    for name in ("notes", "7.ubk", ".8.ubk.new"):
        (tmp_path / "packages" / name).mkdir()
    (tmp_path / "packages" / "9.ubk").symlink_to("3.ubk")
    assert store.serials() == [3]
    store.forget_all_but([])
    left = {path.name for path in (tmp_path / "packages").iterdir()}
    assert left == names | {"notes", "7.ubk", ".8.ubk.new", "9.ubk"}


def test_what_is_not_needed_goes_with_what_a_cut_has_left(tmp_path: Path) -> None:
    store = kept(tmp_path, 3, 4, 5)
    (tmp_path / "packages" / ".6.ubk.new").write_bytes(b"")
    store.forget_all_but([4])
    assert [path.name for path in (tmp_path / "packages").iterdir()] == ["4.ubk"]
    Store(str(tmp_path / "nothing")).forget_all_but([4])


def test_the_newest_that_ran_well_is_not_newer_than_is_said(tmp_path: Path) -> None:
    store = kept(tmp_path, 3, 5, 8)
    assert [store.newest(good) for good in (2, 3, 7, 8, 9)] == [0, 3, 5, 8, 8]


@pytest.mark.parametrize(
    ("serials", "good", "complete", "way"),
    [
        ((3,), 3, (3,), [3]),
        ((3, 4, 5), 5, (3,), [3, 4, 5]),
        ((3, 4, 5), 5, (3, 4), [4, 5]),
        ((3, 4, 5, 6), 5, (4, 6), [4, 5]),
        ((3, 4, 5), 5, (), []),
        ((3, 4), 5, (3, 4), []),
        ((), 5, (), []),
    ],
    ids=["one", "a chain", "the shortest chain", "what did not run well is left out", "no start", "no end", "nothing"],
)
def test_the_way_back(serials: tuple[int, ...], good: int, complete: tuple[int, ...], way: list[int]) -> None:
    assert way_back(serials, good, lambda serial: serial in complete) == way
