"""Packages for tests, written by the standard library's tarfile: another hand than the one that reads them."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable, Mapping

import zstandard

from packagemanager.deb import Deb
from packagemanager.entry import Content, Entry
from tests.unit.payload_samples import BytesReader

CONTROL = b"Package: sample\nVersion: 1.0-1\nArchitecture: all\nMaintainer: somebody\nDescription: a sample\n"
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, 9, mtime=0),
    ".xz": lambda content: lzma.compress(content, preset=6),
    ".zst": lambda content: zstandard.ZstdCompressor(level=19, write_checksum=True).compress(content),
}
TIME = 1_700_000_000
TYPES = {"file": b"0", "directory": b"5", "link": b"2", "hard-link": b"1"}


def member(path: str, kind: str = "file", content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    """``attributes`` are those of tarfile: mode, uid, gid, uname, gname, mtime, linkname, type."""
    info = tarfile.TarInfo(path)
    info.type = TYPES.get(kind, b"0")
    info.size = len(content)
    info.mode = 0o755 if kind == "directory" else 0o644
    info.mtime = TIME
    for name, value in attributes.items():
        setattr(info, name, value)
    return info, content


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def ar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    archive = b"!<arch>\n"
    for name, content in members:
        archive += f"{name:<16}{TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        archive += content + b"\n" * (len(content) % 2)
    return archive


def control_tar(control: bytes = CONTROL, files: Mapping[str, bytes] | None = None) -> bytes:
    return tar_of([member("./", "directory"), member("./control", content=control),
                   *(member(f"./{name}", content=content) for name, content in (files or {}).items())])  # fmt: skip


def deb_of(
    data: bytes, control: bytes | None = None, compression: str = ".xz", data_compression: str | None = None
) -> bytes:
    """A package of two tar archives."""
    of_data = compression if data_compression is None else data_compression
    return ar_of([
        ("debian-binary", b"2.0\n"),
        (f"control.tar{compression}", COMPRESSIONS[compression](control or control_tar())),
        (f"data.tar{of_data}", COMPRESSIONS[of_data](data)),
    ])  # fmt: skip


def read(package: bytes) -> tuple[Content, dict[str, bytes]]:
    """What is in it, and each file's bytes."""
    files: dict[str, bytes] = {}

    def keep(entry: Entry, pieces: Iterable[bytes]) -> None:
        files[entry.path] = b"".join(pieces)

    return Deb(BytesReader(package)).unpack(keep), files


EVERY_KIND = (
    member("./", "directory"),
    member("./usr/", "directory"),
    member("./usr/bin/", "directory", mode=0o2755, gid=8),
    member("./usr/bin/su", content=b"#!" * 100, mode=0o4755, uid=0),
    member("./usr/bin/sample", content=b"x" * 700),
    member("./usr/bin/again", "hard-link", linkname="./usr/bin/sample"),
    member("./usr/bin/short", "link", linkname="../../sample", mode=0o777),
    member("./usr/bin/nothing"),
    member("./usr/bin/Grüße", content=b"hello"),
)
