"""Where packages come from: the lists of this machine's apt, a repository on disk or on the web, a folder of debs.

A package is fetched once, into a cache named by digests, and compared with the size and SHA-256 of its list. Whether
the *list* is genuine is apt's matter: it verified the signatures of the lists that it keeps, so ``apt`` is the
repository to name where that counts. A list that is read from a file or a URL is believed as it is.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

from packagemanager.control import Paragraph, identity, paragraph
from packagemanager.master.deb_path import opened_deb
from packagemanager.master.errors import RepositoryError
from packagemanager.master.package import Package, look_at_all
from packagemanager.master.package_list import LIST_BYTES_MAX, PACKAGE_BYTES_MAX, PackageList, decompressed
from payload.durable import atomic_replace

APT = "apt"
APT_LISTS = Path("/var/lib/apt/lists")
FETCH_SECONDS_MAX = 900
DEBS_MAX = 100_000
LIST_NAMES = ("Packages", "Packages.xz", "Packages.gz", "Packages.bz2")


class Repository(Protocol):
    """Packages by name."""

    def named(self, name: str) -> list[Package]: ...

    def providing(self, name: str) -> list[Package]: ...

    def essential(self) -> list[Package]: ...


class Repositories:
    """Several, the first one asked first. A package that two of them have is taken from the first."""

    def __init__(self, repositories: Iterable[Repository]) -> None:
        self._repositories = tuple(repositories)
        self._named: dict[str, list[Package]] = {}
        self._providing: dict[str, list[Package]] = {}

    def named(self, name: str) -> list[Package]:
        """Newest first."""
        if name not in self._named:
            self._named[name] = _each_once(one for each in self._repositories for one in each.named(name))
        return self._named[name]

    def providing(self, name: str) -> list[Package]:
        if name not in self._providing:
            self._providing[name] = _each_once(one for each in self._repositories for one in each.providing(name))
        return self._providing[name]

    def essential(self) -> list[Package]:
        return _each_once(one for each in self._repositories for one in each.essential())

    def exactly(self, key: str, version: str) -> Package | None:
        """The package of this identity, if it is to be had."""
        name = key.partition(":")[0]
        return next((one for one in self.named(name) if (one.key, one.version) == (key, version)), None)


def _each_once(packages: Iterable[Package]) -> list[Package]:
    found: dict[tuple[str, str], Package] = {}
    for package in packages:
        found.setdefault((package.key, package.version), package)
    return sorted(found.values(), key=lambda package: (package.order, package.key), reverse=True)


def open_repository(place: str, architecture: str, cache: Path) -> Repository:
    """The repository that a person names.

    ``apt``: what this machine's apt knows. A folder: of debs, or with a list of packages in it. A file: a list. A line
    ``URL SUITE COMPONENT``: a repository on the web.

    Raises:
        RepositoryError: there is none.
    """
    if place == APT:
        return apt_lists(APT_LISTS, architecture, cache)
    if "://" in place:
        return web_repository(place, architecture, cache)
    path = Path(place)
    if path.is_dir():
        found = [path / name for name in LIST_NAMES if (path / name).is_file()]
        return list_file(found[0], architecture) if found else DebFolder(path, architecture)
    return list_file(path, architecture)


def list_file(path: Path, architecture: str) -> PackageList:
    """A list in a file; its packages lie where its ``Filename`` leads from the list's folder or one above it."""

    def fetch(fields: Paragraph) -> Path:
        name = fields.get("Filename")
        for folder in (path.parent, *path.absolute().parents):
            if name and (folder / name).is_file():
                return verified(folder / name, fields)
        raise RepositoryError(f"{path}: {name or 'a package without a Filename'} is not there", "Complete the mirror.")

    return PackageList(decompressed(path), architecture, str(path), fetch)


def apt_lists(folder: Path, architecture: str, cache: Path) -> Repositories:
    """The lists that apt keeps in ``folder``; packages are downloaded by apt, with its settings."""
    paths = sorted(
        path
        for path in folder.glob("*_Packages*")
        if f"binary-{architecture}" in path.name or "binary-all" in path.name
    )
    if not paths:
        raise RepositoryError(f"apt has no package lists for {architecture} in {folder}", "Run: apt-get update")

    def fetch(fields: Paragraph) -> Path:
        return _cached(fields, cache, lambda: _by_apt(fields))

    return Repositories(PackageList(decompressed(path), architecture, path.name, fetch) for path in paths)


