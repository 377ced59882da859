"""The files of dpkg's database, and ours, as they have to be afterwards. Decides only; the texts are dpkg's own.

Everything that remembers is changed in the same way as the packages' files are: staged, and renamed behind them.
"""

from __future__ import annotations

from packagemanager import database as known
from packagemanager import files, status, triggers
from packagemanager.conffiles import OBSOLETE
from packagemanager.entry import FILE, HARD_LINK
from packagemanager.errors import DatabaseError
from packagemanager.leaving import is_forgotten
from packagemanager.status import Conffile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from packagemanager.changes import Change, Changes
    from packagemanager.claims import Claims
    from packagemanager.control import Paragraph
    from packagemanager.database import Database, Package
    from packagemanager.entry import Entry
    from packagemanager.incoming import Incoming
    from packagemanager.leaving import Leaving

SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")
SCRIPT_MODE, TEXT_MODE = 0o755, 0o644
LIST, MD5SUMS = "list", "md5sums"
TRIGGERS = f"{known.FOLDER}/triggers"
FORMAT_TEXT = b"1\n"


class Texts:
    """``written`` is path to content and mode, in the order to put them; ``removed`` are paths."""

    def __init__(self) -> None:
        self.written: dict[str, tuple[bytes, int]] = {}
        self.removed: dict[str, None] = {}

    def write(self, path: str, content: bytes, mode: int = TEXT_MODE) -> None:
        self.written[path] = (content, mode)
        self.removed.pop(path, None)

    def remove(self, path: str) -> None:
        if path not in self.written:
            self.removed[path] = None


def texts(
    changes: Changes,
    incoming: Sequence[Incoming],
    claims: Claims,
    leaving: Leaving,
    conffiles: dict[str, list[Conffile]],
    database: Database,
) -> Texts:
    """Everything but the wanted set. Raises ``DatabaseError``, ``ArchiveError``."""
    found = Texts()
    stanzas: dict[str, Paragraph | None] = {}
    for change in changes.removed:
        stanzas[change.key] = _removed(change, changes, leaving, database, found)
    for key, package in database.packages.items():
        if not package.present and changes.supplants(package):
            stanzas[key] = None
            _forget(package, database, found)
    for one in incoming:
        if one.change.old is not None and one.change.old.key != one.change.key:
            stanzas[one.change.old.key] = None
        stanzas[one.change.key] = _unpacked(one, claims, leaving, conffiles, database, found)
    guarded = {path for one in incoming for path in one.guarded}
    for key, package in database.packages.items():
        if key not in stanzas and (lost := claims.lost.get(key)):
            _without(package, lost, database, found)
            stanzas[key] = _obsolete(package, lost & guarded)
    for path, content in _triggers(changes, incoming, database).items():
        found.write(path, content) if content is not None else found.remove(path)
    before = known.read_text(database.tree, known.STATUS) or b""
    if database.lacks_format:
        found.write(known.FORMAT, FORMAT_TEXT)
    found.write(known.STATUS_OLD, before)
    found.write(known.STATUS, database.status(stanzas))
    for name in database.updates:
        found.remove(f"{known.UPDATES}/{name}")
    return found


def _removed(change: Change, changes: Changes, leaving: Leaving, database: Database, found: Texts) -> Paragraph | None:
    package = change.old
    assert package is not None
    if is_forgotten(package, changes, database):
        _forget(package, database, found)
        return None
    _forget(package, database, found, but=(LIST, "postrm"))
    found.write(database.info_path(package.fields, LIST), _list_text(leaving.listed[change.key]))
    fields = package.fields.changed(Essential=None, Protected=None)
    return status.stanza(fields, status.REMOVED, package.conffiles, config_version=package.configured)


def _forget(package: Package, database: Database, found: Texts, but: Sequence[str] = ()) -> None:
    for name in database.info_names(package):
        if name not in but:
            found.remove(database.info_path(package.fields, name))
    found.remove(files.path_of(database.stem(package.fields)))


