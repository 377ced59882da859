"""What comes: for each place that a package has, what is to be done there. Decides, and stages links.

Nothing is done where everything is as it shall be. A folder that is there keeps its attributes, a link to a folder
stays where a package has a folder, and a folder where a package has a link: dpkg's rules.
"""

from __future__ import annotations

from packagemanager import conffiles
from packagemanager.conffiles import BESIDE, BESIDE_NAME, KEEP
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, Entry
from packagemanager.incoming import changed_meanwhile, is_like
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, REMOVE_DIRECTORY, Operation
from packagemanager.status import Conffile
from payload.digest import hasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packagemanager.claims import Claim, Claims
    from packagemanager.ground import Ground
    from packagemanager.incoming import Incoming, Stage
    from packagemanager.leaving import Leaving
    from packagemanager.tree import Stat

FOLDER_MODE = 0o755


class Step:
    """An operation and why it is done, in words."""

    __slots__ = ("operation", "why")

    def __init__(self, operation: Operation, why: str) -> None:
        self.operation = operation
        self.why = why

    def __str__(self) -> str:
        return f"{self.operation.act:<16} /{self.operation.path}  ({self.why})"


class Arriving:
    """``clearing`` are folders that make place for files, ``folders`` those that are made, ``puts`` all else.

    ``conffiles`` are what `status` will say of those of each package, by key. ``used`` are the numbers that were staged
    and have a place; the others can be dropped. ``problems`` make the plan impossible. ``rough``: do not read files to
    find out which are there already.
    """

    def __init__(self, claims: Claims, leaving: Leaving, ground: Ground, stage: Stage, *, rough: bool = False) -> None:
        self.clearing: list[Step] = []
        self.folders: list[Step] = []
        self.puts: list[Step] = []
        self.conffiles: dict[str, list[Conffile]] = {}
        self.notes: list[str] = []
        self.used: set[int] = set()
        self.problems: list[str] = []
        self.cleared: set[str] = set()
        self.unchanged = 0
        self._claims = claims
        self._leaving = leaving
        self._ground = ground
        self._stage = stage
        self._rough = rough
        self._made: set[str] = set()
        self._hard_links = _hard_links(claims)
        self._conffiles_too = _conffiles_too(claims)
        self._inodes = {found.inode for place in self._conffile_places() if (found := ground.look(place)) is not None}

    def arrive(self, claim: Claim, recorded: str | None) -> None:
        """``recorded``: of a conffile, the MD5 that dpkg remembers, empty for none; None: it is no conffile."""
        if recorded is not None and claim.entry.kind in (FILE, HARD_LINK):
            self._conffile(claim, recorded)
        else:
            _KINDS[claim.entry.kind](self, claim)

    def place(self, path: str, incoming: Incoming) -> str:
        return self._ground.place(path, incoming.name)

    def put(self, place: str, number: int, why: str) -> None:
        """``number`` is staged; it goes to ``place``, whose folder is made if it has to be."""
        self._make_above(place)
        found = self._ground.look(place)
        if found is not None and found.kind == DIRECTORY:
            if not self._clear(place):
                self.problems.append(f"/{place}: a folder is there, with files that belong to no package that goes")
                return
            found = None
        self.used.add(number)
        self.puts.append(Step(Operation(PUT, place, staged=number, kept=found is not None), why))

    def text(self, path: str, content: bytes, mode: int, why: str) -> Step | None:
        """A file of the database's; None where it is there like that."""
        place = self._ground.resolve(path)
        found = self._ground.look(place)
        is_like_it = found is not None and (found.kind, found.mode, found.size) == (FILE, mode, len(content))
        if is_like_it and b"".join(self._ground.content(place)) == content:
            return None
        self._make_above(place)
        number = self._stage.text(path, content, mode)
        self.used.add(number)
        return Step(Operation(PUT, place, staged=number, kept=found is not None), why)

    def _make_above(self, place: str) -> None:
        folder = place.rpartition("/")[0]
        if folder and folder not in self._made and not self._is_real_folder(folder):
            is_settled = folder in self._leaving.files or folder in self._claims.by_place
            if self._ground.look(folder) is not None and not is_settled:
                self.problems.append(
                    f"/{folder}: /{place} needs a folder there, and what is there belongs to no package that goes"
                )
            self._make(Entry(folder, DIRECTORY, mode=FOLDER_MODE), folder, "nothing has it, and it is needed")

    def _is_real_folder(self, place: str) -> bool:
        found = self._ground.look(place)
        return found is not None and found.kind == DIRECTORY

    def _make(self, entry: Entry, place: str, why: str) -> None:
        self._made.add(place)
        self._make_above(place)
        if self._ground.look(place) is not None:
            self.cleared.add(place)
            self.folders.append(Step(Operation(REMOVE, place), f"a folder comes in its place: {why}"))
        made = Operation(MAKE_DIRECTORY, place, mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime)
        self.folders.append(Step(made, why))

    def _clear(self, place: str) -> bool:
        """Remove a folder with all that is in it, if all of that goes."""
        if not self._leaving.goes(place):
            return False
        for name in self._ground.names(place):
            below = f"{place}/{name}"
            self.cleared.add(below)
            if below in self._leaving.folders:
                self._clear(below)
            else:
                self.clearing.append(Step(Operation(REMOVE, below), self._leaving.files[below]))
        self.cleared.add(place)
        self.clearing.append(Step(Operation(REMOVE_DIRECTORY, place), "a file comes in its place"))
        return True

    def _directory(self, claim: Claim) -> None:
        if claim.place and claim.place not in self._made and not self._ground.is_folder(claim.place):
            self._make(claim.entry, claim.place, _why(claim))

    def _file(self, claim: Claim) -> None:
        others = self._hard_links.get((claim.key, claim.entry.path), [])
        if not self._rough and self._is_as_it_comes(claim, others):
            self.unchanged += 1 + len(others)
            return
        number = self._staged(claim.incoming, claim.entry.path)
        self.put(claim.place, number, _why(claim))
        for other in others:
            self.put(other.place, self._stage.hard_link(other.entry, number), _why(other))

    def _is_as_it_comes(self, claim: Claim, others: Iterable[Claim]) -> bool:
        """Whether the file is there, with its other names; but not if it is one with another that comes or stays."""
        found = self._ground.look(claim.place)
        if found is None or found.inode in self._inodes or (claim.key, claim.entry.path) in self._conffiles_too:
            return False
        if not (_is_there(claim, self._ground) and _are_one(found, others, self._ground)):
            return False
        self._inodes.add(found.inode)
        return True

    def _conffile_places(self) -> Iterator[str]:
        """Where conffiles lie that come or stay. What the owner does to one is not to be done to another file."""
        for place, claim in self._claims.by_place.items():
            if claim.entry.path in claim.incoming.guarded:
                yield self._ground.follow(place)
        for key, listed in self._leaving.obsolete.items():
            for conffile in listed:
                yield self._ground.place_now(conffile.path, key.partition(":")[0])

    def _hard_link(self, claim: Claim) -> None:
        """Comes together with the file; alone where another package took the file's first name, or its owner may."""
        first = self._claims.by_place.get(self._ground.place(claim.entry.target, claim.incoming.name))
        if first is None or first.incoming is not claim.incoming or claim.entry.target in claim.incoming.guarded:
            number = self._staged(claim.incoming, claim.entry.target)
            self.put(claim.place, self._stage.hard_link(claim.entry, number), _why(claim))

    def _staged(self, incoming: Incoming, path: str) -> int:
        """The number of a file. One that was found on the disk and is needed elsewhere is staged from there."""
        if path in incoming.staged or self._rough:
            return incoming.staged.get(path, 0)
        entry = next(entry for entry in incoming.entries if entry.path == path)
        number = self._stage.file(entry, _checked(self._ground, incoming.same[path], entry.digest))
        incoming.staged[path] = number
        return number

    def _link(self, claim: Claim) -> None:
        found = self._ground.look(claim.place)
        if found is not None and found.kind == DIRECTORY:
            self.notes.append(f"/{claim.place} is a folder and stays one; {claim.key} has a link there")
            return
        if found is not None and _is_linked(claim, found, self._ground):
            self.unchanged += 1
            return
        self.put(claim.place, self._stage.link(claim.entry), _why(claim))

    def _conffile(self, claim: Claim, recorded: str) -> None:
        path, incoming = claim.entry.path, claim.incoming
        place = self._ground.follow(claim.place)
        found = self._ground.look(place)
        if found is not None and found.kind != FILE:
            self.notes.append(f"/{place} is no file any more and stays as it is; {claim.key} has a configuration there")
            return
        verdict = conffiles.decide(recorded, self._ground.md5(place), incoming.md5[path])
        if verdict == BESIDE:
            self.notes.append(f"/{place} was changed here and stays; what {claim.key} brings is {place}{BESIDE_NAME}")
            self.put(f"{place}{BESIDE_NAME}", self._content(claim), f"the configuration of {claim.key}, not taken")
        elif verdict == KEEP:
            self.unchanged += 1
        else:
            self.put(place, self._content(claim), _why(claim))

    def _content(self, claim: Claim) -> int:
        """The number of a conffile. Names of one file in the package are names of one file here."""
        if claim.entry.kind == FILE:
            return self._staged(claim.incoming, claim.entry.path)
        return self._stage.hard_link(claim.entry, self._staged(claim.incoming, claim.entry.target))


