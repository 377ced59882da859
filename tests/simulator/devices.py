"""A whole device on a simulated disk: the production journal, decisions, conductor, actions and updates.

What is played here: the kernel (nothing), mounting (the slot's bytes are compared with what was signed), the OS
(a version is good or it is not), and a person who tries again. A boot that would start anything but a whole,
signed image at or above the floor raises :class:`ViolationError`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from payload.bundle import Header, Reader, decode_header, read_header
from payload.create import BundleInput
from payload.errors import PayloadBelowFloorError, PayloadError
from payload.manifest import Manifest
from payload.place import bundle_bytes
from payload.sources import RegionSource
from payload.trust import trusted_key, verify
from recovery import actions, update
from recovery.conductor import Conductor
from recovery.device_journal import DeviceJournal, uncharged
from recovery.watch import looked_again
from recovery.workshop import Workshop, image_of
from statemachine.decide import Evidence, decide, give_way
from statemachine.reasons import CODES
from statemachine.record import Record, Slot
from statemachine.region import Region
from statemachine.step import step
from statemachine.store import JournalError
from tests.simulator.disk import Disk, Storage, Window
from tests.unit.payload_samples import COMPATIBLE, FRAME, ROOT, BytesReader, make, mixed_image

FRAMES = 4
HEADER = 4096
SLOT = FRAMES * FRAME
PLACE = HEADER + SLOT
JOURNAL = 8 * 4096
ATTEMPTS = 3
BOOTS_MAX = 24
RESTS_MAX = 2  # of a version that never runs well
ACTIONS_MAX = 48  # of recovery in one boot
RELEASE = os.uname().release


class ViolationError(Exception):
    """What must never happen. Says what."""


class BootedError(Exception):
    """The OS of this record has the machine."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.state)
        self.record = record


class RestingError(Exception):
    """The device rests in WAITING."""


class Version:
    """A signed bundle of one small image."""

    def __init__(self, folder: Path, version: int, seed: int) -> None:
        self.plain = mixed_image(FRAMES, seed)
        fields = BundleInput(COMPATIBLE, version, f"{version}.0", RELEASE, ())
        path, _created = make(folder, self.plain, name=f"v{version}", fields=fields)
        self.content = path.read_bytes()
        self.header: Header = read_header(BytesReader(self.content))
        self.manifest: Manifest = believe(self.header)
        self.number = version
        assert len(self.header.raw) == HEADER and bundle_bytes(self.header, self.manifest) == len(self.content)


def believe(header: Header) -> Manifest:
    return _believed(header.raw)


@lru_cache
def _believed(raw: bytes) -> Manifest:
    return verify(decode_header(raw), trusted_key(ROOT, COMPATIBLE), COMPATIBLE, None)[0]


@dataclass(frozen=True)
class Kind:
    """What a device has. ``versions`` are those that there are, ``bad`` the ones whose OS never runs well."""

    versions: tuple[Version, ...]
    slots: int = 2
    places: int = 2
    bad: tuple[int, ...] = ()

    def config(self) -> dict[str, Any]:
        at = 0

        def region(size: int) -> dict[str, int]:
            nonlocal at
            at += size
            return {"offset": at - size, "size": size}

        journal = [region(JOURNAL) for _ in range(3)]
        slots = {
            str(number): {"headers": [region(HEADER), region(HEADER)], "region": region(SLOT)}
            for number in range(self.slots)
        }
        places = [region(PLACE) for _ in range(self.places)]
        return {
            "compatible": COMPATIBLE,
            "disk": {"serial": "simulated"},
            "boot_attempts": ATTEMPTS,
            "floor": 0,
            "keyring": {"root": ROOT.hex()},
            "journal": {"regions": journal},
            "slot": {"rootfs": slots},
            "payload": {"region": places[0], "spare": places[1] if self.places > 1 else None, "in_place": False},
            "size": at,
        }

    def version(self, number: int) -> Version:
        return next(one for one in self.versions if one.number == number)

    def by_digest(self, digest: bytes) -> Version | None:
        return next((one for one in self.versions if one.manifest.digest == digest), None)


