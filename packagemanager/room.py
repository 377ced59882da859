"""Space that is kept for what comes after the point of no return: names, folders and phases need blocks and inodes.

Before it, ``transaction/room/`` gets as many files as inodes could be needed, which together hold as many bytes. Nobody
else can take them. Where the disk says that it is full, they are given up one by one until the operation succeeds.

The bound is that of file systems of 4 KiB blocks whose folders take no more than what ext4's do: half-full blocks.
What a whole new file needs is not in it: those are staged, and durable, before.
"""

from __future__ import annotations

from packagemanager import places
from packagemanager.operation import MAKE_DIRECTORY, REMOVE_DIRECTORY
from payload.digest import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from packagemanager.operation import Operation
    from packagemanager.tree import Tree

BLOCK_BYTES = 4096
NAME_BYTES = 16  # beside the letters: ext4's entry has 8, rounded up to 4
PHASES_BLOCKS = 8  # the phase's next version, its name, and what an overlay prepares in its working folder
BLOCKS_A_FOLDER = 3  # a folder that grows: the block that is split in two, and its index


def needed(operations: Sequence[Operation]) -> tuple[int, int]:
    """Bytes and inodes that going forward, or back again, may take at most."""
    folders = set(_folders_above(operations))
    made = sum(one.act in (MAKE_DIRECTORY, REMOVE_DIRECTORY) for one in operations)
    names_bytes = sum(
        len(one.path.rpartition("/")[2].encode(errors="surrogateescape")) + NAME_BYTES for one in operations
    )
    blocks = PHASES_BLOCKS + BLOCKS_A_FOLDER * (len(folders) + made)
    # A block is at least half full, so names may take twice their bytes.
    return blocks * BLOCK_BYTES + 2 * names_bytes, PHASES_BLOCKS + len(folders) + made


def _folders_above(operations: Sequence[Operation]) -> Iterator[str]:
    """All of them: an overlay makes each anew in its upper layer when something in it changes first."""
    for one in operations:
        folder = one.path.rpartition("/")[0]
        while folder:
            yield folder
            folder = folder.rpartition("/")[0]


def keep(tree: Tree, operations: Sequence[Operation]) -> None:
    """Raises: OSError: ENOSPC: so much is not there."""
    size, count = needed(operations)
    places.make_folders(tree, places.ROOM)
    each = -(-size // count)
    # Bytes that no file system can compress.
    content = b"".join(digest(b"%d" % number) for number in range(-(-each // 32)))[:each]
    for number in range(count):
        tree.write(f"{places.ROOM}/{number}", (content,))


def give_up(tree: Tree) -> bool:
    """One inode and its bytes, and no more: others may take what is free. Whether there was any."""
    names = tree.list(places.ROOM) if tree.look(places.ROOM) is not None else []
    if not names:
        return False
    tree.unlink(f"{places.ROOM}/{names[0]}")
    # Freed blocks can be used when the freeing is durable.
    tree.sync()
    return True
