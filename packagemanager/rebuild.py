"""What a system cannot be read without, brought back from what is remembered twice.

dpkg's `status` from the records of the packages, from those of its own paragraphs that still read, and from its
state one change earlier; `diversions` and `statoverride` from dpkg's copies; and the links of a merged `/usr`, which no
package owns. Decides only.
"""

from __future__ import annotations

from packagemanager import control, files, status
from packagemanager import database as known
from packagemanager.database import Diversions, Package
from packagemanager.entry import DIRECTORY
from packagemanager.errors import ArchiveError, DatabaseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packagemanager.control import Paragraph
    from packagemanager.tree import Tree

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
OLD = "-old"


def links(tree: Tree) -> dict[str, str]:
    """Path to target of the links of a merged `/usr` that are not there, while what they lead to is."""
    lost = [name for name in MERGED if tree.look(name) is None]
    targets = {name: tree.look(f"usr/{name}") for name in lost}
    return {name: f"usr/{name}" for name, found in targets.items() if found is not None and found.kind == DIRECTORY}


def texts(tree: Tree) -> dict[str, bytes]:
    """Path to content of the files of the database that do not read and can be had otherwise.

    Raises:
        DatabaseError: one does not read, and there is nothing to make it from.
    """
    found: dict[str, bytes] = {}
    for path, reads in ((known.DIVERSIONS, _reads_diversions), (known.OVERRIDES, _reads_overrides)):
        if not reads(tree, path):
            if not reads(tree, f"{path}{OLD}"):
                raise known.damaged(path, "and so is dpkg's copy of it", "Reinstall the system.")
            found[path] = known.read_text(tree, f"{path}{OLD}") or b""
    if not _reads_status(tree):
        found[known.STATUS] = _status(tree)
    return found


def _reads_diversions(tree: Tree, path: str) -> bool:
    try:
        Diversions(known.read_text(tree, path) or b"")
    except DatabaseError:
        return False
    return True


def _reads_overrides(tree: Tree, path: str) -> bool:
    """Names are looked up elsewhere: here only the form counts."""
    try:
        text = (known.read_text(tree, path, known.SMALL_TEXT_BYTES_MAX) or b"").decode("utf-8", "surrogateescape")
    except DatabaseError:
        return False
    lines = text.removesuffix("\n").split("\n") if text else []
    return all(len(words := line.split(" ", 3)) == 4 and words[3].startswith("/") for line in lines)


def _reads_status(tree: Tree) -> bool:
    try:
        text = known.read_text(tree, known.STATUS)
        return text is not None and bool(known.parse_status(tree, text, known.STATUS) or not _records(tree))
    except DatabaseError:
        return False


def _status(tree: Tree) -> bytes:
    """What counts most comes last: records of files over what is left of `status`, that over its state before."""
    paragraphs: dict[str, Paragraph] = {}
    for path in (known.STATUS_OLD, known.STATUS):
        paragraphs.update(_salvaged(tree, path))
    paragraphs.update(_records(tree))
    if not paragraphs:
        raise known.damaged(known.STATUS, "and nothing else tells what is installed", "Reinstall the system.")
    return status.compose(paragraphs.values())


def _salvaged(tree: Tree, path: str) -> Iterator[tuple[str, Paragraph]]:
    """The paragraphs that read, whatever the others are."""
    try:
        text = known.read_text(tree, path) or b""
    except DatabaseError:
        return
    for block in text.split(b"\n\n"):
        try:
            package = Package(control.paragraph(block.lstrip(b"\n") + b"\n"))
        except (ArchiveError, ValueError):
            continue
        yield package.key, package.fields


def _records(tree: Tree) -> dict[str, Paragraph]:
    found: dict[str, Paragraph] = {}
    for name in _names(tree, files.FOLDER):
        path = f"{files.FOLDER}/{name}"
        try:
            text = known.read_text(tree, path)
            package = Package(files.decode(text or b"", path).fields)
        except (DatabaseError, ArchiveError, ValueError):
            continue
        found[package.key] = package.fields
    return found


def _names(tree: Tree, folder: str) -> list[str]:
    try:
        return tree.list(folder)
    except OSError:
        return []
