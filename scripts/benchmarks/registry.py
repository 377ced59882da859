"""The benchmarks by name: a new one is one entry here and one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scripts.benchmarks import boot, delta, image, install, package_deltas, packages
from scripts.benchmarks.rows import Results
from scripts.benchmarks.workplace import Workplace


@dataclass(frozen=True)
class Benchmark:
    """``run`` measures, ``report`` makes text for a person of what it found."""

    summary: str
    run: Callable[[Workplace], Results]
    report: Callable[[Results], Iterator[str]]


BENCHMARKS = {
    "image": Benchmark("size of the image and cost of its build", image.run, image.report),
    "delta": Benchmark("bytes, requests, processor and memory of an update over a link", delta.run, delta.report),
    "formats": Benchmark(
        "slot formats: bytes on disk, of a download, of updates; seconds of a start",
        delta.run_formats,
        delta.report_formats,
    ),
    "install": Benchmark("time of a full installation, proven on the disk", install.run, install.report),
    "packages": Benchmark("cost of installing real packages, beside dpkg", packages.run, packages.report),
    "deltas": Benchmark("bytes of a real update of packages", package_deltas.run, package_deltas.report),
    "boot": Benchmark('time from "Run /init" to the real root\'s init', boot.run, boot.report),
}
