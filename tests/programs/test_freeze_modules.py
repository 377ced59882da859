"""Which modules go into the executable: the closure over source text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from initramfs.errors import MissingFile, SysrootError
from initramfs.module_closure import INTERPRETER_ROOTS, ModuleSet, module_closure
from initramfs.source_imports import ImportIndex, imports_of
from tests.programs.source_files import source, write


@pytest.fixture
def search(tmp_path: Path) -> tuple[Path, Path]:
    """An empty folder of ours, and a library folder with what the interpreter starts with."""
    ours, library = tmp_path / "ours", tmp_path / "library"
    ours.mkdir()
    write(library, dict.fromkeys(INTERPRETER_ROOTS, ""))
    return ours, library


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
