"""Hostile ELF files: whatever the bytes, an object or one clean error comes back, soon and in little memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from initramfs import elf_file
from initramfs.elf_file import MalformedElfError, read_elf, section
from tests.unit.elf_writer import Elf, kernel_module


def whole(bits: int = 64, little_endian: bool = True) -> bytes:
    """A file that uses everything that is read."""
    return Elf(
        needed=["libx.so.1", "libc.so.6"],
        interpreter="/lib/ld.so.1",
        soname="libself.so",
        rpath="$ORIGIN",
        runpath="/opt",
        no_default_libraries=True,
        notes=[[{"soname": ["liba.so"], "priority": "required"}]],
        imports=["pthread_exit"],
        bits=bits,
        little_endian=little_endian,
    ).content()


KINDS = [(64, True), (32, True), (32, False)]


@pytest.mark.parametrize(("bits", "little_endian"), KINDS)
def test_the_whole_file_is_read(bits: int, little_endian: bool) -> None:
    found = read_elf(io.BytesIO(whole(bits, little_endian)))
    assert found.needed == ("libx.so.1", "libc.so.6")
    assert (found.interpreter, found.soname, found.runpath, found.rpath) == ("/lib/ld.so.1", "libself.so", "/opt", "")
    assert [(wish.sonames, wish.priority) for wish in found.dlopens] == [
        (("liba.so",), "required"),
        (("libgcc_s.so.1",), "recommended"),
    ]


@pytest.mark.parametrize(("bits", "little_endian"), KINDS)
def test_every_truncation_is_an_error(bits: int, little_endian: bool) -> None:
    data = whole(bits, little_endian)
    for length in range(len(data)):
        with pytest.raises(MalformedElfError):
            read_elf(io.BytesIO(data[:length]))


@pytest.mark.parametrize(("bits", "little_endian"), KINDS)
def test_every_bit_flip_is_an_object_or_an_error(bits: int, little_endian: bool) -> None:
    data = whole(bits, little_endian)
    refused = 0
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        try:
            read_elf(io.BytesIO(bytes(damaged)))
        except MalformedElfError:
            refused += 1
    assert refused > len(data)


def extremes(data: bytes) -> Iterator[bytes]:
    for width in (2, 4, 8):
        for position in range(0, len(data) - width, width):
            for value in (
                b"\xff" * width,
                b"\x7f" + b"\xff" * (width - 1),
                b"\xff" * (width - 1) + b"\x7f",
                bytes(width),
            ):
                yield data[:position] + value + data[position + width :]


@pytest.mark.parametrize(("bits", "little_endian"), KINDS)
def test_extreme_numbers_anywhere_take_little_memory(bits: int, little_endian: bool) -> None:
    tracemalloc.start()
    try:
        for damaged in extremes(whole(bits, little_endian)):
            with suppress(MalformedElfError):
                read_elf(io.BytesIO(damaged))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[1]\0", b'{"soname": []}\0', b'{"soname": "x", "priority": "y"}', b"[" * 9999]
)
def test_a_malformed_dlopen_note_is_an_error(payload: bytes) -> None:
    with pytest.raises(MalformedElfError, match="dlopen note"):
        read_elf(io.BytesIO(Elf(notes=[payload]).content()))


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("PROGRAM_HEADERS_MAX", 3, "4 program headers"),
        ("DYNAMIC_ENTRIES_MAX", 4, "a dynamic section without its end"),
        ("NEEDED_MAX", 1, "2 entries DT_NEEDED"),
        ("STRING_BYTES_MAX", 8, "an interpreter's name of 13 bytes"),
        ("STRING_TABLE_BYTES_MAX", 50, "a string table of"),
        ("NOTE_BYTES_MAX", 20, "notes of"),
        ("DLOPEN_LIBRARIES_MAX", 0, "1 dlopen notes"),
    ],
)
def test_every_limit_is_held(monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str) -> None:
    monkeypatch.setattr(elf_file, limit, value)
    with pytest.raises(MalformedElfError, match=message):
        read_elf(io.BytesIO(whole()))


def test_a_name_outside_the_string_table_is_an_error() -> None:
    data = whole()
    first, second = struct.pack("<qq", 1, 1), struct.pack("<qq", 1, 1 + len("libx.so.1") + 1)
    damaged = data.replace(first + second, first + struct.pack("<qq", 1, 4000))
    with pytest.raises(MalformedElfError, match="outside the string table"):
        read_elf(io.BytesIO(damaged))


def test_a_relocatable_file_is_no_program() -> None:
    with pytest.raises(MalformedElfError, match="neither a program nor a library"):
        read_elf(io.BytesIO(kernel_module({"name": ["x"]})))


def test_a_section_of_a_damaged_module_is_found_or_absent_or_an_error() -> None:
    data = kernel_module({"vermagic": ["6.1"], "firmware": ["a.bin", "b.bin"]})
    assert section(data, ".modinfo") == b"vermagic=6.1\0firmware=a.bin\0firmware=b.bin\0"
    assert section(data, ".other") is None
    for length in range(len(data)):
        with suppress(MalformedElfError):
            assert section(data[:length], ".modinfo") is None
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with suppress(MalformedElfError):
            section(bytes(damaged), ".modinfo")
