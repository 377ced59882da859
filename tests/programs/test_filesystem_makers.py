"""Images as mkfs.ext4, mksquashfs and mkfs.erofs make them: taken whole, refused cut short or with an open journal."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from initramfs.errors import BuildError
from initramfs.filesystem_image import filesystem_of

MAKERS = {
    "squashfs": "mksquashfs tree {} -noappend -quiet -no-progress",
    "squashfs-unpadded": "mksquashfs tree {} -noappend -quiet -no-progress -nopad",
    "erofs": "mkfs.erofs {} tree",
    "erofs-compressed": "mkfs.erofs -zlz4hc -Eztailpacking {} tree",
    "ext4": "mkfs.ext4 -q -d tree {} 20M",
    "ext4-of-small-blocks": "mkfs.ext4 -q -b 1024 -O ^64bit -d tree {} 20M",
}
PADDING_BYTES = 4096  # what mksquashfs may have put behind the end


def run(*words: str, codes: tuple[int, ...] = (0,)) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if not shutil.which(words[0], path=path):
        pytest.skip("apt-get install e2fsprogs erofs-utils squashfs-tools")
    done = subprocess.run(words, capture_output=True, timeout=60, env={**os.environ, "PATH": path}, check=False)
    assert done.returncode in codes, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree/folder").mkdir(parents=True)
    (tmp_path / "tree/file").write_bytes(os.urandom(300_000))
    (tmp_path / "tree/folder/text").write_text("text\n" * 1000)
    return tmp_path


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_made_is_taken_whole_and_not_cut_short(folder: Path, maker: str) -> None:
    image = folder / "image"
    run(*MAKERS[maker].format(image.name).split())
    assert filesystem_of(image) == maker.partition("-")[0]
    os.truncate(image, image.stat().st_size - PADDING_BYTES)
    with pytest.raises(BuildError, match="cut short"):
        filesystem_of(image)


def test_the_hint_about_an_open_journal_helps(folder: Path) -> None:
    image = folder / "image"
    run(*MAKERS["ext4"].format(image.name).split())
    run("debugfs", "-w", "-R", "feature needs_recovery", image.name)
    with pytest.raises(BuildError) as caught:
        filesystem_of(image)
    run(*caught.value.hint.split("`")[1].split(), codes=(0, 1))  # e2fsck's 1: it repaired something
    assert filesystem_of(image) == "ext4"
