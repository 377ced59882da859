"""Small ELF files for tests, of any class, byte order and machine. They can be read, not run."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

X86_64, AARCH64, ARM, MIPS, RISCV = 62, 183, 40, 8, 243
BASE_ADDRESS = 0x400000
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
TAGS = {"needed": 1, "strtab": 5, "strsz": 10, "soname": 14, "rpath": 15, "runpath": 29, "flags_1": 0x6FFFFFFB,
        "verdef": 0x6FFFFFFC, "verneed": 0x6FFFFFFE}  # fmt: skip
DF_1_NODEFLIB = 0x800


@dataclass
class Elf:
    """What to write. ``imports`` go into the string table only, where names of functions are.

    ``versions`` are the symbol versions that it needs of each library, ``weak`` those it can do without; ``defines``
    are its own.
    """

    needed: Sequence[str] = ()
    interpreter: str = ""
    soname: str = ""
    rpath: str | None = None
    runpath: str | None = None
    no_default_libraries: bool = False
    notes: Sequence[object] = ()
    imports: Sequence[str] = ()
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    weak: Sequence[str] = ()
    defines: Sequence[str] = ()
    machine: int = X86_64
    bits: int = 64
    little_endian: bool = True
    flags: int = 0
    kind: int = 3  # ET_DYN
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))

    @property
    def order(self) -> str:
        return "<" if self.little_endian else ">"

    def offset_of(self, text: str) -> int:
        offset = len(self.strings)
        self.strings += text.encode() + b"\0"
        return offset

    def entries(self) -> list[tuple[str, int]]:
        entries = [("needed", self.offset_of(name)) for name in self.needed]
        texts = {"soname": self.soname or None, "rpath": self.rpath, "runpath": self.runpath}
        entries += [(tag, self.offset_of(text)) for tag, text in texts.items() if text is not None]
        if self.no_default_libraries:
            entries.append(("flags_1", DF_1_NODEFLIB))
        return entries

    def note(self, payload: object) -> bytes:
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode() + b"\0"
        note = struct.pack(self.order + "III", 4, len(text), 0x407C0C0A) + b"FDO\0" + text
        return note + b"\0" * (-len(note) % 4)

    def needed_versions(self) -> bytes:
        """The entries of libraries, each followed by those of its versions."""
        content = b""
        for index, (name, versions) in enumerate(self.versions.items(), 1):
            following = 0 if index == len(self.versions) else 16 + 16 * len(versions)
            content += struct.pack(self.order + "HHIII", 1, len(versions), self.offset_of(name), 16, following)
            for number, version in enumerate(versions, 1):
                after = 0 if number == len(versions) else 16
                weak = 2 if version in self.weak else 0
                content += struct.pack(self.order + "IHHII", 0, weak, number, self.offset_of(version), after)
        return content

    def defined_versions(self) -> bytes:
        content = b""
        for index, version in enumerate(self.defines, 1):
            after = 0 if index == len(self.defines) else 28
            content += struct.pack(self.order + "HHHHIII", 1, 0, index, 1, 0, 20, after)
            content += struct.pack(self.order + "II", self.offset_of(version), 0)
        return content

    def header(self, segments: int) -> bytes:
        identification = b"\x7fELF" + bytes([self.bits // 32, 1 if self.little_endian else 2, 1]) + bytes(9)
        word, header_size, entry_size = ("Q", 64, 56) if self.bits == 64 else ("I", 52, 32)
        numbers = (
            self.kind,
            self.machine,
            1,
            0,
            header_size,
            0,
            self.flags,
            header_size,
            entry_size,
            segments,
            0,
            0,
            0,
        )
        return identification + struct.pack(f"{self.order}HHI{word * 3}IHHHHHH", *numbers)

    def segment(self, kind: int, offset: int, size: int) -> bytes:
        address, alignment = BASE_ADDRESS + offset, 4
        if self.bits == 64:
            return struct.pack(self.order + "IIQQQQQQ", kind, 4, offset, address, address, size, size, alignment)
        return struct.pack(self.order + "IIIIIIII", kind, offset, address, address, size, size, 4, alignment)

    def content(self) -> bytes:
        entries = self.entries()
        for name in self.imports:
            self.offset_of(name)
        word = "q" if self.bits == 64 else "i"
        interpreter = self.interpreter.encode() + b"\0" if self.interpreter else b""
        interpreter += b"\0" * (-len(interpreter) % 8)
        notes = b"".join(self.note(payload) for payload in self.notes)
        segments = 2 + bool(interpreter) + bool(notes)
        start = len(self.header(segments)) + segments * len(self.segment(0, 0, 0))
        interpreter_at = start
        notes_at = interpreter_at + len(interpreter)
        strings_at = notes_at + len(notes)
        needed, defined = self.needed_versions(), self.defined_versions()
        needed_at = strings_at + len(self.strings)
        defined_at = needed_at + len(needed)
        dynamic_at = defined_at + len(defined)
        entries += [("verneed", BASE_ADDRESS + needed_at)] * bool(needed)
        entries += [("verdef", BASE_ADDRESS + defined_at)] * bool(defined)
        entries += [("strtab", BASE_ADDRESS + strings_at), ("strsz", len(self.strings))]
        pairs = [(TAGS[tag], value) for tag, value in entries] + [(0, 0)]
        dynamic = b"".join(struct.pack(self.order + word * 2, *pair) for pair in pairs)
        table = self.segment(PT_LOAD, 0, dynamic_at + len(dynamic))
        table += self.segment(PT_DYNAMIC, dynamic_at, len(dynamic))
        if interpreter:
            table += self.segment(PT_INTERP, interpreter_at, len(self.interpreter) + 1)
        if notes:
            table += self.segment(PT_NOTE, notes_at, len(notes))
        return self.header(segments) + table + interpreter + notes + bytes(self.strings) + needed + defined + dynamic


def write(root: Path, path: str, elf: Elf | bytes, mode: int = 0o755) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(elf if isinstance(elf, bytes) else elf.content())
    place.chmod(mode)


def kernel_module(information: dict[str, Sequence[str]]) -> bytes:
    """A relocatable file with nothing but a ``.modinfo`` section."""
    modinfo = b"".join(f"{key}={value}\0".encode() for key, values in information.items() for value in values)
    names = b"\0.modinfo\0.shstrtab\0"
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    sections_at = 64 + len(modinfo) + len(names)
    header += struct.pack("<HHIQQQIHHHHHH", 1, X86_64, 1, 0, 0, sections_at, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, 64, len(modinfo), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(modinfo), len(names), 0, 0, 1, 0)
    return header + modinfo + names + sections
