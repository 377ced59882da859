"""What goes into an image, as entries with reasons: places, programs, modules, firmware.

Turns what the resolvers found (:mod:`initramfs.elf`, :mod:`initramfs.kernel_modules`) into a tree. A
reason that names another path of the image continues there, so that every chain ends at something that
the configuration or the design asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from initramfs.elf import ClosureEntry
from initramfs.kernel_modules import FirmwareEntry, ModuleEntry, normalised
from initramfs.tree import Entry, Kind, Reason, Tree, canonical, character_device, directory, file, merge, symlink

BOOT_LIST = "etc/unbrick/modules.boot"
RECOVERY_LIST = "etc/unbrick/modules.recovery"
_MENTIONED_PATH = re.compile(r"/[^\s:,;()]+")

_PLACES = {
    "proc": "the kernel's view of processes is mounted here",
    "sys": "the kernel's view of devices is mounted here",
    "dev": "device nodes appear here",
    "run": "what lives as long as one boot",
    "newroot": "the root file system is mounted here before the hand-over",
    "mnt": "file systems that are looked at are mounted here",
    "etc/unbrick": "what this image was told at build time",
}


def places() -> Iterator[Entry]:
    """The folders and nodes that every image has. Without /dev/console, /init has no output."""
    for path, text in _PLACES.items():
        yield directory(path, Reason(text))
    yield directory("tmp", Reason("scratch space"), mode=0o1777)
    yield character_device("dev/console", 5, 1, Reason("the kernel opens it as /init's standard output"))
    yield character_device("dev/null", 1, 3, Reason("for programs before /dev is mounted"), mode=0o666)


def init(program: bytes) -> Entry:
    """``/init``: the supervisor with the frozen interpreter."""
    reason = Reason("the kernel starts it: supervisor and recovery in one program")
    return file("init", program, reason, executable=True, source="init: frozen Python")


def programs(closure: Iterable[ClosureEntry]) -> Iterator[Entry]:
    """Programs, libraries and the symbolic links that lead to them."""
    for entry in closure:
        reason = Reason(entry.reason)
        if entry.source is None:
            yield symlink(entry.path, entry.target, reason, source=f"sysroot: {entry.path}")
            continue
        executable = bool(entry.source.stat().st_mode & 0o111)
        data = entry.source.read_bytes()
        yield file(entry.path, data, reason, executable=executable, source=f"sysroot: {entry.path}")


def modules(
    boot: Sequence[ModuleEntry], recovery: Sequence[ModuleEntry], parameters: Mapping[str, str], release: str
) -> Iterator[Entry]:
    """The modules, and for each phase the list in load order. ``parameters`` are by module name."""
    by_name = {normalised(entry.name): entry for entry in (*boot, *recovery)}
    for path, entries, when in ((BOOT_LIST, boot, "on every boot"), (RECOVERY_LIST, recovery, "when recovery works")):
        text = "".join(
            f"{entry.path} {parameters.get(normalised(entry.name), '')}".rstrip() + "\n" for entry in entries
        )
        yield file(path, text.encode(), Reason(f"the order in which modules are loaded {when}"))
        for entry in entries:
            source = f"kernel {release}: {entry.path}"
            yield file(entry.path, entry.read(), _module_reason(entry, by_name), source=source)


def _module_reason(entry: ModuleEntry, by_name: Mapping[str, ModuleEntry]) -> Reason:
    """ "ext4 needs jbd2" continues at ext4."""
    asker = by_name.get(normalised(entry.reason.split(" ", 1)[0]))
    parent = asker.path.lstrip("/") if asker is not None and asker is not entry else ""
    return Reason(entry.reason, parent)


def firmware(entries: Iterable[FirmwareEntry], loaded: Sequence[ModuleEntry]) -> Iterator[Entry]:
    by_name = {entry.name: entry.path.lstrip("/") for entry in loaded}
    for entry in entries:
        parent = by_name.get(entry.reason.rpartition(" ")[2], "")
        yield file(entry.path, entry.read(), Reason(entry.reason, parent), source=f"firmware: {entry.path}")


def assemble(entries: Iterable[Entry]) -> Tree:
    """One tree: symbolic links to folders are followed, and reasons joined into chains.

    Raises:
        TreeConflict: two different things want one path.
    """
    given = list(entries)
    links = {entry.path: entry.target for entry in given if entry.kind is Kind.SYMLINK}
    placed = [replace(entry, path=canonical(entry.path, links)) for entry in given]
    lists = {BOOT_LIST, RECOVERY_LIST}
    placed = [_with_canonical_lines(entry, links) if entry.path in lists else entry for entry in placed]
    tree = merge(placed)
    return Tree(tuple(_chained(entry, tree.by_path.__contains__, links) for entry in tree))


def _with_canonical_lines(entry: Entry, links: Mapping[str, str]) -> Entry:
    lines = [line.partition(" ") for line in entry.data.decode().splitlines()]
    text = "".join(f"/{canonical(path, links)}{space}{rest}\n" for path, space, rest in lines)
    return replace(entry, data=text.encode())


def _chained(entry: Entry, is_there: Callable[[str], bool], links: Mapping[str, str]) -> Entry:
    """Each reason gets the path it names as its parent: the next link of the chain."""

    def chained(reason: Reason) -> Reason:
        mentioned = [canonical(path, links) for path in (reason.parent or "", *_mentions(reason.text)) if path]
        there = [path for path in mentioned if is_there(path) and path != entry.path]
        return replace(reason, parent=there[0] if there else "")

    return replace(entry, reasons=tuple(chained(reason) for reason in entry.reasons))


def _mentions(text: str) -> list[str]:
    return _MENTIONED_PATH.findall(text)
