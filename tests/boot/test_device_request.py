"""Somebody asks for recovery: by the button, on the kernel's command line, from the OS."""

from __future__ import annotations

import pytest

from tests.boot.device import CONFIRMED_SECONDS, LOOKED_AT_SECONDS, ONCE, Device, shown

pytestmark = [pytest.mark.boot, pytest.mark.requirement("M11", "M12")]

REQUEST = "tiny.unbrick=reboot,--recovery,--later tiny.after=reboot"


@pytest.mark.requirement("D10")
@pytest.mark.fault("H7")
def test_the_held_button_has_a_healthy_slot_verified_and_nothing_changed(device: Device) -> None:
    device.disk.data.write("/user/photo", b"a person's data")
    before = device.digests()
    console = device.boot(hold_key="r")  # and it is never released
    assert shown(console, "E106 button-held: SUSPECT", "version 1: 0 of", "E113 slot-verified: CONFIRMED")
    assert shown(console, "tiny-os: user data at /data", "E100 confirmed")
    assert device.digests() == before
    assert device.disk.data.read("/user/photo") == b"a person's data"


@pytest.mark.parametrize(
    "word", ["recovery", *(pytest.param(w, marks=pytest.mark.long) for w in ("rescue", "failsafe"))]
)
def test_a_word_on_the_command_line_asks_for_recovery(device: Device, word: str) -> None:
    console = device.boot(word)
    assert shown(console, "E107 recovery-on-command-line: SUSPECT", "E113 slot-verified: CONFIRMED", "E100 confirmed")


def test_the_os_asks_for_recovery(device: Device) -> None:
    guest = device.power_on(REQUEST)
    guest.expect("unbrick: the slot is verified at the next start", LOOKED_AT_SECONDS)
    guest.expect("E108 recovery-requested: SUSPECT", LOOKED_AT_SECONDS)
    guest.expect("E113 slot-verified: CONFIRMED", LOOKED_AT_SECONDS)
    guest.expect(ONCE, CONFIRMED_SECONDS)


def test_the_button_wakes_a_waiting_device(device: Device) -> None:
    device.disk.zero("slot")
    device.disk.zero("payload")
    guest = device.power_on()
    guest.expect("unbrick: waiting for a USB stick", LOOKED_AT_SECONDS)
    guest.hold_key("r")
    guest.expect("E106 button-held: SUSPECT", LOOKED_AT_SECONDS)
    guest.expect("E400 no-source: WAITING", LOOKED_AT_SECONDS)
    assert guest.boots == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [("status", "state:             CONFIRMED"), ("log", "E100 confirmed"), ("journal,show", "reason=E101 started")],
)
def test_the_os_can_ask_what_happened(device: Device, words: str, says: str) -> None:
    guest = device.power_on(f"tiny.unbrick={words}")
    guest.expect(says, LOOKED_AT_SECONDS)
    guest.expect("tiny-os: unbrick ended with 0", LOOKED_AT_SECONDS)
