"""What the scripts' side has to know of a transaction, from what the database's side knows. Changes nothing."""

from __future__ import annotations

from packagemanager import script_plan, triggers
from packagemanager.calls import NEW, OLD, PREINST, PRERM, SCRIPTS, Turn
from packagemanager.changes import unmet
from packagemanager.database import UNCONFIGURED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from packagemanager.changes import Changes
    from packagemanager.database import Database, Package
    from packagemanager.ground import Ground
    from packagemanager.incoming import Incoming, Source
    from packagemanager.supported import Controls

TRIGGERS = "triggers"


class Turns:
    """``controls`` are the control files of the packages that change, by (info name, "old" or "new")."""

    __slots__ = ("by_key", "changes", "controls", "database", "incoming")

    def __init__(self, changes: Changes, incoming: Sequence[Incoming], database: Database) -> None:
        self.changes = changes
        self.incoming = incoming
        self.database = database
        self.controls: Controls = {}
        self.by_key: dict[str, Turn] = {}
        controls: dict[tuple[str, str], dict[str, bytes]] = {}
        for change in changes.removed:
            assert change.old is not None
            self.by_key[change.key] = self._turn(change.old, None, purge=changes.purge)
        for one in incoming:
            self.by_key[one.change.key] = self._turn(one.change.old, one)
            controls[self.by_key[one.change.key].info, NEW] = one.files
        for package in [change.old for change in (*changes.removed, *changes.unpacked) if change.old]:
            controls[database.stem(package.fields), OLD] = self._scripts(package)
        self.controls = controls

    def _scripts(self, package: Package) -> dict[str, bytes]:
        there = self.database.info_names(package)
        return {name: self.database.info(package, name) for name in SCRIPTS if name in there}

    def _turn(self, old: Package | None, new: Incoming | None, purge: bool = False) -> Turn:
        fields = new.fields if new else old.fields if old else None
        assert fields is not None
        return Turn(
            fields.get("Package"),
            fields.get("Architecture"),
            old=old.version if old and old.present else "",
            new=fields.get("Version") if new else "",
            info=self.database.stem(fields),
            old_architecture=old.architecture if old else "",
            old_info=self.database.stem(old.fields) if old else "",
            configured=old.configured if old else "",
            unconfigured=old is not None and old.state in UNCONFIGURED,
            left=old.version if old and old.state == "config-files" else "",
            old_scripts=[name for name in SCRIPTS if old and name in self.database.info_names(old)],
            new_scripts=[name for name in SCRIPTS if new and name in new.files],
            purge=purge,
        )

    def all(self) -> list[Turn]:
        return list(self.by_key.values())

    def has_scripts_before(self) -> bool:
        """Whether any script is to run before the files change."""
        return any(PRERM in turn.old_scripts or PREINST in turn.new_scripts for turn in self.all())

    def script_changes(self, paths: Iterable[str]) -> script_plan.Changes:
        """``paths`` are all that come or go. Raises ``UnsupportedError`` for a trigger that nobody knows."""
        before = {
            self.database.stem(package.fields): package
            for package in self.database.present()
            if TRIGGERS in self.database.info_names(package)
        }
        declared = {stem: triggers.parse(self.database.info(one, TRIGGERS), one.name) for stem, one in before.items()}
        changed = {info for turn in self.by_key.values() for info in (turn.info, turn.old_info)}
        after = {stem: said for stem, said in declared.items() if stem not in changed}
        listeners = {stem: Turn(one.name, one.architecture, info=stem) for stem, one in before.items() if stem in after}
        for one in self.incoming:
            turn = self.by_key[one.change.key]
            after[turn.info] = triggers.parse(one.files.get(TRIGGERS, b""), one.name)
            listeners[turn.info] = turn
        return script_plan.Changes(
            [self.by_key[change.key] for change in self.changes.removed],
            [self.by_key[one.change.key] for one in self.incoming],
            [self.by_key[key] for key in self.changes.configured],
            declared_before=declared,
            declared_after=after,
            listeners=listeners,
            paths=paths,
        )

    def unmet_before(self, turn: Turn) -> str:
        """Which Pre-Depends of what comes the system does not fulfil as it is now; empty for none."""
        one = next(one for one in self.incoming if self.by_key[one.change.key] is turn)
        if not one.fields.get("Pre-Depends"):
            return ""
        now = {package.key: package.fields for package in self.database.present() if package.complete}
        asked = one.fields.changed(Depends=None, Conflicts=None, Breaks=None)
        problems = [problem for problem in unmet({**now, one.change.key: asked}, self.database.architectures())
                    if problem.startswith(f"{one.change.key} ")]  # fmt: skip
        return "; ".join(problems)


def runs(ground: Ground, gone: Iterable[str] = (), come: Iterable[str] = ()) -> Callable[[str], bool]:
    """Whether there is such a program: what is there now, without the places ``gone`` and with those that ``come``."""
    without, within = frozenset(gone), frozenset(come)

    def answer(program: str) -> bool:
        place = ground.follow(ground.resolve(program.lstrip("/")))
        return place in within or (place not in without and ground.look(place) is not None)

    return answer


def scripts_come_first(changes: Changes, sources: Mapping[str, Source], database: Database) -> bool:
    """Whether a script may run before files change: told without unpacking anything."""
    olds = [change.old for change in (*changes.removed, *changes.unpacked) if change.old and change.old.present]
    if any(PRERM in database.info_names(package) for package in olds):
        return True
    return any(PREINST in sources[change.key].control()[1] for change in changes.unpacked)
