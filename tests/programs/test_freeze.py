"""What goes into the executable: the closure over source text, the bytecode's bytes, the refusals."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import marshal
import os
import string
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initramfs import bytecode, freeze
from initramfs.errors import MissingFile, SysrootError, ToolError
from initramfs.module_closure import INTERPRETER_ROOTS, ModuleSet, module_closure
from initramfs.source_imports import ImportIndex, SourceModule, imports_of

CHECKOUT = Path(__file__).parents[2]
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
TRICKY_MODULES = ("codecs", "dataclasses", "enum", "re/_parser", "typing")


def source(text: str, name: str = "sample", *, own: bool = True) -> SourceModule:
    return SourceModule(name, text.encode(), f"{name}.py", False, "asked for", own)


@pytest.fixture
def search(tmp_path: Path) -> tuple[Path, Path]:
    """An empty folder of ours, and a library folder with what the interpreter starts with."""
    ours, library = tmp_path / "ours", tmp_path / "library"
    ours.mkdir()
    write(library, dict.fromkeys(INTERPRETER_ROOTS, ""))
    return ours, library


def write(folder: Path, modules: Mapping[str, str]) -> None:
    """Source by module name; what has a module below it is a package."""
    for name, text in modules.items():
        path = folder.joinpath(*name.split("."))
        for package in itertools.takewhile(lambda parent: parent != folder, path.parents):
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
            package.with_suffix(".py").unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        target.write_text(text)


def closure(search: tuple[Path, Path], *roots: str, **options: object) -> ModuleSet:
    return module_closure(roots, search, builtin={"sys", "_quick"}, own=search[:1], **options)  # type: ignore[arg-type]


def found(modules: ModuleSet) -> set[str]:
    start = {parent for name in INTERPRETER_ROOTS for parent in (name, name.partition(".")[0])}
    return {module.name for module in modules.modules} - start


def test_imports_in_functions_branches_and_packages_are_followed(search: tuple[Path, Path]) -> None:
    text = "import a\ndef late():\n    from b.c import d, value\nif a:\n    import e as renamed\n"
    write(search[0], {"main": text, "a": "", "b.c.d": "", "b.unused": "", "e": ""})
    modules = closure(search, "main")
    assert found(modules) == {"main", "a", "b", "b.c", "b.c.d", "e"}
    assert modules.reasons()["b.c.d"] == "imported by main"
    assert modules.reasons()["main"] == "asked for"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from . import brother", "house.room.brother"),
        ("from .brother import thing", "house.room.brother"),
        ("from .. import sister", "house.sister"),
        ("from ..sister import thing", "house.sister"),
        ("import importlib\nimportlib.import_module('house.sister')", "house.sister"),
        ("__import__('house.sister')", "house.sister"),
        ("value = lambda: __import__('house.sister')", "house.sister"),
        ("async def later():\n    import house.sister", "house.sister"),
        ("class Late:\n    import house.sister", "house.sister"),
    ],
)
def test_every_way_to_import_is_seen(search: tuple[Path, Path], statement: str, expected: str) -> None:
    write(search[0], {"house.sister": "", "house.room.brother": "", "house.room.main": statement})
    assert expected in found(closure(search, "house.room.main"))


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING", '__name__ == "__main__"'])
def test_what_never_runs_on_the_device_is_not_followed(search: tuple[Path, Path], test: str) -> None:
    write(search[0], {"main": f"if {test}:\n    import absent\nelse:\n    import there\n", "there": ""})
    assert found(closure(search, "main")) == {"main", "there"}


@pytest.mark.parametrize("error", ["ImportError", "ModuleNotFoundError", "(ValueError, ImportError)", "Exception"])
def test_a_guarded_import_may_be_absent(search: tuple[Path, Path], error: str) -> None:
    write(search[0], {"main": f"try:\n    import absent\nexcept {error}:\n    absent = None\n"})
    modules = closure(search, "main")
    assert modules.absent == {"absent": "imported by main; there is none, which the importer handles"}


def test_another_guard_is_no_guard(search: tuple[Path, Path]) -> None:
    write(search[0], {"main": "try:\n    import absent\nexcept ValueError:\n    pass\n"})
    with pytest.raises(MissingFile, match=r"module absent \(imported by main\) is neither found nor built in"):
        closure(search, "main")


def test_an_alternative_comes_only_without_its_original(search: tuple[Path, Path]) -> None:
    text = "try:\n    import {0}\nexcept ImportError:\n    import alternative\n"
    write(search[0], {"lucky": text.format("_quick"), "poor": text.format("absent"), "alternative": ""})
    assert found(closure(search, "lucky")) == {"lucky"}
    assert found(closure(search, "poor")) == {"poor", "alternative"}


def test_a_module_of_ours_must_be_there_however_late_it_is_imported(search: tuple[Path, Path]) -> None:
    write(search[0], {"main": "import middle\n", "middle": "def late():\n    import absent.deep\n"})
    with pytest.raises(MissingFile, match=r"module absent \(imported by middle\)") as caught:
        closure(search, "main")
    assert (caught.value.kind, caught.value.name) == ("module", "absent")


def test_a_shared_extension_is_named_as_what_it_is(search: tuple[Path, Path]) -> None:
    extensions = search[1] / "lib-dynload"
    extensions.mkdir()
    (extensions / "_slow.cpython-311-x86_64-linux-gnu.so").touch()
    write(search[0], {"main": "import _slow\n"})
    with pytest.raises(
        MissingFile, match=r"_slow\.cpython-311-x86_64-linux-gnu\.so\), which a static executable cannot"
    ):
        closure(search, "main")


def test_what_libraries_import_optionally_obeys_the_exclusions(search: tuple[Path, Path]) -> None:
    write(
        search[1],
        {"library": "def tool():\n    import heavy\n    import absent\n", "heavy": "", "strict": "import heavy"},
    )
    write(search[0], {"main": "import library\n", "needy": "import library\ndef late():\n    import heavy\n"})
    exclude = {"heavy": "large"}
    modules = closure(search, "main", exclude=exclude)
    assert found(modules) == {"main", "library"}
    assert modules.absent["heavy"] == "imported by library; large"
    write(search[0], {"polite": "try:\n    import heavy\nexcept ImportError:\n    pass\n"})
    for ours in ("needy", "polite"):
        assert "heavy" in found(closure(search, ours, exclude=exclude)), "our own imports are followed"
    assert "heavy" in found(closure(search, "strict", exclude=exclude)), "so is what must be there at once"


def test_sources_come_from_the_first_folder_and_from_memory(search: tuple[Path, Path]) -> None:
    write(search[0], {"main": "import device_config, twin, _quick\n", "twin": "ours = 1"})
    write(search[1], {"twin": "ours = 0"})
    modules = closure(search, "main", extra={"device_config": "CONFIG = {}"})
    by_name = {module.name: module for module in modules.modules}
    assert (by_name["device_config"].source, by_name["twin"].source) == (b"CONFIG = {}", b"ours = 1")
    assert modules.builtins == {"_quick": "imported by main"}
    assert str(search[0]) not in repr(modules), "no path of this machine"


@pytest.mark.parametrize("text", ["def :", "x = '\\ud8", "\0"])
def test_a_source_that_is_no_python_is_named(search: tuple[Path, Path], text: str) -> None:
    write(search[0], {"main": f"\n\n{text}"})
    with pytest.raises(SysrootError, match=r"^main\.py:"):
        closure(search, "main")


def test_the_index_answers_as_the_reading_does(tmp_path: Path) -> None:
    module = source("try:\n    import a\nexcept ImportError:\n    from b import c\n")
    first = ImportIndex(tmp_path)
    assert first.imports_of(module) == imports_of(module)
    first.save()
    second = ImportIndex(tmp_path)
    assert second.imports_of(module) == imports_of(module)
    (tmp_path / "imports.json").write_bytes(b"rotten")
    assert ImportIndex(tmp_path).imports_of(module) == imports_of(module)


def test_the_index_is_what_was_remembered(tmp_path: Path) -> None:
    """It does answer from the file: what is written there is believed."""
    module = source("import a\n")
    index = ImportIndex(tmp_path)
    index.imports_of(module)
    index.save()
    kept = json.loads((tmp_path / "imports.json").read_bytes())
    (row,) = kept.values()
    row[0][0] = "other"
    (tmp_path / "imports.json").write_text(json.dumps(kept))
    assert [wanted.name for wanted in ImportIndex(tmp_path).imports_of(module)] == ["other"]


def lines_of(code: CodeType) -> dict[int, int | None]:
    return {offset: line for start, end, line in code.co_lines() for offset in range(start, end, 2)}


def assert_same_program(ours: CodeType, theirs: CodeType) -> None:
    plain = [name for name in dir(theirs) if name.startswith("co_") and not callable(getattr(theirs, name))]
    for name in set(plain) - {"co_consts", "co_linetable", "co_lnotab"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert lines_of(ours) == lines_of(theirs)
    assert len(ours.co_consts) == len(theirs.co_consts)
    for our, their in zip(ours.co_consts, theirs.co_consts, strict=True):
        if isinstance(their, CodeType):
            assert_same_program(our, their)
        else:
            assert shape(our) == shape(their)


@pytest.mark.parametrize("name", TRICKY_MODULES)
def test_the_bytecode_is_what_the_compiler_made(name: str) -> None:
    module = SourceModule(name, (STANDARD_LIBRARY / f"{name}.py").read_bytes(), f"{name}.py", False, "", own=True)
    tree = ast.parse(module.source)
    bytecode.drop_docstrings(tree)
    expected = compile(tree, f"<frozen {name}>", "exec", dont_inherit=True, optimize=0)
    assert_same_program(marshal.loads(bytecode.compiled(module)), expected)


CONSTANTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    | st.text(max_size=9) | st.text(string.ascii_letters, max_size=9) | st.binary(max_size=9) | st.just(...),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def shape(value: object) -> object:
    """Tells apart what compares equal, and does not depend on a set's order."""
    if isinstance(value, tuple):
        return tuple(map(shape, value))
    if isinstance(value, frozenset):
        return frozenset(map(shape, value))
    return type(value), repr(value)


