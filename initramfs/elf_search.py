"""Where glibc's dynamic loader looks for a library, in which order.

The order (ld.so(8), elf/dl-load.c of glibc 2.36):

1. A name with a slash is a path.
2. Only if the object that asks has no RUNPATH: its own RPATH, that of the object it was loaded by, and
   so on up, and at last the program's. (An object with a RUNPATH has no RPATH.)
3. The RUNPATH of the object that asks; it does not help the objects it loads.
4. The directories of /etc/ld.so.conf — the loader reads them through ld.so.cache, which this page does
   not trust: it may be stale or absent in a sysroot.
5. The directories built into the loader; not for an object with DF_1_NODEFLIB, which also passes
   over these directories in step 4.

In each directory the ``glibc-hwcaps`` subdirectories of the device's CPU come first. LD_LIBRARY_PATH,
LD_PRELOAD and /etc/ld.so.preload are not followed: the image sets none of them. Relative directories
depend on where a program is started from, and are passed over. musl has other rules and is not served.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from initramfs.elf_file import Architecture
from initramfs.elf_sysroot import Found, Sysroot
from initramfs.errors import SysrootError

CONFIGURATION_BYTES_MAX = 1 << 20
CONFIGURATION_FILES_MAX = 256
LOADER_BYTES_MAX = 16 << 20

# Debian's multiarch names, for libraries asked for by themselves: a program brings its loader,
# and the loader knows its own directories. The third column is AT_PLATFORM as kernels give it.
MULTIARCH = {
    ("EM_X86_64", 64): ("x86_64-linux-gnu", "x86_64"),
    ("EM_X86_64", 32): ("x86_64-linux-gnux32", "x86_64"),
    ("EM_386", 32): ("i386-linux-gnu", "i686"),
    ("EM_AARCH64", 64): ("aarch64-linux-gnu", "aarch64"),
    ("EM_ARM", 32): ("arm-linux-gnueabihf", "v7l"),
    ("EM_RISCV", 64): ("riscv64-linux-gnu", ""),
    ("EM_PPC64", 64): ("powerpc64le-linux-gnu", "power8"),
    ("EM_S390", 64): ("s390x-linux-gnu", ""),
    ("EM_MIPS", 64): ("mips64el-linux-gnuabi64", "mips64"),
    ("EM_MIPS", 32): ("mipsel-linux-gnu", "mips"),
}

_BUILT_IN_DIRECTORIES = re.compile(rb"(?:/(?:usr/)?lib[^\0/]{0,8}/(?:[A-Za-z0-9_-]+/)?\0){2,}")
_TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")


@dataclass(frozen=True)
class SearchPath:
    """The directories that are the same for every object of one program.

    ``configured`` come from ld.so.conf, ``built_in`` from the loader. ``library_token`` and ``platform``
    stand for $LIB and $PLATFORM; an empty one makes an element that uses it void.
    """

    configured: tuple[str, ...]
    built_in: tuple[str, ...]
    library_token: str
    platform: str
    hwcaps: tuple[str, ...] = ()

    def expand(self, path: str, origin: str) -> list[str]:
        """The directories of an RPATH or RUNPATH of an object that lies in ``origin``."""
        elements = (self.expand_tokens(element, origin) for element in path.split(":"))
        return [element for element in elements if element.startswith("/")]

    def expand_tokens(self, element: str, origin: str) -> str:
        """``element`` with its tokens replaced, or "" where one of them has no value."""
        values = {"ORIGIN": origin, "LIB": self.library_token, "PLATFORM": self.platform}
        used = [first or second for first, second in _TOKEN.findall(element)]
        if not all(values[name] for name in used):
            return ""
        return _TOKEN.sub(lambda match: values[match[1] or match[2]], element)

    def defaults(self, no_default_libraries: bool) -> list[str]:
        """Steps 4 and 5."""
        if no_default_libraries:
            return [directory for directory in self.configured if directory not in self.built_in]
        return [*self.configured, *self.built_in]

    def candidates(self, directory: str, name: str) -> Iterator[str]:
        """The paths tried in one directory, the best for the device's CPU first."""
        for capability in self.hwcaps:
            yield f"{directory}/glibc-hwcaps/{capability}/{name}"
        yield f"{directory}/{name}"


def search_path(
    sysroot: Sysroot, architecture: Architecture, loader: Found | None, hwcaps: Sequence[str]
) -> SearchPath:
    """The search path of a program with this loader (None: a library asked for by itself).

    Raises:
        SysrootError: ld.so.conf is malformed.
    """
    triplet, platform = MULTIARCH.get((architecture.machine, architecture.bits), ("", ""))
    built_in = _built_in_directories(loader) if loader else ()
    if not built_in:
        multiarch = (f"/lib/{triplet}", f"/usr/lib/{triplet}") if triplet else ()
        built_in = (*multiarch, "/lib", "/usr/lib")
    return SearchPath(
        configured=tuple(dict.fromkeys(_configured_directories(sysroot))),
        built_in=built_in,
        library_token=built_in[0].removeprefix("/usr").removeprefix("/"),
        platform=platform,
        hwcaps=tuple(hwcaps),
    )


def _built_in_directories(loader: Found) -> tuple[str, ...]:
    """The list compiled into ld.so, which lies there as strings side by side: /lib/…/ NUL /usr/lib/…/ NUL.

    Distributions differ (multiarch, lib64, lib32), and asking the loader itself would mean to run it.
    """
    with loader.source.open("rb") as stream:
        match = _BUILT_IN_DIRECTORIES.search(stream.read(LOADER_BYTES_MAX))
    if match is None:
        return ()
    return tuple(name.decode().rstrip("/") for name in match[0].split(b"\0") if name)


def _configured_directories(sysroot: Sysroot) -> Iterator[str]:
    return _read_configuration(sysroot, "/etc/ld.so.conf", itertools.count(1))


def _read_configuration(sysroot: Sysroot, path: str, files: Iterator[int]) -> Iterator[str]:
    """The directories in the order of the lines, those of an included file in the include's place."""
    found = sysroot.find_file(path)
    if found is None:
        return
    if next(files) > CONFIGURATION_FILES_MAX:
        raise SysrootError(
            f"{path}: /etc/ld.so.conf includes more than {CONFIGURATION_FILES_MAX} files",
            "look for a file that includes itself",
        )
    for line in _lines(found):
        words = line.split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for included in sysroot.glob(str(PurePosixPath(path).parent / pattern)):
                    yield from _read_configuration(sysroot, included, files)
        elif line.startswith("/"):
            yield line.split("=")[0].rstrip("/") or "/"


def _lines(found: Found) -> list[str]:
    data = found.source.read_bytes()[: CONFIGURATION_BYTES_MAX + 1]
    if len(data) > CONFIGURATION_BYTES_MAX:
        raise SysrootError(
            f"{found.path} is larger than {CONFIGURATION_BYTES_MAX} bytes", "it should list directories, one a line"
        )
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    return [line.split("#")[0].strip() for line in lines]
