"""The plan of a repair: from what `verify` found to operations. What verifies is not touched; no script is run.

What the record of a package tells is made from it: folders, links, attributes, names of a file that is still there.
Contents come from the package itself, wherever it travelled in. A file that is another name of a damaged one is put
anew with it: it can be one file in no other way.

One plan repairs folders and links, or else files: where files lie is only known once the links above them are right.
"""

from __future__ import annotations

from packagemanager import files, plan_database, verify
from packagemanager.arriving import FOLDER_MODE, Step
from packagemanager.control import identity, paragraph
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, NO_DIGEST, Entry
from packagemanager.errors import DatabaseError, RefusedError, TransactionError
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from packagemanager.database import Database, Package
    from packagemanager.entry import Content
    from packagemanager.ground import Ground
    from packagemanager.incoming import Source, Stage
    from packagemanager.verify import Finding

OF_CONTENT = (verify.MISSING, verify.CHANGED, verify.UNREADABLE, verify.OTHER_KIND)
STRUCTURE = (DIRECTORY, LINK)
WHY, DATABASE_WHY = "repair", "the database"


class Repair:
    """``steps`` in order. ``left`` are findings that this cannot repair, each with the reason."""

    __slots__ = ("left", "steps")

    def __init__(self, steps: Sequence[Step], left: Sequence[tuple[Finding, str]]) -> None:
        self.steps = tuple(steps)
        self.left = tuple(left)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(step.operation for step in self.steps)


def damage(findings: Iterable[Finding]) -> list[Finding]:
    """What is not the owner's doing; of several packages with one place, only the first."""
    places: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        if not finding.allowed:
            places.setdefault((finding.place, "" if finding.place else finding.key), finding)
    return list(places.values())


