"""Deltas: whatever happened from one version to the next, what comes out is the new package, in little memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from packagemanager import delta, recipe
from packagemanager.entry import Entry
from packagemanager.errors import TransactionError
from packagemanager.master import delta as making
from packagemanager.master.package import Package
from packagemanager.transaction import Transaction
from tests.unit.transaction_samples import Folder, Master, installed_root, opened, state, unpacked

pytestmark = pytest.mark.requirement("M3")


@pytest.fixture
def master(tmp_path: Path) -> Master:
    return Master(tmp_path)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def changed(content: bytes, every: int = 5000) -> bytes:
    """Small changes all over, some of which move what follows."""
    return b"-".join(content[at : at + every] for at in range(0, len(content), every))


def updated(master: Master, old: Package, new: Package) -> tuple[Transaction, Folder]:
    transaction = opened(master.transaction([new], [state(old)]))
    return transaction, installed_root(master.folder / "root", old)


def made(master: Master, old: Package, new: Package) -> dict[str, bytes]:
    transaction, root = updated(master, old, new)
    assert [part.kind for part in transaction.index.parts] == ["delta"]
    return unpacked(transaction.sources(state(old), root)["sample:amd64"])[1]


OLD = {"usr/lib/a": noise(60_000), "usr/lib/b": b"b" * 5000, "usr/share/same": noise(9000, 2), "usr/empty": b""}


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        {**OLD, "usr/lib/a": changed(OLD["usr/lib/a"])},
        {**OLD, "usr/lib/c": noise(9000, 3)},
        {"usr/lib/b": OLD["usr/lib/b"]},
        {**OLD, "usr/lib/a": b"", "usr/empty": b"no more"},
        {"usr/lib/moved/a": OLD["usr/lib/a"], "usr/lib/moved/same": OLD["usr/share/same"]},
        {"usr/lib/a": OLD["usr/share/same"], "usr/share/same": OLD["usr/lib/a"]},
        {**OLD, "usr/lib/a": OLD["usr/lib/a"][:100]},
        {"usr/none": b""},
    ],
    ids=["nothing", "changed", "added", "removed", "emptied", "moved", "swapped", "cut", "all gone"],
)
def test_what_comes_out_is_the_new_package(master: Master, new: dict[str, bytes]) -> None:
    old, package = master.add("sample", "1", OLD), master.add("sample", "2", new)
    assert made(master, old, package) == new
    assert master.written.bytes < 30_000


def test_every_entry_and_control_file_is_as_in_the_package(master: Master) -> None:
    from packagemanager.deb import Deb
    from payload.sources import FileSource
    from tests.unit.deb_samples import EVERY_KIND, control_tar, deb_of, tar_of

    old = master.add("sample", "1", {"usr/bin/sample": b"x" * 1999})
    new = master.add("sample", "2", {"usr/bin/sample": b""})
    assert new.fetch is not None
    scripts = {"postinst": b"#!/bin/sh\n", "md5sums": b"x" * 3000, "conffiles": b""}
    new.fetch().write_bytes(deb_of(tar_of(EVERY_KIND), control_tar(new.fields.encode(), scripts), ""))
    transaction, root = updated(master, old, new)
    found, _files = unpacked(transaction.sources(state(old), root)["sample:amd64"])
    assert [part.kind for part in transaction.index.parts] == ["delta"]
    content, _files = unpacked(Deb(FileSource(str(new.fetch()), "")))
    assert found.entries == content.entries
    assert (found.control, found.files) == (content.control, content.files)


@pytest.mark.parametrize("name", ["etc/sample.conf", "etc/sample of a name"])
def test_a_conffile_is_never_made_from_what_the_device_has(master: Master, name: str) -> None:
    files = {name: noise(3000), "usr/bin/sample": noise(40_000)}
    control_files = {"conffiles": f"/{name}\n".encode()}
    old = master.add("sample", "1", files, control_files=control_files)
    new = master.add("sample", "2", files, control_files=control_files)
    transaction, root = updated(master, old, new)
    (root.folder / name).write_bytes(b"as the owner wants it")
    assert unpacked(transaction.sources(state(old), root)["sample:amd64"])[1] == files


def test_large_files_are_made_in_pieces(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (making, recipe):
        monkeypatch.setattr(module, "GROUP_BYTES_MAX", 100_000)
        monkeypatch.setattr(module, "REFERENCE_BYTES_MAX", 180_000, raising=False)
    monkeypatch.setattr(making, "AROUND_BYTES", 20_000)
    large = noise(1_000_000)
    old = master.add("sample", "1", {"usr/lib/large": large, "usr/lib/small": b"small"})
    new = master.add("sample", "2", {"usr/lib/large": changed(large), "usr/lib/small": b"large"})
    assert made(master, old, new) == {"usr/lib/large": changed(large), "usr/lib/small": b"large"}
    assert master.written.bytes < 100_000


def test_memory_is_bounded(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "LEVEL", 1)
    large = noise(9 << 20)
    old = master.add("sample", "1", {"usr/lib/large": large}, compression="")
    new = master.add("sample", "2", {"usr/lib/large": changed(large, 1 << 20)}, compression="")
    transaction, root = updated(master, old, new)
    source = transaction.sources(state(old), root)["sample:amd64"]
    tracemalloc.start()
    try:
        source.unpack(lambda entry, chunks: [len(chunk) for chunk in chunks].clear())
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 17 << 20


def test_files_that_nobody_wants_to_read_are_not_made(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    old = master.add("sample", "1", {"usr/lib/a": noise(50_000), "usr/lib/b": noise(50_000, 2)})
    new = master.add("sample", "2", {"usr/lib/a": changed(noise(50_000)), "usr/lib/b": changed(noise(50_000, 2))})
    transaction, root = updated(master, old, new)
    source = transaction.sources(state(old), root)["sample:amd64"]
    monkeypatch.setattr(delta, "zstd_decompress", lambda *_arguments: pytest.fail("it was made"))
    source.unpack(lambda entry, chunks: None)
    monkeypatch.undo()
    found: dict[str, bytes] = {}

    def last_only(entry: Entry, chunks: Iterator[bytes]) -> None:
        if entry.path.endswith("b"):
            found[entry.path] = b"".join(chunks)

    source.unpack(last_only)
    assert found == {"usr/lib/b": changed(noise(50_000, 2))}


@pytest.mark.parametrize("path", ["usr/lib/a", "usr/share/same"])
def test_a_file_that_changes_while_it_is_read_is_noticed(master: Master, path: str) -> None:
    old = master.add("sample", "1", OLD)
    transaction, root = updated(master, old, master.add("sample", "2", {**OLD, "usr/lib/a": changed(OLD["usr/lib/a"])}))
    source = transaction.sources(state(old), root)["sample:amd64"]
    content = (root.folder / path).read_bytes()
    for other in (content[:-1] + b"?", content[:100], None):
        (root.folder / path).unlink() if other is None else (root.folder / path).write_bytes(other)
        with pytest.raises(TransactionError, match="does not come out as it should"):
            unpacked(source)


def test_a_moved_file_that_becomes_shorter_is_noticed(master: Master) -> None:
    old = master.add("sample", "1", {"usr/lib/a": noise(9000)})
    transaction, root = updated(master, old, master.add("sample", "2", {"usr/lib/moved/a": noise(9000)}))
    source = transaction.sources(state(old), root)["sample:amd64"]
    (root.folder / "usr/lib/a").write_bytes(noise(9000)[:100])
    with pytest.raises(TransactionError, match="does not come out as it should"):
        unpacked(source)


def test_what_several_packages_ship_travels_once(master: Master) -> None:
    """As the changelog of their source: other compressed bytes in every version."""
    names = ("one", "two", "three")
    olds = [
        master.add(name, "1", {f"usr/lib/{name}": noise(9000), "usr/doc/log.gz": noise(20_000, 5)}) for name in names
    ]
    files = {"usr/doc/log.gz": noise(21_000, 6)}
    news = [master.add(name, "2", {f"usr/lib/{name}": changed(noise(9000)), **files}) for name in names]
    transaction = opened(master.transaction(news, [state(*olds)]))
    assert master.written.deltas == ["one 2", "two 2", "three 2"] and master.written.bytes < 21_000 + 3 * 4096
    sources = transaction.sources(state(*olds), installed_root(master.folder / "root", *olds))
    for name in names:
        expected = {f"usr/lib/{name}": changed(noise(9000)), **files}
        assert unpacked(sources[f"{name}:amd64"])[1] == expected


def test_the_same_packages_give_the_same_bytes(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (
        master.add("sample", "1", OLD),
        master.add("sample", "2", {**OLD, "usr/lib/a": changed(OLD["usr/lib/a"])}),
    )
    first = master.transaction([new], [state(old)])
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert master.transaction([new], [state(old)]) == first
