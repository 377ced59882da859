"""The ELF closure on sysroots made here: the loader's rules one by one, and what goes wrong."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from initramfs.elf import ClosureEntry, closure
from initramfs.errors import MissingFile, SysrootError
from tests.unit.elf_writer import AARCH64, ARM, MIPS, RISCV, Elf, write

LOADER = "/lib64/ld-linux-x86-64.so.2"
MULTIARCH = "/usr/lib/x86_64-linux-gnu"
BUILT_IN = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A merged-/usr sysroot with a loader and a C library, and a sentinel outside of it."""
    root = tmp_path / "sysroot"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    write(root, f"{MULTIARCH}/ld.so", Elf(soname="ld-linux-x86-64.so.2").content() + BUILT_IN)
    (root / "usr/lib64/ld-linux-x86-64.so.2").symlink_to("/lib/x86_64-linux-gnu/ld.so")
    write(root, f"{MULTIARCH}/libc.so.6", Elf(["ld-linux-x86-64.so.2"], soname="libc.so.6"))
    return root


def program(*needed: str, rpath: str | None = None, runpath: str | None = None, **rest: object) -> Elf:
    return Elf(needed, interpreter=LOADER, rpath=rpath, runpath=runpath, **rest)  # type: ignore[arg-type]


def library(soname: str = "", *needed: str, rpath: str | None = None, runpath: str | None = None) -> Elf:
    return Elf(needed, soname=soname, rpath=rpath, runpath=runpath)


def by_path(entries: list[ClosureEntry]) -> dict[str, ClosureEntry]:
    return {entry.path: entry for entry in entries}


def files(root: Path, *programs: str, **options: object) -> set[str]:
    entries = closure(root, programs, **options)  # type: ignore[arg-type]
    return {entry.path for entry in entries if entry.source} - {f"{MULTIARCH}/ld.so", f"{MULTIARCH}/libc.so.6"}


def test_a_program_brings_its_loader_its_libraries_and_every_link_on_the_way(root: Path) -> None:
    write(root, "/usr/bin/tool", program("libx.so.1", "libc.so.6"))
    write(root, f"{MULTIARCH}/libx.so.1.2", library("libx.so.1", "libc.so.6"))
    (root / f"{MULTIARCH[1:]}/libx.so.1").symlink_to("libx.so.1.2")
    entries = by_path(closure(root, ["/bin/tool"]))
    assert set(entries) == {
        "/bin",
        "/lib",
        "/lib64",
        "/usr/bin/tool",
        "/usr/lib64/ld-linux-x86-64.so.2",
        f"{MULTIARCH}/ld.so",
        f"{MULTIARCH}/libc.so.6",
        f"{MULTIARCH}/libx.so.1",
        f"{MULTIARCH}/libx.so.1.2",
    }
    assert entries["/lib"].target == "usr/lib"
    assert entries["/usr/lib64/ld-linux-x86-64.so.2"].target == "/lib/x86_64-linux-gnu/ld.so"
    assert entries[f"{MULTIARCH}/libx.so.1"].target == "libx.so.1.2"
    assert entries[f"{MULTIARCH}/libx.so.1.2"].source == root / f"{MULTIARCH[1:]}/libx.so.1.2"
    assert entries[f"{MULTIARCH}/libx.so.1.2"].reason == "needed by /usr/bin/tool: DT_NEEDED libx.so.1"
    assert entries[f"{MULTIARCH}/ld.so"].reason == "needed by /usr/bin/tool: PT_INTERP"
    assert all(bool(entry.source) != bool(entry.target) for entry in entries.values())


def test_entries_are_sorted_and_no_directory_of_a_path_is_a_link(root: Path) -> None:
    write(root, "/usr/sbin/tool", program("libc.so.6"))
    entries = closure(root, ["/sbin/tool"])
    links = {entry.path for entry in entries if entry.target}
    assert [entry.path for entry in entries] == sorted(entry.path for entry in entries)
    assert not any(entry.path.startswith(f"{link}/") for entry in entries for link in links)


def test_rpath_helps_the_libraries_of_libraries_and_runpath_does_not(root: Path) -> None:
    write(root, "/opt/liba.so", library("liba.so", "libb.so"))
    write(root, "/opt/libb.so", library("libb.so"))
    write(root, "/usr/bin/with-rpath", program("liba.so", rpath="/opt"))
    write(root, "/usr/bin/with-runpath", program("liba.so", runpath="/opt"))
    assert files(root, "with-rpath") == {"/usr/bin/with-rpath", "/opt/liba.so", "/opt/libb.so"}
    with pytest.raises(MissingFile, match=r"libb\.so is not in the sysroot; /opt/liba\.so needs it"):
        closure(root, ["with-runpath"])


