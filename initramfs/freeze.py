"""One static executable out of a sysroot's CPython, frozen modules and the C sources of ``recovery/native``.

The bytes depend on the inputs alone: bytecode is marshalled by :mod:`initramfs.bytecode`, the linker gets no
build id, no path and no time. Nothing of the sysroot is run, so it may be of another architecture; the
bytecode is compiled by the Python that runs this, which must speak the sysroot's version.

The interpreter's own tables (built-in and frozen modules) are replaced by generated ones, so the linker
takes from ``libpython3.11.a`` only what the modules of this image can reach.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from initramfs import bytecode, module_closure
from initramfs.errors import MissingFile, SysrootError, ToolError
from initramfs.module_closure import ModuleSet
from payload.durable import atomic_replace

REPLACEMENTS = Path(__file__).resolve().parents[1] / "recovery/native/lib"
"""Modules that stand in for the standard library's."""
COMPILER_SECONDS_MAX = 300
EXECUTABLE = "init"
REPORT = "report.json"
CODE_ALIGNMENT_BYTES = 16

INTERPRETER_BUILTINS = (
    "_abc", "_codecs", "_imp", "_io", "_signal", "_stat", "_thread", "_warnings", "_weakref", "builtins", "errno",
    "marshal", "posix", "sys", "time",
)  # fmt: skip
"""Extension modules that the interpreter itself starts with."""

OWN_BUILTINS = {"_unbrick": "PyInit__unbrick"}

OPTIONAL_BUILTINS = {"_unbrick_tls": "PyInit__unbrick_tls"}
"""Modules of ours that an image has only if it is asked for: a build option."""

OPTIONAL_SOURCES = {"_unbrick_tls": "tls"}
"""Their C sources: a folder below the others'."""

BOOTSTRAP = {
    "_frozen_importlib": "importlib._bootstrap",
    "_frozen_importlib_external": "importlib._bootstrap_external",
}
"""The import system, which is frozen under these names. ``zipimport`` is left out; CPython does without."""

LIBRARIES = {
    "_elementtree": ("expat",), "_unbrick_tls": ("ssl", "crypto"), "binascii": ("z",), "pyexpat": ("expat",),
    "zlib": ("z",),
}  # fmt: skip
"""Extension module to the static libraries it calls, beyond the C library, a caller before what it calls."""

OWN_LIBRARIES = ("c", "lzma", "sodium", "zstd")

LIBRARY_PACKAGES = {"c": "libc6-dev", "crypto": "libssl-dev", "expat": "libexpat1-dev", "z": "zlib1g-dev"}
"""Debian packages of libraries that are not ``lib<name>-dev``."""

COMPILER_FLAGS = (
    "-Os", "-Wall", "-Wextra", "-Wno-unused-parameter", "-ffunction-sections", "-fdata-sections", "-fno-ident",
    "-g0", "-static", "-no-pie", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,norelro",
    "-Wl,--no-warnings",
)  # fmt: skip


@dataclass(frozen=True)
class FreezeReport:
    """What was made. ``modules`` maps each frozen module to its bytes of code."""

    executable: Path
    size_bytes: int
    modules: Mapping[str, int]
    reasons: Mapping[str, str]
    """Frozen or built-in module to why it is in the executable."""
    absent: Mapping[str, str]
    cached: bool
    seconds: float


