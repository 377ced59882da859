"""Triggers: what packages say of them, what dpkg-trigger looks into, and what a transaction activates."""

import pytest

from packagemanager import script_plan, triggers
from packagemanager.calls import SCRIPTS, Turn
from packagemanager.errors import DatabaseError, UnsupportedError
from packagemanager.script_plan import Changes
from packagemanager.triggers import Declared, Interests

LIBC = triggers.parse(b"# of libc-bin\ninterest-await ldconfig\n", "libc-bin")
UDEV = triggers.parse(b"interest-noawait /lib/udev/hwdb.d\ninterest-noawait /usr/lib/udev\n", "udev")
LIBRARY = triggers.parse(b"activate-noawait ldconfig  # always\n\n", "libfoo")
DECLARED = {"libc-bin": LIBC, "udev": UDEV, "libfoo:amd64": LIBRARY}
LISTENERS = {"libc-bin": Turn("libc-bin", "amd64"), "udev": Turn("udev", "amd64")}


def test_what_packages_say() -> None:
    assert LIBC.interests == (("ldconfig", False),)
    assert UDEV.interests == (("/lib/udev/hwdb.d", True), ("/usr/lib/udev", True))
    assert LIBRARY.activations == ("ldconfig",)


@pytest.mark.requirement("M14")
@pytest.mark.parametrize(
    "line", [b"intrest ldconfig", b"interest", b"interest a b", b"activate ../x", b"interest a/b", b"interest /a/../b"]
)
def test_a_line_that_nobody_knows_is_refused_with_its_package(line: bytes) -> None:
    with pytest.raises(UnsupportedError, match="libfoo"):
        triggers.parse(b"interest ldconfig\n" + line + b"\n", "libfoo")


def test_the_texts_are_those_that_dpkg_has() -> None:
    both = Interests(DECLARED | {"other:amd64": Declared((("ldconfig", True), ("/a", False)))})
    assert both.texts() == {
        "File": b"/lib/udev/hwdb.d udev/noawait\n/usr/lib/udev udev/noawait\n/a other:amd64\n",
        "ldconfig": b"libc-bin\nother:amd64/noawait\n",
    }


def test_a_path_activates_who_is_interested_in_it_or_in_a_folder_above() -> None:
    paths = ["usr/lib/udev/rules.d/1", "usr/lib/udev/rules.d/2", "lib/udev/hwdb.d", "lib/udev/hwdb.d2", "usr/lib"]
    assert Interests(DECLARED).of_paths(paths) == {"udev": ["/usr/lib/udev", "/lib/udev/hwdb.d"]}


def test_what_dpkg_trigger_noted() -> None:
    assert triggers.unincorporated(b"ldconfig -\n/a/b perl libfoo:amd64\n\n../x y\nldconfig z\n") == [
        "ldconfig",
        "/a/b",
    ]


def changes(*configured: Turn, removed: tuple[Turn, ...] = (), paths: tuple[str, ...] = ()) -> Changes:
    return Changes(
        removed, configured, configured,
        declared_before=DECLARED, declared_after=DECLARED, listeners=LISTENERS, paths=paths,
    )  # fmt: skip


LIBRARY_TURN = Turn("libfoo", "amd64", info="libfoo:amd64", old="1", new="2")
LIBC_TURN = Turn("libc-bin", "amd64", old="1", new="2", old_scripts=SCRIPTS, new_scripts=SCRIPTS)
UDEV_TURN = Turn("udev", "amd64", old="1", new="2")


@pytest.mark.requirement("M10")
def test_to_be_configured_is_to_have_processed_what_was_activated_before() -> None:
    assert script_plan.make(changes(LIBRARY_TURN)).pending == {"libc-bin": ["ldconfig"]}
    assert script_plan.make(changes(LIBRARY_TURN, LIBC_TURN)).pending == {}
    assert script_plan.make(changes(LIBC_TURN, LIBRARY_TURN)).pending == {"libc-bin": ["ldconfig"]}
    removed = Turn("libfoo", "amd64", info="libfoo:amd64", old="1")
    assert script_plan.make(changes(removed=(removed,))).pending == {"libc-bin": ["ldconfig"]}
    assert script_plan.make(changes(paths=("lib/udev/hwdb.d/x",))).pending == {"udev": ["/lib/udev/hwdb.d"]}
    assert script_plan.make(changes(UDEV_TURN, paths=("lib/udev/hwdb.d/x",))).pending == {}


def test_a_plan_reads_as_it_was_written() -> None:
    plan = script_plan.make(changes(LIBC_TURN, LIBRARY_TURN, paths=("usr/lib/udev/a b",)))
    text = script_plan.encode(plan)
    again = script_plan.decode(text)
    assert script_plan.encode(again) == text
    assert [str(call) for call in again.after] == [str(call) for call in plan.after]
    assert again.before[0].otherwise is not None
    assert str(again.before[0].otherwise) == "libc-bin.prerm failed-upgrade 1 2"
    assert again.pending == {"libc-bin": ["ldconfig"], "udev": ["/usr/lib/udev"]}
    assert again.listeners["udev"].architecture == "amd64"


def test_a_plan_that_was_cut_is_never_guessed_at() -> None:
    text = script_plan.encode(script_plan.make(changes(LIBC_TURN, LIBRARY_TURN)))
    for length in range(len(text)):
        with pytest.raises(DatabaseError):
            script_plan.decode(text[:length])
    with pytest.raises(DatabaseError):
        script_plan.decode(text.replace(b"pending", b"depending"))
    with pytest.raises(DatabaseError):
        script_plan.text_of([("pending", "a\tb")])
    with pytest.raises(DatabaseError, match="allowed are"):
        script_plan.text_of([("pending", "a" * script_plan.TEXT_BYTES_MAX)])