@pytest.mark.parametrize("runpath", ["/nothing", ""])
def test_a_library_with_a_runpath_does_not_see_the_rpaths_of_who_loaded_it(root: Path, runpath: str) -> None:
    write(root, "/opt/liba.so", library("liba.so", "libb.so", rpath="/opt", runpath=runpath))
    write(root, "/opt/libb.so", library("libb.so"))
    write(root, "/usr/bin/tool", program("liba.so", rpath="/opt"))
    with pytest.raises(MissingFile, match=r"libb\.so"):
        closure(root, ["tool"])


def test_the_program_s_own_rpath_comes_before_the_default_directories(root: Path) -> None:
    write(root, "/opt/libx.so", library("libx.so"))
    write(root, f"{MULTIARCH}/libx.so", library("libx.so"))
    write(root, "/relative/libx.so", library("libx.so"))
    write(root, "/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so", rpath="relative::/none:/opt"))
    assert files(root, "tool") == {"/usr/bin/tool", "/opt/libx.so"}


@pytest.mark.parametrize(
    ("runpath", "place"),
    [
        ("$ORIGIN/../lib/tool", "/usr/lib/tool"),
        ("${ORIGIN}/private", "/usr/bin/private"),
        ("/opt/$LIB", "/opt/lib/x86_64-linux-gnu"),
        ("/opt/${PLATFORM}/x", "/opt/x86_64/x"),
        ("/opt/$ORIGINAL", "/opt/$ORIGINAL"),
    ],
)
def test_tokens_in_search_paths(root: Path, runpath: str, place: str) -> None:
    write(root, f"{place}/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so", runpath=runpath))
    (root / "usr/sbin/alias").symlink_to("../bin/tool")
    assert files(root, "/usr/sbin/alias") == {"/usr/bin/tool", f"{place}/libx.so"}


def test_origin_of_a_library_is_where_it_was_found_not_where_its_link_leads(root: Path) -> None:
    write(root, "/opt/real/liba.so.1", library("liba.so", "libb.so", runpath="$ORIGIN"))
    (root / "opt/lib").mkdir()
    (root / "opt/lib/liba.so").symlink_to("../real/liba.so.1")
    write(root, "/opt/lib/libb.so", library("libb.so"))
    write(root, "/usr/bin/tool", program("liba.so", runpath="/opt/lib"))
    assert "/opt/lib/libb.so" in files(root, "tool")


def test_a_name_that_a_loaded_library_answers_to_is_not_searched_again(root: Path) -> None:
    write(root, "/opt/renamed.so", library("libx.so.1"))
    write(root, f"{MULTIARCH}/libx.so.1", library("libx.so.1"))
    write(root, f"{MULTIARCH}/liby.so", library("liby.so", "libx.so.1"))
    write(root, "/usr/bin/tool", program("/opt/renamed.so", "liby.so"))
    assert files(root, "tool") == {"/usr/bin/tool", "/opt/renamed.so", f"{MULTIARCH}/liby.so"}


def test_two_names_of_one_library_bring_both_links(root: Path) -> None:
    write(root, f"{MULTIARCH}/libx.so.1.2", library())
    for name in ("libx.so", "libx.so.1"):
        (root / f"{MULTIARCH[1:]}/{name}").symlink_to("libx.so.1.2")
    write(root, "/usr/bin/tool", program("libx.so", "libx.so.1"))
    assert {f"{MULTIARCH}/libx.so", f"{MULTIARCH}/libx.so.1"} <= set(by_path(closure(root, ["tool"])))


def test_libraries_for_another_machine_are_passed_over(root: Path) -> None:
    write(root, "/opt/arm/libx.so", Elf(soname="libx.so", machine=AARCH64))
    write(root, "/opt/narrow/libx.so", Elf(soname="libx.so", bits=32))
    write(root, f"{MULTIARCH}/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so", runpath="/opt/arm:/opt/narrow"))
    assert files(root, "tool") == {"/usr/bin/tool", f"{MULTIARCH}/libx.so"}
    (root / f"{MULTIARCH[1:]}/libx.so").unlink()
    with pytest.raises(MissingFile, match=r"/opt/arm/libx\.so is for another machine"):
        closure(root, ["tool"])