def _unpacked(
    one: Incoming,
    claims: Claims,
    leaving: Leaving,
    conffiles: dict[str, list[Conffile]],
    database: Database,
    found: Texts,
) -> Paragraph:
    change, old = one.change, one.change.old
    obsolete = leaving.obsolete.get(change.key, [])
    listed = [*conffiles.get(change.key, []), *obsolete]
    fields = status.stanza(one.fields, status.INSTALLED, listed, before=old.fields if old else None)
    if old:
        _forget(old, database, found)
    lost = claims.lost.get(change.key, set())
    entries = [entry for entry in one.entries if entry.path not in lost]
    for name, content in one.files.items():
        mode = SCRIPT_MODE if name in SCRIPTS else TEXT_MODE
        found.write(database.info_path(fields, name), content, mode)
    paths = ["", *(entry.path for entry in entries), *(conffile.path for conffile in obsolete)]
    found.write(database.info_path(fields, LIST), _list_text(paths))
    if MD5SUMS not in one.files:
        found.write(database.info_path(fields, MD5SUMS), _md5_text(entries, one.md5))
    found.write(files.path_of(database.stem(fields)), files.encode(fields, entries))
    return fields


def _list_text(paths: Iterable[str]) -> bytes:
    return "".join(f"/{path}\n" if path else "/.\n" for path in paths).encode("utf-8", "surrogateescape")


def _md5_text(entries: Iterable[Entry], md5: dict[str, str]) -> bytes:
    """What dpkg writes for a package that comes without it."""
    first = {FILE: lambda entry: entry.path, HARD_LINK: lambda entry: entry.target}
    listed = (f"{md5[first[entry.kind](entry)]}  {entry.path}\n" for entry in entries if entry.kind in first)
    return "".join(listed).encode("utf-8", "surrogateescape")


def _without(package: Package, lost: set[str], database: Database, found: Texts) -> None:
    """A package whose files another took."""
    paths = [path for path in database.list(package) if path not in lost]
    found.write(database.info_path(package.fields, LIST), _list_text(paths))
    path = files.path_of(database.stem(package.fields))
    text = known.read_text(database.tree, path)
    if text is None:
        return
    try:
        old = files.decode(text, path)
    except DatabaseError:
        return  # a repair's matter
    entries = [entry for entry in old.entries if entry.path not in lost]
    found.write(path, files.encode(old.fields, entries))


def _obsolete(package: Package, taken: set[str]) -> Paragraph:
    """Its paragraph, once its conffiles ``taken`` are those of another package."""
    if not any(conffile.path in taken for conffile in package.conffiles):
        return package.fields
    listed = (
        Conffile(one.path, one.md5, (OBSOLETE,)) if one.path in taken and not one.marks else one
        for one in package.conffiles
    )
    return package.fields.changed(Conffiles="".join(f"\n {conffile}" for conffile in listed))


def _triggers(changes: Changes, incoming: Sequence[Incoming], database: Database) -> dict[str, bytes | None]:
    """The changed files of `triggers`: old interests go, new ones come behind what is there, as dpkg has it."""
    old = [change.old for change in changes.removed if change.old]
    old += [one.change.old for one in incoming if one.change.old]
    gone = {
        database.stem(package.fields): triggers.parse(database.info(package, "triggers"), package.name).interests
        for package in old
    }
    come = {
        database.stem(one.fields): triggers.parse(one.files.get("triggers", b""), one.name).interests
        for one in incoming
    }
    lines: dict[str, list[str]] = {}
    for name in {_file_of(interest) for listed in (*gone.values(), *come.values()) for interest, _ in listed}:
        text = known.read_text(database.tree, f"{TRIGGERS}/{name}", known.SMALL_TEXT_BYTES_MAX) or b""
        there = text.decode("utf-8", "surrogateescape").split("\n")
        lines[name] = [line for line in there if line and _package_of(line) not in gone]
    for stem, interests in come.items():
        for interest, nobody_waits in interests:
            package = f"{stem}/noawait" if nobody_waits else stem
            line = f"{interest} {package}" if interest.startswith("/") else package
            lines[_file_of(interest)].append(line)
    texts = {name: "".join(f"{line}\n" for line in listed) for name, listed in lines.items()}
    return {f"{TRIGGERS}/{name}": text.encode("utf-8", "surrogateescape") or None for name, text in texts.items()}


def _file_of(interest: str) -> str:
    return triggers.FILE_TRIGGERS if interest.startswith("/") else interest


def _package_of(line: str) -> str:
    return line.rpartition(" ")[2].removesuffix("/noawait")
