"""Whole packages: each compression, each damage, and the memory that they take."""

from __future__ import annotations

import gzip
import lzma
import tracemalloc
from collections.abc import Iterator

import pytest
import zstandard

from packagemanager.deb import CONTROL_BYTES_MAX, CONTROL_FILES_MAX, Deb
from packagemanager.entry import FILE, Content, Entry
from packagemanager.errors import ArchiveError
from payload import streams
from payload.digest import digest
from tests.unit.deb_samples import COMPRESSIONS, CONTROL, EVERY_KIND, ar_of, control_tar, deb_of, member, read, tar_of
from tests.unit.payload_samples import BytesReader

pytestmark = [pytest.mark.requirement("M14"), pytest.mark.fault("R4")]

SCRIPTS = {"postinst": b"#!/bin/sh\n", "conffiles": b"/etc/sample\n"}
MEMORY_BYTES_MAX = 12 << 20  # of which 8 are the window of `xz -6`
CONTROL_FOR_ALL = b"Package: p\nVersion: 1\nArchitecture: all\n"


def refusal(package: bytes) -> str:
    with pytest.raises(ArchiveError) as caught:
        read(package)
    assert caught.value.advice
    return str(caught.value)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression(compression: str) -> None:
    package = deb_of(tar_of(EVERY_KIND), control_tar(files=SCRIPTS), compression)
    content, files = read(package)
    assert content.control == CONTROL and content.files == SCRIPTS
    assert files["usr/bin/sample"] == b"x" * 700 and list(files) == [e.path for e in content.entries if e.kind == FILE]
    for entry in content.entries:
        assert entry.digest == (digest(files[entry.path]) if entry.kind == FILE else b"")


def test_control_is_read_without_the_rest() -> None:
    text, files = Deb(BytesReader(deb_of(b"no tar at all", control_tar(files=SCRIPTS)))).control()
    assert text == CONTROL and files == SCRIPTS


def test_a_sink_that_reads_nothing_gets_the_digests_all_the_same() -> None:
    package = deb_of(tar_of(EVERY_KIND))
    whole, _ = read(package)
    assert Deb(BytesReader(package)).unpack(lambda entry, pieces: None).entries == whole.entries


def test_what_a_sink_raises_comes_through() -> None:
    def full(entry: Entry, pieces: Iterator[bytes]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Deb(BytesReader(deb_of(tar_of(EVERY_KIND)))).unpack(full)


def test_members_for_others_and_a_minor_version() -> None:
    data = gzip.compress(tar_of(EVERY_KIND))
    package = ar_of([
        ("debian-binary/", b"2.1\nmore\n"), ("_extra", b"x"), ("control.tar.gz/", gzip.compress(control_tar())),
        ("_other", b""), ("data.tar.gz", data), ("_gpgorigin", b"signature"),
    ])  # fmt: skip
    assert len(read(package)[0].entries) == len(EVERY_KIND) - 1


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([], "begins with nothing"),
        ([("debian-binary", b"3.0\n")], "format b'3.0'"),
        ([("debian-binary", b"2\n")], "format"),
        ([("control.tar", b"")], "begins with control.tar"),
        ([("debian-binary", b"2.0\n"), ("control.tar", b"")], "not control.tar"),
        ([("debian-binary", b"2.0\n"), ("data.tar", b""), ("control.tar", b"")], "not data.tar, control.tar"),
        ([("debian-binary", b"2.0\n"), ("control.tar", b""), ("data.tar", b""), ("data.tar", b"")], ", data.tar"),
        ([("debian-binary", b"2.0\n"), ("control.tar", b""), ("data.tar.lzma", b"")], "data.tar.lzma"),
        ([("debian-binary", b"2.0\n"), ("control.tar", b""), ("data.tar.bz2", b"")], "data.tar.bz2"),
        ([("debian-binary", b"2.0\n"), ("evil", b""), ("control.tar", b""), ("data.tar", b"")], "evil"),
        ([("debian-binary", b"2.0\n"), *[("_x", b"")] * 20], "16 members"),
    ],
)  # fmt: skip
def test_what_is_no_package(members: list[tuple[str, bytes]], word: str) -> None:
    assert word in refusal(ar_of(members))


def test_damage_of_the_outer_archive() -> None:
    good = deb_of(tar_of(EVERY_KIND))
    assert "does not begin" in refusal(b"")
    assert "does not begin" in refusal(b"hello" * 40)
    assert "no size" in refusal(good.replace(b"4         `", b"-4        `", 1))
    assert "no size" in refusal(good.replace(b"4         `", b"          `", 1))
    assert "no size" in refusal(good.replace(b"debian-binary   ", b"debian/binary   ", 1))
    assert "cut off" in refusal(good.replace(b"4         `", b"4000000000`", 1))
    assert "no header" in refusal(good + b"\n" * 9)
    odd = ar_of([("debian-binary", b"2.0\n"), ("_x", b"x"), ("control.tar", b""), ("data.tar", b"")])
    assert "line feed" in refusal(odd.replace(b"`\nx\n", b"`\nxy"))


