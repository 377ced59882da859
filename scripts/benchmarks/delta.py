"""How small an update is, and what it costs the device: real updates of a Debian root, everybody in one run.

Everybody fetches from the same nginx into a new file, with the old image beside it; bytes are those of all bodies that
the server sent, indexes included. Every result is compared with the new image. Two classes: whoever works from any
old content, and whoever's server file was made for this very old version.

Ours runs the device's whole installation, frozen as on the device: it also reads the target before and after. The
slot formats are compared by the same means: bytes on disk, bytes of a full download, bytes of an update.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from payload.create import BundleInput, ImageInput, create
from payload.signing_key import public_bytes
from payload.sources import FileSource
from scripts.benchmarks import delta_contenders, format_boot, pairs, table
from scripts.benchmarks.delta_contenders import ANY_SEED, CLASSES, OLD_KNOWN, DeltaContender
from scripts.benchmarks.delta_place import DeltaPlace
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost
from scripts.benchmarks.pairs import FILE_SYSTEMS, Pair
from scripts.benchmarks.rows import OURS, Results, Row, Target, host_rows, target_rows
from scripts.benchmarks.workplace import Workplace
from scripts.virtual.cache import cached, file_digest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
COMPATIBLE, KERNEL = "unbrick-bench", "6.1.0-1-amd64"
SLOT_FORMAT = "ext4-read-only"
CHECKOUT = Path(__file__).parents[2]
MADE_BY = ("create.py", "create_delta.py", "similarity.py", "delta.py", "manifest.py")
MEASURES = ("bytes", "requests", "processor_seconds", "seconds", "resident_bytes")
TARGETS = tuple(
    target
    for name in pairs.NAMES
    for target in (
        Target(f"{name}_{ANY_SEED}_bytes", 0.95, "zsync -z"),
        Target(f"{name}_{ANY_SEED}_processor_seconds", 0.25, "zsync -z"),
        Target(f"{name}_{ANY_SEED}_bytes_casync", 1 / 2.3, "casync"),
        Target(f"{name}_{OLD_KNOWN}_bytes", 0.9, "xdelta3"),
        Target(f"{name}_{OLD_KNOWN}_resident_bytes", 24e6),
        Target(f"{name}_{OLD_KNOWN}_bytes_casync", 1 / 5, "casync"),
    )
)


def run(place: Workplace) -> Results:
    """Everybody on every pair, with the slot format that ours recommends."""
    work = _work(place)
    rows = host_rows()
    for name in pairs.NAMES:
        pair = _pair(place, name)
        _stage(place, work, pair, SLOT_FORMAT)
        for contender in delta_contenders.ALL:
            rows += _attempt(place, work, contender, pair, SLOT_FORMAT)
    return Results([*rows, *target_rows(Results(rows), TARGETS)])


def run_formats(place: Workplace) -> Results:
    """Ours on the rebuilt pair, and starts of the virtual device, with every slot format."""
    work = _work(place)
    rows = host_rows()
    pair = _pair(place, pairs.REBUILT)
    for slot_format in FILE_SYSTEMS:
        _stage(place, work, pair, slot_format)
        rows += _format_rows(work, pair, slot_format)
        for contender in delta_contenders.ALL:
            if contender.name.startswith(OURS):
                rows += _attempt(place, work, contender, pair, slot_format)
    return Results([*rows, *format_boot.rows(place)])


def _work(place: Workplace) -> DeltaPlace:
    place.say("peers: a private Debian with casync, zchunk, zsync, xdelta3, zstd, nginx")
    return DeltaPlace(place.cache / "delta", place.folder / "delta")


def _pair(place: Workplace, name: str) -> Pair:
    place.say(f"{name}: two Debian roots")
    return pairs.pair(name, place.cache)


def _stage(place: Workplace, work: DeltaPlace, pair: Pair, slot_format: str) -> None:
    """Put the old and the new image, and our two bundles of them, where the contenders look. Raises: SetupError."""
    place.say(f"{pair.name}: {slot_format}: images, and bundles of them")
    images = {version: pair.image(version, slot_format) for version in ("before", "after")}

    def make(folder: Path) -> None:
        old = folder / "before.ubk"
        _bundle(images["before"], 1, old, FILE_SYSTEMS[slot_format])
        _bundle(images["after"], 2, folder / "new.ubk", FILE_SYSTEMS[slot_format], old)

    recipe = {
        "images": [image.parent.name for image in images.values()],
        "made by": {name: file_digest(CHECKOUT / "payload" / name) for name in MADE_BY},
    }
    made = cached(place.cache / "delta", f"pair-bundles-{pair.name}-{slot_format}", recipe, make)
    for version, image in images.items():
        shutil.copyfile(image, work.work / f"{version}.img")
    shutil.copyfile(made / "before.ubk", work.work / "before.ubk")
    shutil.copyfile(made / "new.ubk", work.work / "server/new.ubk")


def _bundle(image: Path, version: int, output: Path, filesystem: str, *old: Path) -> None:
    images = (ImageInput(image, filesystem),)
    create(
        BundleInput(COMPATIBLE, version, str(version), KERNEL, images, units=bool(old), old_versions=old), KEY, output
    )


def _format_rows(work: DeltaPlace, pair: Pair, slot_format: str) -> list[Row]:
    prefix = f"{pair.name}_{slot_format}"
    source = FileSource(str(work.work / "before.ubk"), "before")
    plain_bytes = source.size
    source.close()
    return [
        Row(OURS, f"{prefix}_image_bytes", pair.image("after", slot_format).stat().st_size, "B"),
        Row(OURS, f"{prefix}_plain_bytes", plain_bytes, "B"),
    ]


def _attempt(place: Workplace, work: DeltaPlace, contender: DeltaContender, pair: Pair, slot_format: str) -> list[Row]:
    try:
        cost, answers = _update(work, contender)
    except BenchmarkError as error:
        place.failures[f"{contender.name} ({pair.name}, {slot_format})"] = str(error)
        place.say(f"{contender.name}: FAILED: {error}")
        return []
    place.say(f"{contender.name}: {sum(answers) / 1e6:.2f} MB, {cost.processor_seconds:.2f} s of processor time")
    return list(_rows(contender, pair, slot_format, cost, answers))


def _update(work: DeltaPlace, contender: DeltaContender) -> tuple[Cost, list[int]]:
    """One update. Raises: BenchmarkError when the result is not the new image."""
    shutil.rmtree(work.work / "client")
    (work.work / "client").mkdir()
    if contender.prepare:
        work.prepare(contender.prepare)
    with work.web_server() as port:
        cost = work.measured(contender.client.format(port=port, key=public_bytes(KEY).hex()))
    if not filecmp.cmp(work.work / "client/out", work.work / "after.img", shallow=False):
        raise BenchmarkError("what it made is not the new image")
    for path in (work.work / "client").iterdir():
        os.truncate(path, 0)
    return cost, work.answers()


def _rows(contender: DeltaContender, pair: Pair, slot_format: str, cost: Cost, answers: list[int]) -> Iterator[Row]:
    who = OURS if contender.name.startswith(OURS) else contender.name
    for group in contender.classes:
        prefix = f"{pair.name}_{group}" if slot_format == SLOT_FORMAT else f"{pair.name}_{slot_format}_{group}"
        yield Row(who, f"{prefix}_bytes", sum(answers), "B")
        if who in (OURS, "casync"):
            yield Row(who, f"{prefix}_bytes_casync", sum(answers), "B")
        yield Row(who, f"{prefix}_requests", len(answers), "1")
        yield Row(who, f"{prefix}_processor_seconds", cost.processor_seconds, "s")
        yield Row(who, f"{prefix}_seconds", cost.wall_seconds, "s")
        yield Row(who, f"{prefix}_resident_bytes", cost.resident_bytes, "B")


def report(results: Results) -> Iterator[str]:
    headings = ("bytes", "requests", "processor", "wall clock", "memory")
    for name in pairs.NAMES:
        for group, title in CLASSES.items():
            metrics = [f"{name}_{group}_{measure}" for measure in MEASURES]
            columns = [*zip(metrics, headings, strict=True)]
            columns.insert(1, (metrics[0], "×"))
            theirs = [row for row in results.rows if row.metric in metrics]
            yield f"{name}: {title} (slot format {SLOT_FORMAT}; bytes incl. index)"
            yield from table.table(Results(theirs), columns)
            yield ""
    yield from table.verdicts(results, TARGETS)
    yield table.host_line(results)


def report_formats(results: Results) -> Iterator[str]:
    name = pairs.REBUILT
    yield f"{name}: slot formats, ours"
    yield f"{'':16}{'on disk':>14}{'full download':>15}{'any seed':>12}{'old known':>12}{'start':>9}"
    for slot_format in FILE_SYSTEMS:
        delta = name if slot_format == SLOT_FORMAT else f"{name}_{slot_format}"
        metrics = (
            f"{name}_{slot_format}_image_bytes",
            f"{name}_{slot_format}_plain_bytes",
            f"{delta}_{ANY_SEED}_bytes",
            f"{delta}_{OLD_KNOWN}_bytes",
        )
        cells = [table.shown(results.value(OURS, metric), "B") for metric in metrics]
        start = table.shown(results.value(OURS, f"{slot_format}_start_seconds"), "s")
        yield f"{slot_format:16}{cells[0]:>14}{cells[1]:>15}{cells[2]:>12}{cells[3]:>12}{start:>9}"
