"""The executable for devices reads packages as the build host does: its own xz and zstd, its bounds, its memory."""

from __future__ import annotations

import ast
import lzma
import platform
import subprocess
from pathlib import Path

import pytest
import zstandard

from initramfs.freeze import closure, freeze
from packagemanager.entry import Entry
from packagemanager.errors import ArchiveError
from payload.digest import digest
from tests.boot.frozen_stand_in import CACHE, CHECKOUT, STAND_IN, sysroot
from tests.unit.deb_samples import COMPRESSIONS, EVERY_KIND, deb_of, member, read, tar_of

pytestmark = [
    pytest.mark.requirement("M14"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the executable is for x86_64"),
]

SECONDS = 120
MEMORY_KIB_MAX = 40 << 10  # the interpreter with it
ROOTS = ("recovery.main", "recovery.cli", "packagemanager.deb", "payload.streams")
READER = """
import posix
class Reader:
    def __init__(self, path):
        self.file = posix.open(path, posix.O_RDONLY)
        self.size = posix.fstat(self.file).st_size
    def read(self, offset, length):
        return posix.pread(self.file, length, offset)
"""
UNPACK = (
    READER
    + """
from packagemanager.deb import Deb
from packagemanager.errors import ArchiveError
def outcome(path):
    try:
        content = Deb(Reader(path)).unpack(lambda entry, pieces: None)
    except ArchiveError as error:
        return str(error)
    return [content.control, content.files, [entry._values() for entry in content.entries]]
"""
)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/init with the reader of packages; as an ordinary process it runs the Python text that it is given."""
    root, place = sysroot(), tmp_path_factory.mktemp("frozen") / "init"
    modules = closure(ROOTS, root, (STAND_IN, CHECKOUT), cache_dir=CACHE / "imports")
    freeze(modules, root, CHECKOUT / "recovery/native", place, CACHE / "frozen")
    return place


def run(program: Path, text: str) -> object:
    done = subprocess.run([str(program), text], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


def on_the_host(package: bytes) -> object:
    try:
        content, _ = read(package)
    except ArchiveError:
        return None
    return [content.control, content.files, [entry._values() for entry in content.entries]]


def test_every_compression_and_damage_ends_as_on_the_host(program: Path, tmp_path: Path) -> None:
    """Whole, cut, and with a bit flipped: every 7th byte of each compression."""
    packages = []
    for compression in COMPRESSIONS:
        package = deb_of(tar_of(EVERY_KIND), compression=compression or ".gz", data_compression=compression)
        changed = [
            package[:at] + bytes([package[at] ^ 1 << at % 8]) + package[at + 1 :] for at in range(0, len(package), 7)
        ]
        packages += [package, *(package[:at] for at in range(0, len(package), 7)), *(changed if compression else ())]
    for number, package in enumerate(packages):
        (tmp_path / str(number)).write_bytes(package)
    text = f"print([outcome('{tmp_path}/%d' % number) for number in range({len(packages)})])"
    outcomes = run(program, UNPACK + text)
    assert isinstance(outcomes, list)
    for found, package in zip(outcomes, packages, strict=True):
        expected = on_the_host(package)
        assert found == expected if expected is not None else isinstance(found, str)
    assert sum(isinstance(found, list) for found in outcomes) >= len(COMPRESSIONS)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_memory_does_not_grow_with_the_package(program: Path, tmp_path: Path, compression: str) -> None:
    size = 96 << 20
    (tmp_path / "deb").write_bytes(deb_of(tar_of([member("a", content=bytes(size))]), data_compression=compression))
    text = (
        f"found = outcome('{tmp_path}/deb')\n"
        "import posix\n"
        "status = posix.read(posix.open('/proc/self/status', posix.O_RDONLY), 4096).decode()\n"
        "print([found[2][0], int(status.partition('VmHWM:')[2].split()[0])])"
    )
    answer = run(program, UNPACK + text)
    assert isinstance(answer, list)
    values, peak_kib = answer
    assert values == Entry("a", "file", mtime=1_700_000_000, size=size, digest=digest(bytes(size)))._values()
    assert peak_kib < MEMORY_KIB_MAX


def test_windows_are_bounded(program: Path, tmp_path: Path) -> None:
    """A stream that asks for more memory than the bound is refused before it gets it; one within is read."""
    parameters = [zstandard.ZstdCompressionParameters(window_log=log, compression_level=1, write_content_size=False)
                  for log in (26, 27)]  # fmt: skip
    streams = [("zstd", _zstd(each)) for each in parameters]
    streams += [
        ("xz", lzma.compress(b"x" * 1000, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": size << 20}]))
        for size in (64, 65 + 8)
    ]
    for number, (_, content) in enumerate(streams):
        (tmp_path / str(number)).write_bytes(content)
    text = READER + (
        "from payload.streams import decompress\n"
        "def size(kind, number):\n"
        f"    reader = Reader('{tmp_path}/%d' % number)\n"
        "    try:\n        return sum(map(len, decompress(kind, [reader.read(0, reader.size)])))\n"
        "    except ValueError as error:\n        return str(error)\n"
        f"print([size(kind, number) for number, kind in enumerate({[kind for kind, _ in streams]})])"
    )
    answers = run(program, text)
    assert answers == [1000, "zstd: Frame requires too much memory for decoding",
                       1000, "xz: wants more memory than is allowed"]  # fmt: skip


def test_what_a_step_refuses(program: Path) -> None:
    def refusal(call: str) -> object:
        return run(
            program,
            f"import _unbrick\ntry:\n    {call}\nexcept (ValueError, TypeError) as error:\n    print([str(error)])",
        )

    assert refusal("_unbrick.zstd_stream(26).step(b'', 0)") == ["a step gives 1 to 1048576 bytes, and one at a time"]
    assert refusal("_unbrick.xz_stream(1).step(b'', 1 << 21)") == ["a step gives 1 to 1048576 bytes, and one at a time"]
    assert refusal("_unbrick.zstd_stream(99)") == ["no such window"]
    assert refusal("type(_unbrick.zstd_stream(26))()") == ["cannot create '_unbrick.Stream' instances"]
    assert refusal("_unbrick.xz_stream(1 << 20).step(b'hello' * 9, 9)") == ["xz: not xz"]
    assert refusal("_unbrick.zstd_stream(20).step(b'hello' * 9, 9)") == ["zstd: Unknown frame descriptor"]


def _zstd(parameters: zstandard.ZstdCompressionParameters) -> bytes:
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return bytes(compressor.compress(b"x" * 1000) + compressor.flush())
