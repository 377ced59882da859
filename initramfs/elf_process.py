"""One program being loaded, as glibc's loader would load it, but only by reading.

Breadth first, in the order of DT_NEEDED. A name that an object already loaded answers to — the name it
was asked by, or its SONAME — is not searched for again, even if another directory would come first; that
is why the order matters. Two paths of one file are one object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from initramfs.elf_file import Dlopen, ElfObject, MalformedElfError, read_elf
from initramfs.elf_search import search_path
from initramfs.elf_sysroot import Found, Sysroot
from initramfs.errors import MissingFile, SysrootError

OBJECTS_MAX = 4096


@dataclass(frozen=True)
class Requirement:
    """A file that the program needs, or (``link`` is set) a link that leads to it and must be made."""

    found: Found
    reason: str
    link: str = ""


@dataclass(frozen=True)
class Policy:
    """What is decided by the configuration. ``notice`` is told of an absent library that is not required."""

    hwcaps: Sequence[str]
    dlopen_priorities: Sequence[str]
    notice: Callable[[str], None]


class Objects:
    """The parsed files of one sysroot, each parsed once."""

    def __init__(self, sysroot: Sysroot) -> None:
        self.sysroot = sysroot
        self._objects: dict[str, ElfObject] = {}

    def parse(self, found: Found) -> ElfObject:
        """Raises: SysrootError: the file is malformed."""
        if found.path not in self._objects:
            if len(self._objects) >= OBJECTS_MAX:
                raise SysrootError(f"more than {OBJECTS_MAX} ELF files", "ask for fewer programs")
            try:
                with found.source.open("rb") as stream:
                    self._objects[found.path] = read_elf(stream)
            except MalformedElfError as error:
                raise SysrootError(f"{found.path}: {error}", "unpack the sysroot again") from error
        return self._objects[found.path]


@dataclass(frozen=True)
class _Loaded:
    """An object where the loader found it: ``path`` before symlinks, ``found`` after them.

    ``by_configuration`` says that only a directory of ld.so.conf led to it.
    """

    object: ElfObject
    path: str
    found: Found
    loader: _Loaded | None
    by_configuration: bool = False

    @property
    def origin(self) -> str:
        """$ORIGIN. The kernel resolves the program's path; the loader leaves those of libraries alone."""
        return str(PurePosixPath(self.path if self.loader else self.found.path).parent)


