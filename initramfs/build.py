"""The build: fetch, freeze, resolve, assemble, compress, check, replace. Each step lives in its own module.

The result depends on the configuration, the packages' content and SOURCE_DATE_EPOCH: not on the host, the
user, the umask, the folder or the clock. The running kernel is never asked, and nothing is installed.
The old image stays until the new one has been read back and found whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from initramfs import archive, config, debian, elf, image_contents, kernel_modules, network, report, self_check
from initramfs.compression import compress, settings
from initramfs.config import Config
from initramfs.errors import BudgetError, BuildError
from initramfs.frozen_init import FrozenInit, frozen_init
from initramfs.inspect import Change, differences, listing, listing_of_sidecar
from initramfs.progress import Progress
from initramfs.tree import Tree
from payload.durable import atomic_replace

CHANGES_SHOWN = 8


@dataclass(frozen=True)
class Request:
    """What the command line asks for. ``sysroot`` and ``kernel_release`` win over the configuration."""

    config: Path
    output: Path
    sysroot: Path | None = None
    kernel_release: str = ""
    cache: Path | None = None


@dataclass(frozen=True)
class Sources:
    """Unpacked folders, and the versions of the packages they were made of (empty for a given folder)."""

    sysroot: Path
    kernel: Path | None
    packages: Mapping[str, str]


@dataclass(frozen=True)
class Built:
    """A finished image. ``changes`` is None where no earlier build is known."""

    output: Path
    facts: report.ImageFacts
    tree: Tree
    changes: list[Change] | None
    before_bytes: int
    seconds: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        return {
            "output": str(self.output),
            "bytes": self.facts.size_bytes,
            "unpacked_bytes": self.facts.unpacked_bytes,
            "sha256": self.facts.sha256,
            "kernel_release": self.facts.kernel_release,
            "entries": len(self.tree),
            "by_source": report.by_source(self.tree),
            "changes": None if self.changes is None else [vars(change) for change in self.changes],
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }

    def lines(self) -> list[str]:
        """The report for a person."""
        total = sum(self.seconds.values())
        lines = [
            f"{self.output}: {self.facts.size_bytes:,} bytes {self.facts.compression} "
            f"({self.facts.unpacked_bytes:,} unpacked, {len(self.tree)} entries) in {total:.1f} s"
        ]
        lines += [f"  {size:>12,}  {source}" for source, size in report.by_source(self.tree).items()]
        if self.changes is not None:
            delta = self.facts.size_bytes - self.before_bytes
            lines.append(f"against the last build: {delta:+,} bytes, {len(self.changes)} paths differ")
            lines += [
                f"  {change.delta_bytes:>+12,}  {change.what} /{change.path}" for change in self.changes[:CHANGES_SHOWN]
            ]
        return lines


def build_image(request: Request, progress: Progress) -> Built:
    """Build ``request.output`` and its sidecar.

    Raises:
        BuildError: of the kind that says who has to act; the old image is untouched.
    """
    device = config.load(request.config)
    time_seconds = source_date_epoch(os.environ)
    cache = request.cache or debian.default_cache_dir()
    with progress.stage("sysroot"):
        sources = find_sources(request, device, cache)
    with progress.stage("freeze"):
        init = frozen_init(device, sources.sysroot, cache)
    with progress.stage("tree"):
        tree, release = assemble(request, device, sources, init)
    with progress.stage("archive"):
        plain = archive.newc(tree, time_seconds)
    with progress.stage("compress"):
        image = compressed(plain, device.image.compression, cache)
    facts = report.ImageFacts(
        len(image), len(plain), hashlib.sha256(image).hexdigest(), device.image.compression,
        time_seconds, device.compatible, release, sources.packages,
    )  # fmt: skip
    check_budget(device, facts, tree)
    with progress.stage("self-check"):
        contents = self_check.check(image, tree, time_seconds)
    before = last_build(request.output)
    changes = differences(listing_of_sidecar(before), listing(contents)) if before else None
    with progress.stage("write"):
        write(request.output, image, report.encode(report.sidecar(tree, facts, init.reasons)))
    before_bytes = before["image"]["bytes"] if before else 0
    return Built(request.output, facts, tree, changes, before_bytes, progress.seconds)


def source_date_epoch(environment: Mapping[str, str]) -> int:
    """The time every entry gets: reproducible-builds.org's SOURCE_DATE_EPOCH, or 0.

    Raises:
        BuildError: it is set to something else than seconds since 1970 that a cpio header holds.
    """
    text = environment.get("SOURCE_DATE_EPOCH", "0")
    if not text.isascii() or not text.isdigit() or int(text) > archive.TIME_SECONDS_MAX:
        raise BuildError(
            f"SOURCE_DATE_EPOCH is {text[:40]!r}",
            f"It must be whole seconds since 1970, 0 to {archive.TIME_SECONDS_MAX}, or unset.",
        )
    return int(text)


def find_sources(request: Request, device: Config, cache: Path) -> Sources:
    """Sysroot and kernel as folders: given ones as they are, packages fetched and unpacked."""
    packages: dict[str, str] = {}

    def unpacked(names: tuple[str, ...], *, with_dependencies: bool) -> Path:
        found = debian.fetch(names, device.sysroot.arch, cache, with_dependencies=with_dependencies)
        packages.update(_name_and_version(path) for path in found)
        return debian.unpack(found, cache)

    given = request.sysroot or device.sysroot.path
    if given is not None and not given.is_dir():
        raise device.source.error("sysroot.path", f"{given} is no folder", "Name an unpacked root file system.")
    sysroot = given or unpacked(device.sysroot.packages, with_dependencies=True)
    kernel = device.kernel.path
    if kernel is not None and not kernel.is_dir():
        raise device.source.error("kernel.path", f"{kernel} is no folder", "Name a folder that holds lib/modules.")
    if device.kernel.package:
        kernel = unpacked((device.kernel.package,), with_dependencies=False)
    return Sources(sysroot, kernel, packages)


def assemble(request: Request, device: Config, sources: Sources, init: FrozenInit) -> tuple[Tree, str]:
    """The tree, and the kernel release its modules belong to (empty without a kernel)."""
    boot, recovery, release = resolve_modules(request, device, sources)
    loaded = [*boot, *recovery]
    roots = [root for root in (sources.sysroot, sources.kernel) if root is not None]
    firmware = kernel_modules.firmware(
        roots, release, loaded, include=device.firmware.include, optional=device.firmware.optional
    )
    watchdog = device.watchdog
    parameters = {kernel_modules.normalised(watchdog.module): watchdog.parameters} if watchdog else {}
    wanted_programs = list(dict.fromkeys((*device.programs.include, *network.programs(device))))
    tree = image_contents.assemble(
        [
            *image_contents.places(),
            image_contents.init(init.program),
            *image_contents.programs(elf.closure(sources.sysroot, wanted_programs)),
            *image_contents.modules(boot, recovery, parameters, release),
            *image_contents.firmware(firmware, loaded),
        ]
    )
    return tree, release


def resolve_modules(
    request: Request, device: Config, sources: Sources
) -> tuple[list[kernel_modules.ModuleEntry], list[kernel_modules.ModuleEntry], str]:
    """Modules of every boot, further ones of recovery, and the release. The watchdog's is of every boot."""
    if sources.kernel is None:
        return [], [], request.kernel_release or device.kernel.release
    release = kernel_modules.find_release(sources.kernel, request.kernel_release or device.kernel.release)
    wanted = list(device.modules.boot)
    if device.watchdog and device.watchdog.module:
        wanted.append(device.watchdog.module)
    boot = kernel_modules.resolve(sources.kernel, release, wanted)
    names = [entry.name for entry in boot]
    further = [*device.modules.recovery, *(device.network.modules if device.network else ())]
    return boot, kernel_modules.resolve(sources.kernel, release, further, loaded=names), release


