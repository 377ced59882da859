"""The fuzz targets of packages: ar, tar, compression, whole packages, control data, relations, versions."""

from __future__ import annotations

import gzip
import lzma
import random
from contextlib import suppress
from itertools import islice

import zstandard

from packagemanager import ar, control, plan_file, tar, version
from packagemanager.deb import Deb
from packagemanager.entry import FILE, HARD_LINK, KINDS, Entry
from packagemanager.errors import ArchiveError
from packagemanager.operation import ACTS, Operation
from payload.digest import digest
from payload.streams import OUTPUT_BYTES_MAX, decompress
from tests.fuzz.bundle_mutations import mutate_bytes
from tests.fuzz.target import Target
from tests.unit.deb_samples import CONTROL, EVERY_KIND, ar_of, control_tar, deb_of, member, tar_of
from tests.unit.payload_samples import BytesReader

BLOCK_BYTES = 512
BOUNDS = tar.Bounds(bytes_max=1 << 20, entries_max=100)
COMPRESSIONS = ("gzip", "xz", "zstd")
PIECES_MAX = 64
SMALL_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]


def check_ar(data: bytes) -> None:
    try:
        found = ar.members(BytesReader(data))
    except ArchiveError:
        return
    end = len(ar.MAGIC)
    for each in found:
        assert each.offset >= end + ar.HEADER_BYTES and "/" not in each.name
        end = each.offset + each.size
    assert end <= len(data) and len(found) <= ar.MEMBERS_MAX


def check_tar(data: bytes) -> None:
    """Read in pieces of two sizes, it is the same; and nothing in it leads out of it."""
    whole, pieces = entries(data, len(data) or 1), entries(data, 300)
    assert whole == pieces
    if whole is None:
        return
    files = set()
    paths = {entry.path for entry, _ in whole}
    assert len(paths) == len(whole) <= 100 and sum(len(content) for _, content in whole) <= len(data)
    links = {entry.path for entry, _ in whole if entry.kind not in ("directory",)}
    for entry, content in whole:
        assert entry.kind in KINDS and 0 <= entry.mode <= 0o7777 and len(content) == entry.size
        assert entry.path and entry.path[0] != "/" and not {"", ".", ".."} & set(entry.path.split("/"))
        above = entry.path
        while above := above.rpartition("/")[0]:
            assert above not in links
        assert entry.kind != HARD_LINK or entry.target in files
        files |= {entry.path} if entry.kind == FILE else set()


def entries(data: bytes, piece_bytes: int) -> list[tuple[Entry, bytes]] | None:
    pieces = (data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes))
    try:
        return [(entry, b"".join(content)) for entry, content in tar.entries(pieces, BOUNDS)]
    except ArchiveError:
        return None


def check_stream(data: bytes) -> None:
    """The first byte says how it is compressed; not more than a few pieces are asked for."""
    with suppress(ValueError):
        for piece in islice(decompress(COMPRESSIONS[data[0] % 3] if data else "xz", [data[1:]]), PIECES_MAX):
            assert 0 < len(piece) <= max(OUTPUT_BYTES_MAX, 4 << 20)


def check_deb(data: bytes) -> None:
    contents: dict[str, bytes] = {}
    try:
        package = Deb(BytesReader(data), bounds=BOUNDS)
        found = package.unpack(lambda entry, pieces: contents.update({entry.path: b"".join(pieces)}))
    except ArchiveError:
        return
    assert control.identity(control.paragraph(found.control)) and not [name for name in found.files if "/" in name]
    for entry in found.entries:
        assert entry.digest == (digest(contents[entry.path]) if entry.kind == FILE else b"")


def check_control(data: bytes) -> None:
    try:
        found = list(control.paragraphs(data))
    except ArchiveError:
        return
    written = b"\n".join(each.encode() for each in found)
    assert list(control.paragraphs(written)) == found
    assert sorted(written.replace(b"\n", b"")) == sorted(data.replace(b"\n", b""))
    for each in found:
        for name in each.names():
            check_relations(each.get(name).encode("utf-8", "surrogateescape"))


def check_relations(data: bytes) -> None:
    try:
        groups = control.parse_relations(data.decode("utf-8", "surrogateescape"))
    except ArchiveError:
        return
    written = ", ".join(" | ".join(map(str, group)) for group in groups)
    assert control.parse_relations(written) == groups
    for relation in (each for group in groups for each in group):
        assert "/" not in relation.name and relation.admits(relation.version or "1") != (
            relation.operator in ("<<", ">>")
        )


