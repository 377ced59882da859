"""A USB stick with a bundle on it, as an image file: FAT as people have it, or the raw bundle.

Made with mkfs.vfat and mtools on the file itself: no loop device, no root.
"""

from __future__ import annotations

from pathlib import Path

from scripts.virtual.commands import run

LABEL = "UNBRICK"
VOLUME_ID = "554e4252"
FOLDER = "unbrick"
PARTITION_OFFSET = 1 << 20
SECTOR_BYTES = 512
SLACK_BYTES = 8 << 20  # what FAT itself takes, and room
HINT = "see that the disk is not full, then run ./scripts/install again"


def make_fat_stick(bundle: Path, stick: Path, *, name: str = "os.ubk", partitioned: bool = False) -> Path:
    """``stick`` becomes a FAT file system labelled UNBRICK that holds ``/unbrick/NAME``.

    ``partitioned``: inside the one partition of an MBR, as sticks are sold; otherwise the whole stick.
    Raises: SetupError.
    """
    start = PARTITION_OFFSET if partitioned else 0
    size = _rounded(bundle.stat().st_size * 33 // 32 + SLACK_BYTES, 1 << 20)
    _create(stick, start + size)
    if partitioned:
        table = f"label: dos\nlabel-id: 0x{VOLUME_ID}\nstart={start // SECTOR_BYTES}, type=c\n"
        run(["sfdisk", "--quiet", stick], hint=HINT, standard_input=table.encode())
    format_options = ["-n", LABEL, "-i", VOLUME_ID, "--invariant", f"--offset={start // SECTOR_BYTES}"]
    run(["mkfs.vfat", *format_options, stick, str(size // 1024)], hint=HINT)
    place = f"{stick}@@{start}"
    run(["mmd", "-i", place, f"::/{FOLDER}"], hint=HINT)
    run(["mcopy", "-i", place, bundle, f"::/{FOLDER}/{name}"], hint=HINT)
    return stick


def make_raw_stick(bundle: Path, stick: Path) -> Path:
    """``stick`` becomes the bundle's bytes from its first sector on, filled up to a whole MiB."""
    _create(stick, _rounded(bundle.stat().st_size, 1 << 20))
    with stick.open("r+b") as output:
        output.write(bundle.read_bytes())
    return stick


def _create(stick: Path, size: int) -> None:
    with stick.open("wb") as output:
        output.truncate(size)


def _rounded(value: int, unit: int) -> int:
    return -(-value // unit) * unit
