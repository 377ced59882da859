"""Writing the content of a transaction: which parts, where they lie, and the index in front. Bytes: docs/SPEC.md.

For a package that some known state has in another version there is a delta, if it is smaller than the package; for
one that some state lacks, or has in a version that nobody has any more, there is the package. Several states
share whatever is the same for them. A *full* transaction has every wanted package: any device can take it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from packagemanager.database import state_of
from packagemanager.errors import TransactionError
from packagemanager.master.delta import can_be_delta, can_be_read, make_recipe, packed_recipe
from packagemanager.master.errors import RequestError
from packagemanager.master.package import Package
from packagemanager.master.unpacked import Unpacked
from packagemanager.recipe import Recipe
from packagemanager.transaction_index import BASES_MAX, DEB, DELTA, START, Index, Part, decode_index, encode_index
from payload.digest import DIGEST_BYTES, digest, hasher

PARTS_ALIGNMENT = 4096
LARGEST = (1 << 61) + 1  # an offset of the most digits: what the index may need
COPY_BYTES = 1 << 20
THREADS_MAX = 8
# A delta must be this much smaller than the package to be worth its trouble on the device.
WORTH_IT = 0.9

Installed = dict[str, str]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Order:
    """What to write: the wanted packages in the order to configure and to unpack, and what the devices have.

    ``removals`` are names in the order to remove. ``old_package`` finds what a device has, if anybody still has it.
    """

    architecture: str
    configure: Sequence[Package]
    unpack: Sequence[Package]
    removals: Sequence[str]
    states: Sequence[Installed]
    old_package: Callable[[str, str], Package | None]
    full: bool = False
    deltas: bool = True
    expendable: Sequence[str] = ()
    purge: bool = False


@dataclass
class Written:
    """What a transaction consists of. ``needed`` has, for every state, the bytes that a device in it reads."""

    bytes: int = 0
    whole: list[str] = field(default_factory=list)
    deltas: list[str] = field(default_factory=list)
    deb_bytes: int = 0
    needed: dict[str, int] = field(default_factory=dict)


def write_content(order: Order, output: BinaryIO, progress: Progress) -> Written:
    """Write the content of a transaction to ``output``, from where it stands.

    Raises:
        RepositoryError: a package cannot be had or is damaged.
        RequestError: there is more in it than a device reads.
    """
    with tempfile.TemporaryDirectory() as folder:
        writer = _Writer(order, Path(folder), progress)
        return writer.write(output)


class _Store:
    """What lies behind the index, with offsets from its start. Equal bytes are kept once."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self._known: dict[bytes, int] = {}

    def add(self, content: bytes) -> int:
        name = digest(content)
        if name not in self._known:
            self._known[name] = self.size
            self.file.write(content)
            self.size += len(content)
        return self._known[name]

    def add_file(self, path: Path) -> tuple[int, bytes]:
        """Offset and digest."""
        state = hasher()
        offset = self.size
        with path.open("rb") as source:
            while piece := source.read(COPY_BYTES):
                state.update(piece)
                self.file.write(piece)
                self.size += len(piece)
        return offset, state.digest()

    def mark(self) -> tuple[int, dict[bytes, int]]:
        return self.size, dict(self._known)

    def back(self, mark: tuple[int, dict[bytes, int]]) -> None:
        """Forget what was added since ``mark``."""
        self.size, self._known = mark
        self.file.seek(self.size)
        self.file.truncate()


