"""From what is wanted to all that is needed: Debian's relations, one by one, and sets that cannot be."""

from __future__ import annotations

import pytest

from packagemanager.master.errors import ImpossibleError, RequestError
from tests.unit.master_samples import chosen

pytestmark = pytest.mark.requirement("M1", "M10")

BASE = """
    app 1.0 D: lib (>= 2), tool
    lib 1.0
    lib 2.0
    lib 3.0
    tool 1.0 P: lib
    spare 1.0
"""


def test_what_is_needed_comes_in_its_newest_version_and_nothing_else() -> None:
    assert chosen(BASE, "app") == ["app 1.0", "lib 3.0", "tool 1.0"]


def test_what_devices_have_is_kept_unless_newer_is_asked_for() -> None:
    assert chosen(BASE, "app", installed={"lib": "2.0"}) == ["app 1.0", "lib 2.0", "tool 1.0"]
    assert chosen(BASE, "app", installed={"lib": "1.0"}) == ["app 1.0", "lib 3.0", "tool 1.0"]
    assert chosen(BASE, "app", installed={"lib": "2.0"}, upgrade=True)[1] == "lib 3.0"


@pytest.mark.requirement("M4")
def test_a_pin_goes_back_and_wants_nothing_by_itself() -> None:
    assert chosen(BASE, "app", pins={"lib": "2.0"}, installed={"lib": "3.0"})[1] == "lib 2.0"
    assert chosen(BASE, "spare", pins={"lib": "2.0"}) == ["spare 1.0"]
    assert chosen(BASE, "lib (<< 2)") == ["lib 1.0"]


@pytest.mark.requirement("M9")
def test_what_nothing_wants_any_more_is_not_in_the_set() -> None:
    """One meta-package takes the place of another: what only the first one wanted goes, though devices have it."""
    text = """
        meta-old 1 D: editor, shared, helper-old
        meta-new 2 D: browser, shared; C: meta-old; Replaces: meta-old
        editor 1 D: spelling
        spelling 1
        helper-old 1
        browser 1
        shared 1
    """
    before = chosen(text, "meta-old")
    assert before == ["editor 1", "helper-old 1", "meta-old 1", "shared 1", "spelling 1"]
    installed = dict(line.split(" ") for line in before)
    assert chosen(text, "meta-new", installed=installed) == ["browser 1", "meta-new 2", "shared 1"]


ALTERNATIVES = """
    app 1 D: mail | fax
    mail-a 1 V: mail
    mail-b 1 V: mail
    fax 1
    other 1 D: mail-b
    only-fax 1 D: fax
"""


def test_alternatives_take_what_is_there_then_what_devices_have_then_the_first() -> None:
    assert chosen(ALTERNATIVES, "app") == ["app 1", "mail-a 1"]
    assert chosen(ALTERNATIVES, "app", "other") == ["app 1", "mail-b 1", "other 1"]
    assert chosen(ALTERNATIVES, "app", "only-fax") == ["app 1", "fax 1", "only-fax 1"]
    assert chosen(ALTERNATIVES, "app", installed={"mail-b": "1"}) == ["app 1", "mail-b 1"]


def test_a_provided_name_has_the_version_that_it_is_given() -> None:
    text = """
        app 1 D: api (>= 2)
        one 9 V: api
        two 1 V: api (= 1)
        three 1 V: api (= 2)
    """
    assert chosen(text, "app") == ["app 1", "three 1"]


def test_recommended_packages_come_if_they_are_wanted_and_can_be() -> None:
    text = """
        app 1 R: nice, absent, angry | calm; C: angry
        nice 1 D: more
        more 1
        angry 1
        calm 1
    """
    assert chosen(text, "app") == ["app 1"]
    assert chosen(text, "app", recommends=True) == ["app 1", "calm 1", "more 1", "nice 1"]