@dataclass(frozen=True)
class PythonSysroot:
    """Where a sysroot keeps what linking needs."""

    root: Path
    version: str
    config: Path
    """``config-3.11-<triplet>``, which holds the static library."""
    triplet: str

    @property
    def library(self) -> Path:
        return self.config / f"libpython{self.version}.a"

    @property
    def headers(self) -> Path:
        return self.root / "usr/include" / f"python{self.version}"

    @property
    def standard_library(self) -> Path:
        return self.root / "usr/lib" / f"python{self.version}"

    def builtin_functions(self) -> dict[str, str]:
        """Extension module in the static library to its initialising C function (or NULL)."""
        source = (self.config / "config.c").read_text()
        return dict(re.findall(r'\{"(\w+)",\s*(\w+)\}', source)) | OWN_BUILTINS | OPTIONAL_BUILTINS

    def static_library(self, name: str) -> Path:
        """Raises ``MissingFile`` naming the Debian package."""
        path = self.root / "usr/lib" / self.triplet / f"lib{name}.a"
        if not path.is_file():
            package = LIBRARY_PACKAGES.get(name, f"lib{name}-dev")
            raise MissingFile(
                f"the sysroot has no lib{name}.a", f"add {package} to the sysroot", kind="library", name=name
            )
        return path


def python_sysroot(root: Path) -> PythonSysroot:
    """Find and check the sysroot's CPython.

    Raises:
        MissingFile: there is no static CPython.
        SysrootError: it has another bytecode than the Python running this.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = sorted(root.glob(f"usr/lib/python{version}/config-{version}-*/libpython{version}.a"))
    if not found:
        others = sorted(path.name for path in root.glob("usr/lib/python3.*"))
        if others:
            raise SysrootError(
                f"the sysroot has {', '.join(others)}, this build runs on Python {version}",
                f"run the build with the sysroot's Python, or use a sysroot with libpython{version}-dev",
            )
        raise MissingFile(
            f"the sysroot has no libpython{version}.a",
            f"add libpython{version}-dev, libpython{version}-stdlib and libpython{version}-minimal to the sysroot",
            kind="library",
            name=f"libpython{version}.a",
        )
    config = found[0].parent
    sysroot = PythonSysroot(root, version, config, config.name.removeprefix(f"config-{version}-"))
    _check_magic(sysroot)
    return sysroot


def _check_magic(sysroot: PythonSysroot) -> None:
    """The magic of a sysroot is a constant in a comment-laden source, the one place that always has it."""
    source = (sysroot.standard_library / "importlib/_bootstrap_external.py").read_text()
    found = re.search(r"^MAGIC_NUMBER = \((\d+)\)\.to_bytes", source, re.MULTILINE)
    ours = int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little")
    theirs = int(found[1]) if found else 0
    if theirs != ours:
        raise SysrootError(
            f"the sysroot's Python reads bytecode {theirs or 'unknown'}, this Python writes {ours}",
            "run the build with the Python version of the sysroot (Debian 12: 3.11)",
        )


def closure(
    roots: Iterable[str],
    sysroot: Path,
    own: Iterable[Path],
    libraries: Iterable[Path] = (),
    extra: Mapping[str, str] | None = None,
    exclude: Mapping[str, str] = module_closure.NOT_ON_DEVICE,
    cache_dir: Path | None = None,
    options: Collection[str] = (),
) -> ModuleSet:
    """The modules of an image: ``own`` folders first, then the sysroot's standard library, then ``libraries``.

    ``libraries`` are folders that hold nothing but pure Python packages for the device (``transitions``),
    ``options`` those of ``OPTIONAL_BUILTINS`` that it can have.
    Raises what :func:`python_sysroot` and :func:`initramfs.module_closure.module_closure` raise.
    """
    python = python_sysroot(sysroot)
    own_folders = tuple(own)
    return module_closure.module_closure(
        roots,
        (*own_folders, REPLACEMENTS, python.standard_library, *libraries),
        builtin=frozenset(python.builtin_functions()) - (OPTIONAL_BUILTINS.keys() - options) | frozenset(BOOTSTRAP),
        exclude=exclude,
        extra=extra,
        own=own_folders,
        cache_dir=cache_dir,
    )


def freeze(
    modules: ModuleSet,
    sysroot: Path,
    native_sources: Path,
    out: Path,
    cache_dir: Path,
    compiler: str = "",
) -> FreezeReport:
    """Make the executable ``out`` from ``modules`` and the ``*.c`` of ``native_sources``.

    What belongs to an optional module is compiled and linked only if ``modules`` has that module.

    ``compiler`` is a C compiler for the sysroot's machine; by default the host's own, or the
    cross compiler ``<triplet>-gcc``. The same inputs are linked once: later calls copy from ``cache_dir``.

    Raises:
        MissingFile, SysrootError: the sysroot lacks a library, or a module does not compile.
        ToolError: there is no compiler, or it fails.
    """
    started = time.monotonic()
    python = python_sysroot(sysroot)
    program = compiler or default_compiler(python.triplet)
    sources = _sources(native_sources, modules.builtins)
    wanted = dict.fromkeys((*INTERPRETER_BUILTINS, *OWN_BUILTINS), "the interpreter starts with it")
    builtins = {
        name: python.builtin_functions()[name] for name in {**wanted, **modules.builtins} if name not in BOOTSTRAP
    }
    libraries = [python.static_library(name) for name in _library_names(builtins)]
    key = _digest(modules, builtins, python, libraries, sources, program)
    kept = cache_dir / key
    cached = (kept / REPORT).is_file()
    if not cached:
        with tempfile.TemporaryDirectory(dir=_made(cache_dir)) as work:
            sizes = _write_tables(modules, builtins, Path(work))
            _link(Path(work), python, sources, libraries, program)
            _keep(Path(work), kept, sizes)
    atomic_replace(out, (kept / EXECUTABLE).read_bytes(), 0o755)
    return FreezeReport(
        executable=out,
        size_bytes=out.stat().st_size,
        modules=json.loads((kept / REPORT).read_text()),
        reasons={**wanted, **modules.reasons()},
        absent=modules.absent,
        cached=cached,
        seconds=time.monotonic() - started,
    )


def default_compiler(triplet: str) -> str:
    """``gcc`` where it makes programs for ``triplet``, else the cross compiler of Debian's name."""
    return "gcc" if triplet.partition("-")[0] == os.uname().machine else f"{triplet}-gcc"


