"""What the executable is linked from, and how a sysroot that does not do is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from initramfs import freeze
from initramfs.errors import MissingFile, SysrootError, ToolError
from initramfs.module_closure import INTERPRETER_ROOTS, ModuleSet
from tests.programs.source_files import write

CHECKOUT = Path(__file__).parents[2]


def python_in(root: Path, version: str = "3.11", magic: int = 3495) -> Path:
    """The traces of a static CPython."""
    library = root / "usr/lib" / f"python{version}"
    config = library / f"config-{version}-x86_64-linux-gnu"
    config.mkdir(parents=True)
    (config / f"libpython{version}.a").touch()
    (config / "config.c").write_text('{"sys", NULL},\n    {"time", PyInit_time},\n')
    (library / "importlib").mkdir()
    (library / "importlib/_bootstrap_external.py").write_text(f"MAGIC_NUMBER = ({magic}).to_bytes(2, 'little')\n")
    return root


def test_a_fitting_sysroot(tmp_path: Path) -> None:
    python = freeze.python_sysroot(python_in(tmp_path))
    assert python.triplet == "x86_64-linux-gnu"
    functions = {"sys": "NULL", "time": "PyInit_time", "_unbrick": "PyInit__unbrick"}
    assert python.builtin_functions() == functions | {"_unbrick_tls": "PyInit__unbrick_tls"}


def config_of(root: Path) -> Path:
    return freeze.python_sysroot(root).config / "config.c"


def with_start(root: Path) -> Path:
    """With what the interpreter starts with: sources that are empty, and the extension modules."""
    config_of(root).write_text("".join(f'{{"{name}", PyInit_{name}}},\n' for name in freeze.INTERPRETER_BUILTINS))
    write(root / "usr/lib/python3.11", dict.fromkeys(set(INTERPRETER_ROOTS) - {"importlib._bootstrap_external"}, ""))
    return root


@pytest.mark.parametrize("options", [(), ("_unbrick_tls",)])
def test_an_optional_module_is_there_when_it_is_asked_for(tmp_path: Path, options: tuple[str, ...]) -> None:
    root = with_start(python_in(tmp_path / "root"))
    write(tmp_path / "own", {"main": "try:\n    import _unbrick_tls\nexcept ImportError:\n    _unbrick_tls = None\n"})
    modules = freeze.closure(("main",), root, (tmp_path / "own",), options=options)
    assert ("_unbrick_tls" in modules.builtins) == bool(options)
    assert ("_unbrick_tls" in modules.absent) == (not options)


def test_an_option_that_nothing_imports_costs_nothing(tmp_path: Path) -> None:
    root = with_start(python_in(tmp_path / "root"))
    write(tmp_path / "own", {"main": ""})
    modules = freeze.closure(("main",), root, (tmp_path / "own",), options=("_unbrick_tls",))
    assert "_unbrick_tls" not in modules.builtins


def test_another_bytecode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SysrootError, match=r"reads bytecode 3531, this Python writes 3495") as caught:
        freeze.python_sysroot(python_in(tmp_path, magic=3531))
    assert "Debian 12: 3.11" in caught.value.hint


def test_another_python_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SysrootError, match=r"has python3\.13, this build runs on Python 3\.11"):
        freeze.python_sysroot(python_in(tmp_path, version="3.13", magic=3571))


def test_a_sysroot_without_python_is_told_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(MissingFile) as caught:
        freeze.python_sysroot(tmp_path)
    assert caught.value.name == "libpython3.11.a"
    assert "libpython3.11-dev" in caught.value.hint


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("z", "zlib1g-dev"),
        ("c", "libc6-dev"),
        ("zstd", "libzstd-dev"),
        ("lzma", "liblzma-dev"),
        ("ssl", "libssl-dev"),
        ("crypto", "libssl-dev"),
    ],
)
def test_an_absent_library_names_its_package(tmp_path: Path, library: str, package: str) -> None:
    with pytest.raises(MissingFile, match=rf"no lib{library}\.a") as caught:
        freeze.python_sysroot(python_in(tmp_path)).static_library(library)
    assert package in caught.value.hint


@pytest.fixture
def linkable(tmp_path: Path) -> Path:
    """A sysroot with all that is looked for before the compiler is started, but for OpenSSL."""
    root = python_in(tmp_path / "root")
    for name in freeze.OWN_LIBRARIES:
        (root / f"usr/lib/x86_64-linux-gnu/lib{name}.a").parent.mkdir(exist_ok=True)
        (root / f"usr/lib/x86_64-linux-gnu/lib{name}.a").touch()
    return with_start(root)


def test_openssl_is_asked_for_only_with_the_module_that_calls_it(linkable: Path, tmp_path: Path) -> None:
    native = CHECKOUT / "recovery/native"
    with_tls = ModuleSet((), {"_unbrick_tls": "imported by payload.tls"}, {})
    with pytest.raises(MissingFile, match=r"no libssl\.a") as caught:
        freeze.freeze(with_tls, linkable, native, tmp_path / "init", tmp_path / "cache", "no-such-gcc")
    assert "libssl-dev" in caught.value.hint
    with pytest.raises(ToolError, match="no-such-gcc"):
        freeze.freeze(ModuleSet((), {}, {}), linkable, native, tmp_path / "init", tmp_path / "cache", "no-such-gcc")


def test_an_absent_compiler_is_named(linkable: Path, tmp_path: Path) -> None:
    native = CHECKOUT / "recovery/native"
    with pytest.raises(ToolError, match="there is no program no-such-gcc"):
        freeze.freeze(ModuleSet((), {}, {}), linkable, native, tmp_path / "init", tmp_path / "cache", "no-such-gcc")
    assert not (tmp_path / "init").exists()