@pytest.mark.parametrize(("flags", "accepted"), [(0x5000400, True), (0x5000000, True), (0x5000200, False)])
def test_hard_float_arm_takes_no_soft_float_library(tmp_path: Path, flags: int, accepted: bool) -> None:
    arm = {"machine": ARM, "bits": 32}
    write(tmp_path, "/lib/ld.so.3", Elf(**arm, flags=0x5000400))  # type: ignore[arg-type]
    write(tmp_path, "/lib/arm-linux-gnueabihf/libx.so", Elf(**arm, flags=flags))  # type: ignore[arg-type]
    write(tmp_path, "/bin/tool", Elf(["libx.so"], interpreter="/lib/ld.so.3", **arm, flags=0x5000400))  # type: ignore[arg-type]
    if accepted:
        assert "/lib/arm-linux-gnueabihf/libx.so" in files(tmp_path, "/bin/tool")
    else:
        with pytest.raises(MissingFile, match="another machine"):
            closure(tmp_path, ["/bin/tool"])


@pytest.mark.parametrize(("flags", "accepted"), [(0x5, True), (0x0, False)])
def test_zero_is_a_float_abi_of_its_own_on_risc_v(tmp_path: Path, flags: int, accepted: bool) -> None:
    write(tmp_path, "/usr/lib/libx.so", Elf(machine=RISCV, flags=flags))
    write(tmp_path, "/bin/tool", Elf(["libx.so"], machine=RISCV, flags=0x4))
    if accepted:
        assert "/usr/lib/libx.so" in files(tmp_path, "/bin/tool")
    else:
        with pytest.raises(MissingFile, match="another machine"):
            closure(tmp_path, ["/bin/tool"])


def test_the_loader_knows_its_own_directories(tmp_path: Path) -> None:
    """Not Debian's: without multiarch, with lib64, and with $LIB to match."""
    write(tmp_path, "/lib64/ld.so", Elf().content() + b"\0/lib64/\0/usr/lib64/\0other\0")
    write(tmp_path, "/usr/lib64/libx.so", library("libx.so"))
    write(tmp_path, "/opt/lib64/liby.so", library("liby.so"))
    write(tmp_path, "/usr/lib/libx.so", library("libx.so"))
    write(tmp_path, "/bin/tool", Elf(["libx.so", "liby.so"], interpreter="/lib64/ld.so", runpath="/opt/$LIB"))
    assert files(tmp_path, "/bin/tool") == {"/bin/tool", "/lib64/ld.so", "/usr/lib64/libx.so", "/opt/lib64/liby.so"}


def test_big_endian_and_32_bits(tmp_path: Path) -> None:
    mips = {"machine": MIPS, "bits": 32, "little_endian": False}
    write(tmp_path, "/lib/ld.so.1", Elf(**mips))  # type: ignore[arg-type]
    write(tmp_path, "/usr/lib/libx.so", Elf(soname="libx.so", **mips))  # type: ignore[arg-type]
    write(tmp_path, "/bin/tool", Elf(["libx.so"], interpreter="/lib/ld.so.1", **mips))  # type: ignore[arg-type]
    assert files(tmp_path, "/bin/tool") == {"/bin/tool", "/lib/ld.so.1", "/usr/lib/libx.so"}


def test_ld_so_conf_with_includes_in_order_and_a_link_because_the_image_has_no_cache(root: Path) -> None:
    write(root, "/etc/ld.so.conf", b"# first\ninclude /etc/ld.so.conf.d/*.conf\n/opt/last\n", 0o644)
    write(root, "/etc/ld.so.conf.d/b.conf", b"  /opt/b # comment\nhwcap 0 nosegneg\n", 0o644)
    write(root, "/etc/ld.so.conf.d/a.conf", b"include b.conf\n/opt/a\n", 0o644)
    for place in ("last", "a", "b"):
        write(root, f"/opt/{place}/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so"))
    entries = by_path(closure(root, ["tool"]))
    assert "/opt/b/libx.so" in entries
    assert entries[f"{MULTIARCH}/libx.so"].target == "/opt/b/libx.so"
    assert "ld.so.conf" in entries[f"{MULTIARCH}/libx.so"].reason


