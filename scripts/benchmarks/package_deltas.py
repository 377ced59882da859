"""What a real update of ten packages costs on a slow link: the packages, our transaction, and deltas file by file.

The newest versions that this machine's apt knows, over the ones before them. The peers' figures are those of their
deltas alone, without control files, entries, digests or signatures, which ours has.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from packagemanager.master.emit import Order
from packagemanager.master.package import Package
from packagemanager.master.repository import APT_LISTS, apt_lists
from packagemanager.master.transaction_file import Label, create_transaction
from packagemanager.master.unpacked import Unpacked
from payload.signing_key import generate_key, load_signing_key
from scripts.benchmarks import table
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.rows import OURS, Results, Row, Target, host_rows, target_rows
from scripts.benchmarks.workplace import Workplace
from scripts.virtual import commands
from scripts.virtual.commands import SetupError

NAMES = (
    "libc6", "openssl", "libssl3", "systemd", "libsystemd0", "python3.11-minimal", "libpython3.11-minimal",
    "libpython3.11-stdlib", "perl-base", "openssh-client",
)  # fmt: skip
PACKAGES = "the packages"
TARGETS = (Target("update_bytes", 0.25, PACKAGES),)
SECONDS_MAX = 120
HINT = "apt-get install zstd xdelta3"
Command = Callable[[Path, Path, Path], list[str | Path]]  # of the old file, the new one and the delta
PEERS: dict[str, Command] = {
    "zstd --patch-from": lambda old, new, out: [
        "zstd", "-q", "-f", "--ultra", "-22", "--long=27", f"--patch-from={old}", new, "-o", out],
    "xdelta3": lambda old, new, out: ["xdelta3", "-9", "-S", "lzma", "-e", "-f", "-s", old, new, out],
}  # fmt: skip


def pairs(cache: Path) -> list[tuple[Package, Package]]:
    """New and old. Raises ``BenchmarkError`` where the machine's repositories have only one version of some."""
    lists = apt_lists(APT_LISTS, "amd64", cache)
    found = [(versions[0], versions[1]) for name in NAMES if len(versions := lists.named(name)) > 1]
    if len(found) < len(NAMES):
        raise BenchmarkError(f"apt knows two versions of {len(found)} of {len(NAMES)} packages only: apt-get update")
    return found


def run(place: Workplace) -> Results:
    """Each once: nothing here depends on the moment."""
    rows = host_rows()
    update = pairs(place.cache)
    rows.append(Row(PACKAGES, "update_bytes", sum(new.size for new, _old in update), "B"))
    with tempfile.TemporaryDirectory() as folder:
        place.say("ours: a signed transaction")
        rows += ours(update, Path(folder))

        def peer(name: str) -> None:
            place.say(f"{name}: file by file")
            rows.append(Row(name, "update_bytes", by_file(update, Path(folder), PEERS[name]), "B"))

        for name in PEERS:
            place.attempt(name, peer)
    return Results([*rows, *target_rows(Results(rows), TARGETS)])


def ours(update: list[tuple[Package, Package]], folder: Path) -> list[Row]:
    old_packages = {(old.key, old.version): old for _new, old in update}
    state = {old.key: old.version for _new, old in update}
    new = [new for new, _old in update]
    order = Order("amd64", new, new, (), [state], lambda key, version: old_packages.get((key, version)))
    generate_key(folder / "key", folder / "key.pub")
    output = folder / "update.ubk"
    started = time.process_time()
    create_transaction(order, Label("bench", 1, "1", 0, 1), [load_signing_key(folder / "key")], [], output)
    return [
        Row(OURS, "update_bytes", output.stat().st_size, "B"),
        Row(OURS, "make_processor_seconds", time.process_time() - started, "s"),
    ]


def by_file(update: list[tuple[Package, Package]], folder: Path, command: Command) -> int:
    """Bytes of the deltas of all files that changed, each against the file of the same path, or nothing.

    Raises: BenchmarkError: the program is not there, or fails.
    """
    total = 0
    for new, old in update:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            try:
                total += sum(_delta_bytes(new, old, Path(work), command))
            except SetupError as error:
                raise BenchmarkError(str(error)) from error
    return total


def _delta_bytes(new: Package, old: Package, work: Path, command: Command) -> Iterator[int]:
    after, before = _unpacked(new, work / "new"), _unpacked(old, work / "old")
    for path, entry in after.files.items():
        if path in before.files and before.files[path].digest == entry.digest:
            continue
        (work / "a").write_bytes(before.read(path, 0, before.files[path].size) if path in before.files else b"")
        (work / "b").write_bytes(after.read(path, 0, entry.size))
        commands.run(command(work / "a", work / "b", work / "out"), hint=HINT, seconds_max=SECONDS_MAX)
        yield (work / "out").stat().st_size


def _unpacked(package: Package, folder: Path) -> Unpacked:
    folder.mkdir()
    assert package.fetch is not None
    return Unpacked(package.fetch(), folder)


def report(results: Results) -> Iterator[str]:
    yield "deltas: ten packages over their older versions (× ours)"
    columns = [("update_bytes", "bytes"), ("update_bytes", "×"), ("make_processor_seconds", "to make")]
    yield from table.table(results, columns)
    yield ""
    yield from table.verdicts(results, TARGETS)
    yield table.host_line(results)