_KINDS = {
    DIRECTORY: Arriving._directory,
    FILE: Arriving._file,
    LINK: Arriving._link,
    HARD_LINK: Arriving._hard_link,
}


def _why(claim: Claim) -> str:
    return f"{claim.key} {claim.incoming.change.new_version}"


def _hard_links(claims: Claims) -> dict[tuple[str, str], list[Claim]]:
    """The claims that are another name of a file and no conffile, by the package and the file's first name."""
    found: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims.by_place.values():
        if claim.entry.kind == HARD_LINK and claim.entry.path not in claim.incoming.guarded:
            found.setdefault((claim.key, claim.entry.target), []).append(claim)
    return found


def _conffiles_too(claims: Claims) -> set[tuple[str, str]]:
    """The packages and first names of files that have another name which is a conffile: it is put with the file."""
    links = (claim for claim in claims.by_place.values() if claim.entry.kind == HARD_LINK)
    return {(claim.key, claim.entry.target) for claim in links if claim.entry.path in claim.incoming.guarded}


def _is_there(claim: Claim, ground: Ground) -> bool:
    """Whether the file on the disk is the one that comes: content, mode and owner. Its time does not matter."""
    entry, incoming = claim.entry, claim.incoming
    if not is_like(entry, ground.look(claim.place)):
        return False
    was_compared = incoming.ground is ground and incoming.same.get(entry.path) == claim.place
    try:
        return was_compared or ground.digest(claim.place) == entry.digest
    except OSError:
        return False  # what the disk does not give is replaced


def _checked(ground: Ground, place: str, digest: bytes) -> Iterator[bytes]:
    state = hasher()
    for piece in ground.content(place):
        state.update(piece)
        yield piece
    if state.digest() != digest:
        raise changed_meanwhile(place)


def _is_linked(claim: Claim, found: Stat, ground: Ground) -> bool:
    """Whether the link on the disk is the one that comes."""
    same = (found.kind, found.uid, found.gid) == (LINK, claim.entry.uid, claim.entry.gid)
    return same and ground.tree.read_link(claim.place) == claim.entry.target


def _are_one(found: Stat, others: Iterable[Claim], ground: Ground) -> bool:
    looks = (ground.look(other.place) for other in others)
    return all(look is not None and look.inode == found.inode for look in looks)
