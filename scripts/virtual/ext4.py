"""An ext4 file system inside an image file, read and changed without mounting it.

By debugfs and e2fsck, which take an offset with the file's name: no loop device, no root. Its journal is
replayed before anything is looked at: the last device that used it may have lost its power.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

from scripts.virtual.commands import SetupError, run
from scripts.virtual.layer import SOURCE_DATE_EPOCH

FILE_SYSTEM_ID = "756e6272-6963-4b00-8000-646174610000"
HINT = "the file system is damaged or full; make the disk again"
LINES_MAX = 100_000
COPY_BYTES = 1 << 20
# <https://docs.kernel.org/filesystems/ext4/globals.html>: where the superblock is, and a flag in it
SUPERBLOCK_BYTES, INCOMPATIBLE_FEATURES, RECOVER = 1024, 0x60, 0x4


class Ext4:
    """The file system in ``size`` bytes of the file ``image``, from ``offset`` on. Paths are absolute."""

    def __init__(self, image: Path, offset: int = 0, size: int = 0) -> None:
        self._image = image
        self._offset = offset
        self._size = size or image.stat().st_size

    def format(self, label: str) -> None:
        """Make it new and empty; the same bytes every time."""
        options = f"offset={self._offset},hash_seed={FILE_SYSTEM_ID},lazy_itable_init=0,nodiscard"
        arguments = ["-q", "-F", "-t", "ext4", "-b", "4096", "-U", FILE_SYSTEM_ID, "-L", label, "-E", options]
        environment = os.environ | {"E2FSPROGS_FAKE_TIME": str(SOURCE_DATE_EPOCH)}
        size = f"{self._size // 1024}k"
        run(["mke2fs", *arguments, self._image, size], hint=HINT, environment=environment)

    def names(self, folder: str) -> list[str]:
        """The names in ``folder``, sorted; none where there is no such folder."""
        entries = [line.split("/") for line in self._debug(f"ls -p {folder}").splitlines()[:LINES_MAX]]
        return sorted(entry[5] for entry in entries if len(entry) > 5 and entry[5] not in (".", "..", ""))

    def exists(self, path: str) -> bool:
        return Path(path).name in self.names(str(Path(path).parent))

    def read(self, path: str) -> bytes:
        """The content of a file; empty where there is none."""
        return self._debug_bytes(f"cat {path}")

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Put a file of root's there, with the folders above it; what was at ``path`` goes."""
        # debugfs does not refuse a name that is there: it would lose an inode.
        missing = [folder for folder in reversed(Path(path).parents[:-1]) if not self.exists(str(folder))]
        with tempfile.NamedTemporaryFile() as content:
            content.write(data)
            content.flush()
            commands = [
                *(f"mkdir {folder}" for folder in missing),
                *([f"rm {path}"] if self.exists(path) else []),
                f"write {content.name} {path}",
                f"set_inode_field {path} mode 0{0o100000 | mode:o}",
                f"set_inode_field {path} uid 0",
                f"set_inode_field {path} gid 0",
            ]
            self._replay()
            with tempfile.NamedTemporaryFile("w") as script:
                script.write("\n".join(commands) + "\n")
                script.flush()
                run(["debugfs", "-w", "-f", script.name, self._name], hint=HINT)
        if self.read(path) != data:
            raise SetupError(f"{path} was not written into {self._image}", HINT)

    def blocks(self, path: str) -> list[int]:
        """The byte offsets in the image file of the 4 KiB blocks that hold the file ``path``."""
        numbers = self._debug(f"blocks {path}").split()
        return [self._offset + int(number) * 4096 for number in numbers]

    @property
    def _name(self) -> str:
        return f"{self._image}?offset={self._offset}" if self._offset else str(self._image)

    def _replay(self) -> None:
        """Finish what a running device left in the journal. e2fsck forgets the offset while it does, so it
        works on a copy of the file system alone."""
        if not self._needs_recovery():
            return
        with tempfile.NamedTemporaryFile(dir=self._image.parent) as copy:
            with self._image.open("rb") as image:
                image.seek(self._offset)
                _copy_sparse(image, copy.file, self._size)
            run(["e2fsck", "-p", "-E", "journal_only", copy.name], hint=HINT)
            with self._image.open("r+b") as image:
                image.seek(self._offset)
                copy.seek(0)
                _copy_sparse(copy.file, image, self._size, keep_holes=False)

    def _needs_recovery(self) -> bool:
        """The flag of the superblock that says so (ext4's EXT4_FEATURE_INCOMPAT_RECOVER)."""
        with self._image.open("rb") as image:
            image.seek(self._offset + SUPERBLOCK_BYTES + INCOMPATIBLE_FEATURES)
            return bool(int.from_bytes(image.read(4), "little") & RECOVER)

    def _debug(self, request: str) -> str:
        return self._debug_bytes(request).decode(errors="replace")

    def _debug_bytes(self, request: str) -> bytes:
        self._replay()
        return run(["debugfs", "-R", request, self._name], hint=HINT)


def _copy_sparse(source: IO[bytes], target: IO[bytes], length: int, keep_holes: bool = True) -> None:
    """Copy ``length`` bytes from where both files stand; runs of zeroes become holes where that is wanted."""
    zeroes = bytes(COPY_BYTES)
    while length > 0 and (part := source.read(min(COPY_BYTES, length))):
        if keep_holes and part == zeroes[: len(part)]:
            target.seek(len(part), os.SEEK_CUR)
        else:
            target.write(part)
        length -= len(part)
    if keep_holes:
        target.truncate(target.tell())
    target.flush()
