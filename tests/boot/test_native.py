"""The executable on this host: as the command `unbrick`, and its C module against known answers."""

from __future__ import annotations

import ast
import errno
import hashlib
import mmap
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initramfs import freeze
from initramfs.errors import ToolError
from tests.boot.frozen_stand_in import CACHE, CHECKOUT, StandIn, frozen, sysroot

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the executable is for x86_64"),
]

SECONDS = 60
SECTOR_BYTES = 4096

Call = Callable[[str], object]


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return frozen(tmp_path_factory.mktemp("stand-in"))


def run(stand_in: StandIn, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(stand_in.executable), text]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.fixture
def call(stand_in: StandIn) -> Call:
    """``call("pread_direct(0, 5, 0)")``: the value, or the error as (type, errno or text)."""

    def evaluate(expression: str) -> object:
        text = (
            "import _unbrick, os\n"
            f"try:\n    value = eval({expression!r}, dict(vars(_unbrick), os=os))\n"
            "except OSError as error:\n    value = 'OSError', error.errno\n"
            "except ValueError as error:\n    value = 'ValueError', str(error)\n"
            "print(repr(value))"
        )
        done = run(stand_in, text)
        assert done.returncode == 0, done.stderr
        value: object = ast.literal_eval(done.stdout)
        return value

    return evaluate


def refused(value: object) -> str:
    """The text of the ValueError that was raised."""
    assert isinstance(value, tuple) and value[0] == "ValueError", value
    return str(value[1])


def test_another_process_than_pid_1_is_the_command(stand_in: StandIn) -> None:
    done = run(stand_in, "print(arguments[0] == '" + str(stand_in.executable) + "'); raise SystemExit(3)")
    assert (done.returncode, done.stdout) == (3, "True\n")


def test_nothing_of_the_host_has_a_part_in_it(stand_in: StandIn) -> None:
    """No path, no variable, no locale, no random hash; and what no module asked for is not there."""
    text = (
        "import sys\n"
        "print(sys.path, sys.flags.isolated, sys.flags.hash_randomization, hash('fixed'), sys.stdout.encoding)\n"
        "try:\n    import turtle\nexcept ImportError as error:\n    print(error.name)"
    )
    plain = run(stand_in, text).stdout
    assert (
        plain == run(stand_in, text, PYTHONHASHSEED="9", PYTHONPATH="/", LC_ALL="C", PYTHONIOENCODING="latin-1").stdout
    )
    assert plain.startswith("[] 1 0 ")
    assert plain.endswith(" utf-8\nturtle\n")


def test_a_console_takes_every_character(stand_in: StandIn) -> None:
    assert run(stand_in, r"print('caf\u00e9 \udc80')").stdout == "café \\udc80\n"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("utf-8", "utf-8"), ("U8", "utf-8"), ("Latin_1", "iso8859-1"), ("iso-8859-1", "iso8859-1"),
        ("ANSI_X3.4-1968", "ascii"), ("646", "ascii"), ("cp1252", None), ("a.b", None), ("", None), ("aliases", None),
    ],
)  # fmt: skip
def test_codecs_are_found_by_every_name(stand_in: StandIn, name: str, found: str | None) -> None:
    """As the standard library finds them, of those that are in the executable."""
    text = f"import codecs\ntry:\n    print(codecs.lookup({name!r}).name)\nexcept LookupError:\n    print(None)"
    assert run(stand_in, text).stdout == f"{found}\n"


def test_the_table_of_aliases_is_not_read_at_start(stand_in: StandIn) -> None:
    assert run(stand_in, "import sys; print('encodings.aliases' in sys.modules)").stdout == "False\n"


def test_it_opens_no_file_to_start(stand_in: StandIn) -> None:
    """In an empty root, without /dev, /proc and libraries."""
    become_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    done = subprocess.run(
        [*become_root, "chroot", str(stand_in.executable.parent), "/init", "print('started')"],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_the_same_inputs_make_the_same_executable(stand_in: StandIn, tmp_path: Path) -> None:
    """Linked anew, from a copy of the sources elsewhere."""
    sources = tmp_path / "elsewhere"
    shutil.copytree(CHECKOUT / "recovery/native", sources)
    root = sysroot()
    modules = freeze.closure(("recovery.main", "recovery.cli"), root, (CHECKOUT / "tests/boot/stand_in",))
    first = freeze.freeze(modules, root, sources, tmp_path / "init", tmp_path / "cache")
    assert not first.cached
    assert digest(first.executable) == digest(stand_in.executable)
    again = freeze.freeze(modules, root, sources, tmp_path / "again", tmp_path / "cache")
    assert again.cached
    assert digest(again.executable) == digest(stand_in.executable)


def test_one_changed_line_is_another_executable(stand_in: StandIn, tmp_path: Path) -> None:
    root = sysroot()
    own = tmp_path / "own/recovery"
    own.mkdir(parents=True)
    for path in (CHECKOUT / "tests/boot/stand_in/recovery").glob("*.py"):
        (own / path.name).write_text(path.read_text() + "\nADDED = 1\n")
    modules = freeze.closure(("recovery.main", "recovery.cli"), root, (own.parent,))
    changed = freeze.freeze(modules, root, CHECKOUT / "recovery/native", tmp_path / "init", CACHE / "frozen")
    assert digest(changed.executable) != digest(stand_in.executable)


def test_sources_that_do_not_compile_are_named_and_leave_nothing(tmp_path: Path) -> None:
    root = sysroot()
    (tmp_path / "broken.c").write_text("int main(void) { return absent; }\n")
    modules = freeze.closure((), root, ())
    with pytest.raises(ToolError, match=r"broken\.c:1:25: error: .absent. undeclared"):
        freeze.freeze(modules, root, tmp_path, tmp_path / "init", tmp_path / "cache")
    assert not (tmp_path / "init").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The C module.

RFC_8032_TEST_2 = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    "72",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
)  # fmt: skip


