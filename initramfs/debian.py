"""Debian packages for a sysroot: fetched by name, unpacked, never installed.

``apt-get`` fetches, with this machine's own settings and signatures; no maintainer script runs and the
host's dpkg learns nothing. For a foreign architecture apt gets lists and state of its own in the cache.
The cache is safe for several builds at once: what it holds under its final name is complete, because
it was checked and flushed first and renamed last. A second run downloads and unpacks nothing.

    CACHE/packages/<SHA-256>/<name>_<version>_<arch>.deb
    CACHE/sysroots/<digest of the packages>/
    CACHE/apt/<arch>/             lists and state, foreign architectures only
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from initramfs.apt import Apt, Package
from initramfs.errors import FetchError, SysrootError
from initramfs.host_tool import ToolFailed, pipe, run

UNPACK_SECONDS_MAX = 600
STALE_SECONDS = 86_400

# Raised when the layout of an unpacked sysroot changes, so that older ones are not taken.
LAYOUT_VERSION = 1
MERGED_DIRECTORIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/unbrick``, or ``~/.cache/unbrick``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "unbrick"


def fetch(
    packages: Sequence[str],
    arch: str = "",
    cache_dir: Path | None = None,
    apt_options: Sequence[str] = (),
    *,
    with_dependencies: bool = False,
) -> list[Path]:
    """The ``.deb`` files of ``packages``, sorted by name, from the cache or else downloaded into it.

    ``arch`` is Debian's name of an architecture; empty means this machine's. A kernel's meta-package
    (``linux-image-amd64``) stands for the image it depends on. ``with_dependencies`` adds all that they
    depend on, chosen by apt as for an empty system and without recommended packages. ``apt_options``
    are passed to every call of apt (``["-o", "Acquire::Retries=3"]``).

    Raises:
        FetchError: a package is unknown or cannot be downloaded.
        ToolError: apt is not on this machine.
    """
    cache = cache_dir or default_cache_dir()
    apt = Apt(arch, cache / "apt", tuple(apt_options))
    wanted = apt.resolve(packages, with_dependencies=with_dependencies)
    absent = [package for package in wanted if not _is_cached(package, cache)]
    if absent:
        with _temporary_directory(cache / "packages") as work:
            apt.download(absent, work)
            for package in absent:
                _keep_package(work / package.file, package, cache)
    return sorted((_package_path(package, cache) for package in wanted), key=lambda path: path.name)


def unpack(packages: Sequence[Path], cache_dir: Path | None = None) -> Path:
    """A directory with the content of all ``packages``, merged-/usr, and modules.dep for each kernel.

    It is shared by all builds of the same packages: nobody may write to it.

    Raises:
        SysrootError: a package is damaged.
        ToolError: dpkg-deb, tar or depmod is not on this machine.
    """
    cache = cache_dir or default_cache_dir()
    ordered = sorted(packages, key=lambda path: path.name)
    key = hashlib.sha256(f"layout {LAYOUT_VERSION}\n".encode())
    for package in ordered:
        key.update(f"{_digest_of(package)} {package.name}\n".encode())
    place = cache / "sysroots" / key.hexdigest()[:32]
    if not place.is_dir():
        with _temporary_directory(place.parent) as work:
            _unpack_into(ordered, work)
            _keep(work, place)
    return place


def _package_path(package: Package, cache: Path) -> Path:
    return cache / "packages" / package.digest / package.file


def _is_cached(package: Package, cache: Path) -> bool:
    path = _package_path(package, cache)
    return path.is_file() and path.stat().st_size == package.size_bytes


def _keep_package(file: Path, package: Package, cache: Path) -> None:
    """Moves a download to its final name, if it is what the signed index says it should be."""
    if not file.is_file() or _digest_of(file) != package.digest:
        raise FetchError(f"{package.file} did not arrive as apt's index describes it", "run the build again")
    _flush(file)
    place = _package_path(package, cache)
    place.parent.mkdir(parents=True, exist_ok=True)
    file.rename(place)


def _digest_of(package: Path) -> str:
    """SHA-256 in hex. The cache has it in the directory's name already."""
    if re.fullmatch(r"[0-9a-f]{64}", package.parent.name) and package.parent.parent.name == "packages":
        return package.parent.name
    with package.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unpack_into(packages: Sequence[Path], directory: Path) -> None:
    for name in MERGED_DIRECTORIES:
        (directory / "usr" / name).mkdir(parents=True)
        (directory / name).symlink_to(f"usr/{name}")
    # `dpkg -x` would turn the links back into directories as soon as a package has a file in /lib.
    extract = ["tar", "-x", "-p", "--keep-directory-symlink", "--warning=no-timestamp", "-f", "-", "-C"]
    for package in packages:
        try:
            pipe(["dpkg-deb", "--fsys-tarfile", str(package)], [*extract, str(directory)], UNPACK_SECONDS_MAX)
        except ToolFailed as error:
            raise SysrootError(
                f"{package.name} cannot be unpacked: {error.message}", f"remove {package} and build again"
            ) from error
    for name in MERGED_DIRECTORIES:
        if not any((directory / "usr" / name).iterdir()):
            (directory / name).unlink()
            (directory / "usr" / name).rmdir()
    _make_module_indexes(directory)


def _make_module_indexes(directory: Path) -> None:
    """modules.dep and its like: packages leave them to depmod, run when a kernel is installed."""
    with tempfile.TemporaryDirectory() as no_configuration:
        for kernel in sorted((directory / "usr/lib/modules").glob("*/kernel")):
            if not (kernel.parent / "modules.dep").exists():
                # The host's /etc/depmod.d must not decide what goes into a device.
                base = ["depmod", "-C", no_configuration, "-b", str(directory)]
                run([*base, kernel.parent.name], UNPACK_SECONDS_MAX)


@contextmanager
def _temporary_directory(parent: Path) -> Iterator[Path]:
    """A directory beside its final place, so that a rename will do. Removes what killed builds left."""
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(".part-*"):
        # Not by the time of its content, which is a package's: by that of the last change.
        if old.lstat().st_ctime < time.time() - STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".part-", dir=parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep(directory: Path, place: Path) -> None:
    """Gives a finished directory its final name, unless another build was faster."""
    directory.chmod(0o755)
    # After a power cut the name must not lead to files whose content was never written.
    run(["sync", "-f", str(directory)], UNPACK_SECONDS_MAX)
    try:
        directory.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
