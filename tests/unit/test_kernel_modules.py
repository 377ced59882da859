"""Kernel modules: load order, soft dependencies, names, compression, firmware; on trees made here."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from initramfs.errors import MissingFile, SysrootError
from initramfs.kernel_modules import ModuleEntry, find_release, firmware, resolve
from tests.unit.elf_writer import kernel_module, write

RELEASE = "6.1.0-test"
DEPENDENCIES = """\
kernel/virtio/virtio_ring.ko:
kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko
kernel/virtio/virtio_pci.ko: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko
kernel/fs/ext4.ko: kernel/fs/jbd2.ko
kernel/fs/jbd2.ko:
kernel/crypto/crc32c-intel.ko:
kernel/crypto/crc32c_generic.ko:
kernel/usb/usb-storage.ko: kernel/scsi/scsi_mod.ko
kernel/scsi/scsi_mod.ko:
kernel/net/r8169.ko:
"""
SOFT = "# comment\nsoftdep ext4 pre: crypto-crc32c absent\nsoftdep jbd2 ignored\nsoftdep usb_storage post: r8169\n"
ALIASES = """\
alias crypto-crc32c crc32c_intel
alias crypto-crc32c crc32c_generic
alias usb:v*p0001d* usb_storage
"""
BUILTIN = "kernel/fs/fat/vfat.ko\n"


def make_tree(root: Path, dependencies: str = DEPENDENCIES, place: str = "lib/modules") -> Path:
    directory = root / place / RELEASE
    for line in dependencies.splitlines():
        path = line.partition(":")[0]
        names = ["rtl_nic/a.fw", "rtl_nic/b.fw"] if "r8169" in path else []
        content = kernel_module({"vermagic": [f"{RELEASE} SMP mod_unload"], "firmware": names})
        write(directory, path, content, 0o644)
    indexes = {
        "modules.dep": dependencies,
        "modules.softdep": SOFT,
        "modules.alias": ALIASES,
        "modules.builtin": BUILTIN,
        "modules.builtin.modinfo": "vfat.alias=fs-vfat\0vfat.license=GPL\0",
    }
    for name, text in indexes.items():
        (directory / name).write_text(text)
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_tree(tmp_path)
    return tmp_path


def names(entries: Sequence[ModuleEntry]) -> list[str]:
    return [entry.name for entry in entries]


def test_dependencies_come_first_and_each_says_who_needs_it(root: Path) -> None:
    entries = resolve(root, RELEASE, ["virtio_pci"])
    assert names(entries) == ["virtio_ring", "virtio", "virtio_pci"]
    assert entries[0].reason == "virtio_pci needs virtio_ring"
    assert entries[2].reason == "asked for by the configuration"
    assert entries[2].path == f"/lib/modules/{RELEASE}/kernel/virtio/virtio_pci.ko"
    assert entries[2].source == root / f"lib/modules/{RELEASE}/kernel/virtio/virtio_pci.ko"


def test_soft_dependencies_come_before_or_after_and_may_fail(root: Path) -> None:
    entries = resolve(root, RELEASE, ["ext4", "usb_storage"])
    assert names(entries) == ["crc32c_intel", "crc32c_generic", "jbd2", "ext4", "scsi_mod", "usb_storage", "r8169"]
    assert [entry.name for entry in entries if entry.optional] == ["crc32c_intel", "crc32c_generic", "r8169"]
    assert entries[0].reason == "ext4 wants crypto-crc32c first (softdep), which crc32c_intel provides"


@pytest.mark.parametrize("order", [["ext4", "crc32c_generic"], ["crc32c_generic", "ext4"]])
def test_what_is_asked_for_may_not_fail_even_if_something_wished_for_it_first(root: Path, order: list[str]) -> None:
    optional = {entry.name: entry.optional for entry in resolve(root, RELEASE, order)}
    assert optional["crc32c_intel"]
    assert not optional["crc32c_generic"]


def test_weak_dependencies_are_loaded_ahead_since_nothing_can_load_them_later(root: Path) -> None:
    (root / f"lib/modules/{RELEASE}/modules.weakdep").write_text("weakdep virtio_ring jbd2\n")
    entries = resolve(root, RELEASE, ["virtio_ring"])
    assert [(entry.name, entry.optional) for entry in entries] == [("jbd2", True), ("virtio_ring", False)]


@pytest.mark.parametrize("name", ["usb-storage", "usb_storage", "usb:v0bdap0001d1"])
def test_dashes_underscores_and_aliases(root: Path, name: str) -> None:
    assert "usb_storage" in names(resolve(root, RELEASE, [name]))


@pytest.mark.parametrize("name", ["vfat", "fs-vfat"])
def test_what_is_built_in_is_accepted_and_skipped(root: Path, name: str) -> None:
    assert resolve(root, RELEASE, [name]) == []


def test_what_is_loaded_already_is_left_out(root: Path) -> None:
    assert names(resolve(root, RELEASE, ["virtio_pci"], loaded=["virtio-ring", "virtio"])) == ["virtio_pci"]


def test_a_missing_module_is_named_with_its_neighbours(root: Path) -> None:
    with pytest.raises(MissingFile, match=f"kernel {RELEASE} has no module virtio_pic") as caught:
        resolve(root, RELEASE, ["virtio_pic"])
    assert caught.value.hint.startswith("did you mean virtio_pci")
    assert (caught.value.kind, caught.value.name) == ("module", "virtio_pic")


def test_a_listed_file_that_is_gone_is_an_error(root: Path) -> None:
    (root / f"lib/modules/{RELEASE}/kernel/virtio/virtio_ring.ko").unlink()
    with pytest.raises(MissingFile, match=r"virtio_pci needs virtio_ring; modules\.dep lists it, but the file is gone"):
        resolve(root, RELEASE, ["virtio_pci"])


def test_a_cycle_ends(tmp_path: Path) -> None:
    make_tree(tmp_path, "kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n")
    assert sorted(names(resolve(tmp_path, RELEASE, ["a"]))) == ["a", "b"]


def test_no_modules_dep_says_how_to_make_it(root: Path) -> None:
    (root / f"lib/modules/{RELEASE}/modules.dep").unlink()
    with pytest.raises(SysrootError) as caught:
        resolve(root, RELEASE, ["virtio_pci"])
    assert caught.value.hint == f"run: depmod -b {root} {RELEASE}"


@pytest.mark.parametrize("line", ["no colon\n", "../../../../etc/passwd.ko:\n"])
def test_a_malformed_modules_dep_is_an_error(root: Path, line: str) -> None:
    (root / f"lib/modules/{RELEASE}/modules.dep").write_text(line)
    with pytest.raises(SysrootError):
        resolve(root, RELEASE, ["passwd"])


def test_a_module_of_another_kernel_is_an_error(root: Path) -> None:
    other = kernel_module({"vermagic": ["5.10.0 SMP"]})
    write(root, f"lib/modules/{RELEASE}/kernel/fs/jbd2.ko", other, 0o644)
    with pytest.raises(SysrootError, match=r"is for kernel 5\.10\.0, not 6\.1\.0-test"):
        resolve(root, RELEASE, ["jbd2"])


def test_modules_below_usr(tmp_path: Path) -> None:
    make_tree(tmp_path, place="usr/lib/modules")
    assert resolve(tmp_path, RELEASE, ["jbd2"])[0].path == f"/lib/modules/{RELEASE}/kernel/fs/jbd2.ko"


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_modules_are_stored_plain_and_cut_ones_are_errors(tmp_path: Path, suffix: str) -> None:
    plain = kernel_module({"vermagic": [f"{RELEASE} SMP"]})
    packed = COMPRESSORS[suffix](plain)
    directory = make_tree(tmp_path, "kernel/a.ko:\n")
    (directory / "modules.dep").write_text(f"kernel/a.ko{suffix}:\n")
    write(directory, f"kernel/a.ko{suffix}", packed, 0o644)
    entry = resolve(tmp_path, RELEASE, ["a"])[0]
    assert entry.path.endswith("/kernel/a.ko")
    assert entry.read() == plain
    for damaged in (packed[:-1], packed[: len(packed) // 2], b"", packed + b"x"):
        write(directory, f"kernel/a.ko{suffix}", damaged, 0o644)
        with pytest.raises(SysrootError, match=f"a.ko{suffix}"):
            resolve(tmp_path, RELEASE, ["a"])


def test_firmware_that_is_declared_must_be_there_unless_optional(root: Path) -> None:
    entries = resolve(root, RELEASE, ["r8169"])
    assert entries[0].firmware == ("rtl_nic/a.fw", "rtl_nic/b.fw")
    write(root, "lib/firmware/rtl_nic/a.fw", b"A", 0o644)
    with pytest.raises(MissingFile, match=r"rtl_nic/b\.fw is not in .*\(declared by r8169\)") as caught:
        firmware([root], RELEASE, entries)
    assert caught.value.kind == "firmware"
    found = firmware([root], RELEASE, entries, optional=["rtl_nic/b*"])
    assert [(entry.path, entry.read()) for entry in found] == [("/lib/firmware/rtl_nic/a.fw", b"A")]


def test_firmware_is_searched_as_the_kernel_does_and_stored_plain(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, "lib/firmware/x.bin.xz", lzma.compress(b"compressed"), 0o644)
    write(other, "lib/firmware/updates/y.bin", b"update", 0o644)
    write(other, "lib/firmware/y.bin", b"old", 0o644)
    write(other, f"lib/firmware/{RELEASE}/z/1.bin", b"one", 0o644)
    (other / "lib/firmware/link.bin").symlink_to("y.bin")
    found = firmware([root, other], RELEASE, [], include=["x.bin", "y.bin", "link.bin", "z/*.bin"])
    assert {entry.path: entry.read() for entry in found} == {
        "/lib/firmware/link.bin": b"old",
        "/lib/firmware/x.bin": b"compressed",
        "/lib/firmware/y.bin": b"update",
        "/lib/firmware/z/1.bin": b"one",
    }
    with pytest.raises(SysrootError, match="leaves its directory"):
        firmware([root], RELEASE, [], include=["../../etc/shadow"])


def test_the_release_is_the_only_one_or_the_wanted_one(root: Path) -> None:
    assert find_release(root) == RELEASE
    (root / "lib/modules/6.2.0").mkdir()
    assert find_release(root, "6.2.0") == "6.2.0"
    with pytest.raises(MissingFile, match=r"there is 6\.1\.0-test and 6\.2\.0"):
        find_release(root)
    with pytest.raises(MissingFile):
        find_release(root, "6.3")
    with pytest.raises(MissingFile, match="there is none"):
        find_release(root / "lib")


def test_a_wildcard_reaches_into_folders_as_it_does_in_optional(root: Path, tmp_path: Path) -> None:
    for name in ("a.bin", "hw/b.bin", "hw/deep/c.bin.xz", "hw/deep/d.txt"):
        content = lzma.compress(b"c") if name.endswith(".xz") else name.encode()
        write(root, f"lib/firmware/ath/{name}", content, 0o644)
    (root / "lib/firmware/ath/again").symlink_to("../ath")
    (root / "lib/firmware/other").symlink_to("ath/hw")

    def found(*include: str) -> list[str]:
        entries = firmware([root], RELEASE, [], include=include)
        return [entry.path.removeprefix("/lib/firmware/") for entry in entries]

    assert found("ath/*.bin") == ["ath/a.bin", "ath/hw/b.bin", "ath/hw/deep/c.bin"]
    assert found("*/deep/?.*") == ["ath/hw/deep/c.bin", "ath/hw/deep/d.txt", "other/deep/c.bin", "other/deep/d.txt"]
    assert found("other/*.bin") == ["other/b.bin", "other/deep/c.bin"]
    assert found("ath/[ab].bin") == ["ath/a.bin"]
    write(root, "lib/firmware/ath/hw/deep/c.bin", b"plain", 0o644)
    assert [entry.read() for entry in firmware([root], RELEASE, [], include=["ath/*/c*"])] == [b"plain"]
    for nothing in ("ath/*.none", "ath/a.bin/*", "absent/*"):
        with pytest.raises(MissingFile):
            found(nothing)


def test_a_wildcard_that_meets_no_end_of_files_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initramfs.elf_sysroot.DIRECTORY_ENTRIES_MAX", 3)
    for number in range(4):
        write(root, f"lib/firmware/many/{number}", b"", 0o644)
    with pytest.raises(SysrootError, match="more than 3 files"):
        firmware([root], RELEASE, [], include=["*/0"])
    write(root, "lib/firmware/few/0", b"", 0o644)
    assert len(firmware([root], RELEASE, [], include=["few/*"])) == 1
