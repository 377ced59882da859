"""Small packages, a root that has them, and signed transactions: made and read by the production code."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from packagemanager.entry import DIRECTORY, FILE, LINK, Content, Entry
from packagemanager.master.emit import Order, Written
from packagemanager.master.package import Package
from packagemanager.master.repository import deb_file
from packagemanager.master.transaction_file import Label, create_transaction
from packagemanager.transaction import Transaction, believe
from packagemanager.tree import Stat
from payload.bundle import read_header
from payload.trust import trusted_key
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of
from tests.unit.payload_samples import COMPATIBLE, KEY, ROOT, BytesReader

if TYPE_CHECKING:
    from packagemanager.transaction import Source

Files = Mapping[str, bytes]
SERIAL = 7
KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}


class Folder:
    """What a transaction reads of a root: a stand-in for the real tree, which has tests of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def look(self, path: str) -> Stat | None:
        try:
            found = os.lstat(self.folder / path)
        except FileNotFoundError:
            return None
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "other")
        return Stat(kind, found.st_mode & 0o7777, 0, 0, found.st_size, 0, (0, found.st_ino))

    def open(self, path: str) -> BinaryIO:
        return (self.folder / path).open("rb", buffering=0)


def make_deb(
    folder: Path,
    name: str,
    version: str,
    files: Files,
    *,
    architecture: str = "amd64",
    control_files: Files | None = None,
    compression: str = ".xz",
    **fields: str,
) -> Path:
    """A package with these files, and the folders above them. ``fields``: Depends="…"; hyphens as underscores."""
    lines = {"Package": name, "Version": version, "Architecture": architecture, "Description": "a sample"}
    lines |= {key.replace("_", "-"): value for key, value in fields.items()}
    control = "".join(f"{key}: {value}\n" for key, value in lines.items()).encode()
    folders = sorted({str(above) for path in files for above in Path(path).parents if str(above) != "."})
    members = [member("./", "directory"), *(member(f"./{path}/", "directory") for path in folders)]
    members += [member(f"./{path}", content=content) for path, content in files.items()]
    path = folder / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(deb_of(tar_of(members), control_tar(control, control_files), compression))
    return path


class Master:
    """Packages by key and version, and the transactions that are made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages: dict[tuple[str, str], Package] = {}
        self.written = Written()

    def add(self, name: str, version: str, files: Files, **more: Any) -> Package:
        package = deb_file(make_deb(self.folder / "debs", name, version, files, **more))
        self.packages[package.key, package.version] = package
        return package

    def old_package(self, key: str, version: str) -> Package | None:
        return self.packages.get((key, version))

    def transaction(
        self,
        wanted: Sequence[Package],
        states: Sequence[Mapping[str, str]],
        *,
        serial: int = SERIAL,
        key: Any = KEY,
        compatible: str = COMPATIBLE,
        times: tuple[int, int] = (100, 200),
        **more: Any,
    ) -> bytes:
        """The bytes of a signed transaction, packages in the order of ``wanted``."""
        order = Order("amd64", wanted, wanted, (), [dict(state) for state in states], self.old_package, **more)
        output = self.folder / "sample.ubk"
        label = Label(compatible, serial, f"{serial}", *times)
        self.written, _created = create_transaction(order, label, [key], [], output)
        return output.read_bytes()


def opened(content: bytes, last_serial: int = SERIAL - 1) -> Transaction:
    """The transaction, as the device of these tests takes it."""
    reader = BytesReader(content)
    header = read_header(reader)
    manifest, _trusted = believe(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, last_serial)
    return Transaction(reader, header, manifest)


def unpacked(source: Source) -> tuple[Content, dict[str, bytes]]:
    files: dict[str, bytes] = {}

    def keep(entry: Entry, chunks: Iterator[bytes]) -> None:
        files[entry.path] = b"".join(chunks)

    return source.unpack(keep), files


def installed_root(folder: Path, *packages: Package) -> Folder:
    """A folder with the files of ``packages``."""
    from packagemanager.deb import Deb
    from payload.sources import FileSource

    for package in packages:
        assert package.fetch is not None
        _content, files = unpacked(Deb(FileSource(str(package.fetch()), "")))
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    return Folder(folder)


def state(*packages: Package) -> dict[str, str]:
    return {package.key: package.version for package in packages}