def _by_apt(fields: Paragraph) -> bytes:
    name, version, architecture = identity(fields)
    qualified = name if architecture == "all" else f"{name}:{architecture}"
    with tempfile.TemporaryDirectory() as folder:
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{qualified}={version}"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS_MAX
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise RepositoryError(f"apt-get download {name}={version}: {error}", "Is apt on this machine?") from error
        found = list(Path(folder).glob("*.deb"))
        if done.returncode or len(found) != 1:
            said = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise RepositoryError(f"apt-get download {name}={version}: {said}", "Run: apt-get update")
        return found[0].read_bytes()


def web_repository(line: str, architecture: str, cache: Path) -> PackageList:
    """``URL SUITE COMPONENT`` as in a line of sources.list."""
    url, *rest = line.split()
    if len(rest) != 2:
        raise RepositoryError(f"{line!r} names no repository", "Write: URL SUITE COMPONENT")
    base = url.rstrip("/")
    content = _downloaded(f"{base}/dists/{rest[0]}/{rest[1]}/binary-{architecture}/Packages.gz", LIST_BYTES_MAX)

    def fetch(fields: Paragraph) -> Path:
        bytes_max = int(fields.get("Size", "0")) or PACKAGE_BYTES_MAX
        return _cached(fields, cache, lambda: _downloaded(f"{base}/{fields.get('Filename')}", bytes_max))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Packages.gz"
        path.write_bytes(content)
        return PackageList(decompressed(path), architecture, line, fetch)


def _downloaded(url: str, bytes_max: int) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS_MAX) as answer:
            content: bytes = answer.read(bytes_max + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise RepositoryError(f"{url}: {error}", "Check the URL and the network.") from error
    if len(content) > bytes_max:
        raise RepositoryError(f"{url}: more than {bytes_max} bytes", "This is not what was expected there.")
    return content


def _cached(fields: Paragraph, cache: Path, bring: Callable[[], bytes]) -> Path:
    """The package by its digest: what has its final name in the cache is whole, for it was compared before."""
    name, version, architecture = identity(fields)
    sha256 = fields.get("SHA256")
    if len(sha256) != 64 or not set("0123456789abcdef").issuperset(sha256):
        raise RepositoryError(
            f"{name} {version}: its list has no SHA-256 for it", "Use a repository with SHA256 fields."
        )
    path = cache / "packages" / sha256 / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    if path.is_file() and path.stat().st_size == int(fields.get("Size", "0")):
        return path
    content = bring()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RepositoryError(f"{name} {version} is not what its list says", "Fetch the list again: apt-get update")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_replace(path, content)
    return path


def verified(path: Path, fields: Paragraph) -> Path:
    """``path``, if it is the package of these fields. Raises ``RepositoryError``."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RepositoryError(f"{path}: {error.strerror}", "Complete the mirror.") from error
    if found != fields.get("SHA256") or path.stat().st_size != int(fields.get("Size", "0")):
        raise RepositoryError(f"{path} is not what its list says", "Fetch it again.")
    return path


class DebFolder:
    """Every ``.deb`` below a folder. Their own control files are the list.

    Raises:
        RepositoryError: one of them is damaged.
    """

    def __init__(self, folder: Path, architecture: str) -> None:
        paths = sorted(folder.rglob("*.deb"))
        if len(paths) > DEBS_MAX:
            raise RepositoryError(f"{folder} has {len(paths)} packages, allowed are {DEBS_MAX}", "Name a smaller one.")
        read = (deb_file(path, architecture) for path in paths)
        self._packages = [package for package in read if package.architecture in (architecture, "all")]
        if not self._packages:
            raise RepositoryError(f"{folder} has no packages for {architecture}", "Name a folder with .deb files.")

    def named(self, name: str) -> list[Package]:
        return [package for package in self._packages if package.name == name]

    def providing(self, name: str) -> list[Package]:
        return [package for package in self._packages if name in package.provides and package.name != name]

    def essential(self) -> list[Package]:
        return [package for package in self._packages if package.is_essential]


def deb_file(path: Path, native: str = "") -> Package:
    """A package in a file, for systems of the architecture ``native``. Raises ``RepositoryError``."""
    with opened_deb(path, "Take it out of the folder, or fetch it again.") as deb:
        package = Package(paragraph(deb.control()[0]), str(path.parent), path.stat().st_size, "", lambda: path, native)
        look_at_all(package)
    return package