def test_ld_so_conf_that_lists_a_built_in_directory_needs_no_link(root: Path) -> None:
    write(root, "/etc/ld.so.conf", f"{MULTIARCH}\n".encode(), 0o644)
    write(root, f"{MULTIARCH}/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so"))
    assert by_path(closure(root, ["tool"]))[f"{MULTIARCH}/libx.so"].source


def test_ld_so_conf_that_includes_itself_is_an_error(root: Path) -> None:
    write(root, "/etc/ld.so.conf", b"include /etc/ld.so.conf\n", 0o644)
    write(root, "/usr/bin/tool", program())
    with pytest.raises(SysrootError, match="includes more than 256 files"):
        closure(root, ["tool"])


def test_nodeflib_ignores_the_default_directories(root: Path) -> None:
    write(root, f"{MULTIARCH}/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so", no_default_libraries=True))
    with pytest.raises(MissingFile, match=r"libx\.so"):
        closure(root, ["tool"])


def test_baseline_libraries_unless_the_device_s_cpu_is_configured(root: Path) -> None:
    write(root, f"{MULTIARCH}/libx.so", library("libx.so"))
    for level in ("x86-64-v2", "x86-64-v3"):
        write(root, f"{MULTIARCH}/glibc-hwcaps/{level}/libx.so", library("libx.so"))
    write(root, "/usr/bin/tool", program("libx.so"))
    assert f"{MULTIARCH}/libx.so" in files(root, "tool")
    best_first = files(root, "tool", hwcaps=["x86-64-v3", "x86-64-v2"])
    assert best_first == {"/usr/bin/tool", f"{MULTIARCH}/glibc-hwcaps/x86-64-v3/libx.so"}


def test_dlopen_notes_by_priority(root: Path) -> None:
    notes = [
        [{"soname": ["libneed.so"], "priority": "required", "feature": "core"}],
        {"soname": "libgood.so"},
        [{"soname": ["libabsent.so", "libnice.so"], "priority": "suggested"}],
    ]
    write(root, "/usr/bin/tool", program(notes=notes))
    for name in ("need", "good", "nice", "deep"):
        write(root, f"{MULTIARCH}/lib{name}.so", library(f"lib{name}.so", *(["libdeep.so"] if name == "good" else [])))
    sets = {
        least: {path.rpartition("/")[2] for path in files(root, "tool", dlopen=least)} - {"tool"}
        for least in ("none", "required", "recommended", "suggested")
    }
    assert sets["none"] == set()
    assert sets["required"] == {"libneed.so"}
    assert sets["recommended"] == {"libneed.so", "libgood.so", "libdeep.so"}
    assert sets["suggested"] == {"libneed.so", "libgood.so", "libdeep.so", "libnice.so"}
    reason = by_path(closure(root, ["tool"]))[f"{MULTIARCH}/libneed.so"].reason
    assert reason == "opened by /usr/bin/tool at run time: core (required)"


def test_an_absent_dlopen_library_is_an_error_if_required_and_a_notice_if_not(root: Path) -> None:
    notices: list[str] = []
    write(root, "/usr/bin/tool", program(notes=[{"soname": "libabsent.so", "feature": "speech"}]))
    closure(root, ["tool"], notice=notices.append)
    assert notices == ["libabsent.so is not in the sysroot; /usr/bin/tool can open it for speech"]
    write(root, "/usr/bin/tool", program(notes=[{"soname": "libabsent.so", "priority": "required"}]))
    with pytest.raises(MissingFile, match=r"libabsent\.so .*a required dlopen note"):
        closure(root, ["tool"])


def test_who_ends_threads_gets_the_library_that_glibc_opens_for_it(root: Path) -> None:
    write(root, f"{MULTIARCH}/libgcc_s.so.1", library("libgcc_s.so.1"))
    write(root, "/usr/bin/tool", program("libc.so.6", imports=["pthread_exit"]))
    write(root, "/usr/bin/plain", program("libc.so.6", imports=["pthread_exit_not"]))
    assert files(root, "plain") == {"/usr/bin/plain"}
    assert files(root, "tool") == {"/usr/bin/tool", f"{MULTIARCH}/libgcc_s.so.1"}


