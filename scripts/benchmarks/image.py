"""How large an image is, and what building it costs.

Everybody builds twice, taking turns; times are the medians of the two. The peers keep nothing between builds,
so all of theirs are cold ones. We are built three times: with nothing but the downloaded packages in our
cache (cold), and twice with what that left behind (warm).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from initramfs.compression import DamagedImage
from initramfs.newc import read
from scripts.benchmarks import module_set, sizes, table
from scripts.benchmarks.contenders import Ours
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost
from scripts.benchmarks.rows import OURS, Results, Row, Target, host_rows, target_rows
from scripts.benchmarks.workplace import Workplace

ROUNDS = 2
TARGETS = (
    Target("zstd_bytes_without_modules", 3.8e6),
    Target("zstd_bytes", 5.3e6),
    Target("build_seconds", 2.0),
)
SIZE_COLUMNS = (
    ("files", "files"),
    ("modules", "modules"),
    ("raw_bytes", "raw"),
    ("zstd_bytes", "zstd"),
    ("xz_bytes", "xz"),
    ("zstd_bytes_without_modules", "no modules: zstd"),
    ("zstd_bytes_without_modules", "×"),
    ("xz_bytes_without_modules", "xz"),
    ("zstd_bytes_with_common_modules", "common modules: zstd"),
    ("zstd_bytes_with_common_modules", "×"),
)
BUILD_COLUMNS = (
    ("build_seconds", "build"),
    ("build_seconds", "×"),
    ("build_processor_seconds", "processor"),
    ("build_resident_bytes", "memory"),
    ("build_cold_seconds", "cold build"),
    ("build_cold_processor_seconds", "processor"),
    ("build_cold_resident_bytes", "memory"),
    ("builds_identical", "identical"),
)
PACKED = (("", "zstd"), ("", "xz"), ("_without_modules", "zstd"), ("_without_modules", "xz"),
          ("_with_common_modules", "zstd"))  # fmt: skip


@dataclass
class Built:
    """The builds of one contender so far."""

    costs: list[Cost] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    cold: Cost | None = None


def run(place: Workplace) -> Results:
    """Build everybody's image, then weigh it."""
    built: dict[str, Built] = defaultdict(Built)
    rows: list[Row] = host_rows()

    def build(name: str) -> None:
        contender = place.contenders[name]
        if isinstance(contender, Ours) and not built[name].costs:
            built[name].cold = build_cold(place, contender)
        cost = contender.build(place.image_path(name))
        place.keep_recipe(name)
        place.say(f"{name}: built in {cost.wall_seconds:.2f} s")
        built[name].costs.append(cost)
        built[name].digests.add(hashlib.sha256(place.image_path(name).read_bytes()).hexdigest())

    def weigh(name: str) -> None:
        place.say(f"{name}: weighing")
        rows.extend([*size_rows(place, name), *cost_rows(name, built[name])])

    for _round in range(ROUNDS):
        for name in place.contenders:
            place.attempt(name, build)
    for name in place.contenders:
        place.attempt(name, weigh)
    return Results([*rows, *target_rows(Results(rows), TARGETS)])


def build_cold(place: Workplace, ours: Ours) -> Cost:
    """Our build with only the packages there. Raises: BenchmarkError."""
    ours.build(place.image_path(OURS))  # whatever has to be downloaded is now
    ours.forget()
    cost = ours.build(place.image_path(OURS))
    place.say(f"{OURS}: built cold in {cost.wall_seconds:.2f} s")
    return cost


def size_rows(place: Workplace, name: str) -> list[Row]:
    """What is in the image at its place, packed in the same ways for all. Raises: BenchmarkError."""
    try:
        members = sizes.clean(read(place.image_path(name).read_bytes()).members)
    except DamagedImage as error:
        raise BenchmarkError(f"its image cannot be read: {error}") from error
    archives = {
        part: sizes.archive(chosen)
        for part, chosen in sizes.parts(members, module_set.members(place.kernel)).items()
    }  # fmt: skip
    packed = sizes.PackedSizes(place.cache / "bench" / "sizes.json").of({key: archives[key[0]] for key in PACKED})
    return [
        Row(name, "files", len(members), "1"),
        Row(name, "modules", sum(map(sizes.is_module, members)), "1"),
        *(Row(name, f"raw_bytes{part}", len(data), "B") for part, data in archives.items()),
        *(Row(name, f"{kind}_bytes{part}", size, "B") for (part, kind), size in packed.items()),
        Row(name, "image_bytes", place.image_path(name).stat().st_size, "B"),
    ]


def cost_rows(name: str, built: Built) -> list[Row]:
    """What the builds cost, and whether their bytes were the same. A peer's builds are all cold."""
    cold = [built.cold] if built.cold else built.costs
    return [
        *_cost_rows(name, "build", built.costs),
        *_cost_rows(name, "build_cold", cold),
        Row(name, "builds_identical", int(len(built.digests) == 1), "1"),
    ]


def _cost_rows(name: str, metric: str, costs: Sequence[Cost]) -> list[Row]:
    return [
        Row(name, f"{metric}_seconds", median(cost.wall_seconds for cost in costs), "s"),
        Row(name, f"{metric}_processor_seconds", median(cost.processor_seconds for cost in costs), "s"),
        Row(name, f"{metric}_resident_bytes", max(cost.resident_bytes for cost in costs), "B"),
    ]


def report(results: Results) -> Iterator[str]:
    yield "image: what is in it (MB = 1,000,000 bytes; × ours; common modules: the same set for all)"
    yield from table.table(results, SIZE_COLUMNS)
    yield ""
    yield "build: wall clock, processor time, memory of the largest process, two builds byte for byte the same"
    yield from table.table(results, BUILD_COLUMNS, flags=("builds_identical",))
    yield from table.verdicts(results, TARGETS)
    yield table.host_line(results)
