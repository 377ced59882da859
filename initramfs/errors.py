"""What can go wrong on the build host, split by who has to act.

    BuildError                  every error a person sees: one message, one next step
    ├── ConfigError             the author of device.toml: file, line and key are named
    ├── MissingFile             the author of device.toml, or of the sysroot: something asked for is not there
    │                           (``kind``: program, library, module, firmware, file)
    ├── SysrootError            whoever made the sysroot: a file is there and is malformed or foreign
    ├── FetchError              the package source: lists are empty, a package is unknown, the network is down
    ├── ToolError               this host: a program the build runs is absent, failed or hung
    ├── BudgetError             the author of device.toml: the image is larger than they allow
    └── SelfCheckError          unbrick itself: the finished archive is not what the tree said

A mistake of the programmer is an ``AssertionError`` and no member of this tree. The CLI prints a
``BuildError`` as one line and its hint as the next, and ends with :attr:`BuildError.exit_code`;
the traceback is shown only with ``--debug``. Nothing here runs on the device.
"""

from __future__ import annotations

from pathlib import Path


class BuildError(Exception):
    """The build cannot go on. ``message`` says what is wrong, ``hint`` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(BuildError):
    """A value in the configuration is wrong. Reads ``device.toml:12: modules.boot: …``."""

    def __init__(self, message: str, hint: str = "", *, file: Path | str = "", line: int = 0, key: str = "") -> None:
        place = f"{file}:{line}" if file and line else str(file)
        super().__init__(": ".join(part for part in (place, key, message) if part), hint)
        self.file = str(file)
        self.line = line
        self.key = key


class MissingFile(BuildError):  # noqa: N818 — the family already says Error; this says what
    """A program, library, module or firmware that the image needs is not in its source."""

    def __init__(self, message: str, hint: str = "", *, kind: str = "file", name: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind
        self.name = name


class SysrootError(BuildError):
    """A file of the sysroot is malformed, loops, or belongs to another machine."""


class FetchError(BuildError):
    """A package cannot be had from where this host gets its packages."""


class ToolError(BuildError):
    """A program the build runs on this host is absent, failed, or did not end in time."""


class BudgetError(BuildError):
    """The image is larger than ``image.size-max-bytes``."""

    def __init__(self, message: str, hint: str = "", *, size_bytes: int = 0, size_max_bytes: int = 0) -> None:
        super().__init__(message, hint)
        self.size_bytes = size_bytes
        self.size_max_bytes = size_max_bytes


class SelfCheckError(BuildError):
    """The finished archive, read back, is not what was meant to be in it. Never the user's fault."""
