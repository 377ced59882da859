"""The whole build, from real Debian packages and Debian's own kernel. Minutes the first time, then seconds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from initramfs.cli import main
from initramfs.debian import default_cache_dir, fetch, unpack
from initramfs.inspect import listing, read_image
from initramfs.newc import read
from initramfs.report import load_sidecar, sidecar_path
from tests.programs.certificates import authority

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "docs/examples/device.toml").read_text()
PUBLIC_KEY = bytes(range(32)).hex()
BUILD_SECONDS_MAX = 600
NOBODY = 65534
CA = authority()

pytestmark = pytest.mark.boot


@pytest.fixture(scope="session")
def cache() -> Path:
    """The same cache for all builds: the packages are fetched once on this machine."""
    return default_cache_dir()


@dataclass(frozen=True)
class Device:
    """A folder with a device.toml and its key."""

    folder: Path
    cache: Path

    @property
    def image(self) -> Path:
        return self.folder / "recovery.cpio.zst"

    def build(self, *arguments: str) -> int:
        given = ["-c", str(self.folder / "device.toml"), "-o", str(self.image), "--cache", str(self.cache)]
        return main(["build", *given, *arguments])


def device(folder: Path, cache: Path, before: str = "", after: str = "") -> Device:
    assert before in EXAMPLE, before
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "root.pub").write_text(PUBLIC_KEY)
    (folder / "ca.pem").write_bytes(CA.pem)
    (folder / "device.toml").write_text(EXAMPLE.replace(before, after, 1) if before else EXAMPLE)
    return Device(folder, cache)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Device:
    made = device(tmp_path_factory.mktemp("device"), cache)
    assert made.build() == 0
    return made


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.requirement("D1")
@pytest.mark.requirement("D2")
@pytest.mark.requirement("D13")
def test_the_image_holds_the_program_the_modules_and_what_e2fsck_needs(built: Device) -> None:
    items = listing(read_image(built.image))
    assert items["init"].mode == 0o755
    assert items["dev/console"].device == (5, 1)
    for name in ("/virtio_blk.ko", "/squashfs.ko", "/overlay.ko", "/usb-storage.ko", "/i6300esb.ko", "/libc.so.6",
                 "sbin/e2fsck"):  # fmt: skip
        assert any(path.endswith(name) for path in items), name
    assert built.image.stat().st_size <= 5_300_000


def test_modules_are_loaded_in_the_order_of_their_dependencies(built: Device) -> None:
    members = {member.path: member.data for member in read(built.image.read_bytes()).members}
    lines = members["etc/unbrick/modules.boot"].decode().splitlines()
    names = [line.split()[0].rpartition("/")[2].removesuffix(".ko") for line in lines]
    wanted = ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]
    assert [name for name in names if name in wanted] == wanted
    assert names.index("jbd2") < names.index("ext4")
    assert next(line for line in lines if "i6300esb" in line).endswith("i6300esb.ko heartbeat=20")
    assert all(line.split()[0].lstrip("/") in members for line in lines)


def test_why_answers_for_every_path(built: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", str(built.image), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == sorted(listing(read_image(built.image)))
    assert all(any("because: " in line for line in lines) for lines in answers.values())
    libc = next(lines for path, lines in answers.items() if path.endswith("/libc.so.6"))
    assert "DT_NEEDED libc.so.6" in libc[1] and libc[-1].strip() == "because: asked for by the configuration"
    scsi = next(lines for path, lines in answers.items() if path.endswith("/scsi_common.ko"))
    assert "needs scsi_common" in scsi[1] and "asked for" in scsi[-1]
    assert main(["why", str(built.image), "recovery.main"]) == 0
    assert "frozen into /init" in capsys.readouterr().out


def test_the_image_verifies(built: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(built.image)]) == 0
    assert "as IMAGE.json says" in capsys.readouterr().out


def test_versions_and_sizes_are_in_the_sidecar(built: Device) -> None:
    document = load_sidecar(sidecar_path(built.image))
    assert document["packages"]["e2fsprogs"]
    assert document["kernel_release"] in next(name for name in document["packages"] if "linux-image" in name)
    assert str(built.folder) not in sidecar_path(built.image).read_text()
    assert str(built.cache) not in sidecar_path(built.image).read_text()


@pytest.fixture
def another_place() -> Iterator[Path]:
    """A folder that another user can reach: pytest's own are closed to them, again at each start."""
    with tempfile.TemporaryDirectory(prefix="another place ") as folder:
        yield Path(folder)