def verify(signature: bytes, message: bytes, key: bytes) -> str:
    return f"ed25519_verify({signature!r}, {message!r}, {key!r})"


def test_signatures_of_the_standard_and_of_another_library(call: Call) -> None:
    signature, message, key = map(bytes.fromhex, RFC_8032_TEST_2)
    assert call(verify(signature, message, key)) is True
    assert call(verify(signature, message + b"\0", key)) is False
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    content = bytes(range(256)) * 20
    good = private.sign(content)
    assert call(verify(good, content, public)) is True
    for position in (0, 31, 32, 63):
        bad = bytearray(good)
        bad[position] ^= 1
        assert call(verify(bytes(bad), content, public)) is False


@pytest.mark.parametrize(("signature_bytes", "key_bytes"), [(63, 32), (65, 32), (64, 31), (64, 33), (0, 0)])
def test_lengths_that_no_signature_has(call: Call, signature_bytes: int, key_bytes: int) -> None:
    text = refused(call(verify(bytes(signature_bytes), b"", bytes(key_bytes))))
    assert text.startswith("an Ed25519 signature has 64 bytes and a key 32, not")


def test_decompression(call: Call) -> None:
    plain = bytes(range(256)) * 40
    sized = zstandard.compress(plain)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    for stored in (sized, unsized):
        for size_max in (len(plain), len(plain) + 1000):
            assert call(f"zstd_decompress({stored!r}, {size_max})") == plain
        assert refused(call(f"zstd_decompress({stored!r}, {len(plain) - 1})"))
    assert call(f"zstd_decompress({zstandard.compress(b'')!r}, 0)") == b""


FRAME = zstandard.compress(bytes(99))
SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0skip"


@pytest.mark.parametrize(
    "stored",
    [b"", b"\0", b"\x28\xb5\x2f\xfd", b"not zstd at all", FRAME[:-1], FRAME + b"\0", FRAME + FRAME, FRAME + SKIPPABLE,
     SKIPPABLE + FRAME],
)  # fmt: skip
def test_what_is_not_one_frame(call: Call, stored: bytes) -> None:
    assert refused(call(f"zstd_decompress({stored!r}, 1000)"))


def test_a_frame_that_claims_a_terabyte_allocates_nothing(call: Call) -> None:
    header = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little")
    assert call(f"zstd_decompress({header!r}, 4096)") == ("ValueError", "not a zstd frame of at most 4096 bytes")
    for size_max in (-1, (64 << 20) + 1):
        assert "are allowed" in refused(call(f"zstd_decompress({header!r}, {size_max})"))


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    path = tmp_path / "medium"
    path.write_bytes(os.urandom(16 * SECTOR_BYTES))
    return path


def direct(expression: str, path: Path) -> str:
    return f"(lambda fd: {expression})(os.open({str(path)!r}, os.O_RDWR | os.O_DIRECT))"


def test_direct_reads_and_writes(call: Call, medium: Path) -> None:
    content = medium.read_bytes()
    assert call(direct(f"pread_direct(fd, {4 * SECTOR_BYTES}, {SECTOR_BYTES})", medium)) == content[4096:20480]
    assert call(direct(f"pread_direct(fd, {4 * SECTOR_BYTES}, {15 * SECTOR_BYTES})", medium)) == content[61440:]
    assert call(direct(f"pread_direct(fd, {SECTOR_BYTES}, {16 * SECTOR_BYTES})", medium)) == b""
    written = b"\xa5" * (2 * SECTOR_BYTES)
    assert call(direct(f"pwrite_direct(fd, {written!r}, {SECTOR_BYTES})", medium)) == len(written)
    assert call(direct(f"pwrite_direct(fd, b'', {SECTOR_BYTES})", medium)) == 0
    assert medium.read_bytes() == content[:4096] + written + content[12288:]


def test_the_buffer_is_aligned_whatever_is_given(call: Call, medium: Path) -> None:
    """A view one byte into a buffer is written, though O_DIRECT would not take it."""
    expression = f"pwrite_direct(fd, memoryview(b'x' * {mmap.PAGESIZE + 1})[1:], 0)"
    assert call(direct(expression, medium)) == mmap.PAGESIZE


def test_failures_of_the_kernel_keep_their_number(call: Call, medium: Path) -> None:
    assert call("pread_direct(99, 512, 0)") == ("OSError", 9)
    assert call(direct("pread_direct(fd, 512, -1)", medium)) == ("OSError", 22)
    assert call(direct("pwrite_direct(fd, b'x', 0)", medium)) == ("OSError", 22)
    assert call("mount(None, '/no/such/place', 'tmpfs', 0, None)") == ("OSError", 2)
    assert call("umount('/no/such/place', 0)") == ("OSError", 2)
    kernel_says = [("OSError", number) for number in (errno.EBADF, errno.EPERM, errno.ENOSYS)]
    assert call("finit_module(99, '')") in kernel_says
    assert call("add_partition(99, 1, 0, 512)") == ("OSError", 9)


@pytest.mark.parametrize("length", [-1, (16 << 20) + 1])
def test_transfers_are_bounded(call: Call, length: int) -> None:
    assert refused(call(f"pread_direct(0, {length}, 0)")).startswith(f"{length} bytes in one transfer")