@pytest.mark.parametrize("verb", ["C", "B"])
def test_what_must_not_be_there_sends_the_search_elsewhere(verb: str) -> None:
    text = f"""
        app 1 D: a | b
        other 1 {verb}: a
        a 1
        b 1
    """
    assert chosen(text, "app", "other") == ["app 1", "b 1", "other 1"]


def test_an_older_version_is_taken_where_the_newest_does_not_fit() -> None:
    text = """
        app 1 D: lib
        lib 2 B: old-friend (<< 5)
        lib 1
        old-friend 4
    """
    assert chosen(text, "app", "old-friend") == ["app 1", "lib 1", "old-friend 4"]


def test_a_package_may_provide_and_forbid_the_same_name() -> None:
    """As mail servers do: there is to be one of them."""
    text = """
        a 1 V: mta; C: mta
        b 1 V: mta; C: mta
    """
    assert chosen(text, "a") == ["a 1"]
    with pytest.raises(ImpossibleError):
        chosen(text, "a", "b")


def test_cycles_are_fine() -> None:
    text = """
        a 1 D: b
        b 1 D: c
        c 1 D: a, d | b
        d 1
    """
    assert chosen(text, "a") == ["a 1", "b 1", "c 1"]


def test_essential_packages_are_wanted_on_every_system() -> None:
    text = """
        base 1 D: lib; Essential: yes
        lib 1
        app 1
    """
    assert chosen(text, "app") == ["app 1", "base 1", "lib 1"]
    assert chosen(text, "app", essential=False) == ["app 1"]


IMPOSSIBLE = """
    app 1 D: lib (>= 2)
    plugin 1 D: helper
    helper 1 D: lib (<< 2)
    lib 1
    lib 2
    lonely 1 D: missing
    loner 1 D: missing (>= 2) | gone
    enemy 1 C: lib
"""


@pytest.mark.parametrize(
    ("roots", "told"),
    [
        (["app", "plugin"], ["the master → app 1 depends on lib (>= 2)", "plugin 1 → helper 1 depends on lib (<< 2)"]),
        (["lonely"], ["the master → lonely 1 depends on missing"]),
        (["loner"], ["the master → loner 1 depends on missing (>= 2) | gone"]),
        (["app", "enemy"], ["enemy 1 conflicts with lib", "app 1 depends on lib (>= 2)"]),
        (["lib (>= 3)"], ["the master wants lib (>= 3)"]),
        (["nobody"], ["the master wants nobody"]),
    ],
)
def test_what_cannot_be_is_said_with_who_wants_what(roots: list[str], told: list[str]) -> None:
    with pytest.raises(ImpossibleError) as raised:
        chosen(IMPOSSIBLE, *roots)
    assert all(line in str(raised.value) for line in told), str(raised.value)
    assert "there is: " in raised.value.advice


def test_a_request_that_says_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="no package to want"):
        chosen(BASE, "lib (>= ")
    with pytest.raises(RequestError, match=r"lib is pinned to 9.0") as raised:
        chosen(BASE, "app", pins={"lib": "9.0"})
    assert "3.0, 2.0, 1.0" in raised.value.advice


def test_the_answer_does_not_depend_on_the_order_of_the_question() -> None:
    assert chosen(ALTERNATIVES, "app", "other", "fax") == chosen(ALTERNATIVES, "fax", "other", "app")


def test_a_version_that_is_taken_again_has_its_needs() -> None:
    """Where the search comes back to a version that it had left, that version's needs count as before."""
    text = """
        common 2 C: helper
        helper 1 D: common; C: web
        server 2
        server 3 D: helper; V: web (= 3)
    """
    assert chosen(text, "server") == ["server 2"]


def test_a_cycle_behind_a_version_that_is_not_taken_is_no_trouble() -> None:
    text = """
        app 1
        app 3 D: cycle, plugin
        plugin 1 D: app (<< 2)
        cycle 1 D: cycle
    """
    assert chosen(text, "app") == ["app 1"]


