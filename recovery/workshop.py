"""What recovery's actions work on: the slots, their header copies, the places for bundles, the sources, the keys.

The OS's own updates (`recovery.update`) work on the same. Opens them once. Decides nothing; every header
that leaves it is believed by the keyring.
"""

from __future__ import annotations

import os

from payload import install, sources
from payload.bundle import is_far
from payload.errors import PayloadCorruptError, PayloadError, TargetTooSmallError
from recovery.console import Progress, say
from recovery.disks import open_region
from recovery.keyring import Keyring
from statemachine.reasons import CODES
from statemachine.record import NO_DIGEST, Image, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from payload.bundle import Header, Reader
    from payload.fetch import HttpSource
    from payload.frames import Progress as Show
    from payload.install import Believe
    from payload.manifest import Manifest
    from payload.seeded import Reuse
    from recovery.device_journal import Opener
    from recovery.network import Network
    from recovery.packages import OpenRoot
    from statemachine.region import Region

SLOT_CLASS = "rootfs"
# Reasons that say nothing of the bundle itself.
_ON_THE_WAY = (
    "name-unresolved",
    "server-unreachable",
    "server-stalled",
    "server-untrusted",
    "server-refused",
    "payload-changed",
)
TOLD_MAX = 256
PLACE_NAMES = ("payload region", "spare payload region")


class SlotMedia:
    """One slot on the disk: ``place`` (its address), the ``region`` there, the ``headers`` that describe it."""

    __slots__ = ("headers", "place", "region")

    def __init__(self, disk: str, slot: dict[str, Any], opener: Opener) -> None:
        self.place: dict[str, int] = slot["region"]
        self.region = opener(disk, slot["region"], True)
        self.headers = [opener(disk, region, True) for region in slot["headers"]]


