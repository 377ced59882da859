"""Debian's own packages: what we read in them is what dpkg-deb and tar say is there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from initramfs import debian
from packagemanager.control import identity, paragraph, parse_relations
from packagemanager.deb import Deb
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Content, Entry
from payload.digest import hasher
from tests.boot.frozen_stand_in import CACHE

pytestmark = pytest.mark.requirement("M14")

PACKAGES = (
    "base-files", "bash", "coreutils", "dpkg", "e2fsprogs", "libc6", "libpam-modules", "login", "man-db", "mount",
    "openssl", "passwd", "perl", "perl-base", "python3.11", "python3.11-minimal", "sudo", "systemd", "systemd-sysv",
    "tzdata", "udev", "util-linux",
)  # fmt: skip
QUICK = ("base-files", "libc6", "mount", "passwd", "perl-base", "systemd")
SMALL = ("base-files", "mount", "passwd")
SECONDS = 60
LETTERS = {"-": FILE, "d": DIRECTORY, "l": LINK, "h": HARD_LINK}
RELATIONS = (
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Provides",
    "Enhances",
)


class FileReader:
    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size = path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)


@pytest.mark.parametrize("names", [QUICK, pytest.param(PACKAGES, marks=pytest.mark.long)])
def test_entries_are_what_tar_lists(names: tuple[str, ...]) -> None:
    packages = debian.fetch(names, "", CACHE)
    assert len(packages) == len(names)
    for path in packages:
        ours = [_as_tar_does(entry) for entry in unpacked(path)[0].entries]
        listed = [line for line in _listed(path) if line[-2] != "./"]
        assert ours == listed, path.name


def test_contents_and_control_files_are_what_dpkg_deb_unpacks(tmp_path: Path) -> None:
    for path in debian.fetch(SMALL, "", CACHE):
        content, digests = unpacked(path)
        folder = tmp_path / path.name
        _output("dpkg-deb", "-R", str(path), str(folder))
        control = {each.name: each.read_bytes() for each in (folder / "DEBIAN").iterdir()}
        assert control.pop("control") == content.control and control == content.files
        for name, known in digests.items():
            assert _digest(folder / name) == known, name
        assert len(digests) == sum(each.is_file() and not each.is_symlink() for each in folder.rglob("*")
                                   if "DEBIAN" not in each.parts) - _hard_links(content)  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "gzip", "xz", "zstd"])
def test_what_dpkg_deb_builds_today(tmp_path: Path, compression: str) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text("Package: a\nVersion: 1\nArchitecture: all\nMaintainer: A\nDescription: a\n")
    (tree / "usr" / ("long" * 40) / ("name" * 20)).mkdir(parents=True)
    (tree / "usr/file").write_bytes(bytes(3 << 20) + b"x")
    (tree / "usr" / ("long" * 40) / ("name" * 20) / "link").symlink_to("../" * 70)
    (tree / "usr/again").hardlink_to(tree / "usr/file")
    package = tmp_path / "a.deb"
    _output("dpkg-deb", "--root-owner-group", f"-Z{compression}", "-b", str(tree), str(package))
    listed = [line for line in _listed(package) if line[-2] != "./"]
    assert [_as_tar_does(entry) for entry in unpacked(package)[0].entries] == listed and len(listed) == 6


def test_control_data_of_real_packages_reads_and_is_kept() -> None:
    for path in debian.fetch(QUICK, "", CACHE):
        text, _ = Deb(FileReader(path)).control()
        fields = paragraph(text)
        assert fields.encode() == text
        name, version, architecture = identity(fields)
        assert path.name == f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
        for field in RELATIONS:
            for group in parse_relations(fields.get(field)):
                assert all(str(relation) in " ".join(fields.get(field).split()) for relation in group)


def unpacked(path: Path) -> tuple[Content, dict[str, bytes]]:
    """What is in a package, and what a sink saw of its files, as digests."""
    digests: dict[str, bytes] = {}

    def keep(entry: Entry, pieces: Iterator[bytes]) -> None:
        seen = hasher()
        for piece in pieces:
            seen.update(piece)
        digests[entry.path] = seen.digest()

    content = Deb(FileReader(path)).unpack(keep)
    assert {entry.path: entry.digest for entry in content.entries if entry.kind == FILE} == digests
    return content, digests


def _as_tar_does(entry: Entry) -> tuple[str, int, str, int, int, str, str]:
    """Kind, mode, owner, size, time, path and target; the paths as Debian's archives write them."""
    path = f"./{entry.path}/" if entry.kind == DIRECTORY else f"./{entry.path}"
    target = f"./{entry.target}" if entry.kind == HARD_LINK else entry.target
    return entry.kind, entry.mode, f"{entry.uid}/{entry.gid}", entry.size, entry.mtime, path, target


def _listed(path: Path) -> Iterator[tuple[str, int, str, int, int, str, str]]:
    archive = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True, check=True, timeout=SECONDS
    )
    options = ["--numeric-owner", "--quoting-style=literal", "--utc", "--full-time"]
    listing = subprocess.run(
        ["tar", "-tv", *options, "-f", "-"], input=archive.stdout, capture_output=True, check=True, timeout=SECONDS,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    for line in listing.stdout.decode().splitlines():
        mode, owner, size, day, time, named = line.split(maxsplit=5)
        separator = {"l": " -> ", "h": " link to "}.get(mode[0], "\0")
        name, _, target = named.partition(separator)
        yield LETTERS[mode[0]], _bits(mode[1:]), owner, int(size), _seconds(f"{day} {time}"), name, target


def _bits(letters: str) -> int:
    """Of ``rwsr-xr-t``."""
    bits = sum(1 << 8 - at for at, letter in enumerate(letters) if letter not in "-ST")
    special = (letters[2] in "sS", letters[5] in "sS", letters[8] in "tT")
    return bits | sum(0o4000 >> at for at, is_set in enumerate(special) if is_set)


def _seconds(text: str) -> int:
    from datetime import UTC, datetime

    return int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())


def _digest(path: Path) -> bytes:
    whole = hasher()
    whole.update(path.read_bytes())
    return whole.digest()


def _hard_links(content: Content) -> int:
    return sum(entry.kind == HARD_LINK for entry in content.entries)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
    return done.stdout
