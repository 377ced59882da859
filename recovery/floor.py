"""The floor as a commit raises it: to the oldest version that the device may go back to."""

from __future__ import annotations

from payload.errors import PayloadError, PayloadUnreadableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from recovery.workshop import Workshop
    from statemachine.record import Record


def kept_versions(workshop: Workshop) -> list[int]:
    """Of the bundles on the disk; none where a place cannot be read, for the floor never comes down again."""
    held = workshop.look_at_places()
    if any(isinstance(one, PayloadUnreadableError) for one in held):
        return []
    return [one.manifest.version for one in held if not isinstance(one, PayloadError)]


def floor_after_commit(record: Record, kept: Iterable[int]) -> int:
    """The floor once the primary slot's version is good: the oldest version that the device may go back to.

    ``kept`` are the versions of the bundles on the disk: without one the floor stays, and it is never
    above the best of them.
    """
    local = [version for version in kept if version >= record.floor]
    if not local:
        return record.floor
    other = record.other
    slots = [other.image.version] if other is not None and other.condition == "good" else []
    return max(record.floor, min([record.installed.version, *local, *slots]))