class Process:
    """The objects of one program. Use :meth:`requirements` once."""

    def __init__(self, objects: Objects, program: Found, policy: Policy) -> None:
        self._objects = objects
        self._sysroot = objects.sysroot
        self._policy = policy
        self._main = _Loaded(objects.parse(program), program.path, program, None)
        self._by_name: dict[str, _Loaded] = {self._main.object.soname: self._main}
        self._by_path: dict[str, _Loaded] = {program.path: self._main}
        self._interpreter = self._find_interpreter()
        self._search = search_path(
            self._sysroot,
            self._main.object.architecture,
            self._interpreter.found if self._interpreter else None,
            policy.hwcaps,
        )

    def requirements(self) -> Iterator[Requirement]:
        """Everything but the program itself. May name a file twice, for different reasons.

        Raises:
            MissingFile: a library is nowhere to be found.
            SysrootError: a file is malformed, cannot work in an image, or is older than another one wants it.
        """
        if self._interpreter:
            # Loaded before all else, it answers to its own SONAME from the start.
            self._remember(self._interpreter, self._main.object.interpreter)
            yield Requirement(self._interpreter.found, f"needed by {self._main.found.path}: PT_INTERP")
        yield from self._load_needed([self._main])
        yield from self._load_opened()
        self._check_versions()

    def _find_interpreter(self) -> _Loaded | None:
        name = self._main.object.interpreter
        if not name:
            return None
        found = self._sysroot.find_file(name)
        if found is None:
            raise MissingFile(
                f"{name} is not in the sysroot, and loads {self._main.found.path} (PT_INTERP)",
                "add the package of the C library (libc6) to sysroot.packages",
                kind="library",
                name=name,
            )
        return _Loaded(self._objects.parse(found), name, found, self._main)

    def _load_needed(self, start: list[_Loaded]) -> Iterator[Requirement]:
        queue = deque(start)
        while queue:
            requester = queue.popleft()
            for name in requester.object.needed:
                library = self._locate(requester, name)
                if library is None:
                    raise self._missing(requester, name, "DT_NEEDED")
                if self._remember(library, name):
                    queue.append(library)
                yield from self._explain(
                    requester, library, name, f"needed by {requester.found.path}: DT_NEEDED {name}"
                )

    def _load_opened(self) -> Iterator[Requirement]:
        """Run-time libraries come last: what is needed at the start decides which file answers to a name."""
        pending = deque(self._by_path.values())
        while pending:
            requester = pending.popleft()
            for wish in requester.object.dlopens:
                known = set(self._by_path)
                if wish.priority in self._policy.dlopen_priorities:
                    yield from self._open(requester, wish)
                pending.extend(item for path, item in self._by_path.items() if path not in known)

    def _open(self, requester: _Loaded, wish: Dlopen) -> Iterator[Requirement]:
        for name in wish.sonames:
            library = self._locate(requester, name)
            if library is not None:
                is_new = self._remember(library, name)
                reason = f"opened by {requester.found.path} at run time: {wish.feature or name} ({wish.priority})"
                yield from self._explain(requester, library, name, reason)
                if is_new:
                    yield from self._load_needed([library])
                return
        if wish.priority == "required":
            raise self._missing(requester, wish.sonames[0], "a required dlopen note")
        self._policy.notice(
            f"{' or '.join(wish.sonames)} is not in the sysroot; {requester.found.path} can open it for {wish.feature}"
        )

    def _check_versions(self) -> None:
        """As the loader (elf/dl-version.c): a library that has versions has those that are needed of it."""
        for requester in self._by_path.values():
            for name, version in requester.object.versions_needed:
                library = self._by_name.get(name)
                defined = library.object.versions_defined if library else ()
                if library and defined and version not in defined:
                    raise SysrootError(
                        f"{library.found.path} has no symbols of version {version}, which {requester.found.path} needs",
                        "the two are of different releases: take both from one",
                    )

    def _remember(self, library: _Loaded, name: str) -> bool:
        """Notes the names ``library`` answers to; says whether it is new in this process."""
        is_new = library.found.path not in self._by_path
        for known_as in (name, library.object.soname):
            if known_as:
                self._by_name.setdefault(known_as, library)
        self._by_path.setdefault(library.found.path, library)
        return is_new

    def _locate(self, requester: _Loaded, name: str) -> _Loaded | None:
        if name in self._by_name:
            return self._by_name[name]
        own = [(path, False) for path in self._own_paths(requester, name)]
        default = [(path, not built_in) for path, built_in in self._default_paths(requester, name)]
        for path, by_configuration in [*own, *default]:
            found = self._sysroot.find_file(path)
            if found is None:
                continue
            if found.path in self._by_path:
                # The same object by another path, whose links the image needs as well.
                return replace(self._by_path[found.path], found=found, by_configuration=by_configuration)
            candidate = self._objects.parse(found)
            if self._main.object.architecture.accepts(candidate.architecture):
                return _Loaded(candidate, path, found, requester, by_configuration)
        return None

    def _own_paths(self, requester: _Loaded, name: str) -> Iterator[str]:
        if "/" in name:
            path = self._search.expand_tokens(name, requester.origin)
            return iter([path] if path.startswith("/") else [])
        directories = self._own_directories(requester)
        return (path for directory in directories for path in self._search.candidates(directory, name))

    def _own_directories(self, requester: _Loaded) -> list[str]:
        """The requester's RUNPATH; or, where it has none, the RPATHs up the chain of loaders, and the program's."""
        if requester.object.runpath is not None:
            return self._search.expand(requester.object.runpath, requester.origin)
        chain: list[_Loaded] = []
        asking: _Loaded | None = requester
        while asking is not None:
            chain.append(asking)
            asking = asking.loader
        return [place for item in chain for place in self._search.expand(item.object.rpath, item.origin)]

    def _default_paths(self, requester: _Loaded, name: str) -> Iterator[tuple[str, bool]]:
        """Paths in the default directories, and whether the loader knows the directory by itself."""
        if "/" in name:
            return
        built_in = self._search.built_in
        for directory in self._search.defaults(requester.object.no_default_libraries):
            for path in self._search.candidates(directory, name):
                yield path, directory in built_in

    def _explain(self, requester: _Loaded, library: _Loaded, name: str, reason: str) -> Iterator[Requirement]:
        """The file, and a link to it where only ld.so.conf leads there: the image has no ld.so.cache."""
        yield Requirement(library.found, reason)
        if not library.by_configuration:
            return
        for directory in self._search.built_in:
            beside = self._sysroot.find_file(f"{directory}/{name}")
            if beside is not None and beside.path == library.found.path:
                yield Requirement(beside, reason)
                return
        if requester.object.no_default_libraries:
            raise SysrootError(
                f"{requester.found.path} finds {name} through ld.so.conf alone, which images do not have",
                "link it with an RPATH",
            )
        yield Requirement(library.found, f"{reason}, by way of ld.so.conf", f"{self._search.built_in[0]}/{name}")

    def _missing(self, requester: _Loaded, name: str, entry: str) -> MissingFile:
        paths = [*self._own_paths(requester, name), *(path for path, _ in self._default_paths(requester, name))]
        foreign = [path for path in paths if self._sysroot.find_file(path)]
        detail = f" ({foreign[0]} is for another machine)" if foreign else ""
        looked_in = dict.fromkeys(str(PurePosixPath(path).parent) for path in paths)
        return MissingFile(
            f"{name} is not in the sysroot{detail}; {requester.found.path} needs it ({entry})",
            f"looked in {', '.join(looked_in)}: add the package that brings it to sysroot.packages",
            kind="library",
            name=name,
        )