class Device:
    """A device of ``kind`` on ``storage``, whose other disks are sticks, one for each version's bundle.

    A ``lying_disk`` may spoil what was read back already: then a slot that is not whole may be started, and does
    not run. Without that it must never be.
    """

    def __init__(self, kind: Kind, storage: Storage, lying_disk: bool = False) -> None:
        self.kind = kind
        self.storage = storage
        self.lying_disk = lying_disk
        self.config = kind.config()
        self._left = ACTIONS_MAX

    def restarted(self, faults: Sequence[Any] = ()) -> Device:
        return Device(self.kind, self.storage.restarted(faults), self.lying_disk)

    def runs(self, record: Record) -> bool:
        """Whether the OS that was handed over to is whole, and good."""
        version = self.kind.by_digest(record.installed.digest)
        return version is not None and self.slot_content(record.primary) == version.plain

    # what the production code gets to see

    def opener(self, _disk: str, place: dict[str, int], _writable: bool) -> Region:
        return self._window(place)

    def _window(self, place: dict[str, int]) -> Window:
        return self.storage.disks[0].window(place["offset"], place["size"])

    def journal(self, look_only: bool = False) -> DeviceJournal:
        return DeviceJournal(self.config, "simulated", look_only, self.opener)

    def ledger(self) -> update.Ledger:
        return update.Ledger(self.config, "simulated", opener=self.opener, lock=_no_other_writer)

    def workshop(self) -> Workshop:
        return Workshop(
            self.config,
            "simulated",
            alive=lambda: None,
            intend=_never,
            opener=self.opener,
            media=list,
            show=lambda _activity, _done, _total: None,
        )

    def stick(self, number: int) -> RegionSource:
        """The bundle of a version, outside of the device."""
        at = [one.number for one in self.kind.versions].index(number)
        disk: Disk = self.storage.disks[1 + at]
        return RegionSource(disk, f"version {number}")

    # one life

    def boot(self) -> Record:
        """Switch it on: the record of the OS that gets the machine. Raises ``RestingError``."""
        self._left, before = ACTIONS_MAX, None
        try:
            while True:
                before = self._boot(before)
        except BootedError as booted:
            self._check_boots(booted.record)
            return booted.record

    def _boot(self, before: Record | None) -> Record | None:
        """Follows `recovery.main`."""
        journal = self.journal()
        found = uncharged(journal.record, before)
        record = found.but(boots=found.boots + 1)
        event, reason = decide(record, Evidence())
        following, action = step(record, give_way(record, event), ATTEMPTS, reason=reason)
        if not journal.try_persist(following):
            event, reason = decide(record, Evidence(journal_writable=False))
            following, action = step(record, event, ATTEMPTS, reason=reason)
        boots = action in ("boot", "boot_pristine")
        if boots:
            event, reason, _fields = self.hand_over(following, action == "boot_pristine")
            following, action = step(following, give_way(following, event), ATTEMPTS, reason=reason)
            if not journal.try_persist(following):
                following, action = step(following, "journal_unwritable", ATTEMPTS, reason=reason)
        Conductor(self.config, "simulated", journal, following, self._alive, self.hand_over, **self.world()).run(action)
        return None if boots else found

    def world(self) -> dict[str, Any]:
        """What recovery's workshop works with here."""
        return {"opener": self.opener, "media": list, "show": lambda _activity, _done, _total: None}

    def hand_over(self, record: Record, _pristine: bool) -> actions.Result:
        """The OS gets the machine: raises ``BootedError``. Where it cannot have it: the event."""
        raise BootedError(record)

    def _alive(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise RestingError

    def _check_boots(self, record: Record) -> None:
        version = self.kind.by_digest(record.installed.digest)
        if version is None or record.installed != image_of(version.manifest):
            raise ViolationError("an image boots that nobody signed")
        if not self.lying_disk and not self.runs(record):
            raise ViolationError(f"slot {record.primary} boots and is not version {version.number}")
        if version.number < record.floor:
            raise ViolationError(f"version {version.number} boots below the floor {record.floor}")

    # what is on the disk, without an operation

    def peek(self, place: dict[str, int]) -> bytes:
        return self.storage.disks[0].peek(place["offset"], place["size"])

    def slot_content(self, number: int) -> bytes:
        return self.peek(self.config["slot"]["rootfs"][str(number)]["region"])

    def slot_headers(self, number: int) -> list[bytes]:
        return [self.peek(place) for place in self.config["slot"]["rootfs"][str(number)]["headers"]]

    def whole_slot(self, number: int) -> Version | None:
        """The version that a slot holds, described by a header."""
        headers, content = self.slot_headers(number), self.slot_content(number)
        for version in self.kind.versions:
            if version.header.raw in headers and content == version.plain:
                return version
        return None

    def places(self) -> list[bytes]:
        payload = self.config["payload"]
        return [self.peek(place) for place in (payload["region"], payload["spare"]) if place]

    def whole_places(self) -> list[Version]:
        return [one for one in self.kind.versions for place in self.places() if place.startswith(one.content)]


class FarSource:
    """A bundle as something behind a network gives it: it hears what will be read. ``read_ranges`` keeps what was."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.read_ranges: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return self._reader.size

    def announce(self, ranges: Sequence[tuple[int, int]]) -> None:
        assert all(length > 0 for _offset, length in ranges)

    def read(self, offset: int, length: int) -> bytes:
        self.read_ranges.append((offset, length))
        return self._reader.read(offset, length)


def _no_other_writer() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def _never(_record: Record) -> NoReturn:
    raise AssertionError("the OS persists no intents of recovery")


def _rest(workshop: Workshop, record: Record) -> actions.Result:
    """The delay is over at once, a few times; then the device rests."""
    workshop.alive()
    if record.state != "WAITING":
        raise RestingError
    return "backoff_elapsed", looked_again(record, CODES["tried-again"]), {}


actions.ACTIONS["rest"] = _rest  # a simulated device has no time to wait


def factory(kind: Kind, installed: int, other: int = 0, kept: Sequence[int] = (1,)) -> Device:
    """A device whose OS of version ``installed`` is confirmed in slot 0; ``other`` ran well in slot 1."""
    config = kind.config()
    disk = bytearray(config["size"])

    def put(place: dict[str, int], content: bytes) -> None:
        disk[place["offset"] : place["offset"] + len(content)] = content

    slots = []
    for number, version in enumerate((installed, other)[: kind.slots]):
        if version:
            held = kind.version(version)
            media = config["slot"]["rootfs"][str(number)]
            put(media["region"], held.plain)
            for header in media["headers"]:
                put(header, held.header.raw)
            slots.append(Slot(image_of(held.manifest), "good"))
        else:
            slots.append(Slot())
    for place, version in zip((config["payload"]["region"], config["payload"]["spare"]), kept, strict=False):
        put(place, kind.version(version).content)
    sticks = [one.content.ljust(-(-len(one.content) // 512) * 512, b"\0") for one in kind.versions]
    device = Device(kind, Storage(images=[bytes(disk), *sticks]))
    confirmed = kind.version(installed).manifest
    record = Record(
        "CONFIRMED",
        attempts_left=ATTEMPTS,
        slots=tuple(slots),
        confirmed=confirmed.digest,
        confirmed_version=confirmed.version,
        floor=min(one for one in (installed, other, *kept) if one),
    )
    device.journal().persist(record)
    return device.restarted()


@dataclass(frozen=True)
class Wish:
    """What a person wants: a version ``installed``, or a ``rolled_back`` device. ``far``: from a server."""

    version: int
    rolled_back: bool = False
    far: bool = False

    def ask(self, device: Device, again: bool) -> None:
        if self.rolled_back and not again:
            update.rollback(device.workshop(), device.ledger())
        else:
            source = device.stick(self.version)
            update.update(device.workshop(), device.ledger(), FarSource(source) if self.far else source, again)


REPAIRABLE = ("E300", "E301")


def live(device: Device, wish: Wish) -> Record:
    """Switch it on again and again until the wish is granted or was refused for good; the last record.

    A version that is good confirms itself, asks for what is wished, and restarts. Errors of an update are
    what a person answers by trying again, or by a look at the slot where that is advised.
    """
    again, after_rests = False, 0
    for _boot_number in range(BOOTS_MAX):
        record = device.boot()
        if record.installed.version in device.kind.bad or not device.runs(record):
            after_rests += record.entered == CODES["tried-again"]
            if after_rests > RESTS_MAX * ATTEMPTS:
                raise RestingError  # and nothing else comes of it
            continue
        try:
            record = update.commit(device.workshop(), device.ledger())
            if record.installed.version == wish.version or _refused(device, record, wish):
                if not wish.rolled_back:
                    update.refresh(device.workshop(), record, device.stick(record.installed.version))
                return device.journal(look_only=True).record
            wish.ask(device, again)
        except update.UpdateError as error:
            again = True
            if str(error).startswith("E123"):
                update.refresh(device.workshop(), record, device.stick(record.installed.version))
            if str(error).startswith(REPAIRABLE):
                journal = device.journal()
                journal.try_persist(journal.record.but(requested=True))
        except PayloadBelowFloorError:
            return device.journal(look_only=True).record
        except (PayloadError, JournalError):
            continue
    raise ViolationError(f"no end after {BOOTS_MAX} boots: {device.journal(look_only=True).record.state}")


def _refused(device: Device, record: Record, wish: Wish) -> bool:
    """The wished version was installed and failed here."""
    if wish.version not in device.kind.bad:
        return False
    digest = device.kind.version(wish.version).manifest.digest
    other = record.other
    if other is None:
        return digest in record.tried
    return other.condition == "bad" and other.image.digest == digest
