"""``atomic_replace``: the old content or the new, no matter who writes or what fails."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from payload.durable import atomic_replace


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_content_and_mode_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    previous = os.umask(0o077)
    try:
        atomic_replace(path, b"new", mode=0o640)
    finally:
        os.umask(previous)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["state"]


def test_a_relative_name_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic_replace("state", b"new")
    assert Path("state").read_bytes() == b"new"


def test_a_writer_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        atomic_replace(path, half)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state"]


def test_what_a_cut_left_behind_is_used_again(tmp_path: Path) -> None:
    (tmp_path / ".state.new").write_bytes(b"a long half-written rest of an earlier run")
    atomic_replace(tmp_path / "state", b"new")
    assert (tmp_path / "state").read_bytes() == b"new"
    assert names(tmp_path) == ["state"]


def test_a_symbolic_link_as_temporary_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".state.new").symlink_to(victim)
    with pytest.raises(OSError):
        atomic_replace(tmp_path / "state", b"new")
    assert victim.read_bytes() == b"precious"


def test_many_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = [bytes([letter]) * 50_000 for letter in b"abcd"]

    def write_slowly(file: BinaryIO, content: bytes) -> None:
        for start in range(0, len(content), 10_000):
            file.write(content[start : start + 10_000])
            file.flush()

    def run(content: bytes) -> None:
        for _ in range(20):
            atomic_replace(path, lambda file: write_slowly(file, content))
            assert path.read_bytes() in contents

    failures: list[BaseException] = []

    def guarded(content: bytes) -> None:
        try:
            run(content)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == ["state"]


def test_the_order_of_system_calls_survives_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content is durable before the name moves, and the name before the caller goes on."""
    calls: list[str] = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)

        def record(*arguments: object, _name: str = name, _real: object = real) -> object:
            calls.append(_name)
            return _real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(os, name, record)
    atomic_replace(tmp_path / "state", b"new")
    assert calls == ["fsync", "rename", "fsync"]