def _sources(folder: Path, builtins: Collection[str]) -> list[Path]:
    folders = (folder, *(folder / place for name, place in OPTIONAL_SOURCES.items() if name in builtins))
    return [path for place in folders for path in sorted(place.glob("*.c"))]


def _library_names(builtins: Iterable[str]) -> list[str]:
    """Each once, and in the order of the linker's one pass."""
    wanted = (name for builtin in sorted(builtins) for name in LIBRARIES.get(builtin, ()))
    return list(dict.fromkeys((*wanted, *OWN_LIBRARIES)))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(
    modules: ModuleSet,
    builtins: Mapping[str, str],
    python: PythonSysroot,
    libraries: Iterable[Path],
    sources: Iterable[Path],
    compiler: str,
) -> str:
    """Of everything that has a part in the executable's bytes, this program included."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules.modules:
        digest.update(f"{module.name}\0{module.is_package}{module.own}{len(module.source)}\0".encode())
        digest.update(module.source)
    digest.update(json.dumps([sorted(builtins.items()), sys.version, compiler_version(compiler)]).encode())
    system = python.root / "usr/lib" / python.triplet
    files = (
        *sources, *sorted(next(iter(sources)).parent.glob("*.h")), *libraries, python.library,
        *(system / name for name in ("crt1.o", "crti.o", "crtn.o")), *sorted(system.glob("libm*.a")),
        *sorted(python.headers.rglob("*.h")), Path(__file__), Path(bytecode.__file__),
    )  # fmt: skip
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def compiler_version(compiler: str) -> str:
    return _run([compiler, "--version"], Path.cwd()).partition("\n")[0]


def _write_tables(modules: ModuleSet, builtins: Mapping[str, str], work: Path) -> dict[str, int]:
    """Write ``modules.bin`` and ``tables.c``; the answer is each module's bytes of code."""
    blob = bytearray()
    entries: dict[str, tuple[int, int, bool]] = {}
    for module in modules.modules:
        code = bytecode.compiled(module)
        entries[module.name] = (len(blob), len(code), module.is_package)
        blob += code + bytes(-len(code) % CODE_ALIGNMENT_BYTES)
    (work / "modules.bin").write_bytes(blob)
    (work / "tables.c").write_text("\n".join(_tables(entries, builtins)) + "\n")
    return {name: size for name, (_, size, _) in entries.items()}