@pytest.mark.parametrize(
    ("control", "word"),
    [
        (tar_of([member("./", "directory")]), "no control file"),
        (control_tar(b"Package: a\nVersion: 1\n"), "no architecture"),
        (control_tar(b"Package: ../a\nVersion: 1\nArchitecture: all\n"), "no name"),
        (control_tar(CONTROL + b"\n" + CONTROL), "2 paragraphs"),
        (tar_of([member("control", content=CONTROL), member("a/b")]), "'a/b'"),
        (tar_of([member("control", content=CONTROL), member("a/", "directory")]), "'a'"),
        (tar_of([member("control", content=CONTROL), member("postinst", "link", linkname="/bin/sh")]), "'postinst'"),
        (tar_of([member("control", content=CONTROL), *(member(f"f{n}") for n in range(CONTROL_FILES_MAX))]), "entries"),
        (tar_of([member("control", content=CONTROL + bytes(CONTROL_BYTES_MAX))]), "may hold"),
    ],
)
def test_control_archives_that_are_refused(control: bytes, word: str) -> None:
    assert word in refusal(deb_of(tar_of(EVERY_KIND), control, ".gz"))


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name])
def test_one_stream_and_nothing_behind_it(compression: str) -> None:
    compress, data = COMPRESSIONS[compression], tar_of(EVERY_KIND)
    for stored in (compress(data) + b"\0", compress(data) + compress(b""), compress(data)[:-1], b"", b"\0" * 100):
        package = ar_of(
            [("debian-binary", b"2.0\n"), ("control.tar", control_tar()), (f"data.tar{compression}", stored)]
        )
        assert "damaged" in refusal(package)


def test_memory_that_a_stream_asks_for_is_bounded() -> None:
    large_xz = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 200 << 20}])
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    large_zstd = compressor.compress(b"x" * 1000) + compressor.flush()
    for kind, stored in (("xz", large_xz), ("zstd", large_zstd)):
        with pytest.raises(ValueError, match=r"(?i)memory"):
            list(streams.decompress(kind, [stored]))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_memory_does_not_grow_with_the_package(compression: str) -> None:
    """A file of 48 MiB; for the plain archive the package itself is left out of the count."""
    package = deb_of(tar_of([member("a", content=bytes(48 << 20))]), compression=".gz", data_compression=compression)
    sizes = []

    def count(entry: Entry, pieces: Iterator[bytes]) -> None:
        sizes.append(sum(map(len, pieces)))

    tracemalloc.start()
    try:
        Deb(BytesReader(package)).unpack(count)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes == [48 << 20]
    assert peak_bytes < MEMORY_BYTES_MAX


SMALL = tar_of([member("./", "directory"), member("./a", content=b"hello"), member("./b", "link", linkname="a")])


def outcome(package: bytes) -> tuple[Content, dict[str, bytes]] | None:
    try:
        return read(package)
    except ArchiveError:
        return None


def same(one: tuple[Content, dict[str, bytes]], other: tuple[Content, dict[str, bytes]]) -> bool:
    first, second = one[0], other[0]
    return (first.control, first.files, first.entries, one[1]) == (
        second.control,
        second.files,
        second.entries,
        other[1],
    )


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
def test_any_cut_is_noticed(compression: str) -> None:
    package = deb_of(SMALL, compression=compression)
    whole = read(package)
    assert same(whole, read(package))
    for length in range(len(package)):
        found = outcome(package[:length])
        # The line feed behind a member of odd length may be missing at the end of the file.
        assert found is None or (length == len(package) - 1 and same(found, whole)), length


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
def test_any_bit_that_flips_is_noticed_or_without_meaning(compression: str) -> None:
    package = deb_of(SMALL, compression=compression)
    whole = read(package)
    for at in range(len(package)):
        for bit in range(8):
            changed = package[:at] + bytes([package[at] ^ 1 << bit]) + package[at + 1 :]
            found = outcome(changed)
            assert found is None or same(found, whole), (at, bit)


def test_a_package_that_dpkg_would_not_read_again_in_its_database() -> None:
    for line in (b"Multi-Arch: same\n", b"Conflicts: a | b\n"):
        assert refusal(deb_of(tar_of(EVERY_KIND), control_tar(CONTROL_FOR_ALL + line)))
    assert read(deb_of(tar_of(EVERY_KIND), control_tar(CONTROL_FOR_ALL)))[0].control == CONTROL_FOR_ALL
