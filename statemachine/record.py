"""The record: everything the device has to remember, as one value and as bytes.

Every record is a full snapshot, so nothing is lost when the journal's ring wraps. The bytes are fixed
fields, then texts and digests with a length in front (docs/SPEC.md, "The record"). Any bytes decode to a
record or to ``None``, never to an exception: what decodes obeys every bound of `statemachine.limits`.
On the path of the ordinary boot: imports ``_struct`` alone.
"""

from __future__ import annotations

from _struct import Struct

from statemachine.limits import (
    BOOT_ATTEMPTS_MAX,
    CYCLES_MAX,
    ROOT_BYTES_MAX,
    SLOTS_MAX,
    TEXT_BYTES_MAX,
    TRIED_IMAGES_MAX,
)
from statemachine.table import STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
DIGEST_BYTES = 32
NO_DIGEST = bytes(DIGEST_BYTES)
STATE_NAMES = tuple(STATES)
KINDS = ("none", "immutable", "read-write")
WATCHDOG_OWNERS = ("none", "systemd")
CONDITIONS = ("unknown", "good", "bad")

# format, state, reason, entered, requested, attempts left, cycles, boots, floor, clock floor, upper generation,
# root version, frames written, primary, booted, target slot
_FIXED = Struct("<BBHHBBBQQQIIIBBB")
# serial of the last transaction of packages, of the last good one
_PACKAGES = Struct("<QQ")
# version, size in bytes, kind, watchdog owner
_IMAGE = Struct("<QQBB")


class Image:
    """An image a slot can hold: what the ordinary boot must know of it, copied from its signed manifest.

    ``digest`` is that of the signed manifest (32 bytes; zeroes mean no image), ``size`` is in bytes.
    """

    __slots__ = (
        "digest",
        "filesystem",
        "init",
        "kernel_release",
        "kind",
        "size",
        "version",
        "watchdog_owner",
    )

    def __init__(
        self,
        digest: bytes = NO_DIGEST,
        version: int = 0,
        size: int = 0,
        kind: str = "none",
        watchdog_owner: str = "none",
        filesystem: str = "",
        kernel_release: str = "",
        init: str = "",
    ) -> None:
        self.digest = digest
        self.version = version
        self.size = size
        self.kind = kind
        self.watchdog_owner = watchdog_owner
        self.filesystem = filesystem
        self.kernel_release = kernel_release
        self.init = init

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def encode(self) -> bytes:
        fixed = _IMAGE.pack(self.version, self.size, KINDS.index(self.kind), WATCHDOG_OWNERS.index(self.watchdog_owner))
        texts = b"".join(_text(text) for text in (self.filesystem, self.kernel_release, self.init))
        return self.digest + fixed + texts


NO_IMAGE = Image()


class Slot:
    """One slot: the image that it holds or should hold, and its condition.

    ``good``: the OS of this image said from this slot that it runs well. ``bad``: it is being written, or it
    is damaged, or its image failed; never booted before something else happened to it. ``unknown``: neither.
    """

    __slots__ = ("condition", "image")

    def __init__(self, image: Image = NO_IMAGE, condition: str = "unknown") -> None:
        self.image = image
        self.condition = condition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slot) and (self.condition, self.image) == (other.condition, other.image)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Slot(version {self.image.version}, {self.condition})"

    def encode(self) -> bytes:
        return bytes((CONDITIONS.index(self.condition),)) + self.image.encode()


