"""Symbol versions as a real linker writes them, and as the loader of this machine judges them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from initramfs.elf import closure
from initramfs.errors import SysrootError

OLD, NEW = "V_1 { global: first; local: *; };\n", "V_1 { global: first; };\nV_2 { global: second; local: *; } V_1;\n"


def link(folder: Path, name: str, source: str, *words: str) -> None:
    (folder / "source.c").write_text(source)
    command = ["gcc", "-shared", "-nostdlib", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "source.c", *words]
    subprocess.run(command, cwd=folder, check=True, timeout=60)


def library(folder: Path, versions: str) -> None:
    (folder / "versions").write_text(versions)
    link(folder, "libv.so", "int first; int second;", "-Wl,--version-script=versions")


def loader_takes(folder: Path, name: str) -> bool:
    command = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(folder / name)!r})"]
    environment = {"LD_LIBRARY_PATH": str(folder)}
    return subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment).returncode == 0


@pytest.mark.parametrize(("symbol", "is_old_enough"), [("first", True), ("second", False)])
def test_the_loader_says_the_same(tmp_path: Path, symbol: str, is_old_enough: bool) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    library(folder, NEW)
    link(folder, "libuser.so", f"extern int {symbol}; int *user = &{symbol};", "-L.", "-lv")
    assert loader_takes(folder, "libuser.so")
    assert {entry.path for entry in closure(tmp_path, ["/lib/libuser.so"])} == {"/lib/libuser.so", "/lib/libv.so"}
    library(folder, OLD)
    assert loader_takes(folder, "libuser.so") == is_old_enough
    if is_old_enough:
        closure(tmp_path, ["/lib/libuser.so"])
        return
    with pytest.raises(
        SysrootError, match=r"/lib/libv\.so has no symbols of version V_2, which /lib/libuser\.so needs"
    ):
        closure(tmp_path, ["/lib/libuser.so"])
