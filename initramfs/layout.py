"""What must hold between the regions of a device, and between other keys of its configuration.

A region that shares a byte with another is how a journal write destroys an image, so the build
refuses it; the device itself knows only addresses and cannot notice. Pure: looks at the value only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from payload.bundle import TABLES_BYTES_MAX, header_length
from payload.table import ENTRY, FRAME_BYTES_DEFAULT, frame_count

if TYPE_CHECKING:
    from initramfs.config import Config, Region, Slot

REGION_ALIGNMENT_BYTES = 4096
SLOTS_MAX = 2
PARTITION_TABLE_BYTES = 34 * 512  # protective MBR, GPT header and 128 entries: UEFI 2.10 §5.3
MANIFEST_BYTES_USUAL = 1024  # with one signature
JOURNAL_REGION_BYTES_MIN = 64 * 1024
JOURNAL_REGION_BYTES_MAX = 64 * 1024 * 1024


def check_layout(config: Config) -> None:
    """Every rule that spans keys.

    Raises:
        ConfigError: at the key that breaks the rule.
    """
    regions = list(named_regions(config))
    for key, region in regions:
        _check_alignment(config, key, region)
    _check_overlap(config, regions)
    _check_journal(config)
    _check_slots(config)
    _check_sources(config)
    _check_https(config)


def named_regions(config: Config) -> Iterator[tuple[str, Region]]:
    """Every region with the key it stands at."""
    for index, region in enumerate(config.journal.regions):
        yield f"journal.regions.{index}", region
    yield "payload.region", config.payload.region
    if config.payload.spare:
        yield "payload.spare", config.payload.spare
    for slot_class, slots in config.slot.items():
        for number, slot in slots.items():
            yield f"slot.{slot_class}.{number}.region", slot.region
            for index, region in enumerate(slot.headers):
                yield f"slot.{slot_class}.{number}.headers.{index}", region
    yield "data.region", config.data.region


def _check_alignment(config: Config, key: str, region: Region) -> None:
    for name, value in (("offset", region.offset), ("size", region.size)):
        if value % REGION_ALIGNMENT_BYTES:
            near = value - value % REGION_ALIGNMENT_BYTES
            raise config.source.error(
                f"{key}.{name}",
                f"is {value}; must be a multiple of {REGION_ALIGNMENT_BYTES} bytes",
                f"The nearest are {near} and {near + REGION_ALIGNMENT_BYTES}.",
            )
    if region.offset < PARTITION_TABLE_BYTES:
        raise config.source.error(
            f"{key}.offset",
            f"is {region.offset}; the first {PARTITION_TABLE_BYTES} bytes are the partition table",
            "Start at 1048576 (1 MiB), where the first partition usually starts.",
        )


def _check_overlap(config: Config, regions: list[tuple[str, Region]]) -> None:
    ordered = sorted(regions, key=lambda item: item[1].offset)
    for (key, region), (next_key, next_region) in pairwise(ordered):
        if next_region.offset < region.end:
            raise config.source.error(
                next_key,
                f"starts at {next_region.offset}, inside {key} (bytes {region.offset} to {region.end})",
                f"Move it to {region.end} or beyond, or make {key} smaller.",
            )


def _check_journal(config: Config) -> None:
    regions = config.journal.regions
    for index, region in enumerate(regions):
        if not JOURNAL_REGION_BYTES_MIN <= region.size <= JOURNAL_REGION_BYTES_MAX:
            raise config.source.error(
                f"journal.regions.{index}.size",
                f"is {region.size}; must be {JOURNAL_REGION_BYTES_MIN} to {JOURNAL_REGION_BYTES_MAX} bytes",
                "1048576 (1 MiB) is the usual size.",
            )
    for index, (before, after) in enumerate(pairwise(regions)):
        if after.offset <= before.offset:
            raise config.source.error(
                f"journal.regions.{index + 1}",
                f"starts at {after.offset}, before copy {index} at {before.offset}",
                "List the copies in the order they have on the disk: copy 0 is written first.",
            )


def _check_slots(config: Config) -> None:
    if "rootfs" not in config.slot:
        raise config.source.error("slot", "has no rootfs", "Add [slot.rootfs.0] with region and headers.")
    for slot_class, slots in config.slot.items():
        for index, number in enumerate(sorted(slots)):
            if number != str(index) or index >= SLOTS_MAX:
                raise config.source.error(
                    f"slot.{slot_class}.{number}",
                    f"slots are numbered from 0 to {SLOTS_MAX - 1}",
                    f"Name one slot [slot.{slot_class}.0], a second one [slot.{slot_class}.1].",
                )
            _check_headers(config, f"slot.{slot_class}.{number}", slots[number])


def _check_headers(config: Config, key: str, slot: Slot) -> None:
    """An image that fills the slot has a header, most of it the digests of its frames: docs/SPEC.md, "Frame table"."""
    tables = min(frame_count(slot.region.size, FRAME_BYTES_DEFAULT) * ENTRY.size, TABLES_BYTES_MAX)
    needed = header_length(MANIFEST_BYTES_USUAL, tables)
    for index, region in enumerate(slot.headers):
        if region.size < needed:
            raise config.source.error(
                f"{key}.headers.{index}.size",
                f"is {region.size}; the header of an image that fills the slot's {slot.region.size} bytes is longer",
                f"{needed} bytes hold it; several images and a chain of roots want more.",
            )


def _check_sources(config: Config) -> None:
    if bool(config.sysroot.packages) == bool(config.sysroot.path):
        raise config.source.error(
            "sysroot",
            'needs packages = [...] or path = "dir", and not both',
            "Packages are fetched and unpacked without installing; a path names an unpacked root.",
        )
    if config.kernel.package and config.kernel.path:
        raise config.source.error("kernel", "has both package and path", "Keep one of them.")
    for key, modules in _modules(config).items():
        if modules and not (config.kernel.package or config.kernel.path):
            raise config.source.error(
                "kernel",
                f"is needed: {key} asks for {modules[0]}",
                'Add [kernel] with package = "linux-image-amd64", or path = a folder that holds lib/modules.',
            )
    if config.watchdog and config.watchdog.parameters and not config.watchdog.module:
        hint = "Name the driver in watchdog.module; one that is built into the kernel has them on its command line."
        raise config.source.error("watchdog.parameters", "have no use: watchdog.module is not set", hint)


def _modules(config: Config) -> dict[str, tuple[str, ...]]:
    """The kernel modules that are asked for, by the key that does."""
    watchdog, network = config.watchdog, config.network
    return {
        "modules.boot": config.modules.boot,
        "modules.recovery": config.modules.recovery,
        "watchdog.module": (watchdog.module,) if watchdog and watchdog.module else (),
        "network.modules": network.modules if network else (),
    }


def _check_https(config: Config) -> None:
    network = config.network
    if network and network.https and network.ca is None:
        hint = "Name a PEM file with the certificates that your servers' chains end in: the image has no others."
        raise config.source.error("network.ca", "missing: network.https is true", hint)
    if network and network.ca is not None and not network.https:
        raise config.source.error("network.ca", "has no use: network.https is not true", "Set network.https = true.")
