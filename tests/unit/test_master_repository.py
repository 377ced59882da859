"""Where the master gets packages from: lists and folders that are odd, damaged or beyond a bound."""

from __future__ import annotations

import bz2
import gzip
import lzma
from contextlib import suppress
from pathlib import Path

import pytest

from packagemanager.control import Relation
from packagemanager.master.errors import RepositoryError
from packagemanager.master.package_list import PACKAGE_BYTES_MAX, PackageList, decompressed
from packagemanager.master.repository import DebFolder, web_repository
from tests.unit.master_samples import no_package
from tests.unit.transaction_samples import make_deb

pytestmark = pytest.mark.requirement("M1")
PARAGRAPH = b"Package: a\nVersion: 1\nArchitecture: all\n"


def listed(text: bytes) -> PackageList:
    return PackageList(text, "amd64", "the test", no_package)


def test_a_provided_name_is_found_however_its_version_is_written() -> None:
    packages = listed(PARAGRAPH + b"Provides: x(= 1), y:any (= 1), z (=1)\n")
    assert [len(packages.providing(name)) for name in ("x", "y", "z")] == [1, 1, 1]


def test_a_field_may_go_on_in_further_lines() -> None:
    packages = listed(PARAGRAPH + b"Provides: x,\n y (= 1),\n\tz\nSection: v\n")
    for name, there in (("x", 1), ("y", 1), ("z", 1), ("v", 0)):
        assert len(packages.providing(name)) == there


@pytest.mark.parametrize("size", [b"-1", b"x", b"%d" % (PACKAGE_BYTES_MAX + 1)])
def test_a_size_that_cannot_be_is_a_damaged_list(size: bytes) -> None:
    with pytest.raises(RepositoryError, match="the test: "):
        listed(PARAGRAPH + b"Size: " + size + b"\n").named("a")


def test_a_package_that_dpkg_would_not_read_again_is_refused_in_a_list() -> None:
    with pytest.raises(RepositoryError, match="the test: control data: a has alternatives in Breaks"):
        listed(PARAGRAPH + b"Breaks: b | c\n").named("a")


def test_a_package_whose_relations_do_not_read_is_named_when_the_folder_is_read(tmp_path: Path) -> None:
    path = make_deb(tmp_path, "a", "1", {}, Recommends="b (")
    with pytest.raises(RepositoryError, match=f"{path}: control data: no relation"):
        DebFolder(tmp_path, "amd64")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_a_damaged_list_is_named(tmp_path: Path, suffix: str) -> None:
    packer = {".gz": gzip, ".xz": lzma, ".bz2": bz2}[suffix]
    path, whole = tmp_path / f"Packages{suffix}", packer.compress(PARAGRAPH * 100)
    path.write_bytes(whole)
    assert decompressed(path) == PARAGRAPH * 100
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with suppress(RepositoryError):
            decompressed(path)
    path.write_bytes(whole[:20] + b"\xff" * 20)
    with pytest.raises(RepositoryError, match=str(path)):
        decompressed(path)


def test_a_package_for_all_architectures_is_one_for_that_of_the_folder(tmp_path: Path) -> None:
    make_deb(tmp_path, "a", "1", {}, architecture="all")
    (package,) = DebFolder(tmp_path, "amd64").named("a")
    assert [package.meets(Relation("a", one)) for one in ("amd64", "i386", "any")] == [True, False, True]


def test_a_url_that_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="can't contain control characters"):
        web_repository("http://localhost/ bookworm\x7f main", "amd64", tmp_path)
