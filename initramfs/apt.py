"""apt for one architecture: which files a list of packages stands for, and the files themselves.

The machine's own sources, keys and pins are used, but nothing of what is installed on it counts: apt is
shown an empty system, so the answer is the same on every host with the same lists. A foreign
architecture gets lists of its own, which are fetched when they are absent or have grown too old.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from initramfs.errors import FetchError
from initramfs.host_tool import ToolFailed, run

QUERY_SECONDS_MAX = 120
UPDATE_SECONDS_MAX = 600
DOWNLOAD_SECONDS_MAX = 1800
PACKAGES_MAX = 2048

_T = TypeVar("_T")

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*(=[A-Za-z0-9.+:~-]+)?")
_URI_LINE = re.compile(r"'[^']+' (?P<file>[^/\s]+_[^/\s]+_[^/\s]+\.deb) (?P<size>\d+) SHA256:(?P<digest>[0-9a-f]{64})")
_KERNEL_DEPENDENCY = re.compile(r"(?:^|,)\s*(linux-image-[a-z0-9.+-]+)")
_NO_RECOMMENDS = ["install", "--print-uris", "-qq", "-y", "--no-install-recommends"]
_NO_DEPENDENCIES = ["download", "--print-uris", "-qq"]


@dataclass(frozen=True)
class Package:
    """One file that apt would fetch. ``file`` is ``name_version_arch.deb``, ``digest`` SHA-256 in hex."""

    file: str
    size_bytes: int
    digest: str

    @property
    def exactly(self) -> str:
        """What makes `apt-get download` fetch this version and no other."""
        name, version, _ = self.file.split("_")
        return f"{name}={unquote(version)}"


class Apt:
    """``directory`` holds what apt writes; ``options`` are added to every call, and win."""

    def __init__(self, arch: str, directory: Path, options: tuple[str, ...]) -> None:
        native = run(["dpkg", "--print-architecture"], QUERY_SECONDS_MAX).strip()
        self._arch = arch or native
        self._is_foreign = self._arch != native
        self._directory = (directory / self._arch).absolute()
        self._options = [*self._own_options(), *options]
        self._has_updated = False
        for name in ("cache/archives/partial", "state/lists/partial"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        status = self._directory / "empty-status"
        if not status.exists():  # a new time stamp would make apt parse all its lists again
            status.touch()

    def _own_options(self) -> list[str]:
        settings = {
            "Dir::State::status": str(self._directory / "empty-status"),
            # Away from the host's archive, or packages it has downloaded would be left out of the answer.
            "Dir::Cache": str(self._directory / "cache"),
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "",
            "Debug::NoLocking": "true",
            "Acquire::ForceHash": "SHA256",
        }
        if self._is_foreign:
            settings |= {
                "APT::Architecture": self._arch,
                "APT::Architectures": self._arch,
                "Dir::State": str(self._directory / "state"),
                "Dir::State::lists": str(self._directory / "state/lists"),
            }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def resolve(self, names: Sequence[str], *, with_dependencies: bool) -> list[Package]:
        """The files ``names`` stand for, a kernel's meta-package being replaced by its kernel.

        Raises:
            FetchError: apt has no lists, or no answer.
        """
        for name in names:
            if not _NAME.fullmatch(name):
                raise FetchError(f"{name!r} is no name of a package", "names are lower case: libc6, e2fsprogs")
        if not names:
            return []
        self._need_lists()
        return self._with_fresh_lists(lambda: self._resolve(names, with_dependencies))

    def download(self, packages: Sequence[Package], directory: Path) -> None:
        """Fetches the files into ``directory``. apt checks them against its signed index.

        Raises:
            FetchError: a file cannot be had.
        """
        requests = [package.exactly for package in packages]
        self._with_fresh_lists(lambda: self._get(["download", "-qq", *requests], DOWNLOAD_SECONDS_MAX, directory))

    def _resolve(self, names: Sequence[str], with_dependencies: bool) -> list[Package]:
        verb = _NO_RECOMMENDS if with_dependencies else _NO_DEPENDENCIES
        output = self._get([*verb, *(self._real_name(name) for name in names)], QUERY_SECONDS_MAX)
        packages = set()
        for line in filter(None, output.splitlines()):
            match = _URI_LINE.fullmatch(line)
            if match is None:
                raise FetchError(f"apt's answer is not understood: {line[:120]}", "is its index signed and current?")
            packages.add(Package(match["file"], int(match["size"]), match["digest"]))
        if not 0 < len(packages) <= PACKAGES_MAX:
            raise FetchError(f"{' '.join(names)} would be {len(packages)} packages", f"between 1 and {PACKAGES_MAX}")
        return sorted(packages, key=lambda package: package.file)

    def _real_name(self, name: str) -> str:
        """The kernel behind a meta-package such as linux-image-amd64; any other name as it is."""
        if not name.startswith("linux-image-"):
            return name
        try:
            text = self._call(["apt-cache", *self._options, "show", "--no-all-versions", name], QUERY_SECONDS_MAX)
        except FetchError:
            return name  # apt-get, asked next, says what is wrong with it
        depends = next((line for line in text.splitlines() if line.startswith("Depends:")), "")
        match = _KERNEL_DEPENDENCY.search(depends.removeprefix("Depends:"))
        return match[1] if match else name

    def _get(self, arguments: Sequence[str], seconds_max: int, directory: Path | None = None) -> str:
        return self._call(["apt-get", *self._options, *arguments], seconds_max, directory)

    def _call(self, command: Sequence[str], seconds_max: int, directory: Path | None = None) -> str:
        try:
            return run(command, seconds_max, directory=directory)
        except ToolFailed as error:
            said = [line[3:] for line in error.output.splitlines() if line.startswith("E: ")]
            raise FetchError(
                f"apt ({self._arch}): {said[0] if said else error.message}",
                "check the names of the packages and the network; if the lists are old, run: apt-get update",
            ) from error

    def _need_lists(self) -> None:
        if self._has_lists():
            return
        if not self._is_foreign:
            raise FetchError("apt has no package lists on this machine", "run: apt-get update")
        self._update()

    def _has_lists(self) -> bool:
        output = run(["apt-config", *self._options, "shell", "LISTS", "Dir::State::lists/d"], QUERY_SECONDS_MAX)
        return any(Path(output.strip().removeprefix("LISTS=").strip("'")).glob("*_Packages*"))

    def _with_fresh_lists(self, action: Callable[[], _T]) -> _T:
        """Runs ``action``; if it fails for a foreign architecture, once more with lists just fetched.

        Old lists name files that the archive no longer has. The machine's own lists are the owner's business.
        """
        try:
            return action()
        except FetchError:
            if not self._is_foreign or self._has_updated:
                raise
        self._update()
        return action()

    def _update(self) -> None:
        self._has_updated = True
        with self._locked():
            try:
                self._get(["update", "-qq"], UPDATE_SECONDS_MAX)
            except FetchError:
                # One source of several may be down; what matters is whether the packages can be had.
                if not self._has_lists():
                    raise
        if not self._has_lists():
            raise FetchError(
                f"the package sources of this machine have nothing for {self._arch}",
                "check /etc/apt/sources.list.d for lines that are limited to other architectures",
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One update at a time. The kernel lets go of the lock when its holder dies."""
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
