"""Which scripts are called, with which words: those of Debian policy, chapter 6, as dpkg says them."""

import pytest

from packagemanager import calls
from packagemanager.calls import Turn

ALL = calls.SCRIPTS
INSTALL = Turn("new", "amd64", new="1", new_scripts=ALL)
AGAIN = Turn("again", "all", new="2", configured="1", left="1", new_scripts=ALL)
UPGRADE = Turn("up", "amd64", old="1", new="2", old_scripts=ALL, new_scripts=ALL)
DOWNGRADE = Turn("down", "amd64", old="2", new="1", old_scripts=ALL, new_scripts=ALL)
REMOVE = Turn("gone", "amd64", old="3", old_scripts=ALL)
PURGE = Turn("wiped", "amd64", old="4", old_scripts=ALL, purge=True)
SILENT = Turn("silent", "amd64", old="1", new="2")
UNPACKED = (INSTALL, AGAIN, UPGRADE, DOWNGRADE, SILENT)


def words(listed: tuple[calls.Call, ...]) -> list[str]:
    return [f"{call.place} {call}" for call in listed]


@pytest.mark.requirement("M10")
def test_before_the_files_change() -> None:
    assert words(calls.before((REMOVE, PURGE), UNPACKED)) == [
        "installed gone.prerm remove",
        "installed wiped.prerm remove",
        "new new.preinst install",
        "new again.preinst install 1 2",
        "installed up.prerm upgrade 2",
        "new up.preinst upgrade 1 2",
        "installed down.prerm upgrade 1",
        "new down.preinst upgrade 2 1",
    ]


@pytest.mark.requirement("M10")
def test_after_the_files_changed() -> None:
    assert words(calls.after((REMOVE, PURGE), UNPACKED, tuple(reversed(UNPACKED)))) == [
        "old gone.postrm remove",
        "old wiped.postrm remove",
        "old wiped.postrm purge",
        "old up.postrm upgrade 2",
        "old down.postrm upgrade 1",
        "installed down.postinst configure 2",
        "installed up.postinst configure 1",
        "installed again.postinst configure 1",
        "installed new.postinst configure ",
    ]


@pytest.mark.requirement("M10")
def test_what_is_taken_back_the_packages_are_told_in_the_other_order() -> None:
    assert words(calls.back((REMOVE, PURGE), UNPACKED)) == [
        "new down.postrm abort-upgrade 2 1",
        "installed down.postinst abort-upgrade 1",
        "new up.postrm abort-upgrade 1 2",
        "installed up.postinst abort-upgrade 2",
        "new again.postrm abort-install 1 2",
        "new new.postrm abort-install",
        "installed wiped.postinst abort-remove",
        "installed gone.postinst abort-remove",
    ]


def test_the_new_version_is_asked_where_the_old_one_fails() -> None:
    prerm, _preinst = calls.before((), (UPGRADE,))
    postrm, _postinst = calls.after((), (UPGRADE,), (UPGRADE,))
    second = [call.otherwise for call in (prerm, postrm)]
    assert [f"{call.place} {call}" for call in second if call] == [
        "new up.prerm failed-upgrade 1 2",
        "new up.postrm failed-upgrade 1 2",
    ]


@pytest.mark.requirement("M10")
def test_what_was_not_configured_has_nothing_to_stop() -> None:
    half = [
        Turn("one", "all", old="2", new="3", configured=last, unconfigured=True, old_scripts=ALL, new_scripts=ALL)
        for last in ("1", "")
    ]
    gone = Turn("gone", "all", old="2", configured="", unconfigured=True, old_scripts=ALL)
    assert words(calls.before((gone,), half)) == ["new one.preinst upgrade 2 3"] * 2
    assert words(calls.after((gone,), half, half)) == [
        "old gone.postrm remove",
        *["old one.postrm upgrade 3"] * 2,
        "installed one.postinst configure 1",
        "installed one.postinst configure ",
    ]
    assert words(calls.back((gone,), half)) == ["new one.postrm abort-upgrade 2 3"] * 2


def test_triggers_are_one_word() -> None:
    call = calls.triggered(UPGRADE, ("ldconfig", "/usr/share/man"))
    assert (call.place, call.words) == ("installed", ("triggered", "ldconfig /usr/share/man"))