class Record:
    """The device's whole memory. Immutable by habit: :meth:`but` makes the next one.

    ``slots`` has one or two entries; ``primary`` is the number of the one that boots next, ``booted`` of the
    one that took the last attempt (what runs while an OS runs). ``confirmed`` is the last image whose OS
    said it runs well; ``target`` an image whose installation into ``target_slot`` is intended.
    ``entered`` is the reason (code) why recovery works, ``reason`` the last one.
    ``tried`` are digests of manifests that failed here.
    ``packages_serial`` is the number of the last transaction of packages that this device took, ``packages_good``
    what that was when an OS last said it runs well with them; ``packages_digest`` names the one that is under way
    or being tried.
    ``floor`` is the lowest version allowed; ``clock_floor`` seconds since 1970 by signed times only.
    ``root`` is the newest root metadata that was ever believed, ``root_digest`` its digest; nothing and
    zeroes where nothing but the image's own was.
    """

    __slots__ = (
        "attempts_left", "booted", "boots", "clock_floor", "confirmed", "confirmed_version", "cycles", "entered",
        "floor", "frames_written", "packages_digest", "packages_good", "packages_serial", "primary", "reason",
        "requested", "root", "root_digest", "root_version", "slots", "state", "target", "target_slot", "tried",
        "upper_generation",
    )  # fmt: skip

    def __init__(self, state: str = "JOURNAL_LOST", **fields: Any) -> None:
        self.state = state
        self.reason: int = 0
        self.entered: int = 0
        self.requested: bool = False
        self.attempts_left: int = 0
        self.cycles: int = 0
        self.boots: int = 0
        self.floor: int = 0
        self.clock_floor: int = 0
        self.upper_generation: int = 0
        self.root_version: int = 1
        self.frames_written: int = 0
        self.root_digest: bytes = NO_DIGEST
        self.root: bytes = b""
        self.confirmed: bytes = NO_DIGEST
        self.confirmed_version: int = 0
        self.packages_serial: int = 0
        self.packages_good: int = 0
        self.packages_digest: bytes = NO_DIGEST
        self.slots: tuple[Slot, ...] = (Slot(),)
        self.primary: int = 0
        self.booted: int = 0
        self.target: Image = NO_IMAGE
        self.target_slot: int = 0
        self.tried: tuple[bytes, ...] = ()
        for name, value in fields.items():
            setattr(self, name, value)

    def but(self, **fields: Any) -> Record:
        """The same record with some fields changed."""
        following = Record()
        for name in self.__slots__:
            setattr(following, name, fields.pop(name) if name in fields else getattr(self, name))
        assert not fields, f"a record has no {sorted(fields)}"
        return following

    @property
    def installed(self) -> Image:
        """The image of the primary slot."""
        return self.slots[self.primary].image

    @property
    def other(self) -> Slot | None:
        """The slot that is not the primary one; None on a device with one slot."""
        return self.slots[1 - self.primary] if len(self.slots) > 1 else None

    def with_slot(self, number: int, slot: Slot) -> Record:
        """The same record with one slot changed."""
        return self.but(slots=(*self.slots[:number], slot, *self.slots[number + 1 :]))

    def with_condition(self, number: int, condition: str) -> Record:
        """The same record with the condition of one slot changed."""
        return self.with_slot(number, Slot(self.slots[number].image, condition))

    def doubting(self, number: int) -> Record:
        """The same record with one slot bad: it is about to be written. What the other slot held is gone then."""
        image = self.installed if number == self.primary else NO_IMAGE
        return self.with_slot(number, Slot(image, "bad"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def encode(self) -> bytes:
        fixed = _FIXED.pack(
            FORMAT, STATE_NAMES.index(self.state), self.reason, self.entered, self.requested, self.attempts_left,
            self.cycles, self.boots, self.floor, self.clock_floor, self.upper_generation, self.root_version,
            self.frames_written, self.primary, self.booted, self.target_slot,
        )  # fmt: skip
        return b"".join(
            (
                fixed,
                self.root_digest,
                self.confirmed,
                self.confirmed_version.to_bytes(8, "little"),
                _PACKAGES.pack(self.packages_serial, self.packages_good),
                self.packages_digest,
                bytes((len(self.slots),)),
                *[slot.encode() for slot in self.slots],
                self.target.encode(),
                bytes((len(self.tried),)),
                *self.tried,
                len(self.root).to_bytes(2, "little"),
                self.root,
            )
        )


def decode(body: bytes) -> Record | None:
    """The record that ``body`` holds, or ``None`` where a field, a length or a bound is not kept."""
    reader = _Reader(body)
    try:
        record = _decode(reader)
    except (ValueError, IndexError):
        return None
    return record if reader.at_end() else None


def _decode(reader: _Reader) -> Record:
    (
        form, state, reason, entered, requested, attempts_left, cycles, boots, floor, clock_floor, upper_generation,
        root_version, frames_written, primary, booted, target_slot,
    ) = reader.fixed(_FIXED)  # fmt: skip
    if form != FORMAT or requested > 1 or attempts_left > BOOT_ATTEMPTS_MAX or cycles > CYCLES_MAX:
        raise ValueError
    root_digest, confirmed = reader.take(DIGEST_BYTES), reader.take(DIGEST_BYTES)
    confirmed_version = int.from_bytes(reader.take(8), "little")
    packages_serial, packages_good = reader.fixed(_PACKAGES)
    record = Record(
        STATE_NAMES[state],
        reason=reason,
        entered=entered,
        requested=bool(requested),
        attempts_left=attempts_left,
        cycles=cycles,
        boots=boots,
        floor=floor,
        clock_floor=clock_floor,
        upper_generation=upper_generation,
        root_version=root_version,
        frames_written=frames_written,
        primary=primary,
        booted=booted,
        target_slot=target_slot,
        root_digest=root_digest,
        confirmed=confirmed,
        confirmed_version=confirmed_version,
        packages_serial=packages_serial,
        packages_good=packages_good,
        packages_digest=reader.take(DIGEST_BYTES),
        slots=_decode_slots(reader),
        target=_decode_image(reader),
        tried=_decode_tried(reader),
        root=_decode_root(reader),
    )
    if max(primary, booted, target_slot) >= len(record.slots):
        raise ValueError
    return record


def _decode_slots(reader: _Reader) -> tuple[Slot, ...]:
    count = reader.take(1)[0]
    if not 1 <= count <= SLOTS_MAX:
        raise ValueError
    return tuple([_decode_slot(reader) for _ in range(count)])


def _decode_slot(reader: _Reader) -> Slot:
    condition = CONDITIONS[reader.take(1)[0]]
    return Slot(_decode_image(reader), condition)


def _decode_image(reader: _Reader) -> Image:
    digest = reader.take(DIGEST_BYTES)
    version, size, kind, owner = reader.fixed(_IMAGE)
    texts = reader.text(), reader.text(), reader.text()
    return Image(digest, version, size, KINDS[kind], WATCHDOG_OWNERS[owner], *texts)


def _decode_tried(reader: _Reader) -> tuple[bytes, ...]:
    count = reader.take(1)[0]
    if count > TRIED_IMAGES_MAX:
        raise ValueError
    return tuple([reader.take(DIGEST_BYTES) for _ in range(count)])


def _decode_root(reader: _Reader) -> bytes:
    length = int.from_bytes(reader.take(2), "little")
    if length > ROOT_BYTES_MAX:
        raise ValueError
    return reader.take(length)


def _text(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) <= TEXT_BYTES_MAX, f"text over {TEXT_BYTES_MAX} bytes: {text!r}"
    return bytes((len(encoded),)) + encoded


class _Reader:
    """Takes bytes off the front; ``ValueError`` where there are not enough."""

    __slots__ = ("body", "position")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.position = 0

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.body):
            raise ValueError
        part = self.body[self.position : end]
        self.position = end
        return part

    def fixed(self, layout: Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def text(self) -> str:
        length = self.take(1)[0]
        if length > TEXT_BYTES_MAX:
            raise ValueError
        return self.take(length).decode()

    def at_end(self) -> bool:
        return self.position == len(self.body)
