"""Why are we here: the button, the command line, the last reset's cause. Cheap things first.

Nothing here waits unless the button is down, and what cannot be read counts as absent. On the path of
the ordinary boot.
"""

from __future__ import annotations

import os
import time

from statemachine.decide import Evidence
from statemachine.reasons import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from statemachine.record import Record

RECOVERY_WORDS = ("recovery", "rescue", "failsafe")
_COMMAND_LINE_BYTES_MAX = 4096
_INPUT_DEVICES_MAX = 32
_KEY_BITS_BYTES = 96
_EVIOCGKEY = 2 << 30 | _KEY_BITS_BYTES << 16 | ord("E") << 8 | 0x18
_HOLD_POLL_SECONDS = 0.05
_WDIOF_CARDRESET = 0x20


def gather(record: Record, config: dict[str, Any], journal_writable: bool) -> Evidence:
    """The evidence of this boot. The reset's cause is looked at only where the last boot was not good."""
    requested_by = 0
    if _asked_on_command_line():
        requested_by = CODES["recovery-on-command-line"]
    elif config.get("button") and button_held(config["button"]):
        requested_by = CODES["button-held"]
    suspicious = not journal_writable or record.attempts_left < config["boot_attempts"]
    return Evidence(journal_writable, requested_by, reset_cause() if suspicious else "clean")


def button_held(button: dict[str, Any]) -> bool:
    """Whether the button is down now and stays down for its hold time. Returns at once when it is up."""
    code = button["code"]
    devices = _input_devices()
    try:
        if not _down(devices, code):
            return False
        deadline = time.monotonic() + button["hold_seconds"]
        while time.monotonic() < deadline:
            time.sleep(_HOLD_POLL_SECONDS)
            if not _down(devices, code):
                return False
        return True
    finally:
        for descriptor in devices:
            os.close(descriptor)


def reset_cause() -> str:
    """``watchdog``, ``panic`` or ``clean``, from the watchdog's boot status and the kernel's panic record."""
    if int(_read("/sys/class/watchdog/watchdog0/bootstatus") or "0") & _WDIOF_CARDRESET:
        return "watchdog"
    try:
        records = os.listdir("/sys/fs/pstore")
    except OSError:
        records = []
    return "panic" if any(name.startswith("dmesg") for name in records) else "clean"


def _asked_on_command_line() -> bool:
    words = _read("/proc/cmdline").split()
    return any(word in RECOVERY_WORDS or word == "unbrick=recovery" for word in words)


def _input_devices() -> list[int]:
    try:
        names = sorted(name for name in os.listdir("/dev/input") if name.startswith("event"))
    except OSError:
        return []
    descriptors = []
    for name in names[:_INPUT_DEVICES_MAX]:
        try:
            descriptors.append(os.open(f"/dev/input/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            continue
    return descriptors


def _down(devices: list[int], code: int) -> bool:
    import fcntl

    for descriptor in devices:
        keys = bytearray(_KEY_BITS_BYTES)
        try:
            fcntl.ioctl(descriptor, _EVIOCGKEY, keys)
        except OSError:
            continue
        if keys[code // 8] >> (code % 8) & 1:
            return True
    return False


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _COMMAND_LINE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
