"""Kernel modules for an image: which files, in which order to load them, and which firmware they ask for.

Everything is read from ``lib/modules/RELEASE`` of a given tree: modules.dep, modules.softdep, modules.weakdep,
modules.alias, modules.builtin (formats: modules.dep(5), depmod.d(5), and kmod's sources) and the ``.modinfo``
section of each module. The kernel that runs on this host is never asked.

The image has no modprobe, so nothing can be loaded on demand: what a soft or weak dependency names is
loaded ahead, and may fail to load there (:attr:`ModuleEntry.optional`: an accelerated checksum on a CPU
without the instruction, for instance). A device's bus or transport is no dependency of its driver:
``virtio_blk`` shows no disk without ``virtio_pci``, nor ``usb_storage`` without ``sd_mod`` and ``xhci_pci``.
The configuration names those.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from initramfs.compressed_file import COMPRESSED_SUFFIXES, read_decompressed
from initramfs.elf_file import MalformedElfError, section
from initramfs.elf_sysroot import Found, Sysroot
from initramfs.errors import MissingFile, SysrootError

INDEX_BYTES_MAX = 32 << 20
DEPENDENCY_DEPTH_MAX = 64
MODULES_DIRECTORIES = ("/lib/modules", "/usr/lib/modules")
WILDCARDS = "*?["
FIRMWARE_DIRECTORIES = ("/lib/firmware/updates", "/lib/firmware", "/usr/lib/firmware")


@dataclass(frozen=True)
class ModuleEntry:
    """A module to put into the image, uncompressed, and to load in its turn.

    ``path`` is its place in the image. ``optional`` says that loading it may fail and the boot goes on.
    """

    name: str
    path: str
    source: Path
    reason: str
    optional: bool
    firmware: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The module, decompressed."""
        return read_decompressed(self.source)


@dataclass(frozen=True)
class FirmwareEntry:
    """A firmware file to put into the image, uncompressed, at ``path``."""

    path: str
    source: Path
    reason: str

    def read(self) -> bytes:
        """The firmware, decompressed."""
        return read_decompressed(self.source)


def normalised(name: str) -> str:
    """The kernel's name of a module: ``usb-storage`` and ``usb_storage`` are one."""
    return name.strip().replace("-", "_")


def find_release(root: Path, wanted: str = "") -> str:
    """The kernel release whose modules are in ``root``: the wanted one, or else the only one.

    Raises:
        MissingFile: it is not there, or there are several to choose from.
    """
    sysroot = Sysroot(root)
    found = (sysroot.find(place) for place in MODULES_DIRECTORIES)
    places = {place.path: place for place in found if place is not None and place.is_directory}
    releases = sorted({entry.name for place in places.values() for entry in place.source.iterdir() if entry.is_dir()})
    if wanted in releases or (len(releases) == 1 and not wanted):
        return wanted or releases[0]
    there = f"there is {' and '.join(releases)}" if releases else "there is none"
    raise MissingFile(
        f"the modules of kernel {wanted or 'release (none is named)'} are not in {root}: {there}",
        "set kernel.release to one that is there" if releases else "check kernel.package or kernel.path",
        kind="module",
        name=wanted,
    )


def resolve(root: Path, release: str, names: Sequence[str], *, loaded: Collection[str] = ()) -> list[ModuleEntry]:
    """The modules that ``names`` need, themselves included, in load order.

    Dependencies come first, soft ones asked for "pre" before, "post" after. A module built into the kernel, or
    already in ``loaded``, is accepted and left out. ``names`` may use ``-`` or ``_``, and be aliases.

    Raises:
        MissingFile: a module is not there.
        SysrootError: an index or a module is malformed, or of another release.
    """
    index = _Index(Sysroot(root), release)
    order = _LoadOrder(index, {normalised(name) for name in loaded})
    for name in names:
        order.request(name)
    return order.entries()