class _Writer:
    def __init__(self, order: Order, folder: Path, progress: Progress) -> None:
        self._order = order
        self._folder = folder
        self._progress = progress
        self._written = Written(needed={state_of(state).hex(): 0 for state in order.states})
        self._debs: list[tuple[Package, int, int, bytes]] = []
        self._recipes: list[tuple[Package, tuple[str, ...], Recipe]] = []

    def write(self, output: BinaryIO) -> Written:
        with (self._folder / "parts").open("w+b") as parts, ThreadPoolExecutor(_threads()) as pool:
            store = _Store(parts)
            for done, package in enumerate(self._order.unpack, 1):
                self._add(package, store, pool)
                self._progress("transaction", done, len(self._order.unpack))
            start = self._parts_start()
            places = []
            for package, bases, recipe in self._recipes:
                stored = packed_recipe(recipe, start)
                places.append(Part(package.key, DELTA, start + store.add(stored), len(stored), digest(stored), bases))
            index = encode_index(self._index([*places, *self._deb_parts(start)]))
            assert len(index) <= start, "the index is longer than was foreseen"
            _check_index(index, start + store.size)
            output.write(index.ljust(start, b"\0"))
            parts.seek(0)
            shutil.copyfileobj(parts, output, COPY_BYTES)
            self._written.bytes = start + store.size
        return self._written

    def _parts_start(self) -> int:
        """Where parts may begin, whatever the numbers in the index will be."""
        nothing = bytes(DIGEST_BYTES)
        deltas = [Part(package.key, DELTA, LARGEST, LARGEST, nothing, bases) for package, bases, _ in self._recipes]
        length = len(encode_index(self._index([*deltas, *self._deb_parts(LARGEST)])))
        return -(-length // PARTS_ALIGNMENT) * PARTS_ALIGNMENT

    def _deb_parts(self, start: int) -> list[Part]:
        return [Part(package.key, DEB, start + offset, size, name) for package, offset, size, name in self._debs]

    def _index(self, parts: list[Part]) -> Index:
        order = self._order
        places = {package.key: place for place, package in enumerate(order.configure)}
        wanted = {package.key: package.version for package in order.configure}
        unpack = tuple(places[package.key] for package in order.unpack)
        states = tuple(sorted({state_of(state) for state in order.states}))
        return Index(
            order.architecture, wanted, unpack, tuple(order.removals), states, tuple(parts),
            expendable=tuple(order.expendable), purge=order.purge,
        )  # fmt: skip

    def _add(self, package: Package, store: _Store, pool: ThreadPoolExecutor) -> None:
        """The parts of one package that the states need."""
        order = self._order
        lacking = [state for state in order.states if state.get(package.key) != package.version]
        served = self._add_delta(package, lacking, store, pool) if lacking and order.deltas else set()
        rest = [state for state in lacking if state.get(package.key) not in served]
        if rest or order.full:
            assert package.fetch is not None
            path = package.fetch()
            offset, name = store.add_file(path)
            size = path.stat().st_size
            self._debs.append((package, offset, size, name))
            self._written.whole.append(str(package))
            for state in rest:
                self._written.needed[state_of(state).hex()] += size
        if lacking:
            self._written.deb_bytes += package.size

    def _add_delta(
        self, package: Package, lacking: list[Installed], store: _Store, pool: ThreadPoolExecutor
    ) -> set[str | None]:
        """A delta for the versions that states have, without those for which it is not worth it. Those it is for."""
        versions = sorted({state[package.key] for state in lacking if package.key in state})[:BASES_MAX]
        olds = {version: old for version in versions if (old := self._order.old_package(package.key, version))}
        while olds:
            mark = store.mark()
            recipe = self._recipe(package, list(olds.values()), store, pool)
            if recipe is None:
                return set()
            packed = packed_recipe(recipe, 0)
            if not can_be_read(packed):
                store.back(mark)
                return set()
            costs = {
                version: len(packed) + sum(frame.size for frame in base.frames)
                for version, base in zip(olds, recipe.bases, strict=True)
            }
            good = {version: old for version, old in olds.items() if costs[version] < WORTH_IT * package.size}
            if good == olds:
                self._recipes.append((package, tuple(olds), recipe))
                self._written.deltas.append(str(package))
                for state in (one for one in lacking if one.get(package.key) in olds):
                    self._written.needed[state_of(state).hex()] += costs[state[package.key]]
                return set(olds)
            store.back(mark)
            olds = good
        return set()

    def _recipe(self, package: Package, olds: list[Package], store: _Store, pool: ThreadPoolExecutor) -> Recipe | None:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            new = _unpacked(package, Path(folder) / "new")
            if not can_be_delta(new):
                return None
            old = [_unpacked(one, Path(folder) / f"old-{number}") for number, one in enumerate(olds)]
            return make_recipe(new, old, store.add, pool)


def _check_index(index: bytes, content_bytes: int) -> None:
    """Read it as a device does. Raises ``RequestError``."""
    try:
        decode_index(index[START.size :], content_bytes)
    except TransactionError as error:
        advice = "Ask for fewer packages or states."
        raise RequestError(f"no device would take the transaction: {error}", advice) from error


def _unpacked(package: Package, folder: Path) -> Unpacked:
    folder.mkdir()
    assert package.fetch is not None
    return Unpacked(package.fetch(), folder)


def _threads() -> int:
    return min(os.cpu_count() or 1, THREADS_MAX)