def test_builds_by_other_users_in_other_places_are_byte_identical(built: Device, another_place: Path) -> None:
    """Another folder of device, tool and cache; another user, umask, HOME, locale, zone; everything made anew."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    other = device(another_place / "x" / "y", another_place / "cache")
    share_packages(built.cache, other.cache)
    for package in ("initramfs", "recovery", "packagemanager", "payload", "statemachine", "unbrick"):
        shutil.copytree(ROOT / package, another_place / "tool" / package)
    # The checkout may lie where no other user may look.
    shutil.copytree(sysconfig.get_path("purelib"), another_place / "libraries")
    for path in (another_place, *another_place.rglob("*")):
        if path.suffix != ".deb":
            os.chown(path, NOBODY, NOBODY)
    done = subprocess.run(
        [str(Path(sys.base_prefix) / "bin/python3"), "-m", "unbrick", "build", "-c", str(other.folder / "device.toml"),
         "-o", str(other.image), "--cache", str(other.cache), "--debug"],
        cwd="/", user=NOBODY, group=NOBODY, extra_groups=[], umask=0o077, timeout=BUILD_SECONDS_MAX, check=False,
        capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(another_place), "LC_ALL": "C", "TZ": "Asia/Tokyo",
             "PYTHONPATH": f"{another_place / 'tool'}:{another_place / 'libraries'}", "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert digest(other.image) == digest(built.image)
    assert digest(sidecar_path(other.image)) == digest(sidecar_path(built.image))
    assert other.image.stat().st_mode & 0o777 == 0o644


def share_packages(source: Path, destination: Path) -> None:
    """Give another cache the downloaded packages, and nothing that was made of them."""
    for package in (source / "packages").rglob("*.deb"):
        place = destination / package.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(package)


def test_source_date_epoch_is_the_time_in_the_image(built: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    dated = device(built.folder / "dated", built.cache)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert dated.build() == 0
    assert {member.time_seconds for member in read_image(dated.image).members} == {1700000000}
    assert digest(dated.image) != digest(built.image)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert dated.build() == 0
    assert digest(dated.image) == digest(built.image)


def test_a_change_is_told_against_the_last_build(built: Device, capsys: pytest.CaptureFixture[str]) -> None:
    smaller = device(built.folder / "smaller", built.cache)
    assert smaller.build() == 0
    device(smaller.folder, built.cache, '"evdev"', '"evdev", "uinput"')
    capsys.readouterr()
    assert smaller.build() == 0
    told = capsys.readouterr().out
    assert "against the last build: +" in told and "added /usr/lib/modules/" in told and "uinput.ko" in told


def https_device(folder: Path, cache: Path) -> Device:
    made = device(folder, cache, "# https = true", "https = true")
    file = folder / "device.toml"
    text = file.read_text().replace("# ca =", "ca =").replace('"dhcpcd-base",', '"dhcpcd-base", "libssl-dev",')
    file.write_text(re.sub("size-max-bytes = [0-9]+", "size-max-bytes = 7800000", text))
    return made


@pytest.mark.requirement("D7")
@pytest.mark.requirement("D13")
def test_https_is_in_the_image_that_asks_for_it_and_costs_its_budget(
    built: Device, another_place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = https_device(another_place / "https", built.cache)
    assert made.build() == 0
    assert made.image.stat().st_size - built.image.stat().st_size <= 2_500_000
    capsys.readouterr()
    assert main(["why", str(made.image), "_unbrick_tls"]) == 0
    assert "imported by payload.tls" in capsys.readouterr().out
    assert main(["why", str(built.image), "_unbrick_tls"]) == 1
    assert load_sidecar(sidecar_path(made.image))["packages"]["libssl-dev"]

    again = https_device(another_place / "elsewhere" / "again", another_place / "cache")
    share_packages(built.cache, again.cache)
    assert again.build() == 0
    assert digest(again.image) == digest(made.image)
    assert digest(sidecar_path(again.image)) == digest(sidecar_path(made.image))


@pytest.mark.parametrize(
    ("before", "after", "says", "then"),
    [
        ('"/usr/sbin/e2fsck"', '"/usr/sbin/e2fsk"', "/usr/sbin/e2fsk is not in the sysroot", "there is"),
        ('"virtio_blk"', '"virtio_blok"', "has no module virtio_blok", "did you mean virtio_blk"),
        ("[image]", '[firmware]\ninclude = ["no/such.bin"]\n[image]', "firmware no/such.bin is not", "add its package"),
        ("size-max-bytes = 5300000", "size-max-bytes = 1000000", "more than image.size-max-bytes allows", "/init ("),
        ("[modules]", '[kernel.x]\n[modules]', "unknown key", "Known here"),
        ('-amd64"\n\n[modules]', '-amd64"\nrelease = "9.9"\n\n[modules]', "kernel 9.9", "set kernel.release"),
        ('"e2fsprogs",', '"no-such-package-at-all",', "no-such-package-at-all", ""),
        ('root = "root.pub"', 'root = "absent.pub"', "keyring.root: ", "unbrick key new"),
        ("# https = true", 'https = true\nca = "absent.pem"', "network.ca: ", ""),
        ("# https = true", 'https = true\nca = "ca.pem"', "no libssl.a", "add libssl-dev"),
    ],
)  # fmt: skip
def test_a_build_that_cannot_be_says_why_and_keeps_the_old_image(
    before: str, after: str, says: str, then: str, built: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = device(tmp_path, built.cache, before, after)
    broken.image.write_bytes(b"the old image")
    assert broken.build() == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert says in first and first.startswith("unbrick: ")
    assert then in "\n".join(rest) and "Traceback" not in "".join(rest)
    assert broken.image.read_bytes() == b"the old image"
    assert not sidecar_path(broken.image).exists()


def test_a_missing_library_is_named_with_who_needs_it(
    built: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sysroot = sysroot_without(tmp_path, built, "usr/lib/x86_64-linux-gnu/libext2fs.so.2")
    assert device(tmp_path / "device", built.cache).build("--sysroot", str(sysroot)) == 1
    told = capsys.readouterr().err
    assert "libext2fs.so.2 is not in the sysroot" in told and "/usr/sbin/e2fsck needs it" in told


def test_a_sysroot_with_another_python_is_refused(
    built: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sysroot = sysroot_without(tmp_path, built, "usr/lib/python3.11")
    (sysroot / "usr/lib/python3.12").mkdir()
    assert device(tmp_path / "device", built.cache).build("--sysroot", str(sysroot)) == 1
    assert "the sysroot has python3.12, this build runs on Python 3.11" in capsys.readouterr().err


def sysroot_without(tmp_path: Path, built: Device, path: str) -> Path:
    """The cached sysroot with hard links to its files, and one path missing."""

    names = [
        line.strip(' ",')
        for line in EXAMPLE.partition("packages = [")[2].partition("]")[0].replace(",", "\n").splitlines()
    ]
    source = unpack(fetch([name for name in names if name], "amd64", built.cache, with_dependencies=True), built.cache)
    place = tmp_path / "sysroot"
    shutil.copytree(source, place, symlinks=True, copy_function=os.link)
    missing = place / path
    if missing.is_dir():
        shutil.rmtree(missing)
    else:
        missing.unlink()
    return place
