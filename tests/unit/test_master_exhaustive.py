"""The search that misses nothing, asked by itself: it has to know all that packages can ask of each other."""

from __future__ import annotations

from typing import Any

import pytest

from packagemanager.master.exhaustive import TooManyFailuresError, search
from packagemanager.master.resolve import Needs
from packagemanager.master.wish import Candidates, Wish
from tests.unit.master_samples import repository

pytestmark = pytest.mark.requirement("M1")


def searched(text: str, *roots: str, **wish: Any) -> list[str] | None:
    """``name version`` of what is found, by name."""
    found = search(Needs(Candidates(Wish(roots, {}, {}, **wish), repository(text))))
    return None if found is None else sorted(map(str, found))


@pytest.mark.parametrize("verb", ["D", "P"])
def test_what_is_needed_comes(verb: str) -> None:
    text = f"app 1 {verb}: lib (>= 2)\nlib 1\nlib 2\nlib 3"
    assert searched(text, "app") == ["app 1", "lib 3"]
    assert searched(text, "app", "lib (<< 3)") == ["app 1", "lib 2"]
    assert searched(text, "app", "lib (<< 2)") is None


@pytest.mark.parametrize("verb", ["C", "B"])
def test_what_must_not_be_there_is_not(verb: str) -> None:
    text = f"app 1 D: a | b\nother 1 {verb}: a\na 1\nb 1"
    assert searched(text, "app") == ["a 1", "app 1"]
    assert searched(text, "app", "other") == ["app 1", "b 1", "other 1"]
    assert searched(text, "a", "other") is None


def test_essential_packages_come() -> None:
    text = "base 1 Essential: yes\napp 1"
    assert searched(text, "app") == ["app 1", "base 1"]
    assert searched(text, "app", essential=False) == ["app 1"]


def test_recommended_packages_come_if_they_can_be_all_else_being_there() -> None:
    text = """
        app 1 R: nice, absent, angry | calm, lost; D: lib
        lib 1
        nice 1 D: more
        more 1
        angry 1 C: lib
        calm 1
        lost 1 D: gone
    """
    assert searched(text, "app") == ["app 1", "lib 1"]
    assert searched(text, "app", recommends=True) == ["app 1", "calm 1", "lib 1", "more 1", "nice 1"]


def test_what_has_to_come_anyway_answers_a_choice() -> None:
    text = "app 1 D: a | b\nother 1 D: b\na 1\nb 1\nb 2"
    assert searched(text, "app", "other") == ["app 1", "b 2", "other 1"]


def test_it_gives_up_where_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "app 1 D: a | b\na 1 D: c | d\nc 1 C: a\nd 1 C: a\nb 1"
    assert searched(text, "app") == ["app 1", "b 1"]
    monkeypatch.setattr("packagemanager.master.exhaustive.FAILURES_MAX", 1)
    with pytest.raises(TooManyFailuresError):
        searched(text, "app")


def test_thousands_in_a_row_are_no_trouble() -> None:
    text = "\n".join(f"p{number} 1 D: p{(number + 1) % 1500}" for number in range(1500))
    found = searched(text, "p0")
    assert found is not None and len(found) == 1500
