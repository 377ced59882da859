"""One ELF file, read as the dynamic loader would: program headers, dynamic section, notes.

Sections are not looked at, since the loader does not (a stripped section table is no error) — except
by :func:`section`, for kernel modules, which have nothing else. Nothing is searched for and nothing
is run here; the layouts come from pyelftools, the bounds are ours. Any bytes at all give an
:class:`ElfObject` or a :class:`MalformedElfError`, in bounded time and memory.

Sources: System V ABI chapters 4 and 5; elf(5); Linux Standard Base, "Symbol Versioning"; systemd's
ELF_DLOPEN_METADATA for ``.note.dlopen``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct.core import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.structs import ELFStructs

MAGIC = b"\x7fELF"

PROGRAM_HEADERS_MAX = 256
DYNAMIC_ENTRIES_MAX = 8192
NEEDED_MAX = 1024
STRING_BYTES_MAX = 4096
STRING_TABLE_BYTES_MAX = 64 << 20
NOTE_BYTES_MAX = 1 << 20
DLOPEN_LIBRARIES_MAX = 256
VERSIONS_MAX = 8192
SECTION_BYTES_MAX = 1 << 20

DF_1_NODEFLIB = 0x800
VERSION_IS_WEAK = 0x2
NOTE_DLOPEN_TYPE = 0x407C0C0A
NOTE_DLOPEN_OWNER = b"FDO\0"
PRIORITIES = ("required", "recommended", "suggested")

# The bits of e_flags that decide whether two objects can share a process, and whether zero means
# "says nothing" (old ARM and PowerPC toolchains) or is a value of its own.
ABI_FLAGS = {
    "EM_ARM": (0x600, True),  # EF_ARM_ABI_FLOAT_HARD | EF_ARM_ABI_FLOAT_SOFT
    "EM_PPC64": (0x3, True),  # EF_PPC64_ABI
    "EM_MIPS": (0x20, False),  # EF_MIPS_ABI2: n32 beside o32
    "EM_RISCV": (0x6, False),  # EF_RISCV_FLOAT_ABI
}

# Functions of glibc that dlopen() a library which no DT_NEEDED names. pthread_exit without
# libgcc_s ends the process with "libgcc_s.so.1 must be installed for pthread_exit to work".
# backtrace() opens it too, and does without: an image is not made larger for it.
DLOPENED_BY_GLIBC = {
    b"pthread_exit": "libgcc_s.so.1",
    b"pthread_cancel": "libgcc_s.so.1",
}


class MalformedElfError(Exception):
    """The bytes are not an ELF file the loader would take. The text is one clause, without the path."""


@dataclass(frozen=True)
class Architecture:
    """What two objects must share to be loaded together. ``abi`` is the masked e_flags."""

    machine: str
    bits: int
    little_endian: bool
    abi: int = 0

    def accepts(self, other: Architecture) -> bool:
        """Whether the loader of ``self`` would take ``other``, or pass over it and search on."""
        if (self.machine, self.bits, self.little_endian) != (other.machine, other.bits, other.little_endian):
            return False
        _, zero_is_silent = ABI_FLAGS.get(self.machine, (0, False))
        return self.abi == other.abi or (zero_is_silent and 0 in (self.abi, other.abi))

    def __str__(self) -> str:
        endianness = "little" if self.little_endian else "big"
        return f"{self.machine.removeprefix('EM_').lower()}, {self.bits} bit, {endianness} endian"


@dataclass(frozen=True)
class Dlopen:
    """A library opened at run time. ``sonames`` are alternatives, the preferred one first."""

    sonames: tuple[str, ...]
    priority: str
    feature: str


@dataclass(frozen=True)
class ElfObject:
    """What the loader reads of one file. Empty strings and tuples stand for absent entries.

    An empty RUNPATH is not an absent one: it still hides the RPATHs of those who loaded the object.
    ``versions_needed`` are libraries, each with a version of its symbols without which the loader refuses it.
    """

    architecture: Architecture
    interpreter: str = ""
    soname: str = ""
    needed: tuple[str, ...] = ()
    rpath: str = ""
    runpath: str | None = None
    no_default_libraries: bool = False
    dlopens: tuple[Dlopen, ...] = ()
    versions_needed: tuple[tuple[str, str], ...] = ()
    versions_defined: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Segment:
    kind: str
    offset: int
    address: int
    size: int
    alignment: int


def read_elf(stream: BinaryIO) -> ElfObject:
    """The object in ``stream``, which must be seekable.

    Raises:
        MalformedElfError: the bytes are not a well-formed ELF program or library.
    """
    try:
        return _read(stream)
    except (ELFError, ConstructError, OverflowError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Besides its own errors pyelftools lets those of its parser through on hostile input.
        raise MalformedElfError(f"not a well-formed ELF file ({type(error).__name__}: {error})") from error


def section(data: bytes, name: str) -> bytes | None:
    """The bytes of one section of a relocatable file, or None where there is no such section.

    Raises:
        MalformedElfError: the section table is not well formed, or the section is above 1 MiB.
    """
    try:
        found = ELFFile(io.BytesIO(data)).get_section_by_name(name)
        if found is None:
            return None
        if not 0 <= found["sh_size"] <= SECTION_BYTES_MAX or found["sh_offset"] + found["sh_size"] > len(data):
            raise MalformedElfError(f"section {name} lies outside the file")
        return data[found["sh_offset"] : found["sh_offset"] + found["sh_size"]]
    except MalformedElfError:
        raise
    except Exception as error:
        raise MalformedElfError(f"not a well-formed ELF file ({type(error).__name__}: {error})") from error


def _read(stream: BinaryIO) -> ElfObject:
    structs, little_endian = _structs_for(_exactly(stream, 0, 16))
    header = struct_parse(structs.Elf_Ehdr, stream, 0)
    if header["e_type"] not in ("ET_EXEC", "ET_DYN"):
        raise MalformedElfError(f"an ELF file of type {header['e_type']}, neither a program nor a library")
    machine = str(header["e_machine"])
    mask, _ = ABI_FLAGS.get(machine, (0, False))
    architecture = Architecture(machine, structs.elfclass, little_endian, header["e_flags"] & mask)
    segments = list(_segments(stream, structs, header))
    dynamic = _Dynamic(stream, structs, segments)
    flags = dynamic.number("DT_FLAGS_1")
    return ElfObject(
        architecture=architecture,
        interpreter=_interpreter(stream, segments),
        soname=dynamic.string("DT_SONAME"),
        needed=dynamic.strings("DT_NEEDED"),
        # The loader drops DT_RPATH where both are given.
        rpath="" if dynamic.has("DT_RUNPATH") else dynamic.string("DT_RPATH"),
        runpath=dynamic.string("DT_RUNPATH") if dynamic.has("DT_RUNPATH") else None,
        no_default_libraries=bool(flags & DF_1_NODEFLIB),
        dlopens=(*_dlopen_notes(stream, structs, segments), *dynamic.implied_dlopens()),
        versions_needed=tuple(dynamic.versions_needed()),
        versions_defined=frozenset(dynamic.versions_defined()),
    )


def _exactly(stream: BinaryIO, offset: int, length: int) -> bytes:
    stream.seek(offset)
    data = stream.read(length)
    if len(data) != length:
        raise MalformedElfError(f"cut short: {length} bytes at offset {offset} are not there")
    return data


def _structs_for(identification: bytes) -> tuple[Any, bool]:
    if not identification.startswith(MAGIC):
        raise MalformedElfError("not an ELF file")
    bits = {1: 32, 2: 64}.get(identification[4])
    little_endian = {1: True, 2: False}.get(identification[5])
    if bits is None or little_endian is None:
        raise MalformedElfError("an ELF file of unknown class or byte order")
    return _structs(bits, little_endian), little_endian


@lru_cache(maxsize=8)
def _structs(bits: int, little_endian: bool) -> Any:
    structs = ELFStructs(little_endian=little_endian, elfclass=bits)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return structs


def _segments(stream: BinaryIO, structs: Any, header: Any) -> Iterator[_Segment]:
    count, entry_size = header["e_phnum"], header["e_phentsize"]
    if count > PROGRAM_HEADERS_MAX:
        raise MalformedElfError(f"{count} program headers, more than {PROGRAM_HEADERS_MAX}")
    if count and entry_size != structs.Elf_Phdr.sizeof():
        raise MalformedElfError(f"program headers of {entry_size} bytes")
    for index in range(count):
        entry = struct_parse(structs.Elf_Phdr, stream, header["e_phoff"] + index * entry_size)
        yield _Segment(str(entry["p_type"]), entry["p_offset"], entry["p_vaddr"], entry["p_filesz"], entry["p_align"])


def _interpreter(stream: BinaryIO, segments: list[_Segment]) -> str:
    for segment in segments:
        if segment.kind == "PT_INTERP":
            if not 2 <= segment.size <= STRING_BYTES_MAX:
                raise MalformedElfError(f"an interpreter's name of {segment.size} bytes")
            return _text(_exactly(stream, segment.offset, segment.size))
    return ""


def _text(data: bytes) -> str:
    """The string up to the first NUL, as a file name: undecodable bytes survive a round trip."""
    content, terminator, _ = data.partition(b"\0")
    if not terminator:
        raise MalformedElfError("a string without its end")
    return content.decode("utf-8", "surrogateescape")


class _Dynamic:
    """The dynamic section: tags to values, and the string table they point into."""

    def __init__(self, stream: BinaryIO, structs: Any, segments: list[_Segment]) -> None:
        self._stream = stream
        self._structs = structs
        self._segments = segments
        self._versions_left = VERSIONS_MAX
        self._values: dict[str, list[int]] = {}
        for segment in segments:
            if segment.kind == "PT_DYNAMIC":
                self._read_entries(structs, segment)
                break
        self._strings_at = self._strings_size = 0
        if self.has("DT_STRTAB"):
            self._strings_size = self.number("DT_STRSZ")
            self._strings_at = _file_offset(segments, self.number("DT_STRTAB"), self._strings_size)
            if self._strings_size > STRING_TABLE_BYTES_MAX:
                raise MalformedElfError(f"a string table of {self._strings_size} bytes")

    def _read_entries(self, structs: Any, segment: _Segment) -> None:
        count = segment.size // structs.Elf_Dyn.sizeof()
        for index in range(min(count, DYNAMIC_ENTRIES_MAX)):
            entry = struct_parse(structs.Elf_Dyn, self._stream, segment.offset + index * structs.Elf_Dyn.sizeof())
            if entry["d_tag"] == "DT_NULL":
                return
            self._values.setdefault(str(entry["d_tag"]), []).append(entry["d_val"])
        raise MalformedElfError("a dynamic section without its end")

    def has(self, tag: str) -> bool:
        return tag in self._values

    def number(self, tag: str) -> int:
        return self._values.get(tag, [0])[-1]

    def string(self, tag: str) -> str:
        return self._string_at(self._values[tag][-1]) if self.has(tag) else ""

    def strings(self, tag: str) -> tuple[str, ...]:
        offsets = self._values.get(tag, [])
        if len(offsets) > NEEDED_MAX:
            raise MalformedElfError(f"{len(offsets)} entries {tag}, more than {NEEDED_MAX}")
        return tuple(self._string_at(offset) for offset in offsets)

    def _string_at(self, offset: int) -> str:
        if offset >= self._strings_size:
            raise MalformedElfError("a string outside the string table")
        length = min(STRING_BYTES_MAX, self._strings_size - offset)
        return _text(_exactly(self._stream, self._strings_at + offset, length))

    def versions_needed(self) -> Iterator[tuple[str, str]]:
        if not self.has("DT_VERNEED"):
            return
        for place, entry in self._chain(self.number("DT_VERNEED"), self._structs.Elf_Verneed, "vn_next"):
            for _, version in self._chain(place + entry["vn_aux"], self._structs.Elf_Vernaux, "vna_next"):
                if not version["vna_flags"] & VERSION_IS_WEAK:
                    yield self._string_at(entry["vn_file"]), self._string_at(version["vna_name"])

    def versions_defined(self) -> Iterator[str]:
        if not self.has("DT_VERDEF"):
            return
        for place, entry in self._chain(self.number("DT_VERDEF"), self._structs.Elf_Verdef, "vd_next"):
            # The first name is the version's own, the others are those that it follows.
            _, name = next(self._chain(place + entry["vd_aux"], self._structs.Elf_Verdaux, "vda_next"))
            yield self._string_at(name["vda_name"])

    def _chain(self, place: int, layout: Any, following: str) -> Iterator[tuple[int, Any]]:
        """The entries from the address ``place`` on, each of which says how far the next one is; 0 ends it."""
        while self._versions_left > 0:
            self._versions_left -= 1
            entry = struct_parse(layout, self._stream, _file_offset(self._segments, place, layout.sizeof()))
            yield place, entry
            if not entry[following]:
                return
            place += entry[following]
        raise MalformedElfError(f"more than {VERSIONS_MAX} symbol versions")

    def implied_dlopens(self) -> tuple[Dlopen, ...]:
        """What glibc opens on behalf of this object, told by the names it imports.

        The string table is searched as a whole: names that are only defined there match as well,
        which costs a library too many and never one too few. glibc itself defines them all.
        """
        if self.string("DT_SONAME").startswith(("libc.so.", "libpthread.so.", "libgcc_s.so.")):
            return ()
        table = _exactly(self._stream, self._strings_at, self._strings_size)
        found: dict[str, bytes] = {}
        for function, soname in DLOPENED_BY_GLIBC.items():
            if b"\0" + function + b"\0" in table:
                found.setdefault(soname, function)
        return tuple(Dlopen((soname,), "recommended", name.decode()) for soname, name in found.items())


def _file_offset(segments: list[_Segment], address: int, size: int) -> int:
    for segment in segments:
        within = segment.address <= address and address + size <= segment.address + segment.size
        if segment.kind == "PT_LOAD" and within:
            return segment.offset + address - segment.address
    raise MalformedElfError("a part of the dynamic section is in no segment")


def _dlopen_notes(stream: BinaryIO, structs: Any, segments: list[_Segment]) -> list[Dlopen]:
    libraries: list[Dlopen] = []
    for segment in segments:
        if segment.kind == "PT_NOTE":
            if segment.size > NOTE_BYTES_MAX:
                raise MalformedElfError(f"notes of {segment.size} bytes")
            data = _exactly(stream, segment.offset, segment.size)
            for payload in _notes(structs, data, 8 if segment.alignment == 8 else 4):
                libraries.extend(_dlopen_libraries(payload))
    if len(libraries) > DLOPEN_LIBRARIES_MAX:
        raise MalformedElfError(f"{len(libraries)} dlopen notes")
    # Linkers that gather notes in two segments show each of them twice.
    return list(dict.fromkeys(libraries))


def _notes(structs: Any, data: bytes, alignment: int) -> Iterator[bytes]:
    """The payloads of the dlopen notes. What follows a malformed note is not looked at, as in the kernel."""
    position, header_size = 0, 12
    while position + header_size <= len(data):
        note = struct_parse(structs.Elf_Nhdr, io.BytesIO(data[position : position + header_size]), 0)
        name_end = position + header_size + note["n_namesz"]
        content = -(-name_end // alignment) * alignment
        content_end = content + note["n_descsz"]
        if content_end > len(data):
            return
        name = data[position + header_size : name_end]
        if name == NOTE_DLOPEN_OWNER and note["n_type"] in (NOTE_DLOPEN_TYPE, str(NOTE_DLOPEN_TYPE)):
            yield data[content:content_end]
        position = -(-content_end // alignment) * alignment


def _dlopen_libraries(payload: bytes) -> Iterator[Dlopen]:
    try:
        entries = json.loads(payload.rstrip(b"\0"))
    except (ValueError, RecursionError) as error:
        raise MalformedElfError("a dlopen note that is not JSON") from error
    for entry in entries if isinstance(entries, list) else [entries]:
        names = entry.get("soname", []) if isinstance(entry, dict) else None
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise MalformedElfError("a dlopen note without its library")
        priority = entry.get("priority", "recommended")
        if priority not in PRIORITIES:
            raise MalformedElfError("a dlopen note of unknown priority")
        yield Dlopen(tuple(names), priority, str(entry.get("feature", "")))
