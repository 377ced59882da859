"""The primary slot's root, mounted for recovery's own work in it, as the OS would find it.

An immutable slot's system state is on the data partition: without that there is nothing to work on. A read-write
slot's file system is put in order before it is mounted.
"""

from __future__ import annotations

import os

from packagemanager.root import Root
from recovery.disks import node_of
from recovery.filesystem import mend, preen
from recovery.hand_over import DATA, BootFailedError, mount_system, release_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from recovery.workshop import Workshop
    from statemachine.record import Record


class SlotRoot:
    """Mounted until :meth:`close`. Raises ``OSError`` where it cannot be, and then nothing is mounted."""

    def __init__(self, workshop: Workshop, record: Record) -> None:
        folder = _mount_in_order(workshop, record)
        try:
            is_overlay = record.installed.kind == "immutable"
            if is_overlay and not os.path.ismount(DATA):
                raise OSError("the data partition, where its packages are, is not there")
            self.tree = Root(folder, DATA if is_overlay else "")
        except OSError:
            release_root()
            raise

    def close(self) -> None:
        """Everything is written when this returns."""
        try:
            self.tree.close()
        finally:
            release_root()


def _mount_in_order(workshop: Workshop, record: Record) -> str:
    config, disk, alive = workshop.config, workshop.disk, workshop.alive
    is_ours = record.installed.kind == "read-write"  # to be mended: an immutable slot is not written here
    node = node_of(disk, workshop.slots[record.primary].place)
    if is_ours:
        preen(node, alive)
    try:
        try:
            return mount_system(record, config, disk, False, alive)
        except BootFailedError:
            if not is_ours or not mend(node, alive):
                raise
            return mount_system(record, config, disk, False, alive)
    except BootFailedError as error:
        raise OSError(str(error)) from error
