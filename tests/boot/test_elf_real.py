"""The ELF closure against the dynamic loader itself, on real Debian binaries; arm64 ones without running any."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from initramfs.debian import default_cache_dir, fetch, unpack
from initramfs.elf import closure
from initramfs.elf_file import MAGIC
from initramfs.errors import FetchError, ToolError

LOADER = Path("/lib64/ld-linux-x86-64.so.2")
HOST_PROGRAMS = 200
FOREIGN_PROGRAMS = 20
FOREIGN_PACKAGES = ["coreutils", "e2fsprogs", "erofs-utils", "squashfs-tools", "dosfstools"]


def is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def asked_from_the_loader(program: Path) -> set[str] | None:
    """The real paths of what the loader maps; None for a static program, which it refuses."""
    done = subprocess.run(
        [LOADER, "--list", program.resolve()], capture_output=True, text=True, timeout=60, env={}, check=False
    )
    if done.returncode:
        return None
    return {os.path.realpath(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)} | {str(program.resolve())}


def found_by_reading(root: Path, program: str) -> set[str]:
    return {entry.path for entry in closure(root, [program], dlopen="none") if entry.source}


def test_the_closure_is_the_loader_s_own_answer_for_200_programs() -> None:
    if not LOADER.exists():
        pytest.skip("needs an amd64 host with glibc")
    programs = [path for path in sorted(Path("/usr/bin").iterdir()) if path.is_file() and is_elf(path)]
    spread = programs[:: max(1, len(programs) // (HOST_PROGRAMS * 5 // 4))]
    compared = 0
    for program in spread:
        expected = asked_from_the_loader(program)
        if expected is not None and compared < HOST_PROGRAMS:
            assert found_by_reading(Path("/"), str(program)) == expected, program
            compared += 1
    assert compared == min(HOST_PROGRAMS, len(spread))


def compile_library(directory: Path, name: str, needs: Sequence[str], *flags: str, places: Sequence[Path] = ()) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    function = re.sub(r"\W", "_", name)
    calls = "".join(f"int {re.sub(r'[^A-Za-z0-9]', '_', need)}(void); " for need in needs)
    body = " + ".join([f"{re.sub(r'[^A-Za-z0-9]', '_', need)}()" for need in needs] + ["1"])
    is_program = "." not in name
    source = f"{calls} int {'main' if is_program else function}(void) {{ return {body}; }}\n"
    command = ["gcc", "-xc", "-", "-o", str(directory / name), "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
    command += [] if is_program else ["-shared", "-fPIC", f"-Wl,-soname,{name}"]
    command += [f"-L{place}" for place in places] + [f"-l:{need}" for need in needs] + list(flags)
    subprocess.run(command, input=source, text=True, check=True, capture_output=True, timeout=60)


RPATH, RUNPATH = "-Wl,--disable-new-dtags", "-Wl,--enable-new-dtags"


@pytest.mark.parametrize("library_tag", [RPATH, RUNPATH, ""])
@pytest.mark.parametrize("program_tag", [RPATH, RUNPATH])
def test_the_loader_agrees_about_rpath_and_runpath(tmp_path: Path, program_tag: str, library_tag: str) -> None:
    """libb.so lies in three places; which one wins depends on who has which tag."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    places = [first, second, third]
    for place in places:
        compile_library(place, "libb.so", [])
    own = [library_tag, f"-Wl,-rpath,$ORIGIN/../{third.name}"] if library_tag else []
    compile_library(second, "liba.so", ["libb.so"], *own, places=places)
    tags = [program_tag, f"-Wl,-rpath,$ORIGIN/nowhere:$ORIGIN/../{second.name}:$ORIGIN/../{first.name}"]
    compile_library(tmp_path / "bin", "tool", ["liba.so"], *tags, places=places)
    expected = asked_from_the_loader(tmp_path / "bin/tool")
    if expected is None:  # libb.so is out of reach, and then it has to be for us as well
        with pytest.raises(Exception, match=r"libb\.so"):
            found_by_reading(Path("/"), str(tmp_path / "bin/tool"))
    else:
        assert found_by_reading(Path("/"), str(tmp_path / "bin/tool")) == expected


def test_the_loader_agrees_about_nodeflib(tmp_path: Path) -> None:
    compile_library(tmp_path / "lib", "libown.so", [])
    flags = ["-Wl,-z,nodefaultlib", RUNPATH, "-Wl,-rpath,$ORIGIN/../lib:/lib/x86_64-linux-gnu"]
    compile_library(tmp_path / "bin", "tool", ["libown.so"], *flags, places=[tmp_path / "lib"])
    assert found_by_reading(Path("/"), str(tmp_path / "bin/tool")) == asked_from_the_loader(tmp_path / "bin/tool")


class _Watch:
    """Notices every attempt of this process to run a program, between ``start`` and ``stop``."""

    EVENTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.spawn")

    def __init__(self) -> None:
        self.active = False
        self.seen: list[str] = []
        sys.addaudithook(self._notice)  # for good: there is no way to remove one

    def _notice(self, event: str, _arguments: tuple[object, ...]) -> None:
        if self.active and event in self.EVENTS:
            self.seen.append(event)


@pytest.fixture
def watch() -> Iterator[_Watch]:
    watch = _Watch()
    yield watch
    watch.active = False


@pytest.fixture(scope="module")
def arm64() -> Path:
    try:
        cache = default_cache_dir()
        return unpack(fetch(FOREIGN_PACKAGES, "arm64", cache, with_dependencies=True), cache)
    except (FetchError, ToolError) as error:
        pytest.skip(f"arm64 packages are not to be had here: {error.message}")


def read_by_readelf(root: Path, program: Path) -> set[str]:
    """An answer from elsewhere: binutils for the names, and the two directories that these packages use."""
    pending, found = [program], set()
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        output = subprocess.check_output(
            ["readelf", "-d", "-l", path], text=True, timeout=60, env={"LC_ALL": "C", **os.environ}
        )
        names = re.findall(r"\(NEEDED\).*\[(.+)\]", output) + re.findall(r"interpreter: /lib/([^\]]+)\]", output)
        for name in names:
            places = [root / "usr/lib/aarch64-linux-gnu" / name, root / "usr/lib" / name]
            pending.append(next(place for place in places if place.exists()).resolve())
    return {f"/{path.relative_to(root.resolve())}" for path in found}


def test_arm64_programs_are_resolved_without_running_anything(arm64: Path, watch: _Watch) -> None:
    programs = [
        path
        for place in ("usr/sbin", "usr/bin")
        for path in sorted((arm64 / place).iterdir())
        if path.is_file() and not path.is_symlink() and is_elf(path)
    ]
    chosen = programs[:: max(1, len(programs) // FOREIGN_PROGRAMS)][:FOREIGN_PROGRAMS]
    assert len(chosen) == FOREIGN_PROGRAMS
    for program in chosen:
        watch.active = True
        found = found_by_reading(arm64, f"/{program.relative_to(arm64)}")
        watch.active = False
        assert found == read_by_readelf(arm64, program.resolve()), program
        assert any("ld-linux-aarch64" in path for path in found)
    assert watch.seen == []