def through_marshal(constants: tuple[object, ...]) -> tuple[object, ...]:
    code = compile("0", "<frozen sample>", "exec").replace(co_consts=constants)
    loaded = marshal.loads(bytecode.dumps(code))
    assert isinstance(loaded, CodeType)
    return loaded.co_consts


@settings(max_examples=100, deadline=None)
@given(st.tuples(CONSTANTS, CONSTANTS))
def test_every_constant_comes_back_as_itself(constants: tuple[object, ...]) -> None:
    assert shape(through_marshal(constants)) == shape(constants)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 70_000])
def test_constants_of_every_length_come_back(length: int) -> None:
    constants = (
        "x" * length,
        "-" * length,
        "é" * length,
        b"x" * length,
        tuple(range(length)),
        2**length,
        -(7 ** min(length, 999)),
    )
    assert through_marshal((*constants, *constants)) == (*constants, *constants)


def test_constants_that_are_equal_but_not_the_same_stay_apart() -> None:
    constants = (1, 1.0, True, 0.0, -0.0, "a", b"a", (1, 2), (1.0, 2), (True, 2), (0.0,), (-0.0,), (0j,), (-0j,))
    assert shape(through_marshal((*constants, *constants))) == shape((*constants, *constants))


@pytest.mark.parametrize("own", [True, False])
def test_asserts_stay_and_docstrings_go(own: bool) -> None:
    text = '"""Module."""\ndef f():\n    """Only."""\nclass C:\n    """First."""\n    x = 1\nassert f, "kept"\n'
    code = marshal.loads(bytecode.compiled(source(text, own=own)))
    assert "kept" in code.co_consts
    namespace: dict[str, object] = {}
    exec(code, namespace)
    documented = ("f", "C")
    assert [getattr(namespace[name], "__doc__", "") for name in documented] == [None, None]
    assert namespace["f"]() is None  # type: ignore[operator]