def test_scripts_bring_their_interpreter(root: Path) -> None:
    write(root, "/usr/bin/dash", program("libc.so.6"))
    write(root, "/usr/bin/python3", program("libc.so.6"))
    write(root, "/usr/bin/env", program("libc.so.6"))
    (root / "usr/bin/sh").symlink_to("dash")
    write(root, "/usr/sbin/one", b"#! /bin/sh -e\n")
    write(root, "/usr/sbin/two", b"#!/usr/bin/env python3\n")
    assert files(root, "one", "two") == {f"/usr/bin/{name}" for name in ("dash", "python3", "env")} | {
        "/usr/sbin/one",
        "/usr/sbin/two",
    }


def test_a_script_that_interprets_itself_is_an_error(root: Path) -> None:
    write(root, "/usr/bin/loop", b"#!/usr/bin/loop\n")
    with pytest.raises(SysrootError, match="no usable interpreter"):
        closure(root, ["loop"])


def test_a_data_file_may_be_asked_for_and_a_damaged_program_may_not(root: Path) -> None:
    write(root, "/etc/mke2fs.conf", b"[defaults]\n", 0o644)
    assert files(root, "/etc/mke2fs.conf") == {"/etc/mke2fs.conf"}
    write(root, "/usr/bin/tool", b"\x7fEL")
    with pytest.raises(SysrootError, match="neither an ELF program nor a script"):
        closure(root, ["tool"])
    write(root, "/usr/bin/tool", program("libc.so.6").content()[:100])
    with pytest.raises(SysrootError, match=r"/usr/bin/tool: "):
        closure(root, ["tool"])


def test_absolute_links_and_dots_stay_in_the_sysroot(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "/outside", program("libc.so.6"))
    write(root, "/outside", program("libc.so.6"))
    (root / "usr/bin/dots").symlink_to("../../../../../outside")
    (root / "usr/bin/absolute").symlink_to("/outside")
    (root / "usr/bin/escape").symlink_to(f"{tmp_path}/outside")
    for name in ("dots", "absolute"):
        assert by_path(closure(root, [name]))["/outside"].source == root / "outside"
    with pytest.raises(MissingFile):
        closure(root, ["escape"])


def test_a_loop_of_links_is_an_error(root: Path) -> None:
    (root / "usr/bin/a").symlink_to("b")
    (root / "usr/bin/b").symlink_to("a")
    with pytest.raises(SysrootError, match="loop of symlinks"):
        closure(root, ["/usr/bin/a"])


def test_what_is_missing_is_named_with_what_is_there(root: Path) -> None:
    write(root, "/usr/sbin/e2fsck", program("libc.so.6"))
    with pytest.raises(MissingFile, match="the program /usr/bin/e2fsk is not in the sysroot") as caught:
        closure(root, ["/usr/bin/e2fsk"])
    assert caught.value.hint == "there is /usr/sbin/e2fsck"
    assert (caught.value.kind, caught.value.name) == ("program", "/usr/bin/e2fsk")
    write(root, "/usr/bin/tool", Elf(interpreter="/lib/ld-other.so"))
    with pytest.raises(MissingFile, match=r"/lib/ld-other\.so .* loads /usr/bin/tool"):
        closure(root, ["tool"])


def test_the_union_of_several_programs_keeps_the_first_reason(root: Path) -> None:
    write(root, "/usr/bin/one", program("libc.so.6"))
    write(root, "/usr/bin/two", program("libc.so.6"))
    assert by_path(closure(root, ["two", "one"]))[f"{MULTIARCH}/libc.so.6"].reason.startswith("needed by /usr/bin/two")


def versioned(root: Path, *defines: str, soname: str = "libv.so.1") -> None:
    write(root, f"{MULTIARCH}/libv.so.1", Elf(soname=soname, defines=defines))


@pytest.mark.parametrize("form", [{}, {"bits": 32}, {"little_endian": False}], ids=["64", "32", "big"])
def test_a_library_without_the_version_that_is_needed_is_an_error(tmp_path: Path, form: dict[str, object]) -> None:
    tool = {"needed": ["libv.so.1", "liba.so"], "versions": {"liba.so": ["A_1"], "libv.so.1": ["V_1", "V_3"]}}
    write(tmp_path, "/bin/tool", Elf(**tool, **form))  # type: ignore[arg-type]
    write(tmp_path, "/lib/liba.so", Elf(defines=["A_1"], **form))  # type: ignore[arg-type]
    write(tmp_path, "/lib/libv.so.1", Elf(defines=["libv.so.1", "V_1", "V_2"], **form))  # type: ignore[arg-type]
    with pytest.raises(SysrootError) as caught:
        closure(tmp_path, ["/bin/tool"])
    for word in ("/lib/libv.so.1", "V_3", "/bin/tool"):
        assert word in caught.value.message
    write(tmp_path, "/lib/libv.so.1", Elf(defines=["libv.so.1", "V_1", "V_2", "V_3"], **form))  # type: ignore[arg-type]
    assert "/lib/libv.so.1" in {entry.path for entry in closure(tmp_path, ["/bin/tool"])}


