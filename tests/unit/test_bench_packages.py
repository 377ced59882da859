"""What the benchmark of packages reads and makes: strace's lines, and packages without their scripts."""

import io
import lzma
import tarfile

import pytest

from scripts.benchmarks.package_contenders import Counted, counted
from scripts.benchmarks.package_place import without_scripts
from scripts.virtual.commands import SetupError


def test_sync_calls_are_counted_by_process() -> None:
    lines = [
        '10 execve("/usr/sbin/chroot", ["chroot", "/root", "dpkg"], 0x7ffd /* 5 vars */) = 0',
        "10 fsync(5) = 0",
        "11 fsync(3 <unfinished ...>",
        "10 syncfs(4) = 0",
        "11 <... fsync resumed>) = 0",
        "10 +++ exited with 0 +++",
    ]
    assert counted(lines) == Counted(own=2, every=3)
    assert counted([]) == Counted(0, 0)


def deb(*names: str) -> bytes:
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"./{name}"))
    made = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"), ("control.tar.xz", lzma.compress(control.getvalue())), ("data.tar.xz", b"odd"),
    ):  # fmt: skip
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


def test_scripts_are_taken_out_of_a_package_and_nothing_else() -> None:
    assert without_scripts(deb("control", "preinst", "md5sums", "postrm", "config")) == deb("control", "md5sums")


def test_what_is_no_package_is_said() -> None:
    with pytest.raises(SetupError):
        without_scripts(b"nothing")