def needed(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The keys of the packages that :func:`make` needs: while folders or links are damaged, only for lost records."""
    found = damage(findings)
    wanted = _without_record if any(map(_is_structure, found)) else _needs_package
    return tuple(dict.fromkeys(finding.key for finding in found if wanted(finding)))


def _without_record(finding: Finding) -> bool:
    return finding.problem == verify.NO_RECORD


def _needs_package(finding: Finding) -> bool:
    if finding.entry is None:
        return _without_record(finding)
    return finding.entry.kind == FILE and finding.problem in OF_CONTENT


def _is_structure(finding: Finding) -> bool:
    return finding.entry is not None and finding.entry.kind in STRUCTURE


def make(
    findings: Iterable[Finding],
    sources: Mapping[str, Source],
    database: Database,
    ground: Ground,
    stage: Stage,
    partial: bool = False,
) -> Repair:
    """``sources`` are packages by key; those that :func:`needed` names must be there, others are not read.

    ``partial``: what needs a package that is not there is left. ``ground`` must have looked at nothing before the
    findings were made.

    Raises:
        RefusedError: packages are lacking, or are not those that are installed: each is named.
        TransactionError, ArchiveError: a package has not the bytes that were installed.
        OSError: as the tree's and the sources'.
    """
    found, planner = damage(findings), _Planner(database, ground, stage)
    if partial:
        lacking = _lacking(found, sources)
        planner.left += [(one, "its package is needed for that, and not here") for one in found if one in lacking]
        found = [finding for finding in found if finding not in lacking]
    _check_sources(found, sources, database)
    for finding in filter(_without_record, tuple(found)):
        found += planner.remember(database.packages[finding.key], sources[finding.key])
    found = damage(found)
    planner.structure([finding for finding in found if _is_structure(finding)])
    if not planner.steps:
        by_key: dict[str, list[Finding]] = {}
        for finding in found:
            if not _is_structure(finding):
                by_key.setdefault(finding.key, []).append(finding)
        for key, own in by_key.items():
            planner.package(database.packages[key], own, sources.get(key))
    return Repair([*planner.steps, *planner.texts], planner.left)


def _lacking(found: Sequence[Finding], sources: Mapping[str, Source]) -> set[Finding]:
    """What needs packages that are not there; the second names of such files too."""
    wanted = {key for key in needed(found) if key not in sources}
    lacking = {finding for finding in found if finding.key in wanted and _needs_package(finding)}
    files_lacking = {(finding.key, finding.path) for finding in lacking}
    links = (one for one in found if one.entry is not None and one.entry.kind == HARD_LINK)
    return lacking | {one for one in links if (one.key, _entry(one).target) in files_lacking}


def _check_sources(found: Sequence[Finding], sources: Mapping[str, Source], database: Database) -> None:
    wanted = needed(found)
    lacking = [f"{key} {database.packages[key].version}" for key in wanted if key not in sources]
    if lacking:
        raise RefusedError(
            f"damaged files can only come from their packages: {', '.join(lacking)}",
            "Bring these packages (a medium, a transaction, or the network) and repair again.",
        )
    for key in wanted:
        package = database.packages[key]
        name, version, architecture = identity(paragraph(sources[key].control()[0]))
        if (name, version, architecture) != (package.name, package.version, package.architecture):
            raise RefusedError(
                f"{key} {package.version} is installed, and {name}:{architecture} {version} was brought for it",
                "Bring the version that is installed, or apply a transaction that has the other one.",
            )


class _Planner:
    def __init__(self, database: Database, ground: Ground, stage: Stage) -> None:
        self.steps: list[Step] = []
        self.texts: list[Step] = []
        self.left: list[tuple[Finding, str]] = []
        self._database = database
        self._ground = ground
        self._stage = stage
        self._made: set[str] = set()
        self._records: dict[str, tuple[Entry, ...]] = {}

    # Folders and links.

    def structure(self, findings: Sequence[Finding]) -> None:
        """The highest first; what lies below a link that this repairs waits for the next plan."""
        links: set[str] = set()
        for finding in sorted(findings, key=lambda one: (one.place.count("/"), one.place)):
            entry = _entry(finding)
            if finding.problem == verify.UNREADABLE and entry.kind == DIRECTORY:
                self.left.append((finding, "a folder that cannot be read is for a check of the file system"))
            elif links.isdisjoint(_above(finding.place)) and self._is_reached(finding):
                _STRUCTURE[entry.kind](self, finding)
                links |= {finding.place} if entry.kind == LINK else set()

    def _is_reached(self, finding: Finding) -> bool:
        """Whether no link that leads to nothing is above it. If there is one, what it leads to is made first."""
        for folder in _above(finding.place):
            found = self._ground.look(folder)
            if found is not None and found.kind == LINK:
                target = self._ground.follow(folder)
                if self._ground.look(target) is None:
                    self._make(target, Entry(target, DIRECTORY, mode=FOLDER_MODE), str(finding))
                    return False
        return True

    def _folder(self, finding: Finding) -> None:
        """Where a link leads to nothing, the folder that it should lead to: the link may be the owner's."""
        place = self._ground.follow(finding.place)
        self._make(place if self._ground.look(place) is None else finding.place, _entry(finding), str(finding))

    def _link(self, finding: Finding) -> None:
        self._put(finding.place, self._stage.link(_entry(finding)), str(finding))

    def _make(self, place: str, entry: Entry, why: str) -> None:
        if place in self._made:
            return
        self._made.add(place)
        self._make_above(place, why)
        found = self._ground.look(place)
        if found is not None and found.kind != DIRECTORY:
            self.steps.append(Step(Operation(REMOVE, place), why))
        made = Operation(MAKE_DIRECTORY, place, mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime)
        self.steps.append(Step(made, why))

    def _make_above(self, place: str, why: str) -> None:
        for folder in _above(place):
            if self._ground.look(folder) is None:
                self._make(folder, Entry(folder, DIRECTORY, mode=FOLDER_MODE), why)

    def _put(self, place: str, number: int, why: str) -> None:
        self._make_above(place, why)
        found = self._ground.look(place)
        if found is not None and found.kind == DIRECTORY:
            self.steps.append(Step(Operation(REMOVE_DIRECTORY, place), why))
            found = None
        self.steps.append(Step(Operation(PUT, place, staged=number, kept=found is not None), why))

    # Files.

    def package(self, package: Package, findings: Sequence[Finding], source: Source | None) -> None:
        entries = self._records.get(package.key) or verify.record(self._database, package)
        if entries is None:
            return  # nothing was found but that; `remember` comes first
        if any(finding.problem == verify.NO_LIST for finding in findings):
            self._list(package, entries)
        self._files(package, entries, [one for one in findings if one.entry is not None], source)
        if source is not None and any(map(_needs_package, findings)):
            self._control_files(package, source)

    def _files(
        self, package: Package, entries: Sequence[Entry], findings: Sequence[Finding], source: Source | None
    ) -> None:
        """First names of damaged files, with whether their content is damaged too."""
        wanted: dict[str, bool] = {}
        by_path = {entry.path: entry for entry in entries}
        for finding in self._possible(findings):
            first = finding.path if _entry(finding).kind == FILE else _entry(finding).target
            if first not in by_path:
                self.left.append((finding, f"it is another name of /{first}, which another package has now"))
                continue
            wanted[first] = wanted.get(first, False) or _needs_package(finding)
        whys = {finding.path: str(finding) for finding in findings}
        fresh = {path: by_path[path] for path, is_damaged in wanted.items() if is_damaged}
        numbers = self._stage_from(source, fresh, package) if source is not None and fresh else {}
        for path in wanted:
            number = numbers[path] if path in numbers else self._stage_again(by_path[path], package)
            why = whys.get(path, WHY)
            self._put(self._ground.place(path, package.name), number, why)
            for other in entries:
                if other.kind == HARD_LINK and other.target == path:
                    place = self._ground.place(other.path, package.name)
                    self._put(place, self._stage.hard_link(other, number), whys.get(other.path, why))

    def _possible(self, findings: Sequence[Finding]) -> Iterator[Finding]:
        for finding in findings:
            try:
                if not self._is_reached(finding):
                    continue
                found = self._ground.look(finding.place)
            except OSError as error:
                self.left.append((finding, f"the disk says: {error.strerror}"))
                continue
            if found is not None and found.kind == DIRECTORY and self._ground.names(finding.place):
                self.left.append((finding, "a folder with something in it is in its place: move that away"))
            else:
                yield finding

    def _stage_from(self, source: Source, wanted: Mapping[str, Entry], package: Package) -> dict[str, int]:
        numbers: dict[str, int] = {}
        content = self._read(source, wanted, numbers)
        shipped = {entry.path: entry.digest for entry in content.entries if entry.kind == FILE}
        for path, entry in wanted.items():
            if path not in numbers or entry.digest not in (NO_DIGEST, shipped[path]):
                raise TransactionError(
                    f"{package.key} {package.version} was brought with another /{path} than was installed",
                    "Bring the package that this device got.",
                )
        return numbers

    def _read(self, source: Source, wanted: Mapping[str, Entry], numbers: dict[str, int]) -> Content:
        """Stages ``wanted``, and notes under which ``numbers``."""

        def sink(entry: Entry, pieces: Iterator[bytes]) -> None:
            if entry.path in wanted:
                numbers[entry.path] = self._stage.file(wanted[entry.path], pieces)

        return source.unpack(sink)

    def _stage_again(self, entry: Entry, package: Package) -> int:
        """The content that is there and was found to be right, as another file."""
        from payload.digest import hasher

        state = hasher()

        def pieces() -> Iterator[bytes]:
            for piece in self._ground.content(self._ground.place(entry.path, package.name)):
                state.update(piece)
                yield piece

        number = self._stage.file(entry, pieces())
        if entry.digest not in (NO_DIGEST, state.digest()):
            raise RefusedError(f"/{entry.path} of {package.key} changes while it is read", "Repair again.")
        return number

    # What is remembered of the package.

    def remember(self, package: Package, source: Source) -> list[Finding]:
        """Write a lost record anew; the answer is what differs from it."""
        taken = self._taken_by_others(package)
        content = self._read(source, {}, {})
        shipped = (entry for entry in content.entries if entry.kind == DIRECTORY or entry.path not in taken)
        entries = tuple(self._database.given(entry) for entry in shipped)
        self._records[package.key] = entries
        self._text(files.path_of(self._database.stem(package.fields)), files.encode(package.fields, entries))
        self._list(package, entries)
        return list(verify.check(self._database, package, entries, self._ground))

    def _taken_by_others(self, package: Package) -> set[str]:
        """What other packages list and this one does not (any more): they replaced it."""
        lists: dict[str, set[str]] = {}
        for other in self._database.present():
            try:
                lists[other.key] = set(self._database.list(other))
            except DatabaseError:
                continue
        own = lists.pop(package.key, set())
        return set().union(*lists.values()) - own

    def _list(self, package: Package, entries: Sequence[Entry]) -> None:
        obsolete = [conffile.path for conffile in package.conffiles if conffile.obsolete]
        paths = ["", *(entry.path for entry in entries if entry.path), *obsolete]
        place = self._database.info_path(package.fields, plan_database.LIST)
        lines = "".join(f"/{path}\n" if path else "/.\n" for path in paths)
        self._text(place, lines.encode("utf-8", "surrogateescape"))

    def _control_files(self, package: Package, source: Source) -> None:
        """dpkg's copies of the package's control files; what is right is left alone."""
        for name, content in source.control()[1].items():
            mode = plan_database.SCRIPT_MODE if name in plan_database.SCRIPTS else plan_database.TEXT_MODE
            self._text(self._database.info_path(package.fields, name), content, mode)

    def _text(self, path: str, content: bytes, mode: int = plan_database.TEXT_MODE) -> None:
        place = self._ground.resolve(path)
        found = self._ground.look(place)
        is_like = found is not None and (found.size, found.mode) == (len(content), mode)
        try:
            if is_like and b"".join(self._ground.content(place)) == content:
                return
        except OSError:
            pass  # what cannot be read is put anew
        number = self._stage.text(path, content, mode)
        self.texts.append(Step(Operation(PUT, place, staged=number, kept=found is not None), DATABASE_WHY))


_STRUCTURE = {DIRECTORY: _Planner._folder, LINK: _Planner._link}


def _above(place: str) -> list[str]:
    """The folders that it is in, the highest first."""
    parts = place.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _entry(finding: Finding) -> Entry:
    assert finding.entry is not None
    return finding.entry
