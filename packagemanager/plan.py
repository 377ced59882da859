"""The plan of a transaction: from packages that came and packages that go to operations in their order.

Nothing of the system is changed here; links and the database's texts are staged. The order is: folders that make place
for files, new folders, files, what goes, the database, and folders that are empty then, the deepest first.
"""

from __future__ import annotations

from packagemanager import plan_database
from packagemanager.arriving import Arriving, Step
from packagemanager.claims import settle
from packagemanager.conffiles import NEVER_CONFIGURED, OBSOLETE, OLD_NAME, REMOVE_ON_UPGRADE
from packagemanager.entry import FILE, Entry
from packagemanager.errors import refuse
from packagemanager.leaving import leave
from packagemanager.operation import REMOVE, REMOVE_DIRECTORY, Operation
from packagemanager.status import Conffile
from packagemanager.wanted import PATH as WANTED_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from packagemanager.changes import Changes
    from packagemanager.claims import Claims
    from packagemanager.database import Database, Package
    from packagemanager.ground import Ground
    from packagemanager.incoming import Incoming, Stage
    from packagemanager.leaving import Leaving
    from packagemanager.wanted import Wanted

DATABASE_WHY = "the database"


class Plan:
    """``steps`` in order; ``notes`` are decisions that change nothing and that a person may want to know.

    ``unchanged`` counts entries that are as they shall be. ``paths`` are all that come or go, as triggers want them.
    """

    __slots__ = ("notes", "paths", "steps", "unchanged")

    def __init__(self, steps: Sequence[Step], notes: Sequence[str], unchanged: int, paths: Sequence[str]) -> None:
        self.steps = tuple(steps)
        self.notes = tuple(notes)
        self.unchanged = unchanged
        self.paths = tuple(paths)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(step.operation for step in self.steps)


def make(
    changes: Changes,
    incoming: Sequence[Incoming],
    wanted: Wanted,
    database: Database,
    ground: Ground,
    stage: Stage,
    *,
    rough: bool = False,
) -> Plan:
    """``incoming`` are the packages of ``changes.unpacked``, in that order. What has no place is dropped
    from ``stage``. ``rough``: to see whether it can be done; which files are there already is not looked at.

    Raises:
        RefusedError: it cannot be done here; every reason is named, up to a bound.
        DatabaseError, ArchiveError, OSError: as what is read says.
    """
    claims = settle(changes, incoming, database, ground)
    leaving = leave(changes, incoming, claims, database, ground)
    arriving = Arriving(claims, leaving, ground, stage, rough=rough)
    _arrive(incoming, claims, arriving, database)
    _move(leaving, arriving, ground, stage)
    refuse(arriving.problems, "Ask the master.")
    removals = [
        Step(Operation(REMOVE, place), why) for place, why in leaving.files.items() if place not in arriving.cleared
    ]
    texts = plan_database.texts(changes, incoming, claims, leaving, arriving.conffiles, database)
    texts.write(WANTED_PATH, wanted.encode())
    remembered = _database_steps(texts, arriving, ground)
    _drop_unused(incoming, arriving, stage)
    steps = [
        *arriving.clearing,
        *arriving.folders,
        *arriving.puts,
        *removals,
        *remembered,
        *_folder_removals(leaving, arriving, ground),
    ]
    paths = [entry.path for one in incoming for entry in one.entries]
    paths += [path for change in changes.removed if change.old for path in database.list(change.old)]
    return Plan(steps, [*leaving.notes, *arriving.notes], arriving.unchanged, paths)


def _arrive(incoming: Sequence[Incoming], claims: Claims, arriving: Arriving, database: Database) -> None:
    """Decide about everything that comes, and note what `status` will say of conffiles."""
    recorded: dict[str, list[tuple[Package, str]]] = {}
    for package in database.packages.values():
        for conffile in package.conffiles:
            recorded.setdefault(conffile.path, []).append((package, conffile.md5))
    for one in incoming:
        before = {path: _before(path, recorded.get(path, ()), one, database) for path, _goes in one.conffiles}
        for entry in one.entries:
            claim = claims.by_place.get(arriving.place(entry.path, one))
            if claim is not None and claim.incoming is one and claim.entry is entry:
                arriving.arrive(claim, before[entry.path] if entry.path in one.guarded else None)
        arriving.conffiles[one.change.key] = _conffiles(one, before, claims.lost.get(one.change.key, set()))


def _before(path: str, recorded: Sequence[tuple[Package, str]], one: Incoming, database: Database) -> str:
    """The MD5 that dpkg remembers of a conffile: the package's own before another's, of one that lists it. Or empty."""
    listed = [(package, md5) for package, md5 in recorded if path in database.list(package)]
    own = [md5 for package, md5 in listed if package is one.change.old]
    return next(iter(own or [md5 for _package, md5 in listed]), "")


def _conffiles(one: Incoming, before: dict[str, str], lost: set[str]) -> list[Conffile]:
    """``lost`` are paths that another package has: of a file that was not put, what was remembered stays."""
    found = []
    for path, goes in one.conffiles:
        if goes or path in lost:
            mark = REMOVE_ON_UPGRADE if goes else OBSOLETE
            found.append(Conffile(path, before[path] or NEVER_CONFIGURED, (mark,)))
        elif path in one.md5:
            found.append(Conffile(path, one.md5[path]))
    return found


def _move(leaving: Leaving, arriving: Arriving, ground: Ground, stage: Stage) -> None:
    """Files that get another name: the old name goes, and what was there is put under the new one."""
    for place, why in leaving.moved.items():
        found = ground.look(place)
        if found is None or place in leaving.files:
            continue
        entry = Entry(
            f"{place}{OLD_NAME}",
            FILE,
            mode=found.mode,
            uid=found.uid,
            gid=found.gid,
            mtime=found.mtime,
            size=found.size,
        )
        arriving.put(entry.path, stage.file(entry, ground.content(place)), f"/{place} was changed here; {why}")
        leaving.files[place] = why


def _database_steps(texts: plan_database.Texts, arriving: Arriving, ground: Ground) -> list[Step]:
    steps = []
    for path, (content, mode) in texts.written.items():
        step = arriving.text(path, content, mode, DATABASE_WHY)
        if step is not None:
            steps.append(step)
    for path in texts.removed:
        place = ground.resolve(path)
        if ground.look(place) is not None:
            steps.append(Step(Operation(REMOVE, place), DATABASE_WHY))
    return steps


def _drop_unused(incoming: Sequence[Incoming], arriving: Arriving, stage: Stage) -> None:
    for one in incoming:
        for number in one.staged.values():
            if number not in arriving.used:
                stage.drop(number)


def _folder_removals(leaving: Leaving, arriving: Arriving, ground: Ground) -> list[Step]:
    """The deepest first."""
    steps = []
    for place in sorted(leaving.folders, key=lambda one: (-one.count("/"), one)):
        found = ground.look(place)
        if found is not None and place not in arriving.cleared and leaving.goes(place):
            gone = Operation(REMOVE_DIRECTORY, place, mode=found.mode, uid=found.uid, gid=found.gid, mtime=found.mtime)
            steps.append(Step(gone, leaving.folders[place]))
    return steps
