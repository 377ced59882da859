"""The last look before an image replaces the old one: is the finished file what the tree said, and will it start?

Everything is read back from the compressed bytes by :mod:`initramfs.newc`, which shares no code with
the writer, and looked at as a system of its own: programs must find their libraries inside the image,
modules their dependencies. A failure here is a defect of the build, never of the configuration.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from initramfs.compression import DamagedImage
from initramfs.errors import BuildError, SelfCheckError
from initramfs.newc import Contents, Member, read
from initramfs.tree import FORMAT_BITS, Entry, Kind, Tree, clean

ELF_MAGIC = b"\x7fELF"
MODULE_LISTS = ("etc/unbrick/modules.boot", "etc/unbrick/modules.recovery")
REQUIRED = ("init", "dev/console", "proc", "sys", "dev", "run", "tmp", "newroot", "mnt")
_HINT = "This is a defect of the build tool: keep the configuration and report it. The old image is untouched."


def check(image: bytes, tree: Tree, time_seconds: int) -> Contents:
    """Read ``image`` back and hold it against ``tree``.

    Raises:
        SelfCheckError: they differ, or the image cannot work; what and where is named.
    """
    try:
        contents = read(image)
    except DamagedImage as error:
        raise SelfCheckError(f"the finished archive {error.message}", _HINT) from error
    _compare(contents.members, tree, time_seconds)
    check_startable(contents.members)
    return contents


def check_startable(members: Iterable[Member]) -> None:
    """Will it start: what every boot needs is there, libraries and module dependencies are complete.

    Raises:
        SelfCheckError: naming what is missing.
    """
    by_path = {member.path: member for member in members}
    _check_places(by_path)
    missing = [path for path in REQUIRED if path not in by_path]
    if missing:
        raise SelfCheckError(f"the image has no /{missing[0]}", _HINT)
    if by_path["dev/console"].device != (5, 1) or not stat.S_ISCHR(by_path["dev/console"].mode):
        raise SelfCheckError("/dev/console is not the character device 5:1", _HINT)
    if not stat.S_ISREG(by_path["init"].mode) or not by_path["init"].mode & 0o111:
        raise SelfCheckError("/init is no executable file", _HINT)
    _check_libraries(by_path)
    _check_modules(by_path)


def _compare(members: tuple[Member, ...], tree: Tree, time_seconds: int) -> None:
    if len(members) != len(tree):
        raise SelfCheckError(f"the archive has {len(members)} entries, the tree {len(tree)}", _HINT)
    for number, (member, entry) in enumerate(zip(members, tree, strict=True), start=1):
        expected = _expected(entry, number, time_seconds)
        if member != expected:
            raise SelfCheckError(f"/{entry.path} differs in the archive: {_difference(member, expected)}", _HINT)


def _expected(entry: Entry, number: int, time_seconds: int) -> Member:
    content = entry.target.encode() if entry.kind is Kind.SYMLINK else entry.data
    links = 2 if entry.kind is Kind.DIRECTORY else 1
    mode = FORMAT_BITS[entry.kind] | entry.mode
    return Member(entry.path, mode, 0, 0, links, time_seconds, number, entry.device, content)


def _difference(member: Member, expected: Member) -> str:
    for name, value in vars(expected).items():
        found = getattr(member, name)
        if found != value:
            return "its content" if name == "data" else f"{name} is {found!r}, not {value!r}"
    return "nothing"


def _check_places(by_path: dict[str, Member]) -> None:
    """Every path stays inside and has real directories above it: also what makes :func:`_unpack` safe."""
    for path in by_path:
        parent = path.rpartition("/")[0]
        if clean(path) != path or (parent and not stat.S_ISDIR(by_path[parent].mode if parent in by_path else 0)):
            raise SelfCheckError(f"{path!r} has no directory to be in", _HINT)


def _check_libraries(by_path: dict[str, Member]) -> None:
    from initramfs.elf import closure

    programs = [
        f"/{path}"
        for path, member in by_path.items()
        if stat.S_ISREG(member.mode) and member.data.startswith(ELF_MAGIC) and not path.endswith(".ko")
    ]
    with tempfile.TemporaryDirectory(prefix="unbrick-check-") as folder:
        root = Path(folder)
        _unpack(by_path, root)
        try:
            needed = closure(root, programs, dlopen="required")
        except BuildError as error:
            raise SelfCheckError(f"a program of the image would not start: {error.message}", _HINT) from error
    absent = [entry.path for entry in needed if entry.path.lstrip("/") not in by_path]
    if absent:
        raise SelfCheckError(f"{absent[0]} is missing from the image", _HINT)


def _unpack(by_path: dict[str, Member], root: Path) -> None:
    """Files, folders and symbolic links; nodes are left out."""
    for path, member in sorted(by_path.items()):
        place = root / path
        if stat.S_ISDIR(member.mode):
            place.mkdir()
        elif stat.S_ISLNK(member.mode):
            os.symlink(member.data, os.fsencode(place))  # noqa: PTH211 - the target's bytes as they are
        elif stat.S_ISREG(member.mode):
            place.write_bytes(member.data)
            place.chmod(stat.S_IMODE(member.mode) | 0o600)


def _check_modules(by_path: dict[str, Member]) -> None:
    """Each listed module is there, and everything it depends on stands before it."""
    loaded: set[str] = set()
    for name in MODULE_LISTS:
        if name not in by_path:
            raise SelfCheckError(f"the image has no /{name}", _HINT)
        for line in by_path[name].data.decode().splitlines():
            path = line.split(" ", 1)[0].lstrip("/")
            if path not in by_path:
                raise SelfCheckError(f"/{name} names /{path}, which is not in the image", _HINT)
            absent = dependencies(by_path[path].data) - loaded
            if absent:
                raise SelfCheckError(f"/{path} needs {sorted(absent)[0]}, which is not loaded before it", _HINT)
            loaded.add(module_name(path))


def module_name(path: str) -> str:
    """As the kernel names it: ``/lib/modules/6.1/x/virtio-blk.ko`` is virtio_blk."""
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def dependencies(module: bytes) -> set[str]:
    """The modules that a module says it needs: ``depends=`` in its .modinfo, NUL-terminated."""
    _, found, rest = module.partition(b"\0depends=")
    names = rest.partition(b"\0")[0].decode("ascii", "replace") if found else ""
    return {name.replace("-", "_") for name in names.split(",") if name}
