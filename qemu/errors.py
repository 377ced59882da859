"""What can go wrong in the lab, split by who has to act.

LabError                    everything below: a message and, where there is one, the next step
├── OptionsError            the author of the test: an option is wrong, or a file it names is absent
├── QemuMissing             this host: the emulator is not installed
├── MachineEnded            the emulator ended while somebody still waited for the guest
├── ConsoleTimeout          the guest did not print what was expected in time
├── ConsoleUnwanted         the guest printed what must not appear
├── MonitorError            the emulator refused a command, or did not answer in time
└── WriteLogError           a write log is malformed, cut short, or does not belong to the image
"""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot go on. ``message`` says what is wrong, ``hint`` what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class OptionsError(LabError):
    """An option contradicts another one, or names a file that is not there."""


class QemuMissing(LabError):  # noqa: N818 — the family says Error; this says what happened
    """The program that emulates the machine is not on this host."""


class MachineEnded(LabError):  # noqa: N818 — the family says Error; this says what happened
    """The emulator's process is gone, and the guest with it."""


class ConsoleTimeout(LabError):  # noqa: N818 — the family says Error; this says what happened
    """The expected text did not appear on the serial console in time."""


class ConsoleUnwanted(LabError):  # noqa: N818 — the family says Error; this says what happened
    """Text that must not appear did, before the expected one."""


class MonitorError(LabError):
    """A command to the emulator failed, or its answer did not come in time."""


class WriteLogError(LabError):
    """A write log cannot be read, or a replay of it was asked for that cannot be."""
