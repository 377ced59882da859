"""Run one of the host's programs; a failure is one message and the next step to take."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ERROR_TEXT_BYTES_MAX = 2000


class SetupError(Exception):
    """The virtual device cannot be made; ``hint`` is what the user can do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.args[0]}\n  next: {self.hint}"


def run(
    arguments: Sequence[str | Path],
    *,
    hint: str,
    standard_input: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    seconds_max: int = 600,
) -> bytes:
    """The standard output of a program that ended well.

    Raises: SetupError with the end of its error text, when it is missing, fails or takes too long.
    """
    command = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(
            command,
            input=standard_input,
            capture_output=True,
            env=_with_system_programs(os.environ if environment is None else environment),
            cwd=folder,
            timeout=seconds_max,
            check=False,
        )
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is not installed", "run ./scripts/install") from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"{command[0]} was still running after {seconds_max} s", hint) from None
    if done.returncode:
        text = done.stderr[-ERROR_TEXT_BYTES_MAX:].decode(errors="replace").strip()
        raise SetupError(f"{command[0]} ended with {done.returncode}: {text}", hint)
    return done.stdout


def _with_system_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """A user's search path has no mke2fs and no sfdisk."""
    return {**environment, "PATH": f"{environment.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"}
