"""What a wanted set means for what is installed, and which sets are refused, by name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from packagemanager.changes import Changes, Wish, decide, lacking, needs_restart
from packagemanager.control import Paragraph, paragraph
from packagemanager.database import Package
from packagemanager.errors import ArchiveError, RefusedError

NATIVE = ("amd64", "i386")


def fields(name: str, version: str = "1", architecture: str = "amd64", **more: str) -> Paragraph:
    lines = {"Package": name, "Version": version, "Architecture": architecture} | more
    return paragraph("".join(f"{key.replace('_', '-')}: {value}\n" for key, value in lines.items()).encode())


def device(*several: Paragraph, state: str = "install ok installed") -> dict[str, Package]:
    packages = [Package(paragraph(one.encode() + f"Status: {state}\n".encode())) for one in several]
    return {package.key: package for package in packages}


def wish(*several: Paragraph, **more: object) -> Wish:
    return Wish({_key(one): one.get("Version") for one in several}, **more)  # type: ignore[arg-type]


def _key(one: Paragraph) -> str:
    return f"{one.get('Package')}:{one.get('Architecture')}"


def changed(there: Mapping[str, Package], *wanted: Paragraph, **more: object) -> Changes:
    asked = wish(*wanted, **more)
    offered = {_key(one): one for one in wanted if _key(one) in lacking(there, asked)}
    return decide(there, asked, offered, NATIVE)


@pytest.mark.requirement("M4")
def test_every_kind_of_change() -> None:
    there = device(fields("same"), fields("older", "1.9"), fields("newer", "1:0.1"), fields("gone"))
    changes = changed(there, fields("new"), fields("same"), fields("older", "1.10"), fields("newer", "9"))
    assert changes.lines() == [
        "remove gone:amd64 1",
        "install new:amd64 1",
        "upgrade older:amd64 1.9 to 1.10",
        "downgrade newer:amd64 1:0.1 to 9",
    ]
    assert [package.key for package in changes.kept] == ["same:amd64"]
    assert changes.configured == ("new:amd64", "older:amd64", "newer:amd64")


@pytest.mark.requirement("M10")
def test_the_orders_are_the_masters() -> None:
    there = device(*(fields(name) for name in ("a", "b", "c", "d")))
    new = [fields("x"), fields("y")]
    changes = changed(there, *new, unpack=("y:amd64", "x:amd64"), removals=("c:amd64", "a:amd64"))
    assert [change.key for change in changes.unpacked] == ["y:amd64", "x:amd64"]
    assert changes.configured == ("x:amd64", "y:amd64")
    # What the master did not know of goes first.
    assert [change.name for change in changes.removed] == ["b", "d", "c", "a"]


def test_the_same_version_in_another_spelling_is_there() -> None:
    assert lacking(device(fields("a", "1.0")), wish(fields("a", "0:1.0"))) == []


@pytest.mark.parametrize("state", ["install ok half-configured", "install reinstreq half-installed",
                                   "install ok unpacked", "install reinstreq installed"])  # fmt: skip
def test_what_is_not_there_whole_is_brought_again(state: str) -> None:
    changes = changed(device(fields("a"), state=state), fields("a"))
    assert changes.lines() == ["reinstall a:amd64 1 to 1"]


def test_what_left_its_configuration_is_installed_and_not_removed() -> None:
    there = device(fields("a"), fields("b"), state="deinstall ok config-files")
    changes = changed(there, fields("a", "2"))
    assert changes.lines() == ["install a:amd64 2"]
    assert changes.unpacked[0].old is there["a:amd64"]
    assert not changes.removed


def test_another_architecture_of_a_package_is_the_same_package() -> None:
    there = device(fields("a", "1", "all"), fields("b", "1", "amd64"))
    assert changed(there, fields("a", "2", "amd64"), fields("b", "0", "all")).lines() == [
        "upgrade a:amd64 1 to 2",
        "downgrade b:all 1 to 0",
    ]


def test_a_library_for_one_architecture_becomes_a_package_for_all() -> None:
    for old, new in (("same", "no"), ("no", "same")):
        there = device(fields("a", "1", "amd64", Multi_Arch=old))
        (change,) = changed(there, fields("a", "2", "i386", Multi_Arch=new)).unpacked
        assert (str(change), change.old) == ("upgrade a:i386 1 to 2", there["a:amd64"])


def test_what_is_there_is_replaced_before_what_left_its_configuration() -> None:
    left = device(fields("a", "1", "i386", Multi_Arch="same"), state="deinstall ok config-files")
    there = left | device(fields("a", "1", "amd64", Multi_Arch="same"))
    for architecture in ("all", "i386"):
        changes = changed(there, fields("a", "2", architecture))
        assert changes.lines() == [f"upgrade a:{architecture} 1 to 2"]
        assert all(changes.supplants(package) for package in there.values())
    (change,) = changed(left, fields("a", "2", "all")).unpacked
    assert (str(change), change.old) == ("install a:all 2", left["a:i386"])
    beside = changed(there, fields("a", "2", "amd64", Multi_Arch="same"))
    assert not any(beside.supplants(package) for package in there.values())


def test_two_architectures_of_a_library_are_two_packages() -> None:
    two = [fields("lib", "1", one, Multi_Arch="same") for one in NATIVE]
    there = device(*two)
    assert changed(there, two[0]).lines() == ["remove lib:i386 1"]
    with pytest.raises(RefusedError, match="lib:i386 and lib:amd64 have different versions"):
        changed(there, fields("lib", "2", "amd64", Multi_Arch="same"), two[1])
    with pytest.raises(RefusedError, match="cannot be there together"):
        changed({}, fields("lib", "1", "amd64"), fields("lib", "1", "i386"))


REFUSED = {
    "a:amd64 depends on b (>= 2)": [fields("a", Depends="b (>= 2)"), fields("b", "1")],
    "a:amd64 depends on b | c": [fields("a", Pre_Depends="b | c")],
    "a:amd64 depends on v (= 2)": [fields("a", Depends="v (= 2)"), fields("b", Provides="v (= 1)")],
    "a:amd64 depends on w (= 1)": [fields("a", Depends="w (= 1)"), fields("b", Provides="w")],
    "a:amd64 depends on f": [fields("a", Depends="f"), fields("f", architecture="i386")],
    "a:amd64 depends on f:any": [fields("a", Depends="f:any"), fields("f", architecture="i386")],
    "a:amd64 depends on f:i386": [fields("a", Depends="f:i386"), fields("f")],
    "a:amd64 conflicts with b, which is b:amd64": [fields("a", Conflicts="b"), fields("b")],
    "a:amd64 breaks b (<< 2), which is b:amd64": [fields("a", Breaks="b (<< 2)"), fields("b")],
    "a:amd64 conflicts with v, which is b:i386": [
        fields("a", Conflicts="v", Provides="v"), fields("b", architecture="i386", Provides="v")],
    "a:arm64 is for arm64, this device takes all, amd64, i386": [fields("a", architecture="arm64")],
}  # fmt: skip


@pytest.mark.requirement("M10")
@pytest.mark.parametrize("problem", REFUSED)
def test_a_set_that_does_not_fit_together_is_refused_by_name(problem: str) -> None:
    with pytest.raises(RefusedError) as refused:
        changed({}, *REFUSED[problem])
    assert str(refused.value) == problem
    assert refused.value.advice


TAKEN = (
    [fields("a", Depends="b (>= 1), b (<< 2) | nothing"), fields("b", "1.5")],
    [fields("a", Depends="v (= 1)"), fields("b", Provides="v (= 1)")],
    [fields("a", Depends="f"), fields("f", architecture="i386", Multi_Arch="foreign")],
    [fields("a", Depends="f:any"), fields("f", architecture="i386", Multi_Arch="allowed")],
    [fields("a", Depends="d"), fields("d", architecture="all")],
    [fields("a", architecture="all", Depends="d"), fields("d")],
    [fields("a", Conflicts="v", Provides="v")],
    [fields("a", Breaks="b (<< 2)"), fields("b", "2")],
    [fields("a", Breaks="v (<< 2)"), fields("b", "1", Provides="v")],
    [fields("a", Recommends="nothing", Suggests="nothing")],
)


@pytest.mark.parametrize("wanted", TAKEN)
def test_a_set_that_fits_is_taken(wanted: list[Paragraph]) -> None:
    assert len(changed({}, *wanted)) == len(wanted)


def test_what_nobody_brings_is_named() -> None:
    with pytest.raises(RefusedError, match=r"a:amd64 2 is wanted and nobody brings it"):
        decide(device(fields("a")), wish(fields("a", "2")), {}, NATIVE)


@pytest.mark.parametrize("other", [fields("b", "2"), fields("a", "3"), fields("a", "2", "all")])
def test_what_comes_in_the_place_of_another_is_refused(other: Paragraph) -> None:
    with pytest.raises(RefusedError, match=f"a:amd64 2 is wanted and {_key(other)} {other.get('Version')} comes"):
        decide({}, wish(fields("a", "2")), {"a:amd64": other}, NATIVE)


def test_what_dpkg_would_not_read_again_is_refused_whatever_it_travelled_in() -> None:
    with pytest.raises(ArchiveError, match="its Multi-Arch is 'weird'"):
        changed({}, fields("a", Multi_Arch="weird"))
    # What is there already does not stop what replaces it.
    there = device(fields("a", Conflicts="b | c"))
    assert changed(there, fields("a", "2")).lines() == ["upgrade a:amd64 1 to 2"]


@pytest.mark.parametrize("mark", ["Essential", "Protected"])
def test_what_the_system_needs_is_not_removed(mark: str) -> None:
    there = device(fields("libc", **{mark: "yes"}), fields("other"))
    with pytest.raises(RefusedError, match=rf"libc:amd64 is {mark.lower()} and would be removed"):
        changed(there, fields("other"))
    assert changed(there, fields("other"), fields("next", Provides="libc")).lines()[0] == "remove libc:amd64 1"
    assert changed(there, fields("other"), expendable=["libc"]).lines() == ["remove libc:amd64 1"]
    assert changed(there, fields("other"), fields("libc", "2", "all")).lines() == ["upgrade libc:all 1 to 2"]


def test_many_problems_are_told_up_to_a_bound() -> None:
    with pytest.raises(RefusedError, match="and 12 more"):
        changed({}, *(fields(f"p{number}", Depends="nothing") for number in range(20)))


MARKS: tuple[tuple[dict[str, str], bool], ...] = (
    ({}, False), ({"Essential": "yes"}, True), ({"Priority": "required"}, True), ({"Protected": "yes"}, True),
    ({"Priority": "optional"}, False),
)  # fmt: skip


@pytest.mark.parametrize(("more", "answer"), MARKS)
def test_what_everything_runs_with_needs_a_restart(more: dict[str, str], answer: bool) -> None:
    assert needs_restart(changed({}, fields("a", **more))) is answer
    assert needs_restart(changed(device(fields("a", **more)), expendable=["a"])) is answer
    assert needs_restart(changed(device(fields("a", **more)), fields("a", **more))) is False


def test_what_the_needed_depend_on_is_needed() -> None:
    shell = fields("sh", Essential="yes", Pre_Depends="libc (>= 1)")
    libc, other = fields("libc", "1"), fields("other", "1", Depends="libc")
    there = device(shell, libc, other)
    assert needs_restart(changed(there, shell, fields("libc", "2"), other))
    assert not needs_restart(changed(there, shell, libc, fields("other", "2", Depends="libc")))
