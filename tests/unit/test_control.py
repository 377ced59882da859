"""Control data: what is kept, what is understood, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packagemanager.control import (
    FIELDS_MAX,
    Relation,
    check_package,
    identity,
    paragraph,
    paragraphs,
    parse_relations,
)
from packagemanager.errors import ArchiveError

pytestmark = pytest.mark.requirement("M14")

STATUS = """Package: base-files
Essential: yes
Status: install ok installed
Version: 12.4+deb12u15
X-Own-Field:no space
Architecture: amd64
Conffiles:
 /etc/debian_version 4f6d8e
 /etc/dpkg/origins/debian c47b35
Depends: libc6 (>= 2.3.4), awk
Description: Debian base system miscellaneous files
 This package contains.
 .
 Two paragraphs\twith a tab.

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all
Maintainer: J\udcf6rg

"""


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def test_what_is_read_is_written_byte_for_byte() -> None:
    content = encoded(STATUS)
    assert b"".join(each.encode() + b"\n" for each in paragraphs(content)) == content


def test_fields() -> None:
    first, second = paragraphs(encoded(STATUS))
    assert first.get("package") == "base-files" and first.get("X-OWN-FIELD") == "no space"
    assert first.lines("Conffiles") == ("/etc/debian_version 4f6d8e", "/etc/dpkg/origins/debian c47b35")
    assert first.get("Description").split("\n")[2] == " ."
    assert "Essential" in first and "Essential" not in second and second.get("Essential", "no") == "no"
    assert second.get("Maintainer") == "J\udcf6rg"
    assert first.names()[:3] == ("Package", "Essential", "Status")


def test_a_change_leaves_the_rest_alone() -> None:
    first = next(paragraphs(encoded(STATUS)))
    after = first.changed(Status="install ok half-configured", Config_Version="12", Essential=None)
    expected = STATUS.partition("\n\n")[0].replace("ok installed", "ok half-configured").replace("Essential: yes\n", "")
    assert after.encode().decode() == expected + "\nConfig-Version: 12\n"
    assert first.get("Status") == "install ok installed"
    assert after.changed(Conffiles="\n /a b").lines("Conffiles") == ("/a b",)


@pytest.mark.parametrize("value", ["a\nb", "a\n\n b", "a\nPackage: b", "a\0"])
def test_a_value_cannot_become_another_field(value: str) -> None:
    with pytest.raises((ArchiveError, AssertionError)):
        paragraph(b"Package: a\n").changed(Status=value)


@pytest.mark.parametrize(
    "content",
    [b" a\n", b"a\n", b"a b: c\n", b":c\n", b"-a: b\n", b"#a: b\n", b"a: b\na: c\n", b"A: b\na: c\n",
     b"a: b\n \nc: d\n", b"a: b\0\n", b"a: b\n\tc\0\n", "ä: b\n".encode(),
     b"a: b\n# comment\n", b"\xff: b\n", b"a\x7f: b\n", b"",
     b"a: b\n\nc: d\n", b"a" * 129 + b": b\n",
     b"".join(b"f%d: x\n" % number for number in range(FIELDS_MAX + 1))],
)  # fmt: skip
def test_what_is_no_paragraph(content: bytes) -> None:
    with pytest.raises(ArchiveError):
        paragraph(content)


def test_lines_end_at_line_feeds_alone() -> None:
    only = paragraph("a: b\rc\x0bd\u2028e\x85f\n".encode())
    assert only.names() == ("a",) and only.get("a") == "b\rc\x0bd\u2028e\x85f"


@given(st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z-]{0,10}", fullmatch=True), st.binary(max_size=30), max_size=5))
def test_any_values_come_back(fields: dict[str, bytes]) -> None:
    if len({name.lower() for name in fields}) != len(fields):
        return
    content = b"".join(b"%s:%s\n" % (name.encode(), value.replace(b"\n", b"\n x").replace(b"\0", b"0"))
                       for name, value in fields.items())  # fmt: skip
    found = list(paragraphs(content))
    assert b"".join(each.encode() for each in found) == content


def test_relations() -> None:
    groups = parse_relations("libc6 (>= 2.36), awk | mawk:any (<<1.3-4~),\n perl:amd64 (= 5.36.0-7) , x")
    assert [[str(one) for one in group] for group in groups] == [
        ["libc6 (>= 2.36)"], ["awk", "mawk:any (<< 1.3-4~)"], ["perl:amd64 (= 5.36.0-7)"], ["x"],
    ]  # fmt: skip
    assert groups[1][1] == Relation("mawk", "any", "<<", "1.3-4~")
    assert parse_relations(" \n ") == () and parse_relations("a,") == ((Relation("a"),),)


@pytest.mark.parametrize(
    ("operator", "admitted"),
    [("<<", "1"), ("<=", "12"), ("=", "2"), (">=", "23"), (">>", "3"), ("", "123"), ("<", "12"), (">", "23")],
)
def test_which_versions_a_relation_admits(operator: str, admitted: str) -> None:
    relation = Relation("a", "", operator, "2" if operator else "")
    assert "".join(each for each in "123" if relation.admits(each)) == admitted


@pytest.mark.parametrize(
    "text",
    ["a b", "a (", "a (1", "a ()", "a (>= )", "a (=> 1)", "a (== 1)", "a (>= 1) b", "a (>= 1) (<< 2)",
     "a [amd64]", "a <!x>", "a,,b", "a | | b", "|a", ",a", "../a", "a/b", ".a", "-a", "a:", "a:b/c", "a:../x", "ä",
     "a (>= 1/2)", "a\0", "a" * 129, "a (= " + "1" * 600 + ")", ", ".join(["a"] * 5000)],
)  # fmt: skip
def test_what_is_no_relation(text: str) -> None:
    with pytest.raises(ArchiveError):
        parse_relations(text)


def test_identity() -> None:
    good = paragraph(b"Package: a\nVersion: 1:2-3\nArchitecture: all\n")
    assert identity(good) == ("a", "1:2-3", "all")
    for change in ({"Package": "../a"}, {"Package": None}, {"Version": "x y"}, {"Version": None},
                   {"Architecture": "a/b"}, {"Architecture": None}, {"Package": ""}):  # fmt: skip
        with pytest.raises(ArchiveError):
            identity(good.changed(**change))


# dpkg refuses all of `status` for one of these.
UNLIKE_DPKG = {
    "Multi-Arch: weird": "its Multi-Arch is 'weird'",
    "Multi-Arch: Same": "is for all, and its Multi-Arch is 'same'",
    "Conflicts: a | b": "has alternatives in Conflicts",
    "breaks: a, b | c": "has alternatives in Breaks",
    "Provides: a|b": "has alternatives in Provides",
    "Replaces: a\n | b": "has alternatives in Replaces",
    "Suggests: a:-b": "names in Suggests what is no architecture",
}


@pytest.mark.parametrize("line", UNLIKE_DPKG)
def test_what_dpkg_would_not_read_in_status(line: str) -> None:
    with pytest.raises(ArchiveError, match=UNLIKE_DPKG[line]):
        check_package(paragraph(f"Package: p\nArchitecture: all\n{line}\n".encode()))


def test_what_dpkg_reads_in_status() -> None:
    for kind in ("", "no", "Allowed", "foreign"):
        check_package(paragraph(f"Package: p\nArchitecture: all\nMulti-Arch: {kind}\n".encode()))
    check_package(paragraph(b"Package: p\nArchitecture: amd64\nMulti-Arch: same\nDepends: a:any | b (= 1:2-3)\n"))
