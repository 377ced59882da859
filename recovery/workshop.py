"""What recovery's actions work on: the slot, its header copies, the sources, the pinned key.

Opens them once per boot. Decides nothing; every header that leaves it is signed by the pinned key.
"""

from __future__ import annotations

import os

from payload import install, sources, trust
from payload.errors import PayloadError
from recovery.console import Progress, say
from recovery.disks import open_region
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Image, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from payload.bundle import Header
    from payload.manifest import Manifest
    from payload.seeded import Reuse

SLOT_CLASS = "rootfs"
TOLD_MAX = 256


class Workshop:
    """``alive`` tells PID 1 that work goes on; ``intend`` persists a record before an act."""

    def __init__(
        self, config: dict[str, Any], disk: str, alive: Callable[[], None], intend: Callable[[Record], None]
    ) -> None:
        slot = config["slot"][SLOT_CLASS]["0"]
        self.config = config
        self.disk = disk
        self.alive = alive
        self.intend = intend
        self.slot = open_region(disk, slot["region"])
        self.headers = [open_region(disk, region) for region in slot["headers"]]
        self.payload = open_region(disk, config["payload"]["region"])
        self.of_no_use: set[tuple[str, bytes]] = set()  # sources that could not give what the last action wanted
        self._told: set[str] = set()
        self.root_key = bytes.fromhex(config["keyring"]["root"])

    def believe(self, header: Header) -> Manifest:
        """The manifest of a header that this device may hold, whatever its version. Raises ``PayloadError``."""
        return trust.verify(header, self.root_key, self.config["compatible"], 0, None)

    def slot_header(self, wanted: bytes = NO_DIGEST) -> tuple[Header, Manifest] | None:
        """The signed header that describes the slot: the one with digest ``wanted``, or any."""
        any_one = wanted == NO_DIGEST
        found = install.read_slot_header(self.headers, self.believe, None if any_one else wanted)
        return found if found and (any_one or found[1].digest == wanted) else None

    def slot_headers(self) -> list[tuple[Header, Manifest]]:
        """Every signed header that a copy holds, each once; nothing is repaired."""
        found: dict[bytes, tuple[Header, Manifest]] = {}
        for copy in install.read_slot_headers(self.headers, self.believe):
            if not isinstance(copy, PayloadError):
                found.setdefault(copy[1].digest, copy)
        return list(found.values())

    def candidates(self, record: Record) -> list[sources.Candidate]:
        """Every signed, matching, untried bundle at or above the floor that is here now, the best one first.

        What was begun goes first, then what the slot should hold, then what ran well before, then the newest.
        The caller closes the sources with :meth:`close`.
        """
        found = [sources.RegionSource(self.payload, "payload region"), *self._plugged_in()]
        taken, refused = sources.candidates(found, lambda header: self._installable(header, record.floor))
        for source, error in refused:
            self._tell(CODES[error.reason], f"{source.name}: {error}")
            source.close()
        best = sources.order(taken, floor=record.floor, exclude_digests=record.tried)
        for candidate in taken:
            if candidate not in best:
                self._tell(CODES["payload-tried"], f"{candidate.source.name}: version {candidate.manifest.version}")
                candidate.source.close()
        return sorted(best, key=lambda candidate: _preference(record, candidate.manifest.digest))

    @staticmethod
    def close(candidates: Sequence[sources.Candidate]) -> None:
        for candidate in candidates:
            candidate.source.close()

    def reuse(self, candidate: sources.Candidate) -> Reuse | None:
        """What is here already of a bundle behind a network; a local one is read faster than old content."""
        if not hasattr(candidate.source, "announce"):
            return None
        from recovery.old_content import reuse

        slots = [(self.slot, self.headers)]
        return reuse(candidate.manifest, SLOT_CLASS, slots, 0, [self.payload], self.believe)

    def _plugged_in(self) -> Sequence[sources.Source]:
        self.alive()
        return sources.scan(sources.DeviceMounter(), exclude_disks=(self.disk.rpartition("/")[2],))

    def _installable(self, header: Header, floor: int) -> Manifest:
        """What may be installed here and now: it must be for the kernel that runs."""
        return trust.verify(header, self.root_key, self.config["compatible"], floor, os.uname().release)

    def _tell(self, reason: int, text: str) -> None:
        """Why a source is refused, once: a resting device looks at the same sources again and again."""
        if text not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(text)
            say(reason, text)

    def progress(self) -> Callable[[str, int, int], None]:
        """A progress display for `payload`'s (activity, done, total)."""
        shown: dict[str, Progress] = {}

        def show(activity: str, done: int, total: int) -> None:
            shown.setdefault(activity, Progress(activity, self.alive))(done, total)

        return show


def image_of(manifest: Manifest) -> Image:
    """What the journal keeps of a manifest's image."""
    image = manifest.image(SLOT_CLASS)
    return Image(
        digest=manifest.digest,
        version=manifest.version,
        size=image.size,
        kind=image.kind,
        watchdog_owner=image.watchdog_owner,
        filesystem=image.filesystem,
        kernel_release=manifest.kernel_release,
        init=image.init,
    )


def _preference(record: Record, digest: bytes) -> tuple[bool, bool, bool]:
    return digest != record.target.digest, digest != record.installed.digest, digest != record.confirmed


def identity(candidate: sources.Candidate) -> tuple[str, bytes]:
    """Names a source together with what it holds."""
    return candidate.source.name, candidate.manifest.digest
