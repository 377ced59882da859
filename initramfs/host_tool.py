"""Run a program of the build host: no shell, bounded in time, one clear error.

The language is C, so that what is read from the output does not depend on who builds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from initramfs.errors import ToolError

HINTS = {
    "apt-get": "fetching packages needs a Debian-like host; set sysroot.path and kernel.path instead",
    "apt-cache": "fetching packages needs a Debian-like host; set sysroot.path and kernel.path instead",
    "dpkg": "install the package dpkg",
    "dpkg-deb": "install the package dpkg",
    "depmod": "install the package kmod",
    "tar": "install the package tar",
}


class ToolFailed(ToolError):  # noqa: N818 — it is the tool that failed
    """A program ended with an error. ``output`` is what it wrote to standard error, or else to standard output."""

    def __init__(self, command: str, status: int, output: str) -> None:
        last = output.strip().splitlines()[-1:] or ["it gave no reason"]
        super().__init__(f"{command} failed with status {status}: {last[0]}", "run it by hand to see all it says")
        self.output = output


def run(command: Sequence[str], seconds_max: int, *, directory: Path | None = None) -> str:
    """Standard output of ``command``.

    Raises:
        ToolFailed: it ended with another status than 0.
        ToolError: it is not on this host, or did not end in time.
    """
    with _start(command, directory, None) as process:
        output, errors = _finish(command[0], process, seconds_max)
    if process.returncode:
        raise ToolFailed(command[0], process.returncode, errors.strip() or output)
    return output


def pipe(producer: Sequence[str], consumer: Sequence[str], seconds_max: int) -> None:
    """``producer | consumer``, for what would be too large to hold.

    Raises:
        ToolFailed: one of the two ended with another status than 0; the consumer is named first.
        ToolError: one is not on this host, or they did not end in time.
    """
    with _start(producer, None, None) as source, _start(consumer, None, source.stdout) as sink:
        assert source.stdout is not None
        source.stdout.close()  # else the producer would not notice that the consumer is gone
        source.stdout = None
        try:
            output, errors = _finish(consumer[0], sink, seconds_max)
            _, source_errors = _finish(producer[0], source, seconds_max)
        finally:
            source.kill()
    if source.returncode and not sink.returncode:
        raise ToolFailed(producer[0], source.returncode, source_errors)
    if sink.returncode:
        raise ToolFailed(consumer[0], sink.returncode, source_errors + errors or output)


def _start(command: Sequence[str], directory: Path | None, source: IO[str] | None) -> subprocess.Popen[str]:
    # depmod is in sbin, which is not on everyone's PATH.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        return subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
            stdin=source or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise ToolError(f"{command[0]} is not on this host", HINTS.get(command[0], "install it")) from error


def _finish(name: str, process: subprocess.Popen[str], seconds_max: int) -> tuple[str, str]:
    try:
        return process.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise ToolError(f"{name} did not end within {seconds_max} seconds", "is the network up?") from error
