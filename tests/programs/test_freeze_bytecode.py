"""The bytecode that is frozen: what the compiler made, the same bytes each time, docstrings left out."""

from __future__ import annotations

import ast
import hashlib
import marshal
import os
import string
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initramfs import bytecode
from initramfs.source_imports import SourceModule
from tests.programs.source_files import source

CHECKOUT = Path(__file__).parents[2]
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
TRICKY_MODULES = ("codecs", "dataclasses", "enum", "re/_parser", "typing")


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
