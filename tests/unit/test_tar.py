"""The archives inside of a package: every form that is read, and every trick that is refused by its name."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import pytest

from packagemanager import tar
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Entry
from packagemanager.errors import ArchiveError
from tests.unit.deb_samples import EVERY_KIND, TIME, member, tar_of

pytestmark = [pytest.mark.requirement("M14"), pytest.mark.fault("R4")]

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
LONG = "usr/share/" + "/".join(["folder" * 9] * 4)


def read(content: bytes, **keywords: tar.Bounds) -> list[tuple[Entry, bytes]]:
    """In pieces that end anywhere."""
    pieces = (content[at : at + 777] for at in range(0, len(content), 777))
    return [(entry, b"".join(content)) for entry, content in tar.entries(pieces, **keywords)]


def refusal(content: bytes, **keywords: tar.Bounds) -> str:
    with pytest.raises(ArchiveError) as caught:
        read(content, **keywords)
    assert caught.value.advice
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_in_every_form(form: int) -> None:
    found = {entry.path: (entry, content) for entry, content in read(tar_of(EVERY_KIND, form))}
    assert list(found) == [info.name.removeprefix("./").rstrip("/") for info, _ in EVERY_KIND[1:]]
    kinds = [FILE, DIRECTORY, LINK, HARD_LINK]
    sample, folder, short, again = (
        found[f"usr/bin{name}"][0] for name in ("/sample", "", "/short", "/again")
    )  # fmt: skip
    assert [each.kind for each in (sample, folder, short, again)] == kinds
    assert (folder.mode, folder.gid, sample.mode, sample.mtime) == (0o2755, 8, 0o644, TIME)
    assert (short.target, again.target, again.size) == ("../../sample", "usr/bin/sample", 0)
    assert found["usr/bin/sample"][1] == b"x" * 700 and sample.size == 700
    assert found["usr/bin/su"][0].mode == 0o4755
    assert found["usr/bin/Grüße"][1] == b"hello"


@pytest.mark.parametrize("form", FORMS[1:])
def test_long_names(form: int) -> None:
    members = [member(f"./{LONG}/name"), member(f"./{LONG}/link", "link", linkname="../" * 60),
               member(f"./{LONG}/hard", "hard-link", linkname=f"./{LONG}/name")]  # fmt: skip
    found = [entry for entry, _ in read(tar_of(members, form))]
    assert [entry.path for entry in found] == [f"{LONG}/name", f"{LONG}/link", f"{LONG}/hard"]
    assert found[1].target == "../" * 60 and found[2].target == f"{LONG}/name"


def test_a_name_in_two_parts() -> None:
    name = "a" * 90 + "/" + "b" * 90
    assert read(tar_of([member(name)], tarfile.USTAR_FORMAT))[0][0].path == name


def test_numbers_of_pax() -> None:
    pax = {"mtime": "1234.987654321", "size": "5", "uid": "70000", "gid": "3", "atime": "9.1", "comment": "x"}
    entry, content = read(tar_of([member("a", content=b"hello", pax_headers=pax)], tarfile.PAX_FORMAT))[0]
    assert (entry.mtime, entry.size, entry.uid, entry.gid, content) == (1234, 5, 70000, 3, b"hello")


def test_large_numbers_of_gnu_tar() -> None:
    entry, _ = read(tar_of([member("a", uid=3_000_000, mtime=2**34 - 1)]))[0]
    assert (entry.uid, entry.mtime) == (3_000_000, 2**34 - 1)


def test_owners_have_names_and_numbers() -> None:
    members = [member("a", uname="man", uid=99, gname="mail", gid=8), member("b", uid=99, gname="", gid=8)]
    found = [(entry.user, entry.uid, entry.group, entry.gid) for entry, _ in read(tar_of(members))]
    assert found == [("man", 99, "mail", 8), ("", 99, "", 8)]


def test_content_that_is_not_read_is_passed_over() -> None:
    archive = tar_of([member("a", content=b"x" * 3000), member("b", content=b"y")])
    assert [entry.path for entry, _ in tar.entries([archive])] == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "word"),
    [(b"3", "character device"), (b"4", "block device"), (b"6", "pipe"), (b"7", "contiguous"), (b"S", "sparse"),
     (b"V", "label"), (b"M", "part of another"), (b"Z", "unknown type"), (b"D", "list of a folder")],
)  # fmt: skip
def test_no_package_has_such_an_entry(kind: bytes, word: str) -> None:
    assert word in refusal(_with(tar_of([member("dev/null")]), 156, kind))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/..",
        "..",
        "./../a",
        "a/./../../b",
        "a\nb",
        "a\x1b[0m",
        "n" * 256,
        "d/" * 128 + "f",
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    assert "'" in refusal(tar_of([member(path)]))
    assert "'" in refusal(tar_of([member("x"), member("y", "hard-link", linkname=path)]))


def test_a_path_beyond_what_a_kernel_takes() -> None:
    assert "no path" in refusal(tar_of([member("x/" * 2048 + "y")]))
    assert "leads nowhere" in refusal(tar_of([member("x", "link", linkname="y" * 4096)]))


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([member("a"), member("./a")], "twice"),
        ([member("a/", "directory"), member("a", "directory")], "twice"),
        ([member("a", "link", linkname="/etc"), member("a", "directory")], "twice"),
        ([member("a", "link", linkname="/etc"), member("a/passwd")], "below 'a', which is a link"),
        ([member("a", "link", linkname="/etc"), member("a/b/", "directory")], "below 'a', which is a link"),
        ([member("a", "link", linkname="/etc"), member("a/b/c")], "below 'a', which is a link"),
        ([member("a/b/c"), member("a", "link", linkname="/etc")], "below 'a', which is a link"),
        ([member("a/b/", "directory"), member("a/b/c"), member("a", "link", linkname="/")], "which is a link"),
        ([member("a"), member("a/b")], "below 'a', which is a file"),
        ([member("a"), member("b", "hard-link", linkname="a"), member("b/c")], "which is a hard-link"),
        ([member("a", "hard-link", linkname="/etc/shadow")], "no path"),
        ([member("a", "hard-link", linkname="etc/shadow")], "no earlier file"),
        ([member("b", "hard-link", linkname="a"), member("a")], "no earlier file"),
        ([member("a", "hard-link", linkname="a")], "no earlier file"),
        ([member("a", "link", linkname="/etc"), member("b", "hard-link", linkname="a")], "no earlier file"),
        ([member("a", "directory"), member("b", "hard-link", linkname="a")], "no earlier file"),
        ([member("a", "link", linkname="")], "leads nowhere"),
        ([member("a", "link", linkname="b\nc")], "leads nowhere"),
        ([member(".", "link", linkname="/etc")], "the root is no folder"),
        ([member("a", "directory", b"x" * 512), member("b")], "with content"),
    ],
)
def test_what_does_not_belong_together(members: Iterable[tuple[tarfile.TarInfo, bytes]], word: str) -> None:
    assert word in refusal(tar_of(members))


def test_nobody_is_given_what_lies_below_a_link() -> None:
    given = []
    with pytest.raises(ArchiveError):
        for entry, _ in tar.entries([tar_of([member("a", "link", linkname="/etc"), member("a/passwd")])]):
            given.append(entry.path)
    assert given == ["a"]


def test_a_folder_that_is_not_listed_is_for_the_plan_to_make() -> None:
    assert [entry.path for entry, _ in read(tar_of([member("a/b/c"), member("a/b/", "directory")]))] == ["a/b/c", "a/b"]


@pytest.mark.parametrize(
    ("at", "field", "word"),
    [(124, b"-0000000001\0", "size"), (124, b"\xff" * 12, "size"), (124, b"\x80" + b"\xff" * 11, "size"),
     (124, b"\x80" + bytes(5) + b"\1" + bytes(5), "may hold"), (124, b"77777777777\0", "may hold"),
     (124, b"0x000000010\0", "size"), (136, b"\xff" * 12, "time"), (136, b"\x80" + b"\xff" * 11, "time"),
     (108, b"\xff" * 8, "owner"), (108, b"\x80\0\0\0\xff\xff\xff\xff", "owner"), (100, b"9999999\0", "mode"),
     (257, b"ustar\x0001"[:8], "neither"), (257, bytes(8), "neither")],
)  # fmt: skip
def test_fields_that_are_refused(at: int, field: bytes, word: str) -> None:
    assert word in refusal(_with(tar_of([member("a")]), at, field), bounds=tar.Bounds(bytes_max=1 << 30))


def test_a_damaged_header() -> None:
    archive = bytearray(tar_of([member("a")]))
    archive[3] ^= 1
    assert "checksum" in refusal(bytes(archive))


@pytest.mark.parametrize(
    "record",
    [b"5 path", b"999 path=abc\n", b"0 path=abc\n", b"-9 path=a\n", b"11 path=abc", b"x path=a\n",
     b"8 path=a\n"],
)  # fmt: skip
def test_pax_headers_that_do_not_read(record: bytes) -> None:
    assert "does not read" in refusal(tar_of([member("x", content=record, type=b"x"), member("a")]))


@pytest.mark.parametrize(
    ("fields", "word"),
    [([b"path=a\0b"], "zero"), ([b"path=a", b"path=b"], "twice"), ([b"size=-1"], "size is"), ([b"size=1.5"], "size is"),
     ([b"size=9999999999999999"], "size is"), ([b"mtime=-1.0"], "mtime is"), ([b"mtime=1.x"], "mtime is"),
     ([b"mtime="], "mtime is"), ([b"uid=4294967295"], "uid is"), ([b"SCHILY.xattr.user.x=y"], "SCHILY.xattr.user.x"),
     ([b"GNU.sparse.major=1"], "GNU.sparse.major"), ([b"hello=x"], "'hello'")],
)  # fmt: skip
def test_pax_fields_that_are_refused(fields: list[bytes], word: str) -> None:
    lengths = [len(field) + (3 if len(field) < 7 else 4) for field in fields]
    records = b"".join(b"%d %s\n" % (length, field) for length, field in zip(lengths, fields, strict=True))
    assert word in refusal(tar_of([member("x", content=records, type=b"x"), member("a")]))


@pytest.mark.parametrize("flag", [b"L", b"K", b"x"])
def test_headers_in_front_of_an_entry_are_bounded(flag: bytes) -> None:
    large = member("x", content=b"y" * (tar.EXTENSION_BYTES_MAX + 1), type=flag)
    assert f"{tar.EXTENSION_BYTES_MAX + 1} bytes" in refusal(tar_of([large, member("a")]))
    many = [member("x", type=b"x") for _ in range(tar.EXTENSIONS_MAX + 1)]
    assert "in front of one entry" in refusal(tar_of([*many, member("a")]))
    assert "belongs to an entry" in refusal(tar_of([member("x", content=b"y\0", type=b"L")]))


def test_a_header_for_all_entries_is_refused() -> None:
    assert "for all entries" in refusal(tar_of([member("x", content=b"9 path=a\n"[:9], type=b"g"), member("a")]))


def test_bombs() -> None:
    zeroes = tar_of([member("a", content=bytes(1 << 20))])
    assert "may" in refusal(zeroes, bounds=tar.Bounds(bytes_max=1 << 19))
    many = tar_of([member(f"f{number}") for number in range(20)])
    assert "19 entries" in refusal(many, bounds=tar.Bounds(entries_max=19))
    assert len(read(many, bounds=tar.Bounds(entries_max=20))) == 20
    endless = iter(lambda: bytes(1 << 16), b"")
    with pytest.raises(ArchiveError, match="more bytes"):
        list(tar.entries(endless, tar.Bounds(bytes_max=1 << 24)))


def test_the_end_must_be_there_and_be_the_end() -> None:
    archive = tar_of([member("a", content=b"x")])
    assert "too early" in refusal(archive[:1024])
    assert "behind its end" in refusal(archive + tar_of([member("b")]))
    assert "behind its end" in refusal(archive + b"\0\1")
    assert len(read(archive[:1536] + bytes(700))) == 1
    assert "too early" in refusal(b"")


def test_other_readers_agree_with_the_samples() -> None:
    """The standard library reads the same of what it wrote: the samples are what they say."""
    with tarfile.open(fileobj=io.BytesIO(tar_of(EVERY_KIND))) as archive:
        assert [info.name.removeprefix("./") for info in archive][1:] == [
            entry.path for entry, _ in read(tar_of(EVERY_KIND))
        ]


def _with(archive: bytes, at: int, field: bytes) -> bytes:
    """The first header with another field and a right checksum."""
    header = bytearray(archive[:512])
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]