class Workshop:
    """``alive`` tells PID 1 that work goes on; ``intend`` persists a record before an act.

    :meth:`recall` comes before anything that asks whom to believe. ``opener`` opens a region of the disk, ``media``
    finds what is plugged in, ``show`` shows progress elsewhere than on the console, ``root`` mounts the primary
    slot's root for work on its packages.
    """

    def __init__(
        self,
        config: dict[str, Any],
        disk: str,
        alive: Callable[[], None],
        intend: Callable[[Record], None],
        *,
        opener: Opener | None = None,
        media: Callable[[], Sequence[sources.Source]] | None = None,
        show: Show | None = None,
        root: Callable[[Record], OpenRoot] | None = None,
    ) -> None:
        self.config = config
        self.disk = disk
        self.alive = alive
        self.intend = intend
        opener = opener or open_region
        self.slots = [SlotMedia(disk, slot, opener) for _number, slot in sorted(config["slot"][SLOT_CLASS].items())]
        self.places: list[Region] = [opener(disk, place, True) for place in _places(config)]
        self._media = media or self._plugged_in
        self._show = show
        self._root = root
        self.has_worked = False  # in this boot: what brought it to rest is of now, and not of the start before
        self.of_no_use: set[tuple[str, bytes]] = set()  # sources that could not give what the last action wanted
        self._told: set[str] = set()
        self._network: Network | None = None
        self._keyring: Keyring | None = None

    def recall(self, record: Record) -> None:
        """Believe what ``record``, the journal's newest, says of roots and floors, and what was learned since."""
        if self._keyring is None:
            self._keyring = Keyring(self.config, record)
        else:
            self._keyring.recall(record)

    @property
    def keyring(self) -> Keyring:
        assert self._keyring is not None, "the record was not recalled"
        return self._keyring

    @property
    def network(self) -> Network | None:
        """The network of this device, if it has one. Nothing of it is imported before somebody asks."""
        if self._network is None and self.config.get("network"):
            from recovery.network import Network

            self._network = Network(
                self.config["network"], self.alive, self._tell, clock_floor=self.keyring.trusted.clock_floor
            )
        return self._network

    def open_root(self, record: Record) -> OpenRoot:
        """The primary slot's root, mounted; the caller closes it. Raises ``OSError``."""
        if self._root is not None:
            return self._root(record)
        from recovery.slot_root import SlotRoot

        return SlotRoot(self, record)

    def leave(self) -> None:
        """Give back what the OS must not find in use."""
        if self._network is not None:
            self._network.down()

    def believe(self, header: Header) -> Manifest:
        """The manifest of a header whose image a slot may hold, whatever its version. Raises ``PayloadError``."""
        return _for_a_slot(self.keyring.believe(header))

    def keep_trust(self, record: Record) -> Record:
        """``record`` with what the keyring has learned, made durable before it is used.

        Raises ``JournalUnwritable``.
        """
        kept = record.but(**self.keyring.fields())
        if kept != record:
            self.intend(kept)
        return kept

    def slot_header(self, number: int, wanted: bytes = NO_DIGEST) -> tuple[Header, Manifest] | None:
        """The signed header that describes a slot: the one with digest ``wanted``, or any."""
        any_one = wanted == NO_DIGEST
        headers = self.slots[number].headers
        found = install.read_slot_header(headers, self._fitting(number), None if any_one else wanted)
        return found if found and (any_one or found[1].digest == wanted) else None

    def slot_headers(self, number: int) -> list[tuple[Header, Manifest]]:
        """Every signed header that a copy holds, each once; nothing is repaired."""
        found: dict[bytes, tuple[Header, Manifest]] = {}
        for copy in install.read_slot_headers(self.slots[number].headers, self._fitting(number)):
            if not isinstance(copy, PayloadError):
                found.setdefault(copy[1].digest, copy)
        return list(found.values())

    def _fitting(self, number: int) -> Believe:
        """:meth:`believe` for the headers of a slot, which may have been larger once."""

        def believe(header: Header) -> Manifest:
            manifest, size = self.believe(header), self.slots[number].region.size
            if manifest.image(SLOT_CLASS).size > size:
                raise TargetTooSmallError(f"version {manifest.version} has more than the slot's {size} bytes")
            return manifest

        return believe

    def header_to_keep(self, number: int, candidate: sources.Candidate) -> Header:
        """What is to describe a slot that gets ``candidate``'s image: its header, or the slot's own one of the same
        manifest where it lacks roots."""
        if self.keyring.is_complete(candidate.header):
            return candidate.header
        found = self.slot_header(number, candidate.manifest.digest)
        return found[0] if found is not None else candidate.header

    def kept(self) -> list[sources.Candidate | None]:
        """What each place holds: a bundle that this device may hold, whatever its version, or nothing."""
        return [None if isinstance(held, PayloadError) else held for held in self.look_at_places()]

    def look_at_places(self) -> list[sources.Candidate | PayloadError]:
        """As :meth:`kept`, with why a place holds nothing: it may be that it cannot be read now."""
        found: list[sources.Candidate | PayloadError] = []
        for source in self._kept():
            taken, refused = sources.candidates([source], self.believe)
            found.append(taken[0] if taken else refused[0][1])
        return found

    def candidates(self, record: Record) -> list[sources.Candidate]:
        """Every signed, matching, untried bundle at or above the floor that is here now, the best one first.

        What was begun goes first, then what the slot should hold, then what ran well before, then the newest.
        The caller closes the sources with :meth:`close`.
        """
        found = [*self._kept(), *self._media()]
        taken, refused = sources.candidates(found, self.installable)
        # A root that one source brings counts for all of them, for those before it, too.
        taken, revoked = sources.believed_still(taken, self.installable)
        return self._chosen(record, taken, [*refused, *revoked])

    def transactions(self) -> list[sources.Candidate]:
        """Every signed transaction of packages on media that are plugged in, whatever its serial, the newest first.

        The caller closes the sources with :meth:`close`.
        """
        taken, refused = sources.candidates(self._media(), self.keyring.believe)
        found = [candidate for candidate in taken if candidate.manifest.is_transaction]
        self.close([candidate for candidate in taken if candidate not in found])
        for source, _error in refused:
            source.close()
        return sorted(found, key=lambda candidate: -candidate.manifest.version)

    def remote_candidates(self, record: Record, is_over: Callable[[], bool] | None = None) -> list[sources.Candidate]:
        """The same from the network, which is asked only now; the link comes up for it.

        ``is_over`` is asked about every second, and may end the look: then nothing or not all of it was found.
        """
        if self.network is None:
            return []
        self.network.is_over = is_over
        try:
            offered = self.network.look()
            taken, refused = self.downloadable(offered or [])
        finally:
            self.network.is_over = None
        chosen = self._chosen(record, taken, refused)
        if offered is not None and not taken:
            self.network.nothing_helped()
        return chosen

    def downloadable(
        self, offered: Sequence[HttpSource], believe: Believe | None = None
    ) -> tuple[list[sources.Candidate], list[tuple[sources.Source, PayloadError]]]:
        """What may be installed of what servers offer, whatever its version; and the others, with why.

        ``believe`` takes something else than an OS's image.
        """
        believe = believe or self._downloadable
        taken: list[sources.Candidate] = []
        refused: list[tuple[sources.Source, PayloadError]] = []
        for source in offered:
            found, failed = sources.candidates([source], believe)
            while failed and _was_changed_on_its_way(source, failed[0][1]):
                found, failed = sources.candidates([source], believe)
            taken += found
            refused += failed
        taken, revoked = sources.believed_still(taken, believe)
        return taken, [*refused, *revoked]

    def _chosen(
        self, record: Record, taken: list[sources.Candidate], refused: list[tuple[sources.Source, PayloadError]]
    ) -> list[sources.Candidate]:
        """Those of ``taken`` that may be tried, the best one first; why the others may not is said."""
        for source, error in refused:
            self._tell(CODES[error.reason], f"{source.name}: {error}")
            source.close()
        taken.sort(key=lambda candidate: not self.keyring.is_complete(candidate.header))  # of the same, the better one
        best = sources.order(taken, floor=self.keyring.trusted.floor, exclude_digests=record.tried)
        for candidate in taken:
            if candidate not in best:
                self._tell(CODES["payload-tried"], f"{candidate.source.name}: version {candidate.manifest.version}")
                candidate.source.close()
        return sorted(best, key=lambda candidate: _preference(record, candidate.manifest.digest))

    def is_remote(self, candidate: sources.Candidate) -> bool:
        """Whether it comes over the network: it may end at any time, and it cannot be looked at for nothing."""
        return self._network is not None and self._network.is_source(candidate.source)

    def may_come_back(self, candidate: sources.Candidate, error: PayloadError) -> bool:
        """Whether only the way to it failed: then the same source is worth another try after a pause."""
        return self.is_remote(candidate) and error.reason in _ON_THE_WAY

    def why_nothing_came(self, refusal: int) -> int:
        """``refusal``, or the network's reason where nothing else was to be had."""
        if self._network is None or refusal != CODES["no-source"]:
            return refusal
        return self._network.reason or refusal

    def note_received(self, candidates: Sequence[sources.Candidate]) -> None:
        """Say what came over the network, and let the next pause be short where that was something."""
        if self._network:
            self._network.note_received([one.source for one in candidates])

    @staticmethod
    def close(candidates: Sequence[sources.Candidate]) -> None:
        for candidate in candidates:
            candidate.source.close()

    def reuse(self, source: Reader, manifest: Manifest, number: int) -> Reuse | None:
        """What is here already of a bundle behind a network; a local one is read faster than old content.

        ``number`` is the slot that is to be written.
        """
        if not is_far(source):
            return None
        from recovery.old_content import reuse

        slots = [(slot.region, slot.headers) for slot in self.slots]
        return reuse(manifest, SLOT_CLASS, slots, number, self.places, self.believe)

    def _kept(self) -> list[sources.RegionSource]:
        return [sources.RegionSource(place, name) for place, name in zip(self.places, PLACE_NAMES, strict=False)]

    def _plugged_in(self) -> Sequence[sources.Source]:
        return sources.scan(sources.DeviceMounter(), self.alive, exclude_disks=(self.disk.rpartition("/")[2],))

    def installable(self, header: Header, *, network: bool = False) -> Manifest:
        """What may be installed here and now: for the kernel that runs; over a ``network``, not expired either."""
        return _for_a_slot(self.keyring.installable(header, os.uname().release, network=network))

    def _downloadable(self, header: Header) -> Manifest:
        return self.installable(header, network=True)

    def _tell(self, reason: int, text: str) -> None:
        """Why a source is refused, once: a resting device looks at the same sources again and again."""
        if text not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(text)
            say(reason, text)

    def progress(self) -> Show:
        """A progress display for `payload`'s (activity, done, total)."""
        if self._show is not None:
            return self._show
        shown: dict[str, Progress] = {}

        def show(activity: str, done: int, total: int) -> None:
            shown.setdefault(activity, Progress(activity, self.alive))(done, total)

        return show


def _for_a_slot(manifest: Manifest) -> Manifest:
    """Signed, and yet nothing for a slot: packages, or an image of another class. Raises ``PayloadFormatError``."""
    manifest.image(SLOT_CLASS)
    return manifest


def _was_changed_on_its_way(source: HttpSource, error: PayloadError) -> bool:
    """Whether a header is damaged, and its source has somebody else to ask."""
    return isinstance(error, PayloadCorruptError) and source.doubt(0)


def _places(config: dict[str, Any]) -> list[dict[str, int]]:
    payload = config["payload"]
    return [payload["region"], *([payload["spare"]] if payload.get("spare") else [])]


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
