"""What scripts may take away from the old set gets second names before they run, for the day that it has to come back.

A plan keeps what it replaces or removes. Scripts move and remove more: a preinst, before the plan is made; a postinst,
what the plan leaves. Of a package with scripts that is the configuration, and what `dpkg-maintscript-helper(1)` is
called with: it moves a file, a link or a folder away, and deletes it once the package is configured.

The names lie beside the scripts' notes: what a script told to take it back finds, it puts back itself, as under dpkg.
"""

from __future__ import annotations

from packagemanager import keeping, places, plan_file, steps
from packagemanager.calls import NEW, OLD
from packagemanager.entry import DIRECTORY
from packagemanager.errors import RefusedError
from packagemanager.operation import KEEP_DIRECTORY, REMOVE, Operation
from packagemanager.plan_file import Plan
from packagemanager.whole_file import read_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from packagemanager.calls import Turn
    from packagemanager.ground import Ground
    from packagemanager.tree import Tree
    from packagemanager.turns import Turns

FOLDER = f"{places.FOLDER}/scripts/files"  # it goes with the scripts' own
LIST = f"{FOLDER}/list"
# What a helper that is under way has moved it to: its script, told that all is taken back, moves it back.
MOVED = (".dpkg-backup", ".dpkg-remove")
HELPER = b"dpkg-maintscript-helper"
VERBS = (b"rm_conffile", b"mv_conffile", b"symlink_to_dir", b"dir_to_symlink")
_SHELL = b"$`\\*?["


def keep(tree: Tree, turns: Turns, ground: Ground) -> None:
    """Raises: RefusedError: it is more than a plan may have. OSError: the disk's. Nothing is durable yet."""
    there = {place: found for place in _endangered(turns, ground) if (found := steps.look(tree, place)) is not None}
    folders = {place for place, found in there.items() if found.kind == DIRECTORY}
    operations = [Operation(REMOVE, place) for place in sorted(there.keys() - folders)]
    if not there:
        return
    tree.make_directory(FOLDER)
    for number, operation in enumerate(operations):
        try:
            tree.hard_link(operation.path, f"{FOLDER}/{number}")
        except OSError as error:
            # On a file system of its own, say: no reason to refuse the transaction. What is lost of it is told then.
            if error.errno not in steps.IN_THE_WAY:
                raise
    operations += keeping.kept_folders(tree, folders | places.above(there))
    try:
        raw = plan_file.encode_plan(Plan(operations, [0] * len(operations), {}))
    except ValueError as error:
        raise RefusedError(
            f"what scripts may take away cannot be noted: {error}", "make the transaction smaller"
        ) from None
    tree.write(LIST, (raw,))


def bring_back(tree: Tree, *, scripts_follow: bool = False) -> list[tuple[str, str]]:
    """What is gone, once the old files are in place; what is there stays as it is. Durable at once, if anything was.

    ``scripts_follow``: what a script can still put back is left to it. Raises: OSError: the disk's.

    Returns: paths that could not be brought back, or where something else was put aside, with reasons.
    """
    try:
        raw = read_whole(tree, LIST, plan_file.PLAN_BYTES_MAX)
        operations = plan_file.decode_plan(raw).operations if raw is not None else ()
    except ValueError as error:
        return [("", f"what scripts took away stays away: /{LIST}: {error}")]
    missing = [one for one in enumerate(operations) if _is_gone(tree, one[1])]
    if scripts_follow:
        missing = [one for one in missing if not _is_moved(tree, one[1].path)]
    said = ((operation.path, _back(tree, number, operation)) for number, operation in reversed(missing))
    left = [(path, reason) for path, reason in said if reason]
    if missing:
        tree.sync()
    return left


def _is_gone(tree: Tree, operation: Operation) -> bool:
    found = steps.look(tree, operation.path)
    return found is None or (operation.act == KEEP_DIRECTORY and found.kind != DIRECTORY)


def _is_moved(tree: Tree, path: str) -> bool:
    names = (path, *places.above([path]))
    return any(tree.look(f"{name}{moved}") is not None for name in names for moved in MOVED)


def _back(tree: Tree, number: int, operation: Operation) -> str:
    if operation.act == KEEP_DIRECTORY:
        return steps.back(tree, number, operation, (0, 0))
    try:
        steps.require_folder(tree, operation.path)
        tree.hard_link(f"{FOLDER}/{number}", operation.path)
    except OSError as error:
        if error.errno not in steps.IN_THE_WAY:
            raise
        return error.strerror or str(error)
    return ""


def _endangered(turns: Turns, ground: Ground) -> Iterator[str]:
    """Places of what packages that change and have scripts could lose by them."""
    database = turns.database
    for change in (*turns.changes.removed, *turns.changes.unpacked):
        package, turn = change.old, turns.by_key[change.key]
        if package is None or not (turn.old_scripts or turn.new_scripts):
            continue
        guarded = {conffile.path for conffile in package.conffiles}
        helped = _helped(turns, turn)
        for path in dict.fromkeys((*guarded, *database.list(package))):
            if path in guarded or helped is None or any(f"{path}/".startswith(f"{one}/") for one in helped):
                yield ground.place_now(path, package.name)


def _helped(turns: Turns, turn: Turn) -> set[str] | None:
    """What its scripts call the helper with, as paths of packages; None where that cannot be told."""
    found: set[str] = set()
    for info, place in ((turn.old_info, OLD), (turn.info, NEW)):
        for text in turns.controls.get((info, place), {}).values():
            for verb, word in _calls(text.replace(b"\\\n", b" ")):
                if verb.startswith(b"$") or (verb in VERBS and any(byte in _SHELL for byte in word)):
                    return None
                if verb in VERBS:
                    found.add(word.decode("utf-8", "surrogateescape").strip("/"))
    return found


def _calls(script: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What the helper is called with: what it does, and the path."""
    for line in script.split(b"\n"):
        words = [word.strip(b"\"'") for word in line.split()]
        for program, verb, word in zip(words, words[1:], words[2:], strict=False):
            if program == HELPER:
                yield verb, word
