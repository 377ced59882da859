"""The ELF closure: every file that a set of programs needs to start, and why each is needed.

The answer is the dynamic loader's own (`ld.so --list`), found by reading: nothing of the sysroot is
run, so it holds for any architecture. Beyond the loader's answer it knows what programs open at run
time and say so: ``.note.dlopen``, and the library that glibc opens to unwind a thread.

:mod:`initramfs.elf_process` loads one program; reading one file is :mod:`initramfs.elf_file`, the search
order :mod:`initramfs.elf_search`, and symlinks :mod:`initramfs.elf_sysroot`. Not seen: a dlopen() that no
note declares; name such a library in `programs.include`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from initramfs.elf_file import MAGIC, PRIORITIES
from initramfs.elf_process import Objects, Policy, Process
from initramfs.elf_sysroot import Found, Sysroot
from initramfs.errors import MissingFile, SysrootError

SCRIPT_DEPTH_MAX = 4  # the kernel's limit for interpreters of interpreters is 5 programs in all
SCRIPT_LINE_BYTES_MAX = 256
PROGRAM_DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True)
class ClosureEntry:
    """One file or symlink of the image.

    ``path`` is absolute in the image and none of its directories is a symlink. Exactly one of these holds:
    ``source`` is the host's path of a regular file, or ``target`` is the text of a symlink.
    """

    path: str
    source: Path | None
    target: str
    reason: str


def _ignore(_notice: str) -> None:
    pass


def closure(
    sysroot: Path,
    programs: Sequence[str],
    *,
    hwcaps: Sequence[str] = (),
    dlopen: str = "recommended",
    notice: Callable[[str], None] = _ignore,
) -> list[ClosureEntry]:
    """What ``programs`` need, themselves included, sorted by path.

    ``programs`` are paths in the sysroot, or names to be found in its program directories: ELF
    programs and libraries, scripts (their interpreter comes along), or data files. ``hwcaps``
    names the subdirectories of glibc-hwcaps that the device's CPU can use, the best first; without it
    only baseline libraries are taken. ``dlopen`` is the least priority of run-time libraries to take:
    none, required, recommended or suggested; ``notice`` is told of one that is absent and not required.

    Raises:
        MissingFile: a program or a library is not in the sysroot.
        SysrootError: a file is malformed, loops, or cannot work in an image.
    """
    builder = _Builder(Sysroot(sysroot), Policy(hwcaps, _priorities(dlopen), notice))
    for program in programs:
        builder.add_program(program, "asked for by the configuration")
    return sorted(builder.entries.values(), key=lambda entry: entry.path)


def _priorities(least: str) -> tuple[str, ...]:
    if least == "none":
        return ()
    return PRIORITIES[: PRIORITIES.index(least) + 1]


class _Builder:
    """Gathers what each program needs. Programs do not see each other; the image holds the union."""

    def __init__(self, sysroot: Sysroot, policy: Policy) -> None:
        self._sysroot = sysroot
        self._policy = policy
        self._objects = Objects(sysroot)
        self.entries: dict[str, ClosureEntry] = {}

    def _add(self, found: Found, reason: str) -> None:
        """A file and the symlinks that led to it. The first reason given for a path stays."""
        for link, target in found.links:
            self._add_entry(ClosureEntry(link, None, target, f"leads to {found.path}, {reason}"))
        self._add_entry(ClosureEntry(found.path, found.source, "", reason))

    def _add_link(self, path: str, target: str, reason: str) -> None:
        directory = self._sysroot.find(str(PurePosixPath(path).parent))
        if directory is None:
            self._add_entry(ClosureEntry(path, None, target, reason))
            return
        for link, text in directory.links:
            self._add_entry(ClosureEntry(link, None, text, f"leads to {directory.path}"))
        place = f"{directory.path.rstrip('/')}/{PurePosixPath(path).name}"
        self._add_entry(ClosureEntry(place, None, target, reason))

    def _add_entry(self, entry: ClosureEntry) -> None:
        present = self.entries.setdefault(entry.path, entry)
        if (present.source, present.target) != (entry.source, entry.target):
            raise SysrootError(
                f"{entry.path} would have to be two files at once: {present.reason}, and {entry.reason}",
                "give one of the two an RPATH, or remove its directory from ld.so.conf",
            )

    def add_program(self, program: str, reason: str, depth: int = 0) -> None:
        found = self._find_program(program)
        self._add(found, reason)
        start = _first_bytes(found)
        if start.startswith(MAGIC):
            for need in Process(self._objects, found, self._policy).requirements():
                self._add(need.found, need.reason)
                if need.link:
                    self._add_link(need.link, need.found.path, need.reason)
        elif start.startswith(b"#!"):
            self._add_interpreter(found, start, depth)
        elif found.mode & 0o111:
            raise SysrootError(
                f"{found.path} is executable, but neither an ELF program nor a script",
                "it may be cut short: unpack the sysroot again",
            )

    def _find_program(self, program: str) -> Found:
        paths = [program] if "/" in program else [f"{place}/{program}" for place in PROGRAM_DIRECTORIES]
        for path in paths:
            found = self._sysroot.find(path)
            if found is not None and found.is_file:
                return found
            if found is not None:
                raise SysrootError(f"{path} is not a regular file", "name files, one by one, in programs.include")
        raise MissingFile(
            f"the program {program} is not in the sysroot {self._sysroot.root}",
            self._similar(PurePosixPath(program).name) or "add the package that brings it to sysroot.packages",
            kind="program",
            name=program,
        )

    def _similar(self, name: str) -> str:
        paths = [path for place in PROGRAM_DIRECTORIES for path in self._sysroot.glob(f"{place}/*")]
        by_name = {PurePosixPath(path).name: path for path in reversed(paths)}
        close = [by_name[other] for other in difflib.get_close_matches(name, by_name, n=3, cutoff=0.75)]
        return f"there is {' and '.join(close)}" if close else ""

    def _add_interpreter(self, script: Found, start: bytes, depth: int) -> None:
        words = start[2:].split(b"\n")[0].decode("utf-8", "surrogateescape").split()
        if not words or depth >= SCRIPT_DEPTH_MAX:
            raise SysrootError(f"{script.path} has no usable interpreter in its first line", "repair the script")
        self.add_program(words[0], f"the interpreter of {script.path}", depth + 1)
        # `#!/usr/bin/env python3` names the program that counts in second place.
        if PurePosixPath(words[0]).name == "env" and len(words) > 1 and not words[1].startswith("-"):
            self.add_program(words[1], f"the interpreter of {script.path}, by way of env", depth + 1)


def _first_bytes(found: Found) -> bytes:
    with found.source.open("rb") as stream:
        return stream.read(SCRIPT_LINE_BYTES_MAX)