def test_future_imports_survive_the_loss_of_the_docstring() -> None:
    text = '"""Module."""\nfrom __future__ import annotations\nx: absent = 1\n'
    exec(marshal.loads(bytecode.compiled(source(text, own=False))), {})


def test_a_traceback_has_the_module_and_the_line() -> None:
    code = marshal.loads(bytecode.compiled(source("\n\n\n" + "x = 1\n" * 300 + "raise ValueError\n", "place.name")))
    with pytest.raises(ValueError) as caught:
        exec(code, {})
    entry = caught.traceback[-1]
    assert (str(entry.frame.code.raw.co_filename), entry.lineno + 1) == ("<frozen place.name>", 304)


DIGEST_SCRIPT = """
import hashlib, sys
{history}
from pathlib import Path
from initramfs import bytecode
from initramfs.source_imports import SourceModule
digest = hashlib.sha256()
for name in {names!r}:
    text = Path({library!r}, name + ".py").read_bytes()
    digest.update(bytecode.compiled(SourceModule(name, text, name, False, "", own=False)))
print(digest.hexdigest())
"""


@pytest.mark.parametrize(("seed", "history"), [("1", ""), ("77", "import argparse, typing")])
def test_the_same_bytes_whatever_the_process_did_before(seed: str, history: str) -> None:
    ours = hashlib.sha256()
    for name in TRICKY_MODULES:
        text = (STANDARD_LIBRARY / f"{name}.py").read_bytes()
        ours.update(bytecode.compiled(SourceModule(name, text, name, False, "", own=False)))
    script = DIGEST_SCRIPT.format(history=history, names=TRICKY_MODULES, library=str(STANDARD_LIBRARY))
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ours.hexdigest()


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
