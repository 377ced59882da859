"""Transactions for the virtual Debian: its own set of packages, one of them made again so that it does not work."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from packagemanager.control import paragraphs
from packagemanager.master.emit import Order
from packagemanager.master.order import configure_order
from packagemanager.master.package import Package
from packagemanager.master.repository import deb_file
from packagemanager.master.transaction_file import Label, create_transaction
from payload.signing_key import load_signing_key
from tests.unit.deb_samples import control_tar, deb_of, member, tar_of

LIBC = "libc6:amd64"
BROKEN = "lib/x86_64-linux-gnu/libc.so.6"
STATUS = "var/lib/dpkg/status"
MERGED = ("bin", "lib", "lib64", "sbin")  # folders to packages, links in the root


class Base:
    """The archive of a Debian as it was installed."""

    def __init__(self, archive: Path) -> None:
        self._archive = tarfile.open(archive)  # noqa: SIM115 - as long as this
        self._members = {member.name.removeprefix("./"): member for member in self._archive.getmembers()}
        self.packages = {one.key: one for one in map(Package, paragraphs(self.read(STATUS)))}

    def read(self, path: str) -> bytes:
        file = self._archive.extractfile(self._members[path])
        assert file is not None
        return file.read()

    def _of_package(self, path: str) -> tuple[tarfile.TarInfo, bytes] | None:
        """What is at a path of a package, whose folders may be links in the root."""
        for place in (path, f"usr/{path}"):
            found = self._members.get(place)
            if found is None or (found.issym() and place in MERGED):
                continue
            content = self.read(place) if found.isreg() else b""
            kind = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link"}.get(found.type, "file")
            return member(f"./{path}", kind, content, mode=found.mode, linkname=found.linkname, mtime=int(found.mtime))
        return None

    def broken_libc(self, folder: Path) -> Package:
        """The next version of libc6: every file as it is, but that libc.so.6 ends every program that is started."""
        old = self.packages[LIBC]
        paths = self.read(f"var/lib/dpkg/info/{LIBC}.list").decode().split("\n")
        members = []
        for path in (line.lstrip("/") for line in paths if line):
            found = self._of_package(path)
            if found is not None:
                info, content = found
                members.append((info, _that_crashes(content) if path == BROKEN else content))
        control = old.fields.changed(
            Status=None, Conffiles=None, **{"Installed-Size": None}, Version=f"{old.version}.1"
        )
        output = folder / "libc6.deb"
        output.write_bytes(deb_of(tar_of(members), control_tar(control.encode()), ".gz"))
        return deb_file(output)

    def transaction(
        self, new: Iterable[Package], serial: int, compatible: str, key: Path, output: Path, old: Iterable[Package] = ()
    ) -> None:
        """Everything as it is, but ``new``. Of those whose ``old`` package is given only the difference is sent."""
        changed = {package.key: package for package in new}
        wanted = configure_order((self.packages | changed).values(), lambda _package: False)
        state = {package.key: package.version for package in self.packages.values()}
        had = {(package.key, package.version): package for package in old}
        order = Order("amd64", wanted, wanted, (), [state], lambda *which: had.get(which))
        create_transaction(order, Label(compatible, serial, str(serial), 100, 200), [load_signing_key(key)], [], output)


def _that_crashes(library: bytes) -> bytes:
    """The same headers, and code that is nothing but HLT, which no program may execute."""
    start, end = len(library) // 8, len(library) * 3 // 4
    return library[:start] + b"\xf4" * (end - start) + library[end:]
