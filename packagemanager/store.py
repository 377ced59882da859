"""The transactions that a device may have to apply again: whole bundles in a folder outside of any root.

A new image, or a system state that was set aside, starts without the packages of the one before. What brings them back
is kept here: the newest transaction that ran well, and those before it that it builds on. Nothing in this folder is
believed because it is here: a bundle is verified like one from a stick. Losing the folder loses no root.
"""

from __future__ import annotations

import os

from payload.bundle import read_exactly
from payload.durable import atomic_replace, flush_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import BinaryIO

    from payload.bundle import Reader

SUFFIX = ".ubk"
NEW_SUFFIX = ".new"  # of a copy that is being made, behind a dot (`payload.durable`)
COPY_BYTES = 1 << 20
KEPT_MAX = 256
_DIGITS_MAX = 20


class Store:
    """``folder`` is made when something is kept. Every method raises ``OSError`` as the disk does."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def serials(self) -> list[int]:
        """Of what is kept, oldest first."""
        return sorted(serial for name in self._names() if (serial := _serial(name)) > 0)

    def newest(self, good: int) -> int:
        """Of what is kept, the newest that is not newer than ``good``, whether it reads or not; 0: there is none."""
        return max((serial for serial in self.serials() if serial <= good), default=0)

    def _names(self) -> list[str]:
        """Of the files; folders and links are none of ours."""
        try:
            with os.scandir(self.folder) as entries:
                return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def path(self, serial: int) -> str:
        return os.path.join(self.folder, f"{serial}{SUFFIX}")

    def keep(self, serial: int, bundle: Reader, size: int) -> None:
        """Keep the ``size`` bytes of ``bundle``; they are whole and durable when this returns, or not there at all."""

        def fill(file: BinaryIO) -> None:
            for start in range(0, size, COPY_BYTES):
                file.write(read_exactly(bundle, start, min(COPY_BYTES, size - start)))

        if not os.path.isdir(self.folder):
            os.makedirs(self.folder, exist_ok=True)
            flush_directory(os.path.dirname(self.folder) or ".")
        atomic_replace(self.path(serial), fill)

    def forget_all_but(self, needed: Collection[int]) -> None:
        """Remove the others, and what a cut has left of a copy. What has another name is not ours and stays."""
        gone = [name for name in self._names() if (serial := _serial(name)) > 0 and serial not in needed]
        gone += [name for name in self._names() if _is_unfinished(name)]
        for name in gone:
            os.unlink(os.path.join(self.folder, name))
        if gone:
            flush_directory(self.folder)


def way_back(serials: Sequence[int], good: int, starts: Callable[[int], bool]) -> list[int]:
    """The transactions that lead from an image's own packages to the set of transaction ``good``, oldest first.

    ``starts`` says whether a transaction can be applied to the image's own packages; the newest such one is where the
    way begins. Empty: there is no way with what is kept.
    """
    way: list[int] = []
    for serial in sorted((one for one in serials if one <= good), reverse=True)[:KEPT_MAX]:
        way.insert(0, serial)
        if starts(serial):
            return way if way[-1] == good else []
    return []


def _is_unfinished(name: str) -> bool:
    """Whether the name is that of a copy that was cut."""
    return name.startswith(".") and name.endswith(NEW_SUFFIX) and _serial(name[1:].removesuffix(NEW_SUFFIX)) > 0


def _serial(name: str) -> int:
    """0: the name is not that of a kept transaction."""
    digits = name.removesuffix(SUFFIX)
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX
    return int(digits) if is_number and name == f"{int(digits)}{SUFFIX}" else 0
