"""A disk to install on: a file behind a loop device that goes past the page cache, as a real disk would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.virtual.commands import run

HINT = "run it as root, where loop devices can be made: sudo ./scripts/bench install"
PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class LoopDevice:
    """``node`` is the block device."""

    node: Path

    def fill(self, content: Path | None, size: int) -> None:
        """Make the first ``size`` bytes (whole sectors) those of a file with zeroes behind; durable and in no cache."""
        present = content.stat().st_size if content else 0
        if content:
            self._copy(content, 0, present)
        self._copy(Path("/dev/zero"), present, size - present)
        self.drop_cache()

    def _copy(self, source: Path, offset: int, length: int) -> None:
        flags = ["iflag=fullblock,count_bytes", "oflag=direct,seek_bytes", "conv=fsync,notrunc", "status=none"]
        place = [f"if={source}", f"of={self.node}", f"seek={offset}", f"count={length}", f"bs={PIECE_BYTES}"]
        run(["dd", *place, *flags], hint=HINT)

    def holds(self, content: Path) -> bool:
        """Whether the disk, past the page cache, begins with the bytes of a file."""
        self.drop_cache()
        with self.node.open("rb") as disk, content.open("rb") as wanted:
            while piece := wanted.read(PIECE_BYTES):
                if disk.read(len(piece)) != piece:
                    return False
        return True

    def drop_cache(self) -> None:
        run(["blockdev", "--flushbufs", self.node], hint=HINT)


@contextmanager
def loop_device(path: Path, size: int) -> Iterator[LoopDevice]:
    """A disk of ``size`` bytes in the file ``path``, all of it allocated. Raises: SetupError."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    node = run(["losetup", "--find", "--show", "--direct-io=on", path], hint=HINT).decode().strip()
    try:
        yield LoopDevice(Path(node))
    finally:
        run(["losetup", "--detach", node], hint=HINT)
        path.unlink()
