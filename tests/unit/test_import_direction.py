"""Who may import whom, and who may rename. Read from the source, so that nothing has to run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ("initramfs", "recovery", "packagemanager", "payload", "statemachine")
"""Each may import itself and what stands behind it."""

RENAMES = {
    "payload/durable.py": "the one place that replaces files",
    "packagemanager/root.py": "the tree of packages, which an engine makes survive any cut",
    "packagemanager/steps.py": "asks the tree of packages",
    "packagemanager/keeping.py": "asks it as well",
    "packagemanager/taken_away.py": "asks it as well, before anything has changed",
    "packagemanager/scripts.py": "asks it as well: marks, of which none has to survive a cut",
    "initramfs/debian.py": "gives finished folders of the host's cache their name; a device has none",
}
BUILT_INTO_THE_IMAGE = ("_unbrick", "_unbrick_tls", "device_config")

ORDINARY_BOOT = (
    "statemachine/table.py", "statemachine/step.py", "statemachine/record.py", "statemachine/decide.py",
    "statemachine/limits.py", "statemachine/reasons.py", "statemachine/journal.py", "statemachine/ring.py",
    "statemachine/store.py", "statemachine/merge.py", "statemachine/region.py", "payload/device_region.py",
    "recovery/main.py", "recovery/evidence.py", "recovery/device_journal.py", "recovery/disks.py",
    "recovery/hand_over.py", "recovery/package_phase.py", "recovery/supervisor.py", "recovery/console.py",
)  # fmt: skip
CHEAP = frozenset((
    "__future__", "sys", "os", "posix", "_struct", "struct", "_blake2", "_io", "_unbrick", "fcntl", "select", "errno",
    "time", "device_config", "statemachine", "payload", "recovery",
))  # fmt: skip
HEAVY = frozenset((
    "contextlib", "dataclasses", "enum", "functools", "hashlib", "logging", "pathlib", "re", "subprocess", "tarfile",
    "tempfile", "typing",
))  # fmt: skip


def sources(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their package"
            yield node.lineno, node.module or ""


def forbidden_imports(path: Path, tree: ast.AST) -> list[str]:
    package = path.relative_to(ROOT).parts[0]
    allowed = ORDER[ORDER.index(package) :] if package in ORDER else ()
    own = (*ORDER, "qemu", "unbrick", "scripts", "tests")
    verb_boot = path.parent == ROOT / "initramfs" and path.name.startswith("cli")
    found = []
    for line, name in imported(tree):
        target = name.split(".")[0]
        fits = target in allowed or target == package or (target == "qemu" and verb_boot)
        if target in own and not fits:
            found.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    return found


@pytest.mark.parametrize("package", [*ORDER, "qemu"])
def test_imports_point_one_way(package: str) -> None:
    found = [line for path in sources(package) for line in forbidden_imports(path, ast.parse(path.read_text()))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("statemachine/x.py", "import payload.trust"),
        ("payload/x.py", "def f():\n    from recovery import main"),
        ("qemu/x.py", "from statemachine import table"),
        ("recovery/x.py", "import initramfs"),
        ("initramfs/build.py", "import qemu.machine"),
        ("payload/x.py", "if TYPE_CHECKING:\n    import qemu"),
    ],
)
def test_the_rule_sees_a_wrong_import(place: str, text: str) -> None:
    assert forbidden_imports(ROOT / place, ast.parse(text))


def test_the_lab_does_not_hide_the_package_of_its_name() -> None:
    """`qemu.qmp` of the package index merges with ours only while ours is a namespace."""
    assert not (ROOT / "qemu/__init__.py").exists()
    assert not (ROOT / "qemu/qmp.py").exists()


def renames(tree: ast.AST) -> list[int]:
    """Lines that rename a file. `replace` with one argument is a path's: a text's has two."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            lines += [node.lineno for alias in node.names if alias.name in ("rename", "renames", "replace", "move")]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        called = node.func.attr
        of_a_path = called == "replace" and len(node.args) == 1 and not node.keywords
        if called in ("rename", "renames") or of_a_path or (owner, called) in (("os", "replace"), ("shutil", "move")):
            lines.append(node.lineno)
    return lines


def test_one_module_renames() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in (*ORDER, "qemu", "scripts", "unbrick")
        for path in sources(package)
        if str(path.relative_to(ROOT)) not in RENAMES
        for line in renames(ast.parse(path.read_text()))
    ]
    assert not found, f"use payload.durable instead: {found}"


@pytest.mark.parametrize(
    "text",
    ["os.rename(a, b)", "os.replace(a, b)", "Path(a).rename(b)", "path.replace(b)", "from os import replace",
     "shutil.move(a, b)"],
)  # fmt: skip
def test_the_rule_sees_a_rename(text: str) -> None:
    assert renames(ast.parse(text))
    assert not renames(ast.parse("text.replace(a, b); dataclasses.replace(value, name=1)"))


def top_level(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What importing the module imports: not in functions, not under TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        elif isinstance(node, ast.Try):
            for inner in node.body:
                yield from imported(inner)


@pytest.mark.parametrize("place", ORDINARY_BOOT)
def test_the_ordinary_boot_imports_only_what_costs_nothing(place: str) -> None:
    found = [
        f"{place}:{line} imports {name}"
        for line, name in top_level(ast.parse((ROOT / place).read_text()))
        if name.split(".")[0] not in CHEAP
    ]
    assert not found, "\n".join(found)


def test_the_package_manager_of_the_device_imports_nothing_heavy() -> None:
    """It is a part of PID 1's child, and of a command: what it needs of these would be loaded for it alone."""
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / "packagemanager").glob("*.py"))
        for line, name in run_imports(ast.parse(path.read_text()))
        if name.split(".")[0] in HEAVY
    ]
    assert not found, "\n".join(found)


def run_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What is imported when the code runs, whenever that is: not under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        else:
            yield from run_imports(node)


@pytest.mark.parametrize("package", ["statemachine", "payload", "recovery", "packagemanager"])
def test_the_device_uses_the_standard_library_alone(package: str) -> None:
    """Besides `transitions`, which is frozen in, and what only the build host runs."""
    host_only = (
        "payload/codec.py",
        "payload/cosign.py",
        "payload/create",
        "payload/root_files.py",
        "payload/signing_key.py",
        "payload/streams_host.py",
        "packagemanager/master",
    )
    known = {*sys.stdlib_module_names, *ORDER, *BUILT_INTO_THE_IMAGE, "transitions"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        if not str(path.relative_to(ROOT)).startswith(host_only)
        for line, name in imported(ast.parse(path.read_text()))
        if name.split(".")[0] not in known
    ]
    assert not found, "\n".join(found)
