"""Debian's own packages below a real folder, damaged at random: each file is as before, and dpkg agrees."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from initramfs import debian
from packagemanager.changes import Wish
from packagemanager.control import identity, paragraph
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.repair import Outcome, repair
from packagemanager.root import Root
from packagemanager.transact import DONE, Manager, Order
from packagemanager.verify import verify
from payload.digest import digest
from payload.sources import FileSource
from tests.boot.frozen_stand_in import CACHE
from tests.programs.dpkg_twin import empty_database

if TYPE_CHECKING:
    from packagemanager.incoming import Source

pytestmark = [
    pytest.mark.requirement("D8"),
    pytest.mark.fault("R4"),
    pytest.mark.skipif(os.geteuid() != 0, reason="packages have owners"),
]

# Nothing else is needed by these.
PACKAGES = ("gcc-12-base", "libc6", "libcrypt1", "libgcc-s1", "libtinfo6", "media-types", "zlib1g")
DAMAGED = 60
KILLS = 30
SECONDS = 60


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[dict[str, Deb]]:
    """Packages by key."""
    with ExitStack() as files:
        debs = {}
        for path in paths:
            source = FileSource(str(path), str(path))
            files.callback(source.close)
            deb = Deb(source)
            name, _version, architecture = identity(paragraph(deb.control()[0]))
            debs[f"{name}:{architecture}"] = deb
        yield debs


@contextmanager
def rooted(folder: Path) -> Iterator[Root]:
    root = Root(str(folder))
    try:
        yield root
    finally:
        root.close()


def install(folder: Path, paths: Sequence[Path]) -> None:
    empty_database(folder)
    for path in ("usr/lib", "usr/lib64"):
        (folder / path).mkdir(parents=True)
    for name in ("lib", "lib64"):
        (folder / name).symlink_to(f"usr/{name}")
        os.utime(folder / name, (0, 0), follow_symlinks=False)
    with opened(paths) as debs, rooted(folder) as root:
        wanted = {key: paragraph(deb.control()[0]).get("Version") for key, deb in debs.items()}
        order = Order(Wish(wanted), lambda keys: {key: debs[key] for key in keys}, 1, digest(b"1"))
        assert Manager(root).apply(order, settle=True) == DONE


def repaired(folder: Path, paths: Sequence[Path]) -> Outcome:
    with opened(paths) as debs, rooted(folder) as root:

        def bring(keys: Sequence[str]) -> dict[str, Source]:
            return {key: debs[key] for key in keys}

        return repair(root, bring)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Without times of folders and of the database, and without what the database was before."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name, stat = str(path.relative_to(folder)), path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        time = 0 if is_folder or name.startswith("var/") else int(stat.st_mtime)
        if not name.endswith("status-old"):
            names = 0 if is_folder else stat.st_nlink
            found[name] = (oct(stat.st_mode), stat.st_uid, stat.st_gid, names, time, digest(content), target)
    return found


def hurt(path: Path, chance: random.Random) -> None:
    """What rot, or a mistaken person, does to one file or link."""
    if path.is_symlink() or chance.random() < 0.3:
        path.unlink()
        return
    content, stat = bytearray(path.read_bytes()), path.lstat()
    change = chance.randrange(5)
    if change == 0:
        path.chmod(stat.st_mode ^ 0o111)
    elif change == 1:
        os.chown(path, 12, 34)
    elif change == 2 and content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    elif change == 3:
        os.truncate(path, len(content) // 2)
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_random_damage_is_repaired_bit_for_bit(tmp_path: Path, seed: int) -> None:
    paths, chance = debian.fetch(PACKAGES, "amd64", CACHE), random.Random(seed)
    install(tmp_path, paths)
    whole = snapshot(tmp_path)
    with rooted(tmp_path) as root:
        assert verify(Database(root)) == []
    files = [path for path in sorted((tmp_path / "usr").rglob("*")) if path.is_symlink() or path.is_file()]
    for path in chance.sample(files, DAMAGED):
        hurt(path, chance)
    assert snapshot(tmp_path) != whole
    outcome = repaired(tmp_path, paths)
    assert snapshot(tmp_path) == whole
    assert not outcome.left and 0 < len(outcome.repaired) <= 2 * DAMAGED


def test_the_c_library_and_the_database_are_gone(tmp_path: Path) -> None:
    paths = debian.fetch(PACKAGES, "amd64", CACHE)
    install(tmp_path, paths)
    whole = snapshot(tmp_path)
    shutil.rmtree(tmp_path / "usr/lib")
    for path in ("lib", "lib64", "var/lib/dpkg/status", "var/lib/dpkg/info/libc6:amd64.list"):
        (tmp_path / path).unlink()
    repaired(tmp_path, paths)
    assert snapshot(tmp_path) == whole
    command = ["dpkg", f"--root={tmp_path}", "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.long
@pytest.mark.fault("S1")
def test_a_repair_that_is_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    paths, chance = debian.fetch(PACKAGES, "amd64", CACHE), random.Random(1)
    install(tmp_path, paths)
    whole = snapshot(tmp_path)
    killed, seconds = 0, 0.0
    for number in range(1 + KILLS):
        files = [path for path in sorted((tmp_path / "usr").rglob("*")) if path.is_symlink() or path.is_file()]
        for path in chance.sample(files, DAMAGED):
            hurt(path, chance)
        if number == 0:  # how long one takes here
            started = time.monotonic()
            repaired(tmp_path, paths)
            seconds = time.monotonic() - started
            continue
        child = os.fork()
        if child == 0:
            try:
                repaired(tmp_path, paths)
            finally:
                os._exit(0)
        time.sleep(chance.random() * seconds)
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        repaired(tmp_path, paths)
        assert snapshot(tmp_path) == whole
    assert killed > KILLS / 3