def test_a_version_is_looked_for_where_a_library_of_a_library_needs_it(root: Path) -> None:
    versioned(root, "V_1")
    write(root, f"{MULTIARCH}/liba.so", Elf(["libv.so.1"], versions={"libv.so.1": ["V_2"]}))
    write(root, "/usr/bin/tool", program("liba.so"))
    with pytest.raises(SysrootError, match="V_2"):
        closure(root, ["/usr/bin/tool"])


def test_a_version_is_looked_for_in_what_is_opened_at_run_time(root: Path) -> None:
    versioned(root, "V_1")
    write(root, f"{MULTIARCH}/liba.so", Elf(["libv.so.1"], versions={"libv.so.1": ["V_2"]}))
    write(root, "/usr/bin/tool", program(notes=[[{"soname": ["liba.so"], "feature": "a"}]]))
    with pytest.raises(SysrootError, match="V_2"):
        closure(root, ["/usr/bin/tool"])


@pytest.mark.parametrize(
    ("defines", "versions"),
    [
        ((), {"libv.so.1": ["V_2"]}),
        (("V_1",), {"libv.so.1": ["V_1"], "libgone.so.1": ["V_9"]}),
        (("V_1",), {"libv.so.1": ["V_1", "WEAK"]}),
        (("V_1",), {"ld-linux-x86-64.so.2": ["PRIVATE"], "libv.so.1": ["V_1"]}),
    ],
    ids=["without any versions", "of a library that is not needed", "weak", "a loader without any"],
)
def test_the_loader_goes_on_without_a_version(
    root: Path, defines: tuple[str, ...], versions: dict[str, list[str]]
) -> None:
    versioned(root, *defines)
    write(root, "/usr/bin/tool", program("libv.so.1", versions=versions, weak=["WEAK"]))
    assert f"{MULTIARCH}/libv.so.1" in files(root, "/usr/bin/tool")


def test_a_version_is_that_of_the_library_which_answers_to_the_name(root: Path) -> None:
    write(root, "/opt/libv.so.1", Elf(soname="libv.so.1", defines=["V_2"]))
    versioned(root, "V_1")
    write(root, "/usr/bin/tool", program("libv.so.1", runpath="/opt", versions={"libv.so.1": ["V_2"]}))
    assert "/opt/libv.so.1" in files(root, "/usr/bin/tool")
    write(root, "/usr/bin/tool", program("libv.so.1", versions={"libv.so.1": ["V_2"]}))
    with pytest.raises(SysrootError, match=f"{MULTIARCH}/libv.so.1"):
        closure(root, ["/usr/bin/tool"])


def test_versions_that_lead_out_of_the_file_or_round_and_round_are_an_error(root: Path) -> None:
    content = program("libc.so.6", versions={"libc.so.6": ["GLIBC_2.34", "GLIBC_2.35"]}).content()
    entry = struct.pack("<HH", 1, 2)
    at = content.index(entry, 0x100)
    for place, value in ((at + 8, 1 << 30), (at + 12, 1 << 30), (at + 4, 1 << 20), (at + 12, -16), (at + 28, 1 << 30)):
        damaged = content[:place] + struct.pack("<q", value)[:4] + content[place + 4 :]
        write(root, "/usr/bin/tool", damaged)
        with pytest.raises(SysrootError, match="/usr/bin/tool"):
            closure(root, ["/usr/bin/tool"])


def test_there_is_an_end_of_versions(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "/usr/bin/tool", program("libc.so.6", versions={"libc.so.6": ["GLIBC_2.34", "GLIBC_2.35"]}))
    monkeypatch.setattr("initramfs.elf_file.VERSIONS_MAX", 3)
    files(root, "/usr/bin/tool")
    monkeypatch.setattr("initramfs.elf_file.VERSIONS_MAX", 2)
    with pytest.raises(SysrootError, match="more than 2 symbol versions"):
        files(root, "/usr/bin/tool")
