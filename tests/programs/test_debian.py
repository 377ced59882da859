"""Fetching and unpacking packages, with the real apt, dpkg-deb, tar and depmod, from a repository made here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from initramfs.debian import default_cache_dir, fetch, unpack
from initramfs.errors import FetchError, SysrootError
from tests.unit.elf_writer import kernel_module, write

if not shutil.which("apt-get"):
    pytest.skip("needs a Debian-like host", allow_module_level=True)

NATIVE = subprocess.check_output(["dpkg", "--print-architecture"], text=True, timeout=60).strip()
FOREIGN = "riscv64" if NATIVE != "riscv64" else "arm64"
KERNEL = "linux-image-9.9-test"


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


class Repository:
    """A directory of packages, and what apt must be told to see it and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pool = root / "pool"
        self.pool.mkdir(parents=True)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        (root / "sources.list").write_text(f"deb [trusted=yes] file:{self.pool} ./\n")
        settings = {
            "Dir::Etc::sourcelist": root / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": root / "state",
            "Dir::State::lists": root / "state/lists",
            "APT::Sandbox::User": "root",
        }
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        self.index: list[str] = []

    def add(
        self, name: str, files: dict[str, bytes], *, depends: str = "", version: str = "1.0", arch: str = NATIVE
    ) -> Path:
        tree = self.root / "build" / f"{name}-{version}-{arch}"
        for path, content in files.items():
            write(tree, path, content)
        fields = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: T <t@example.org>\n"
        fields += f"Depends: {depends}\n" if depends else ""
        write(tree, "DEBIAN/control", f"{fields}Description: for a test\n".encode(), 0o644)
        package = self.pool / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
        run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, package)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        self.index.append(f"{fields}Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n")
        return package

    def publish(self) -> None:
        (self.pool / "Packages").write_text("\n".join(self.index))
        run("apt-get", *self.options, "-o", f"Dir::Cache={self.root}/cache", "update")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "repository")
    repository.add("tool", {"sbin/tool": b"tool", "lib/x/plugin": b"p"}, depends="libtool1 (>= 1)", version="1:2.0")
    repository.add("libtool1", {"usr/lib/x/libtool.so.1": b"library"})
    modules = {f"lib/modules/9.9-test/kernel/{name}.ko": kernel_module({"name": [name]}) for name in ("a", "b")}
    repository.add(KERNEL, {**modules, "boot/vmlinuz-9.9-test": b"kernel"}, depends="kmod")
    repository.add("linux-image-test", {}, depends=f"{KERNEL} (= 1.0)")
    repository.publish()
    return repository