def _tables(entries: Mapping[str, tuple[int, int, bool]], builtins: Mapping[str, str]) -> Iterator[str]:
    def row(name: str, module: str) -> str:
        offset, size, is_package = entries[module]
        return f'    {{"{name}", code + {offset}, {size}, {int(is_package)}, NULL}},'

    yield "#include <Python.h>"
    yield '__asm__(".section .rodata\\n.balign 16\\ncode: .incbin \\"modules.bin\\"\\n.previous");'
    yield "extern const unsigned char code[];"
    yield "static const struct _frozen bootstrap[] = {"
    yield from (row(name, module) for name, module in BOOTSTRAP.items())
    yield "    {NULL, NULL, 0, 0, NULL},\n};"
    yield "static const struct _frozen modules[] = {"
    yield from (row(name, name) for name in entries if name not in BOOTSTRAP.values())
    yield "    {NULL, NULL, 0, 0, NULL},\n};"
    yield "const struct _frozen *_PyImport_FrozenBootstrap = bootstrap;"
    yield "const struct _frozen *_PyImport_FrozenStdlib = modules;"
    yield "const struct _frozen *_PyImport_FrozenTest = modules;"
    yield "const struct _frozen *PyImport_FrozenModules = NULL;"
    yield "static const struct _module_alias { const char *name, *original; } aliases[] = {{NULL, NULL}};"
    yield "const struct _module_alias *_PyImport_FrozenAliases = aliases;"
    yield from (f"extern PyObject *{function}(void);" for function in builtins.values() if function != "NULL")
    yield "struct _inittab _PyImport_Inittab[] = {"
    yield from (f'    {{"{name}", {function}}},' for name, function in sorted(builtins.items()))
    yield "    {NULL, NULL},\n};"


def _link(work: Path, python: PythonSysroot, sources: list[Path], libraries: list[Path], compiler: str) -> None:
    command = [
        compiler, f"--sysroot={python.root.resolve()}", f"-I{python.headers.resolve()}", *COMPILER_FLAGS,
        f"-ffile-prefix-map={sources[0].parent.resolve()}=.", f"-ffile-prefix-map={python.root.resolve()}=",
        "-o", EXECUTABLE,
        *(str(path.resolve()) for path in sources), "tables.c", str(python.library.resolve()),
        *(str(path.resolve()) for path in libraries if path.name != "libc.a"), "-lm",
    ]  # fmt: skip
    _run(command, work)


def _run(command: list[str], folder: Path) -> str:
    """The program's output. Raises ``ToolError`` with its first error line."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=COMPILER_SECONDS_MAX,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ToolError(f"there is no program {command[0]}", "install it (Debian: gcc, or gcc-<triplet>)") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]} did not end in {COMPILER_SECONDS_MAX} s", "look at the host's load") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        telling = next((line for line in lines if "error" in line or "undefined" in line), lines[-1])
        raise ToolError(f"{command[0]} failed: {telling}", "the sysroot's packages may not belong together")
    return result.stdout


def _keep(work: Path, kept: Path, sizes: Mapping[str, int]) -> None:
    """Into the cache, the report last: it says that the entry is whole."""
    kept.mkdir(parents=True, exist_ok=True)
    atomic_replace(kept / EXECUTABLE, (work / EXECUTABLE).read_bytes(), 0o755)
    atomic_replace(kept / REPORT, json.dumps(sizes).encode())
