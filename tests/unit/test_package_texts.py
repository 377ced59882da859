"""The texts of the database: dpkg's spelling, conffiles, and the two texts that are ours."""

from __future__ import annotations

import pytest

from packagemanager import conffiles, files, wanted
from packagemanager.control import paragraph
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Entry
from packagemanager.errors import DatabaseError
from packagemanager.status import Conffile, compose, conffiles_of, stanza
from payload.digest import digest

CONTROL = b"""Package: p
description: a
 package
X-Own:
Depends: b (>=0:1)|c( = 2-3 ) ,d:any,
Version: 0:1.0-1
Multi-Arch: no
Essential: no
ARCHITECTURE: all
Suggests:
Section: misc
"""
WRITTEN = b"""Package: p
Status: install ok installed
Priority: extra
Section: misc
Architecture: all
Version: 1.0-1
Depends: b (>= 1) | c (= 2-3), d:any
Conffiles:
 /etc/a b 0123456789abcdef0123456789abcdef
 /etc/c 00000000000000000000000000000000 obsolete
Description: a
 package
X-Own: \n"""


def test_a_paragraph_is_written_as_dpkg_writes_it() -> None:
    listed = (Conffile("etc/a b", "0123456789abcdef0123456789abcdef"), Conffile("etc/c", "0" * 32, ("obsolete",)))
    before = paragraph(b"Package: p\nPriority: extra\nSection: old\nVersion: 1\n")
    written = stanza(paragraph(CONTROL), "install ok installed", listed, before=before)
    assert written.encode() == WRITTEN
    assert conffiles_of(written) == listed
    assert stanza(written, "install ok installed", listed).encode() == WRITTEN


def test_paragraphs_are_by_name_and_architecture() -> None:
    several = [b"Package: b\nArchitecture: all\n", b"Package: a-b\n", b"Package: a\nArchitecture: i386\n",
               b"Package: a\nArchitecture: amd64\n"]  # fmt: skip
    assert compose(map(paragraph, several)) == b"\n".join([several[3], several[2], several[1], several[0]]) + b"\n"


# recorded, there, shipped: what becomes of it.
CONFFILES = {
    ("1", "1", "1"): conffiles.KEEP, ("1", "1", "2"): conffiles.INSTALL, ("1", "m", "1"): conffiles.KEEP,
    ("1", "m", "2"): conffiles.BESIDE, ("1", "2", "2"): conffiles.KEEP, ("1", "", "1"): conffiles.KEEP,
    ("1", "", "2"): conffiles.BESIDE, ("", "", "1"): conffiles.INSTALL, ("", "1", "1"): conffiles.KEEP,
    ("", "m", "1"): conffiles.BESIDE, ("newconffile", "", "1"): conffiles.INSTALL,
    ("newconffile", "m", "1"): conffiles.BESIDE,
}  # fmt: skip


@pytest.mark.parametrize("case", CONFFILES)
def test_what_becomes_of_a_conffile(case: tuple[str, str, str]) -> None:
    assert conffiles.decide(*case) == CONFFILES[case]


def test_the_list_of_conffiles_and_what_editors_leave() -> None:
    text = "/etc/a b\nremove-on-upgrade /etc/c\n\nnothing\n/etc/d \n/\n/etc/\u2028e\x85\r\n".encode()
    assert conffiles.declared(text) == (
        ("etc/a b", False), ("etc/c", True), ("etc/d", False), ("etc/\u2028e\x85", False))  # fmt: skip
    names = ["a", "a~", "a.~12~", "a.~x~", "#a#", "a.dpkg-old", "a.dpkg-dist", "ab~", "a%", "a.bak"]
    assert conffiles.backup_names("a", names) == ["a~", "a.~12~", "#a#", "a.dpkg-old", "a.dpkg-dist", "a%"]