def test_packages_are_fetched_once_and_checked(repository: Repository, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    packages = fetch(["tool"], "", cache, repository.options)
    assert [package.name for package in packages] == [f"tool_1%3a2.0_{NATIVE}.deb"]
    assert packages[0].read_bytes() == (repository.pool / f"tool_1%3a2.0_{NATIVE}.deb").read_bytes()
    assert packages[0].parent.name == hashlib.sha256(packages[0].read_bytes()).hexdigest()
    (repository.pool / f"tool_1%3a2.0_{NATIVE}.deb").unlink()
    assert fetch(["tool"], "", cache, repository.options) == packages
    assert not list(cache.rglob(".part-*"))


def test_dependencies_come_along_only_when_asked_for(repository: Repository, tmp_path: Path) -> None:
    packages = fetch(["tool"], "", tmp_path, repository.options, with_dependencies=True)
    assert [package.name for package in packages] == [f"libtool1_1.0_{NATIVE}.deb", f"tool_1%3a2.0_{NATIVE}.deb"]


def test_a_kernel_s_meta_package_stands_for_its_kernel(repository: Repository, tmp_path: Path) -> None:
    packages = fetch(["linux-image-test"], "", tmp_path, repository.options)
    assert [package.name for package in packages] == [f"{KERNEL}_1.0_{NATIVE}.deb"]


def test_a_cut_download_is_not_taken_from_the_cache(repository: Repository, tmp_path: Path) -> None:
    package = fetch(["tool"], "", tmp_path, repository.options)[0]
    whole = package.read_bytes()
    package.write_bytes(whole[:-1])
    assert fetch(["tool"], "", tmp_path, repository.options)[0].read_bytes() == whole


def test_a_package_that_is_not_what_the_index_says_is_refused(repository: Repository, tmp_path: Path) -> None:
    package = repository.pool / f"libtool1_1.0_{NATIVE}.deb"
    damaged = bytearray(package.read_bytes())
    damaged[-20] ^= 1
    package.write_bytes(damaged)
    with pytest.raises(FetchError):
        fetch(["libtool1"], "", tmp_path / "cache", repository.options)
    assert not list((tmp_path / "cache").rglob("*.deb"))


def test_unknown_packages_and_empty_lists_say_what_to_do(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="Unable to locate package absent"):
        fetch(["absent"], "", tmp_path, repository.options)
    with pytest.raises(FetchError, match="Unable to locate package linux-image-absent"):
        fetch(["linux-image-absent"], "", tmp_path, repository.options)
    with pytest.raises(FetchError, match="no name of a package"):
        fetch(["--option"], "", tmp_path, repository.options)
    shutil.rmtree(repository.root / "state/lists")
    with pytest.raises(FetchError, match="no package lists") as caught:
        fetch(["tool"], "", tmp_path, repository.options)
    assert caught.value.hint == "run: apt-get update"


def test_a_foreign_architecture_gets_lists_of_its_own(repository: Repository, tmp_path: Path) -> None:
    repository.add("libtool1", {"usr/lib/y": b"foreign"}, arch=FOREIGN)
    repository.publish()
    options = [*repository.options[:4], "-o", "APT::Sandbox::User=root"]
    before = sorted(path.name for path in (repository.root / "state/lists").iterdir())
    packages = fetch(["libtool1"], FOREIGN, tmp_path / "cache", options)
    assert [package.name for package in packages] == [f"libtool1_1.0_{FOREIGN}.deb"]
    assert sorted(path.name for path in (repository.root / "state/lists").iterdir()) == before
    assert list((tmp_path / f"cache/apt/{FOREIGN}/state/lists").glob("*_Packages*"))


def test_old_lists_of_a_foreign_architecture_are_fetched_again(repository: Repository, tmp_path: Path) -> None:
    options = [*repository.options[:4], "-o", "APT::Sandbox::User=root"]
    repository.add("first", {"a": b"1"}, arch=FOREIGN)
    repository.publish()
    fetch(["first"], FOREIGN, tmp_path / "cache", options)
    repository.add("second", {"b": b"2"}, arch=FOREIGN)
    repository.publish()
    assert [package.name for package in fetch(["second"], FOREIGN, tmp_path / "cache", options)] == [
        f"second_1.0_{FOREIGN}.deb"
    ]


def test_unpacked_packages_share_a_merged_usr(repository: Repository, tmp_path: Path) -> None:
    packages = fetch(["tool"], "", tmp_path, repository.options, with_dependencies=True)
    place = unpack(packages, tmp_path)
    assert (place / "usr/sbin/tool").read_bytes() == b"tool"
    assert sorted(path.name for path in (place / "usr/lib/x").iterdir()) == ["libtool.so.1", "plugin"]
    assert {path.name: str(path.readlink()) for path in place.iterdir() if path.is_symlink()} == {
        "sbin": "usr/sbin",
        "lib": "usr/lib",
    }
    assert not (place / "usr/lib64").exists()


def test_modules_dep_is_made_when_a_kernel_is_unpacked(repository: Repository, tmp_path: Path) -> None:
    place = unpack(fetch([KERNEL], "", tmp_path, repository.options), tmp_path)
    dependencies = (place / "lib/modules/9.9-test/modules.dep").read_text()
    assert sorted(dependencies.splitlines()) == ["kernel/a.ko:", "kernel/b.ko:"]
    assert (place / "boot/vmlinuz-9.9-test").exists()


def test_unpacking_again_changes_nothing_and_another_set_is_another_place(
    repository: Repository, tmp_path: Path
) -> None:
    both = fetch(["tool"], "", tmp_path, repository.options, with_dependencies=True)
    place = unpack(both, tmp_path)
    changed = (place / "usr/sbin/tool").stat().st_ctime_ns
    assert unpack(list(reversed(both)), tmp_path) == place
    assert (place / "usr/sbin/tool").stat().st_ctime_ns == changed
    assert unpack(both[:1], tmp_path) != place


def test_a_damaged_package_leaves_no_sysroot(repository: Repository, tmp_path: Path) -> None:
    package = tmp_path / "tool.deb"
    package.write_bytes((repository.pool / f"tool_1%3a2.0_{NATIVE}.deb").read_bytes()[:-700])
    with pytest.raises(SysrootError, match=r"tool\.deb cannot be unpacked"):
        unpack([package], tmp_path / "cache")
    assert list((tmp_path / "cache/sysroots").iterdir()) == []


def test_several_builds_at_once_share_the_cache(repository: Repository, tmp_path: Path) -> None:
    places: list[Path] = []

    def build() -> None:
        packages = fetch(["tool"], "", tmp_path / "cache", repository.options, with_dependencies=True)
        places.append(unpack(packages, tmp_path / "cache"))

    builds = [threading.Thread(target=build) for _ in range(4)]
    for thread in builds:
        thread.start()
    for thread in builds:
        thread.join(timeout=120)
    assert len(places) == len(builds)
    assert len(set(places)) == 1
    assert (places[0] / "usr/sbin/tool").read_bytes() == b"tool"
    assert not list((tmp_path / "cache").rglob(".part-*"))


def test_a_folder_in_work_is_nobody_elses_to_remove(repository: Repository, tmp_path: Path) -> None:
    """Unpacking gives it the time of a package's root, which may be years ago."""
    work = tmp_path / "cache/sysroots/.part-of-another"
    work.mkdir(parents=True)
    os.utime(work, (0, 0))
    unpack(fetch(["tool"], "", tmp_path / "cache", repository.options), tmp_path / "cache")
    assert work.is_dir()


def test_the_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "unbrick"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/nobody")
    assert default_cache_dir() == Path("/home/nobody/.cache/unbrick")