JUMPED_OVER = (
    """
        a 3 D: b; V: v
        c 1 D: a; V: v (= 1)
        c 3 D: c (<< 2) | w; V: v (= 3)
        d 2 V: w
    """,
    """
        b 1 D: w
        v 1 D: e
        e 1
        e 2 D: d; V: x (= 2)
        e 3 D: x | b
    """,
)


def test_nothing_that_can_be_is_called_impossible() -> None:
    assert [chosen(text, "v") for text in JUMPED_OVER] == [["c 3", "d 2"], ["e 1", "v 1"]]


def test_a_search_that_takes_too_long_does_not_say_that_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packagemanager.master.exhaustive.FAILURES_MAX", 1)
    with pytest.raises(ImpossibleError, match="it is not shown that there is none") as raised:
        chosen(JUMPED_OVER[0], "v")
    assert "Pin some" in raised.value.advice


GOING_BACK = """
    app 1 D: lib
    old-app 1 D: lib (<< 3)
    lib 1
    lib 2
    lib 3
"""


@pytest.mark.requirement("M4")
def test_nothing_goes_back_unless_it_is_asked_for() -> None:
    installed = {"lib": "3"}
    with pytest.raises(ImpossibleError, match=r"old-app 1 depends on lib \(<< 3\)") as raised:
        chosen(GOING_BACK, "old-app", installed=installed)
    assert "devices have 3; --pin lib=VERSION or --downgrade goes back" in raised.value.advice
    assert chosen(GOING_BACK, "old-app", installed=installed, downgrade=True) == ["lib 2", "old-app 1"]
    assert chosen(GOING_BACK, "old-app", installed=installed, pins={"lib": "1"}) == ["lib 1", "old-app 1"]
    for root in ("lib (= 1)", "lib (<< 2)", "lib (<= 1)"):
        assert chosen(GOING_BACK, "app", root, installed=installed) == ["app 1", "lib 1"]
    assert chosen(GOING_BACK, "app", "lib (>= 1)", installed=installed) == ["app 1", "lib 3"]
    with pytest.raises(ImpossibleError):
        chosen(GOING_BACK, "app", "lib (>= 1)", installed={"lib": "4"})


@pytest.mark.parametrize("upgrade", [False, True])
def test_old_lists_bring_nothing_that_is_older_than_what_devices_have(upgrade: bool) -> None:
    with pytest.raises(ImpossibleError, match="app 1 depends on lib") as raised:
        chosen(GOING_BACK, "app", installed={"lib": "4"}, upgrade=upgrade)
    assert "Of lib there is: 3, 2, 1 (devices have 4;" in raised.value.advice


def test_another_architecture_is_not_there() -> None:
    text = """
        app 1 D: lib:i386
        fine 1 D: lib:any, lib:amd64, helper:native, docs:amd64; C: lib:i386
        choosy 1 D: lib:i386 | helper
        lib 1
        helper 1
        odd 1 D: lib:i386; V: lib
        docs 1 Architecture: all
        reader 1 D: docs:i386
    """
    assert chosen(text, "fine") == ["docs 1", "fine 1", "helper 1", "lib 1"]
    assert chosen(text, "choosy") == ["choosy 1", "helper 1"]
    with pytest.raises(ImpossibleError, match="the master → app 1 depends on lib:i386") as raised:
        chosen(text, "app")
    assert "Of lib:i386 there is: nothing" in raised.value.advice
    with pytest.raises(ImpossibleError, match="depends on docs:i386"):
        chosen(text, "reader")


def test_a_name_that_is_provided_twice_has_both_versions() -> None:
    text = """
        server 1 V: api (= 1), api (= 2), api
        old-client 1 D: api (= 1)
        client 1 D: api (= 2)
        any-client 1 D: api
        enemy 1 C: api (= 1)
    """
    assert chosen(text, "old-client", "client", "any-client") == [
        "any-client 1",
        "client 1",
        "old-client 1",
        "server 1",
    ]
    with pytest.raises(ImpossibleError, match=r"conflicts with api \(= 1\)"):
        chosen(text, "client", "enemy")