def compressed(plain: bytes, compression: str, cache: Path) -> bytes:
    """``plain``, compressed; the same input is compressed once. A damaged cache is found by its digest."""
    if compression == "none":
        return plain
    key = hashlib.sha256(f"{settings(compression)}\n".encode() + plain).hexdigest()
    kept = cache / "archives" / f"{key[:32]}.{compression}"
    if kept.is_file():
        stored = kept.read_bytes()
        if stored[:32] == hashlib.sha256(stored[32:]).digest():
            return stored[32:]
    image = compress(plain, compression)
    kept.parent.mkdir(parents=True, exist_ok=True)
    atomic_replace(kept, hashlib.sha256(image).digest() + image)
    return image


def check_budget(device: Config, facts: report.ImageFacts, tree: Tree) -> None:
    """Raises ``BudgetError`` where the image is larger than ``image.size-max-bytes``, naming what is large."""
    allowed = device.image.size_max_bytes
    if facts.size_bytes <= allowed:
        return
    large = ", ".join(f"/{entry.path} ({len(entry.data):,})" for entry in report.largest(tree)[:4])
    error = device.source.error("image.size-max-bytes", "")
    raise BudgetError(
        f"{error.file}:{error.line}: the image has {facts.size_bytes:,} bytes, "
        f"{facts.size_bytes - allowed:,} more than image.size-max-bytes allows",
        f"The largest, unpacked: {large}. Take something out, or raise the budget.",
        size_bytes=facts.size_bytes,
        size_max_bytes=allowed,
    )


def last_build(output: Path) -> dict[str, Any] | None:
    """The sidecar of the image that will be replaced, if there is a readable one."""
    try:
        return report.load_sidecar(report.sidecar_path(output))
    except BuildError:
        return None


def write(output: Path, image: bytes, sidecar: bytes) -> None:
    """The image first: a cut between the two leaves a sidecar that `why` sees to be of another build."""
    try:
        atomic_replace(output, image)
        atomic_replace(report.sidecar_path(output), sidecar)
    except OSError as error:
        raise BuildError(f"{output} cannot be written: {error.strerror}") from error


def _name_and_version(package: Path) -> tuple[str, str]:
    name, version, _architecture = package.name.split("_")
    return name, unquote(version)
