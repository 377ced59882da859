"""What scripts may take away from the old set gets second names before they run, for the day that it has to come back.

A plan keeps what it replaces or removes. Scripts move and remove more: a preinst, before the plan is made; a postinst,
what the plan leaves. Of a package with scripts that is the configuration, and what `dpkg-maintscript-helper(1)` is
called with: it moves a file, a link or a folder away, and deletes it once the package is configured.

The names lie beside the scripts' notes: what a script told to take it back finds, it puts back itself, as under dpkg.
"""

from __future__ import annotations

from packagemanager import keeping, places, plan_file, steps
from packagemanager.calls import NEW, OLD
from packagemanager.entry import DIRECTORY, FILE
from packagemanager.errors import RefusedError
from packagemanager.operation import KEEP_DIRECTORY, REMOVE, REMOVE_DIRECTORY, Operation
from packagemanager.plan_file import Plan
from packagemanager.space import check_kept
from packagemanager.whole_file import read_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from packagemanager.calls import Turn
    from packagemanager.ground import Ground
    from packagemanager.tree import Stat, Tree
    from packagemanager.turns import Turns

FOLDER = f"{places.SCRIPTS}/files"  # it goes with the scripts' own
LIST = f"{FOLDER}/list"
# What a helper that is under way has moved it to: its script, told that all is taken back, moves it back.
MOVED = (".dpkg-backup", ".dpkg-remove")
HELPER = b"dpkg-maintscript-helper"
VERBS = (b"rm_conffile", b"mv_conffile", b"symlink_to_dir", b"dir_to_symlink")
COPIED_BYTES_MAX = 1 << 20
_SHELL = b"$`\\*?["


def keep(tree: Tree, turns: Turns, ground: Ground) -> None:
    """Nothing is durable yet.

    Raises: RefusedError: it is more than a plan may have, or an overlay has no room for copies. OSError: the disk's.
    """
    named: dict[str, bool] = {}
    guarded: set[str] = set()
    for place, is_named, is_guarded in _endangered(turns, ground):
        named[place] = is_named
        if is_guarded:
            guarded.add(place)
    there = {place: found for place in named if (found := steps.look(tree, place)) is not None}
    folders = {place for place, found in there.items() if found.kind == DIRECTORY}
    operations = [Operation(REMOVE, place) for place in sorted(there.keys() - folders)]
    if not there:
        return
    check_kept(tree, operations)
    tree.make_directory(FOLDER)
    try:
        kept = _keep_files(tree, operations, there, guarded)
        above = keeping.kept_folders(tree, folders | places.above(there))
        # What the helper replaces by a link comes back; else what has become a link stays one.
        above = [_replaced(one) if one.path in folders and named[one.path] else one for one in above]
        noted = Plan([*kept, *above], [0] * (len(kept) + len(above)), {})
        tree.write(LIST, (plan_file.encode_plan(noted),))
    except ValueError as error:
        raise RefusedError(
            f"what scripts may take away cannot be noted: {error}", "make the transaction smaller"
        ) from None


def _keep_files(
    tree: Tree, operations: Sequence[Operation], there: Mapping[str, Stat], guarded: Container[str]
) -> list[Operation]:
    """Configuration is copied: who reads it may ask for one name (cron does), and an owner who edits what comes back
    edits no other file. The operations of those are ``kept``; the others get second names.
    """
    names: dict[tuple[int, int], int] = {}
    for one in operations:
        names[there[one.path].inode] = names.get(there[one.path].inode, 0) + 1
    firsts: dict[tuple[int, int], str] = {}
    done = []
    for number, operation in enumerate(operations):
        found = there[operation.path]
        is_copied = operation.path in guarded and names[found.inode] == 1 and _copied(tree, number, operation, found)
        done.append(Operation(REMOVE, operation.path, kept=is_copied))
        if is_copied:
            continue
        # As `keeping.keep`: names of one file stay names of one.
        source = firsts.setdefault(found.inode, operation.path)
        try:
            tree.hard_link(source, _kept(number))
        except OSError as error:
            # On a file system of its own, say: no reason to refuse the transaction. What is lost of it is told then.
            if error.errno not in steps.IN_THE_WAY:
                raise
        else:
            firsts[found.inode] = _kept(number)
            _one_again(tree, number, operation)
    return done


def _one_again(tree: Tree, number: int, operation: Operation) -> None:
    """An overlay has copied the first name of a file of its lower layer; the others are names of that copy at once, as
    a plan that is made now has to see one file.
    """
    kept, found = tree.look(_kept(number)), steps.look(tree, operation.path)
    if kept is None or found is None or kept.inode == found.inode or not steps.is_same(kept, found):
        return
    try:
        tree.rename(_kept(number), operation.path)
    except OSError as error:
        if error.errno not in steps.IN_THE_WAY:
            raise
    if tree.look(_kept(number)) is None:
        tree.hard_link(operation.path, _kept(number))


def _copied(tree: Tree, number: int, operation: Operation, found: Stat) -> bool:
    """Copy it, and say whether: not where a copy would not be the same, or the disk does not read it."""
    if found.kind != FILE or found.size > COPIED_BYTES_MAX:
        return False
    try:
        content = read_whole(tree, operation.path, COPIED_BYTES_MAX) if tree.is_plain(operation.path) else None
    except (OSError, ValueError):
        return False
    if content is None:
        return False
    _copy(tree, content, found, _kept(number))
    return True


