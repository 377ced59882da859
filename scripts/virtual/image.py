"""From layers (tar archives, lowest first) to a file system image.

squashfs (zstd) is the default, erofs and uncompressed ext4 are the other two a slot may hold. The same
layers give the same bytes, whoever builds them and whenever: fixed times, file system ids and hash seeds.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.virtual.commands import run
from scripts.virtual.layer import SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE_SYSTEM_ID = "6e627269-636b-4000-8000-756e62726963"
HINT = "see that the disk has 1 GiB free, then run ./scripts/install again"

_SAME_TIMES = f"""
        # mke2fs copies the times of change and of use, and these are of the unpacking.
        (cd "$1" && find . -printf 'set_inode_field "/%P" ctime @{SOURCE_DATE_EPOCH}\\n') >"$2.times"
        sed 's/ ctime / atime /' "$2.times" >>"$2.times2"
        cat "$2.times" "$2.times2" | debugfs -w -f - "$2" >/dev/null 2>&1
        rm "$2.times" "$2.times2"
"""
# $1 = tree, $2 = output. Level 15 takes less than half of level 19's time for 1 % more bytes.
# An ext4 image keeps its journal and an eighth of free space: it may be used read-write.
MAKERS = {
    "squashfs": 'mksquashfs "$1" "$2" -comp zstd -Xcompression-level 15 -noappend -quiet -no-progress',
    "erofs": f'mkfs.erofs -zlz4hc -T{SOURCE_DATE_EPOCH} -U {FILE_SYSTEM_ID} --quiet "$2" "$1"',
    "erofs-plain": f'mkfs.erofs -T{SOURCE_DATE_EPOCH} -U {FILE_SYSTEM_ID} --quiet "$2" "$1"',
    "ext4": f"""
        content_kib=$(($(du -sk --apparent-size "$1" | cut -f1) + 3 * $(find "$1" | wc -l)))
        size_kib=$((content_kib * 9 / 8 / 1024 * 1024 + 6144))
        mke2fs -q -t ext4 -m 0 -b 4096 -J size=4 -U {FILE_SYSTEM_ID} \\
            -E hash_seed={FILE_SYSTEM_ID},lazy_itable_init=0 -d "$1" "$2" ${{size_kib}}k
        {_SAME_TIMES}
    """,
    # Without a journal, in whole 64 MiB: two versions of a system get images of the same size.
    "ext4-read-only": f"""
        content_kib=$(($(du -sk --apparent-size "$1" | cut -f1) + 3 * $(find "$1" | wc -l)))
        size_kib=$((content_kib * 17 / 16 / 65536 * 65536 + 65536))
        mke2fs -q -t ext4 -m 0 -b 4096 -O ^has_journal,^resize_inode -U {FILE_SYSTEM_ID} \\
            -E hash_seed={FILE_SYSTEM_ID},lazy_itable_init=0 -d "$1" "$2" ${{size_kib}}k
        {_SAME_TIMES}
    """,
}


@dataclass(frozen=True)
class OsRecipe:
    """Which operating system to make. ``misbehave`` is what goes wrong with it once it is started:

    ``""`` nothing, ``"panic"`` the kernel panics, ``"exit"`` the init ends (a panic as well), ``"hang"``
    the init does nothing, ``"never-good"`` it runs, but never reaches the point of being good.
    ``unbrick_binary`` is the device's executable, which confirms a good boot.
    """

    version: int
    filesystem: str = "squashfs"
    misbehave: str = ""
    unbrick_binary: Path | None = None


@dataclass(frozen=True)
class OsImage:
    """A made operating system: the file, and what its signed manifest must say about it."""

    path: Path
    version: int
    version_name: str
    filesystem: str
    init: str
    watchdog_owner: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def make_image(layers: Sequence[Path], filesystem: str, output: Path) -> None:
    """Unpack ``layers`` over each other and write them to ``output`` as one file system.

    Raises: SetupError. Not run by root, it needs fakeroot for the files' owners.
    """
    archives = " ".join(f'"${number}"' for number in range(3, 3 + len(layers)))
    script = f"""
        for layer in {archives}; do tar --extract --preserve-permissions --file "$layer" --directory "$1"; done
        find "$1" -newermt @{SOURCE_DATE_EPOCH} -exec touch --no-dereference --date=@{SOURCE_DATE_EPOCH} {{}} +
        {MAKERS[filesystem]}
    """
    environment = os.environ | {
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
        "E2FSPROGS_FAKE_TIME": str(SOURCE_DATE_EPOCH),
        "TZ": "UTC",
    }
    with tempfile.TemporaryDirectory(dir=output.parent) as tree:
        Path(tree).chmod(0o755)
        command: list[str | Path] = [*as_root(), "sh", "-euc", script, "make-image", tree, output, *layers]
        run(command, hint=HINT, environment=environment)


def as_root() -> list[str]:
    """The words in front of a command that must see and make files of other owners."""
    return [] if os.geteuid() == 0 else ["fakeroot", "--"]
