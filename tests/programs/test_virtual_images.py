"""What the operating systems of the virtual device are made of: layers, images, and the cache."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest

from scripts.virtual import apt, tiny_root
from scripts.virtual.cache import ENTRIES_MAX, cached
from scripts.virtual.commands import SetupError, run
from scripts.virtual.debian_root import MISBEHAVIOURS, layer_of
from scripts.virtual.image import MAKERS, OsRecipe, make_image
from scripts.virtual.layer import Layer


def sample_layer() -> Layer:
    layer = Layer()
    layer.directory("etc")
    layer.file("etc/name", "one\n")
    layer.file("etc/run", b"#!/bin/sh\n", 0o755)
    layer.symlink("etc/link", "name")
    return layer


def fake_base(path: Path) -> Path:
    """As much of Debian's archive as a version's layer looks at."""
    release = b'NAME="Debian GNU/Linux"\n'
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("./usr/lib/os-release")
        entry.size = len(release)
        archive.addfile(entry, BytesIO(release))
    return path


def names_of(layer: Layer) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=BytesIO(layer.archive())) as archive:
        return {entry.name: entry for entry in archive.getmembers()}


def make_all(folder: Path, mask: int) -> dict[str, bytes]:
    """An image of each kind, made by a user with this umask."""
    over = Layer()
    over.file("etc/more", "a file in a folder of the layer below")
    folder.mkdir()
    before = os.umask(mask)
    try:
        layers = [sample_layer().write(folder / "1.tar"), over.write(folder / "2.tar")]
        for filesystem in MAKERS:
            make_image(layers, filesystem, folder / filesystem)
    finally:
        os.umask(before)
    return {filesystem: (folder / filesystem).read_bytes() for filesystem in MAKERS}


def test_an_image_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    first = make_all(tmp_path / "first", 0o022)
    time.sleep(1.1)  # times in images are whole seconds
    second = make_all(tmp_path / "second", 0o077)
    assert [name for name in MAKERS if first[name] != second[name]] == []
    assert [name for name in MAKERS if len(first[name]) % 4096] == []


def test_a_later_layer_wins(tmp_path: Path) -> None:
    over = Layer()
    over.file("etc/name", "two\n")
    layers = [sample_layer().write(tmp_path / "1.tar"), over.write(tmp_path / "2.tar")]
    make_image(layers, "squashfs", tmp_path / "image")
    shown = subprocess.run(["unsquashfs", "-cat", tmp_path / "image", "etc/name"], capture_output=True, check=True)
    assert shown.stdout == b"two\n"


def test_a_layer_belongs_to_root_and_has_one_time() -> None:
    entries = names_of(sample_layer()).values()
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, 1686355200)}


def test_versions_differ_and_say_so(tmp_path: Path) -> None:
    base = fake_base(tmp_path / "base.tar")
    first, second = (layer_of(OsRecipe(version), base) for version in (1, 2))
    assert first.digest() != second.digest()
    with tarfile.open(fileobj=BytesIO(second.archive())) as archive:
        release = archive.extractfile("usr/lib/os-release")
        assert release is not None
        assert release.read().decode() == ('NAME="Debian GNU/Linux"\nIMAGE_ID=unbrick-virtual\nIMAGE_VERSION=2\n')


def test_debian_confirms_by_its_unit(tmp_path: Path) -> None:
    binary = tmp_path / "unbrick"
    binary.write_bytes(b"\x7fELF")
    names = names_of(layer_of(OsRecipe(1, unbrick_binary=binary), fake_base(tmp_path / "base.tar")))
    unit = "usr/lib/systemd/system/unbrick-mark-good.service"
    assert names["etc/systemd/system/multi-user.target.wants/unbrick-mark-good.service"].linkname == f"/{unit}"
    assert names[unit].mode == 0o644
    assert names["usr/lib/unbrick/unbrick"].mode == 0o755
    assert "usr/lib/systemd/system.conf.d/unbrick-watchdog.conf" in names


@pytest.mark.parametrize("misbehave", sorted(MISBEHAVIOURS))
def test_every_misbehaviour_changes_the_image(tmp_path: Path, misbehave: str) -> None:
    base = fake_base(tmp_path / "base.tar")
    good, bad = (layer_of(OsRecipe(2, misbehave=word), base) for word in ("", misbehave))
    assert good.digest() != bad.digest()


def test_the_tiny_system_is_tiny_and_says_how_it_misbehaves(tmp_path: Path) -> None:
    good = tiny_root.build_os(OsRecipe(1), tmp_path)
    bad = tiny_root.build_os(OsRecipe(1, misbehave="panic"), tmp_path, watchdog="/dev/watchdog0")
    assert good.size < 2 << 20
    assert (good.watchdog_owner, bad.watchdog_owner) == ("none", "systemd")
    shown = subprocess.run(["unsquashfs", "-cat", bad.path, "etc/misbehave"], capture_output=True, check=True)
    assert shown.stdout == b"panic\n"


def test_the_cache_makes_a_thing_once(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "thing").write_text("x")

    first = cached(tmp_path, "thing", {"a": 1}, make)
    assert cached(tmp_path, "thing", {"a": 1}, make) == first
    assert cached(tmp_path, "thing", {"a": 2}, make) != first
    assert len(made) == 2


def test_an_entry_that_was_cut_half_way_is_made_again(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "thing").write_text("whole")

    entry = cached(tmp_path, "thing", {}, make)
    (entry / "complete").unlink()
    (entry / "thing").write_text("ha")
    assert (cached(tmp_path, "thing", {}, make) / "thing").read_text() == "whole"


def test_the_cache_forgets_what_was_not_used_for_longest(tmp_path: Path) -> None:
    entries = [cached(tmp_path, "thing", {"n": number}, lambda _folder: None) for number in range(ENTRIES_MAX)]
    other = cached(tmp_path, "thing-else", {}, lambda _folder: None)
    for age, entry in enumerate(reversed(entries)):
        os.utime(entry / "complete", (1000 - age, 1000 - age))
    assert cached(tmp_path, "thing", {"n": 0}, lambda _folder: None) == entries[0]
    cached(tmp_path, "thing", {"n": "one more"}, lambda _folder: None)
    assert entries[0].exists()
    assert not entries[1].exists()
    assert entries[2].exists()
    assert other.exists()


def test_a_missing_program_names_the_next_step() -> None:
    with pytest.raises(SetupError, match=r"no-such-program is not installed\n  next: run ./scripts/install"):
        run(["no-such-program"], hint="")


def test_a_failing_program_shows_its_own_words() -> None:
    with pytest.raises(SetupError, match=r"sh ended with 3: why\n  next: do this"):
        run(["sh", "-c", "echo why >&2; exit 3"], hint="do this")


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(SetupError, match="still running after 0 s"):
        run(["sleep", "5"], hint="", seconds_max=0)


def test_apt_settings_carry_how_to_reach_a_mirror_and_nothing_else() -> None:
    assert all(line.startswith(("Acquire::", "Dir::Etc::netrcparts")) for line in apt.settings())


def test_apt_sources_are_of_debian_12() -> None:
    assert all(line.startswith("deb ") and line.split()[2].startswith("bookworm") for line in apt.sources())