def _copy(tree: Tree, content: bytes, found: Stat, path: str) -> None:
    tree.write(path, (content,))
    tree.set_attributes(path, found.mode, found.uid, found.gid, found.mtime)


def _replaced(one: Operation) -> Operation:
    return Operation(REMOVE_DIRECTORY, one.path, mode=one.mode, uid=one.uid, gid=one.gid, mtime=one.mtime)


def bring_back(
    tree: Tree, *, scripts_follow: bool = False, alive: Callable[[], None] = lambda: None
) -> list[tuple[str, str]]:
    """What is gone, once the old files are in place; what is there stays as it is. Durable at once, if anything was.

    ``scripts_follow``: what a script can still put back is left to it. Never raises: whatever refuses is no reason to
    hold up a system that is the old set but for that.

    Returns: paths that could not be brought back, or where something else was put aside, with reasons.
    """
    try:
        operations = _noted(tree).operations
        if scripts_follow:
            _copy_again(tree, operations)
    except (ValueError, OSError) as error:
        return [("", f"what scripts took away stays away: /{LIST}: {error}")]
    left = []
    for number, operation in reversed(list(enumerate(operations))):
        alive()
        try:
            reason = _back(tree, number, operation, scripts_follow)
        except OSError as error:
            reason = error.strerror or str(error)
            if operation.act == REMOVE and not scripts_follow:
                reason = f"{reason}{_saved(tree, number, operation)}"
        if reason:
            left.append((operation.path, reason))
    try:
        if operations:
            tree.sync()
    except OSError as error:
        left.append(("", f"what scripts took away may not be back: {error}"))
    return left


def _copy_again(tree: Tree, operations: Sequence[Operation]) -> None:
    """Copies of the copies that come back before scripts are told: these may take them away once more. Durable, or not
    there: then a link comes back, and it is a second name until scripts were told.
    """
    copies: list[str] = []
    try:
        for number, operation in enumerate(operations):
            found = tree.look(_kept(number)) if operation.kept else None
            if found is not None and not _is_there(tree, operation, scripts_follow=True):
                copies.append(_again(number))
                places.remove(tree, _again(number))
                _copy(tree, read_whole(tree, _kept(number), COPIED_BYTES_MAX) or b"", found, _again(number))
        if copies:
            tree.sync()
    except (OSError, ValueError):
        for copy in copies:
            places.remove(tree, copy)


def _saved(tree: Tree, number: int, operation: Operation) -> str:
    try:
        return f"; it is now /{steps.saved(tree, _kept(number), operation.path)}"
    except OSError as error:
        return f"; nor can it be kept: {error.strerror}"


def _noted(tree: Tree) -> Plan:
    raw = read_whole(tree, LIST, plan_file.PLAN_BYTES_MAX)
    return plan_file.decode_plan(raw) if raw is not None else Plan((), (), {})


def _kept(number: int) -> str:
    return f"{FOLDER}/{number}"


def _again(number: int) -> str:
    return f"{FOLDER}/{number}.again"


def _is_moved(tree: Tree, path: str) -> bool:
    names = (path, *places.above([path]))
    return any(tree.look(f"{name}{moved}") is not None for name in names for moved in MOVED)


def _is_there(tree: Tree, operation: Operation, scripts_follow: bool) -> bool:
    """Or where a script that follows will put it."""
    found = steps.look(tree, operation.path)
    if found is not None and operation.act == KEEP_DIRECTORY:
        return True
    if found is not None and (found.kind == DIRECTORY) == (operation.act == REMOVE_DIRECTORY):
        return True
    return scripts_follow and _is_moved(tree, operation.path)


def _back(tree: Tree, number: int, operation: Operation, scripts_follow: bool) -> str:
    if _is_there(tree, operation, scripts_follow):
        return ""
    if operation.act == REMOVE_DIRECTORY:
        return steps.replaced_directory_back(tree, operation)
    if operation.act == KEEP_DIRECTORY:
        return steps.back(tree, number, operation, (0, 0))
    is_again = scripts_follow and operation.kept and tree.look(_again(number)) is not None
    source = _again(number) if is_again else _kept(number)
    if tree.look(source) is None:
        return "what was kept of it is gone"
    steps.require_folder(tree, operation.path)
    said = steps.put_aside(tree, operation.path) if steps.look(tree, operation.path) is not None else ""
    steps.require_folder(tree, operation.path)
    tree.hard_link(source, operation.path)
    if is_again:
        tree.unlink(source)
    return said


def _endangered(turns: Turns, ground: Ground) -> Iterator[tuple[str, bool, bool]]:
    """Places of what packages that change and have scripts could lose by them; whether the helper is called with it,
    and whether it is configuration.
    """
    database = turns.database
    for change in (*turns.changes.removed, *turns.changes.unpacked):
        package, turn = change.old, turns.by_key[change.key]
        if package is None or not (turn.old_scripts or turn.new_scripts):
            continue
        guarded = {conffile.path for conffile in package.conffiles}
        helped = _helped(turns, turn)
        for path in dict.fromkeys((*guarded, *database.list(package))):
            named = any(f"{path}/".startswith(f"{one}/") for one in helped or ())
            if named or path in guarded or helped is None:
                yield ground.place_now(path, package.name), named, path in guarded


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
            if program.rpartition(b"/")[2] == HELPER:
                yield verb, word
