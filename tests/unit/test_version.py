"""The order of versions: examples of policy 5.6.12, and that it is an order at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packagemanager.errors import ArchiveError
from packagemanager.version import EPOCH_MAX, VERSION_CHARACTERS_MAX, compare, key, split

pytestmark = pytest.mark.requirement("M14")

ASCENDING = (
    "0~~", "0~", "0", "0+", "0.1~rc1-1", "0.1-1", "0.1-1+b1", "0.1-1+deb12u1", "0.1-1.1", "0.1-2", "0.1a-1",
    "0.1.1-1", "0.9", "0.10", "1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-0.1", "1.0-a", "1.0a", "1.0+",
    "1:0", "1:0.1", "2:0~",
)  # fmt: skip
EQUAL = (("1", "0:1"), ("1", "1-0"), ("1.0", "1.00"), ("1.", "1.0"), ("1a", "1a0"), ("0", "00"))

PARTS = st.text(st.sampled_from("0123456789ABZabz.+~-:"), max_size=8)
VERSIONS = st.builds(
    "{}{}{}".format,
    st.sampled_from(("", "", "0:", "1:", "10:")),
    st.text(st.sampled_from("0019ABab.+~-"), min_size=1, max_size=8).filter(lambda text: text.strip("-") == text),
    st.sampled_from(("", "-0", "-1", "-1~", "-1+b1", "-a")),
)


def test_the_ladder() -> None:
    for lower, earlier in enumerate(ASCENDING):
        for later in ASCENDING[lower + 1 :]:
            assert compare(earlier, later) == -1, (earlier, later)
            assert compare(later, earlier) == 1, (later, earlier)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_different_texts_of_one_version(one: str, other: str) -> None:
    assert compare(one, other) == 0
    assert key(one) == key(other)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1-", "a:1", ":1", "1:", "1: 2", "1 2", "1_2", "1-2_3", "1/2", "1\n", "ä", "²", "1:2:é",
     f"{EPOCH_MAX + 1}:1", "1" * (VERSION_CHARACTERS_MAX + 1), "-1:1", "+1:1"],
)  # fmt: skip
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ArchiveError):
        compare(text, "1")


def test_parts() -> None:
    assert split("2:1.0-rc-3-4") == (2, "1.0-rc-3", "4")
    assert split("1:2:3") == (1, "2:3", "")
    assert split("7") == (0, "7", "")


@given(VERSIONS, VERSIONS, VERSIONS)
def test_a_total_order(a: str, b: str, c: str) -> None:
    assert compare(a, a) == 0
    assert compare(a, b) == -compare(b, a)
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0
    assert [key(each) for each in sorted((a, b, c), key=key)] == sorted((key(c), key(a), key(b)))


@given(VERSIONS)
def test_a_tilde_is_before_and_more_is_after(text: str) -> None:
    assert compare(text + "~", text) == -1
    assert compare(text + "+1", text) == 1


@given(PARTS)
def test_any_text_is_a_version_or_refused(text: str) -> None:
    try:
        key(text)
    except ArchiveError as error:
        assert error.advice
