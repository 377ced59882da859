"""What this device believes now: the root its image pins, what the journal holds, what was learned since.

Holds values and asks ``payload.trust``. Writes nothing: :meth:`Keyring.fields` is what the journal has to
hold *before* anything is done because of it, so that a root that was acted on once never goes back.
"""

from __future__ import annotations

from payload import trust
from payload.digest import digest
from payload.errors import PayloadFormatError, PayloadRootsIncompleteError
from payload.roots import decode_root, single_key_root
from payload.trust import Trusted
from statemachine.record import NO_DIGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from payload.bundle import Header
    from payload.manifest import Manifest
    from payload.roots import Root
    from statemachine.record import Record


class Keyring:
    """``trusted`` is the state after :meth:`recall` and whatever was verified since."""

    def __init__(self, config: dict[str, Any], record: Record) -> None:
        self._compatible: str = config["compatible"]
        self._pinned = pinned_root(config)
        self.trusted = self._state_of(record)
        self._remembered = _digests(record)

    def recall(self, record: Record) -> None:
        """Go on from ``record``, the journal's newest; a newer root that was learned since stays known."""
        learned, self.trusted = self.trusted, self._state_of(record)
        if learned.root.version > self.trusted.root.version:  # the floor may have risen meanwhile
            self.trusted = self.trusted.with_root(learned.root)
        if learned.root.digest == self.trusted.root.digest:
            self.trusted = self.trusted.with_time(learned.clock_floor)
        self._remembered = _digests(record)

    def lacking(self, record: Record) -> dict[str, Any]:
        """:meth:`fields`, where the image pins a newer root than ``record`` holds, whose floor is not that one's."""
        kept = kept_root(record)
        return self.fields() if kept is not None and kept.digest != self.trusted.root.digest else {}

    def fields(self) -> dict[str, Any]:
        """The fields of a record that hold what is believed."""
        root = self.trusted.root
        return {
            "root_version": root.version,
            "root_digest": root.digest,
            "root": root.text,
            "floor": self.trusted.floor,
            "clock_floor": self.trusted.clock_floor,
        }

    def believe(self, header: Header) -> Manifest:
        """The manifest of a header that this device may hold, whatever its version. Raises ``PayloadError``."""
        return self._verify(header, None, any_version=True)

    def installable(self, header: Header, kernel_release: str, *, network: bool = False) -> Manifest:
        """The manifest of what may be installed where ``kernel_release`` runs. Raises ``PayloadError``.

        ``network``: it comes from a source that can hold newer ones back.
        """
        return self._verify(header, kernel_release, network=network)

    def packages(self, header: Header, last_serial: int, *, network: bool = False) -> Manifest:
        """The manifest of a transaction of packages that this device takes now. ``last_serial``: the last one's.

        Raises ``PayloadError``, and ``TransactionError`` where it is no transaction or not newer.
        """
        from packagemanager.transaction import believe

        self.trusted = trust.follow(header, self.trusted)
        manifest, self.trusted = believe(header, self.trusted, self._compatible, last_serial, network=network)
        return manifest

    def check_complete(self, header: Header) -> None:
        """That the image's own root is enough to believe ``header``. Raises ``PayloadRootsIncompleteError``."""
        trust.check_complete(header, self._pinned)

    def is_complete(self, header: Header) -> bool:
        """Whether :meth:`check_complete` has nothing to say."""
        try:
            self.check_complete(header)
        except PayloadRootsIncompleteError:
            return False
        return True

    def _verify(
        self, header: Header, kernel_release: str | None, *, network: bool = False, any_version: bool = False
    ) -> Manifest:
        self.trusted = trust.follow(header, self.trusted)  # known from now on, whatever becomes of the bundle
        manifest, self.trusted = trust.verify(
            header,
            self.trusted,
            self._compatible,
            kernel_release,
            network=network,
            any_version=any_version,
            remembered=self._remembered,
        )
        return manifest

    def _state_of(self, record: Record) -> Trusted:
        """The newer one of the pinned root and the record's. At the same version the image is right: it is
        what a first stage verifies."""
        kept = kept_root(record)
        if kept is None:
            return Trusted(self._pinned, record.floor, record.clock_floor)
        if kept.version > self._pinned.version:
            before = Trusted(self._pinned).with_root(kept)
            return Trusted(kept, record.floor, record.clock_floor, before.revoked)
        state = Trusted(kept, record.floor, record.clock_floor)
        return state if kept.digest == self._pinned.digest else state.with_root(self._pinned)


def pinned_root(config: dict[str, Any]) -> Root:
    """The root that the image was built with: a raw key that stands for both roles, or root metadata."""
    keyring = config["keyring"]
    if "metadata" in keyring:
        return decode_root(keyring["metadata"].encode("ascii"))
    return single_key_root(bytes.fromhex(keyring["root"]), config["compatible"])


def kept_root(record: Record) -> Root | None:
    """The root that ``record`` holds, or None where it holds none that is whole."""
    if not record.root or digest(record.root) != record.root_digest:
        return None
    try:
        root = decode_root(record.root)
    except PayloadFormatError:
        return None
    return root if root.version == record.root_version else None


def _digests(record: Record) -> tuple[bytes, ...]:
    """The manifests that the journal knows by their digests: believed once, whoever's key they bear."""
    known = (*[slot.image.digest for slot in record.slots], record.target.digest, record.confirmed)
    return tuple([one for one in known if one != NO_DIGEST])