ENTRIES = (
    Entry("usr", DIRECTORY, mode=0o755, mtime=-5),
    Entry("usr/a b%\n\udcff", FILE, mode=0o4755, uid=1, gid=2, mtime=3, size=4, digest=digest(b"four")),
    Entry("usr/unknown", FILE, size=7),
    Entry("usr/l", LINK, mode=0o777, target="../ä b"),
    Entry("usr/h", HARD_LINK, target="usr/unknown"),
)


def test_what_a_package_put_is_remembered_exactly() -> None:
    fields = stanza(paragraph(CONTROL), "install ok installed")
    text = files.encode(fields, ENTRIES)
    assert text.isascii()
    assert text.endswith(b"\n")
    found = files.decode(text, "here")
    assert found.entries == ENTRIES
    assert found.fields == fields


def sealed(lines: bytes) -> bytes:
    text = files.MAGIC + b"Package: p\n\n" + lines
    return text + files.END + digest(text).hex().encode() + b"\n"


WRONG_LINES = (
    b"file 644 0 0 1 - 0 a", b"file 644 0 0 1 - 0 a b\n", b"pipe 644 0 0 0 a\n", b"file 10000 0 0 1 - 0 a\n",
    b"file -1 0 0 1 - 0 a\n", b"file 644 -1 0 1 - 0 a\n", b"file 644 0 4294967295 1 - 0 a\n",
    b"file 644 0 0 -1 - 0 a\n", b"file 644 0 0 1 00 0 a\n", b"file 644 0 0 1 zz 0 a\n", b"file 644 0 0 1 - x a\n",
    b"file 644 0 0 1 - 0 ../a\n", b"file 644 0 0 1 - 0 /a\n", b"file 644 0 0 1 - 0 a//b\n",
    b"file 644 0 0 1 - 0 a%00\n", b"file 644 0 0 1 - 0 a%2\n", b"link 777 0 0 0 a \n", b"hard-link 644 0 0 0 a ../b\n",
    b"file 644 0 0 1 - 0 " + b"a" * 20000 + b"\n", b"file \xb9 0 0 1 - 0 a\n",
    b"file 644 0 0 " + b"9" * 5000 + b" - 0 a\n",
)  # fmt: skip


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_line_that_cannot_be_is_refused(line: bytes) -> None:
    with pytest.raises(DatabaseError, match="/here is damaged"):
        files.decode(sealed(line), "here")


def test_one_bit_of_our_texts_is_noticed() -> None:
    known = wanted.Wanted(7, digest(b"t"), {"a:amd64": "1:2-3", "b:all": "4~5"})
    texts = ((files.encode(paragraph(CONTROL), ENTRIES), lambda text: files.decode(text, "x")),
             (known.encode(), wanted.decode))  # fmt: skip
    for text, decode in texts:
        decode(text)
        for place in range(len(text)):
            with pytest.raises(DatabaseError):
                decode(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
            with pytest.raises(DatabaseError):
                decode(text[:place])


def test_the_wanted_set_keeps_its_order() -> None:
    packages = {"z:all": "1", "a:amd64": "2"}
    found = wanted.decode(wanted.Wanted(3, digest(b"t"), packages).encode())
    assert (found.serial, found.transaction, list(found.packages.items())) == (3, digest(b"t"), list(packages.items()))


def resealed(text: bytes) -> bytes:
    return text + f"end {digest(text).hex()}\n".encode()


@pytest.mark.parametrize(
    "lines",
    [
        b"a:all",
        b"a:all 1 2",
        b"/a:all 1",
        b"a:all x y",
        b"a:all -",
        b"a:all 1\na:all 2",
        b"\xff",
        b"a:all 1\n\nb:all 1",
    ],
)
def test_a_wanted_set_that_cannot_be_is_refused(lines: bytes) -> None:
    start = b"unbrick-wanted 1\nserial 1\ntransaction " + b"0" * 64 + b"\n"
    wanted.decode(resealed(start + b"a:all 1\n"))
    with pytest.raises(DatabaseError):
        wanted.decode(resealed(start + lines + b"\n"))