def check_versions(data: bytes) -> None:
    texts = [part.decode("latin-1") for part in data.split(b"\n")[:3]]
    try:
        keys = [version.key(text) for text in texts]
    except ArchiveError:
        return
    for one, first in zip(texts, keys, strict=True):
        for other, second in zip(texts, keys, strict=True):
            assert version.compare(one, other) == (first > second) - (first < second) == -version.compare(other, one)
        assert version.compare(one + "~", one) == -1 or one[-1] in "-:" or len(one) == version.VERSION_CHARACTERS_MAX


def mutate_tar(data: bytes, chance: random.Random) -> bytes:
    """A field of a header, with its checksum made right."""
    blocks = [at for at in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES) if data[at + 257 : at + 262] == b"ustar"]
    if not blocks or chance.random() < 0.2:
        return mutate_bytes(data, chance)
    at = chance.choice(blocks)
    header = bytearray(data[at : at + BLOCK_BYTES])
    start, length = chance.choice(
        ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155))
    )
    field = mutate_bytes(bytes(header[start : start + length]), chance)[:length].ljust(length, b"\0")
    header[start : start + length] = (
        field if length > 1 else chance.choice((b"0", b"1", b"2", b"5", b"L", b"K", b"x", b"S"))
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + header + data[at + BLOCK_BYTES :]


def check_plan(data: bytes) -> None:
    """A plan or a phase, with the digest that it asks for: else no fuzzer would ever come past it."""
    for raw in (data, sealed(data)):
        with suppress(ValueError):
            plan_file.decode_phase(raw)
        with suppress(ValueError):
            plan = plan_file.decode_plan(raw)
            again = plan_file.decode_plan(plan_file.encode_plan(plan))
            assert again.inodes == plan.inodes and again.facts == plan.facts
            assert [one.path for one in again.operations] == [one.path for one in plan.operations]


def sealed(data: bytes) -> bytes:
    """With its digest behind it, as `plan_file` has it."""
    return data + digest(data).hex().encode() + b"\n"


def plan_seeds() -> list[bytes]:
    operations = [Operation(act, f"usr/{act}\n", staged=3, kept=True, mode=0o755, mtime=-1) for act in ACTS]
    plan = plan_file.encode_plan(plan_file.Plan(operations, range(len(ACTS)), {"serial": "7", "changes": "a\nb"}))
    phase = plan_file.encode_phase("forward", digest(plan))
    return [raw[: raw.rindex(b"\n", 0, -1) + 1] for raw in (plan, phase)]


def tar_seeds() -> list[bytes]:
    long = member("x/" * 80 + "y", "link", linkname="z" * 150)
    pax = member("a", content=b"hello", pax_headers={"mtime": "1234.5", "path": "b" * 120, "uid": "70000"})
    return [tar_of(EVERY_KIND)[:7680], tar_of([long])[:5120], tar_of([pax], 2)[:3072], tar_of([member("a")])[:1536]]


def stream_seeds() -> list[bytes]:
    content = b"hello" * 100 + bytes(5000)
    return [b"\0" + gzip.compress(content), b"\1" + lzma.compress(content, filters=SMALL_XZ),
            b"\2" + zstandard.ZstdCompressor(write_checksum=True).compress(content)]  # fmt: skip


def deb_seeds() -> list[bytes]:
    small = tar_of([member("./", "directory"), member("./a", content=b"hello"), member("./b", "link", linkname="a")])
    plain = [("debian-binary", b"2.0\n"), ("control.tar", control_tar()[:2048]), ("data.tar", small[:2560])]
    return [ar_of(plain), deb_of(small, compression=".gz")]


def control_seeds() -> list[bytes]:
    return [
        CONTROL,
        CONTROL + b"\n" + CONTROL,
        b"A: b\nConffiles:\n /a 1\n /b 2\nDepends: a (>= 1), b | c:any (<< 2)\n",
    ]


RELATIONS = [b"libc6 (>= 2.36), awk | mawk:any (<< 1.3-4~), perl:amd64 (= 5.36.0-7)", b"a,b|c,", b"x (<< 1:2~-3+b1)"]
VERSIONS = [b"1:2.3-4\n1:2.3-4+b1\n0~~", b"12.4+deb12u15\n12.4\n1.0-0", b"0\n00\n0-0"]
TARGETS = {
    "plan": Target(check_plan, plan_seeds, mutate_bytes, 1_000_000),
    "ar": Target(check_ar, deb_seeds, mutate_bytes, 1_000_000),
    "tar": Target(check_tar, tar_seeds, mutate_tar, 500_000),
    "stream": Target(check_stream, stream_seeds, mutate_bytes, 1_000_000),
    "deb": Target(check_deb, deb_seeds, mutate_tar, 500_000),
    "control": Target(check_control, control_seeds, mutate_bytes, 300_000),
    "relations": Target(check_relations, lambda: RELATIONS, mutate_bytes, 1_000_000),
    "versions": Target(check_versions, lambda: VERSIONS, mutate_bytes, 1_000_000),
}