def firmware(
    roots: Sequence[Path],
    release: str,
    modules: Sequence[ModuleEntry],
    *,
    include: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> list[FirmwareEntry]:
    """The firmware that ``modules`` declare, and ``include`` besides, sorted by path.

    ``roots`` are searched in order, each as the kernel searches ``/``. ``include`` and ``optional`` are names
    below /lib/firmware, wildcards allowed, which reach into folders. A module declares what any of its devices may
    ask for, so an absent file is an error only if no pattern of ``optional`` covers it.

    Raises:
        MissingFile: a firmware file that is not optional is not there.
    """
    sysroots = [Sysroot(root) for root in roots]
    wanted = {name: f"declared by {module.name}" for module in reversed(modules) for name in module.firmware}
    wanted |= dict.fromkeys(include, "asked for by the configuration")
    entries: dict[str, FirmwareEntry] = {}
    for name, reason in sorted(wanted.items()):
        found = _find_firmware(sysroots, release, name)
        if not found and not any(fnmatch.fnmatchcase(name, pattern) for pattern in optional):
            raise MissingFile(
                f"the firmware {name} is not in {' nor '.join(str(root) for root in roots)} ({reason})",
                "add its package to sysroot.packages, or list it in firmware.optional",
                kind="firmware",
                name=name,
            )
        for path, file in found.items():
            entries.setdefault(path, FirmwareEntry(path, file.source, reason))
    return [entries[path] for path in sorted(entries)]


def _find_firmware(sysroots: Sequence[Sysroot], release: str, name: str) -> dict[str, Found]:
    """Image path to file. The kernel's order: drivers/base/firmware_loader/main.c, ``fw_path``."""
    _inside(name)
    for sysroot in sysroots:
        for directory in FIRMWARE_DIRECTORIES:
            for place in (f"{directory}/{release}", directory):
                found: dict[str, Found] = {}
                for plain, path in _matching(sysroot, place, name):
                    file = sysroot.find_file(f"{place}/{path}")
                    if file is not None:
                        found.setdefault(f"/lib/firmware/{plain}", file)
                if found:
                    return found
    return {}


def _matching(sysroot: Sysroot, place: str, pattern: str) -> Iterator[tuple[str, str]]:
    """What ``pattern`` stands for below ``place``: names without and with a compression's suffix, plain files first.

    Wildcards stand for slashes, too.
    """
    wildcard = next((index for index, letter in enumerate(pattern) if letter in WILDCARDS), None)
    if wildcard is None:
        yield from ((pattern, f"{pattern}{suffix}") for suffix in ("", *COMPRESSED_SUFFIXES))
        return
    folder = pattern[: pattern.rfind("/", 0, wildcard) + 1]
    for name in sysroot.files_below(f"{place}/{folder}"):
        path = f"{folder}{name}"
        plain = path.removesuffix(PurePosixPath(path).suffix) if path.endswith(COMPRESSED_SUFFIXES) else path
        if fnmatch.fnmatchcase(plain, pattern):
            yield plain, path


def _inside(path: str) -> str:
    if ".." in PurePosixPath(path).parts or not path:
        raise SysrootError(f"the path {path!r} leaves its directory", "repair the kernel's tree, or unpack it again")
    return path


@dataclass
class _Soft:
    """What one line, or several, of modules.softdep and modules.weakdep say of a module."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


class _Index:
    """The files that depmod makes, as dictionaries keyed by normalised module name."""

    def __init__(self, sysroot: Sysroot, release: str) -> None:
        self.sysroot = sysroot
        self.release = release
        self.directory = self._find_directory()
        self.paths: dict[str, str] = {}
        self.dependencies: dict[str, list[str]] = {}
        self.soft: dict[str, _Soft] = {}
        self._aliases: dict[str, list[str]] = {}
        self._patterns: list[tuple[str, str]] = []
        self._read_dependencies()
        self._read_soft_dependencies()
        self._read_aliases()
        self._builtin = set(self._builtin_names())

    def _find_directory(self) -> str:
        for place in MODULES_DIRECTORIES:
            found = self.sysroot.find(f"{place}/{self.release}")
            if found is not None and found.is_directory:
                return found.path
        raise MissingFile(
            f"the modules of kernel {self.release} are not in {self.sysroot.root}",
            "check kernel.release, kernel.package and kernel.path",
            kind="module",
            name=self.release,
        )

    def _lines(self, name: str, separator: str = "\n") -> Iterator[str]:
        found = self.sysroot.find_file(f"{self.directory}/{name}")
        if found is None:
            return
        if found.source.stat().st_size > INDEX_BYTES_MAX:
            raise SysrootError(f"{found.source} is larger than {INDEX_BYTES_MAX} bytes", "unpack the kernel again")
        for line in found.source.read_text("utf-8", "surrogateescape").split(separator):
            if line.strip() and not line.startswith("#"):
                yield line.strip()

    def _read_dependencies(self) -> None:
        for line in self._lines("modules.dep"):
            path, colon, rest = line.partition(":")
            if not colon:
                raise SysrootError(
                    f"{self.directory}/modules.dep: {line[:60]!r} is no dependency", f"run depmod {self.release} again"
                )
            name = _module_name(path)
            self.paths[name] = _inside(path)
            # depmod writes what must be loaded first at the end.
            self.dependencies[name] = [_module_name(other) for other in reversed(rest.split())]
        if not self.paths:
            raise SysrootError(
                f"{self.directory}/modules.dep is absent or empty",
                f"run: depmod -b {self.sysroot.root} {self.release}",
            )

    def _read_soft_dependencies(self) -> None:
        """``softdep NAME pre: A B post: C``; names before the first label mean nothing to kmod."""
        for line in self._lines("modules.softdep"):
            keyword, *words = line.split()
            if keyword == "softdep" and words:
                soft = self.soft.setdefault(normalised(words[0]), _Soft())
                labels = {"pre:": soft.before, "post:": soft.after}
                destination: list[str] = []
                for word in words[1:]:
                    destination = labels.get(word, destination)
                    if word not in labels:
                        destination.append(word)
        for line in self._lines("modules.weakdep"):
            keyword, *words = line.split()
            if keyword == "weakdep" and words:
                self.soft.setdefault(normalised(words[0]), _Soft()).before.extend(words[1:])

    def _read_aliases(self) -> None:
        for line in self._lines("modules.alias"):
            keyword, _, rest = line.partition(" ")
            alias, _, name = rest.rpartition(" ")
            if keyword == "alias" and alias:
                if "*" in alias or "[" in alias or "?" in alias:
                    self._patterns.append((alias, normalised(name)))
                else:
                    self._aliases.setdefault(normalised(alias), []).append(normalised(name))

    def _builtin_names(self) -> Iterator[str]:
        """Built-in modules, and their aliases from ``name.alias=…`` in modules.builtin.modinfo."""
        for line in self._lines("modules.builtin"):
            yield _module_name(line)
        for line in self._lines("modules.builtin.modinfo", "\0"):
            key, _, value = line.partition("=")
            if key.endswith(".alias"):
                yield normalised(value)

    def is_builtin(self, name: str) -> bool:
        return normalised(name) in self._builtin

    def modules_for(self, name: str) -> list[str]:
        """The module of this name, or else those that claim it as an alias."""
        wanted = normalised(name)
        if wanted in self.paths:
            return [wanted]
        claimed = self._aliases.get(wanted, [])
        if not claimed and ":" in name:
            claimed = [module for pattern, module in self._patterns if fnmatch.fnmatchcase(name, pattern)]
        return [module for module in dict.fromkeys(claimed) if module in self.paths]

    def missing(self, name: str, reason: str) -> MissingFile:
        close = difflib.get_close_matches(normalised(name), [*self.paths, *self._builtin], n=3, cutoff=0.7)
        return MissingFile(
            f"kernel {self.release} has no module {name} ({reason})",
            f"did you mean {' or '.join(close)}?" if close else "choose a kernel that has it, or leave it out",
            kind="module",
            name=name,
        )

    def source(self, name: str) -> Path | None:
        path = self.paths[name]
        found = self.sysroot.find_file(path if path.startswith("/") else f"{self.directory}/{path}")
        return found.source if found else None


def _module_name(path: str) -> str:
    """``kernel/drivers/usb/storage/usb-storage.ko.xz`` is ``usb_storage``."""
    return normalised(PurePosixPath(path.strip()).name.split(".ko")[0])


class _LoadOrder:
    """Depth first: a module is appended when all it needs has been."""

    def __init__(self, index: _Index, loaded: set[str]) -> None:
        self._index = index
        self._loaded = loaded
        self._visited: set[str] = set()
        self._needed: set[str] = set()
        self._entries: list[ModuleEntry] = []

    def entries(self) -> list[ModuleEntry]:
        return [replace(entry, optional=entry.name not in self._needed) for entry in self._entries]

    def request(self, name: str) -> None:
        reason = "asked for by the configuration"
        modules = self._index.modules_for(name)
        if not modules and not self._index.is_builtin(name):
            raise self._index.missing(name, reason)
        for module in modules:
            self._visit(module, reason, optional=False, depth=0)

    def _visit(self, name: str, reason: str, *, optional: bool, depth: int) -> None:
        """A module first met as somebody's wish may turn out to be needed: then it is walked again."""
        if name in self._loaded or name in self._needed or (optional and name in self._visited):
            return
        if depth > DEPENDENCY_DEPTH_MAX:
            raise SysrootError(f"the dependencies of {name} are deeper than {DEPENDENCY_DEPTH_MAX}", "run depmod again")
        first_time = name not in self._visited
        self._visited.add(name)
        if not optional:
            self._needed.add(name)
        soft = self._index.soft.get(name, _Soft())
        self._visit_soft(name, soft.before, "first", depth)
        for other in self._index.dependencies[name]:
            if other not in self._index.paths:
                raise self._index.missing(other, f"{name} needs {other}")
            self._visit(other, f"{name} needs {other}", optional=optional, depth=depth + 1)
        if first_time:
            self._entries.append(self._entry(name, reason))
        self._visit_soft(name, soft.after, "afterwards", depth)

    def _visit_soft(self, name: str, wishes: list[str], when: str, depth: int) -> None:
        for wish in wishes:
            for module in self._index.modules_for(wish):
                reason = f"{name} wants {wish} {when} (softdep), which {module} provides"
                self._visit(module, reason, optional=True, depth=depth + 1)

    def _entry(self, name: str, reason: str) -> ModuleEntry:
        source = self._index.source(name)
        if source is None:
            raise self._index.missing(name, f"{reason}; modules.dep lists it, but the file is gone")
        information = _module_information(source)
        vermagic = information.get("vermagic", [""])[0].split(" ")[0]
        if vermagic != self._index.release:
            raise SysrootError(
                f"{source} is for kernel {vermagic or 'unknown'}, not {self._index.release}", "unpack the kernel again"
            )
        path = PurePosixPath(self._index.paths[name])
        place = path.relative_to(self._index.directory) if path.is_absolute() else path
        plain = str(place).partition(".ko")[0] + ".ko"
        image_path = f"/lib/modules/{self._index.release}/{plain}"
        return ModuleEntry(name, image_path, source, reason, False, tuple(information.get("firmware", ())))


def _module_information(source: Path) -> dict[str, list[str]]:
    """The ``.modinfo`` section: ``key=value`` strings, each ended by NUL."""
    try:
        content = section(read_decompressed(source), ".modinfo")
    except MalformedElfError as error:
        raise SysrootError(f"{source}: {error}", "unpack the kernel again") from error
    information: dict[str, list[str]] = {}
    for line in (content or b"").split(b"\0"):
        key, equals, value = line.decode("utf-8", "surrogateescape").partition("=")
        if equals:
            information.setdefault(key, []).append(value)
    return information
